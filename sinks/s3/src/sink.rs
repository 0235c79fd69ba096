//! Places objects: one conditional `PutObject`, and what its answer means.
//!
//! In: an object. Out: a verdict. The body is read twice, once for the hash that the signature covers and once while
//! it is sent, and never lies in memory as a whole.
//!
//! ```text
//!   body ──hash──> PUT key, If-None-Match: * ──> 200 stored ───────────────> Delivered
//!                                            ├─> 412 there already ────────> Delivered, for the key holds the batch's id
//!                                            ├─> the object's own fault ───> Refused
//!                                            └─> anything else, or nothing > Retry
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use hydrant_core::secret::Secrets;
use hydrant_core::{Blob, ByteSize, Fault, FaultCode, Limits, Object, ObjectSink, Verdict};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, PutMode, PutOptions, PutPayload};

use crate::config::{Sse, StoreConfig};
use crate::store::{Patience, Store};
use crate::transport::{Exchange, Outcome, Upload};
use crate::wire::{self, Judgement, check_key};

/// Most bytes in one upload. Source: Amazon S3 API reference, `PutObject`.
const BODY_BYTES_MAX: ByteSize = ByteSize::gib(5);

/// Attempts at once. Each holds two or three parts of 256 KiB; the store's own limit is far above (3,500 puts a
/// second and prefix at S3).
const ATTEMPTS_MAX: u32 = 32;

/// How much of a body is hashed before other tasks have their turn: a tenth of a millisecond or so.
const HASHED_BYTES: usize = 256 << 10;

/// Most bytes of an answer. An upload's has a few hundred.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Places objects in a bucket.
#[derive(Debug)]
pub struct S3Sink {
    store: Store,
    /// Whether uploads say `If-None-Match: *`. Not every store knows that.
    is_conditional: AtomicBool,
}

impl S3Sink {
    /// The sink for this bucket. Connects to nothing and asks nobody for credentials.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub fn new(config: &StoreConfig, sse: &Sse, secrets: &dyn Secrets) -> Result<Self, String> {
        Self::with_patience(config, sse, secrets, Patience::default())
    }

    pub(crate) fn with_patience(
        config: &StoreConfig,
        sse: &Sse,
        secrets: &dyn Secrets,
        patience: Patience,
    ) -> Result<Self, String> {
        Ok(Self { store: Store::new(config, sse, secrets, patience)?, is_conditional: AtomicBool::new(true) })
    }

    async fn attempt(&self, object: &Object) -> Verdict {
        let location =
            match check_key(&object.key).and_then(|()| Path::parse(&object.key).map_err(|_| "key is no path")) {
                Ok(location) => location,
                Err(reason) => return Verdict::Refused(Fault::new(FaultCode::Invalid, reason)),
            };
        let sha256 = match hash(&*object.body).await {
            Ok(hash) => hash,
            Err(reason) => {
                let message = format!("read batch {}: {reason}", object.batch);
                return Verdict::Retry(Fault::new(FaultCode::Damaged, message));
            }
        };
        let bounds = self.store.patience.bounds(object.body.len(), ANSWER_BYTES_MAX);
        let exchange = Exchange::upload(bounds, Upload { body: Arc::clone(&object.body), sha256 });
        let is_conditional = self.is_conditional.load(Ordering::Relaxed);
        let options = PutOptions {
            mode: if is_conditional { PutMode::Create } else { PutMode::Overwrite },
            attributes: attributes(object),
            extensions: exchange.extensions(),
            ..PutOptions::default()
        };
        // What object_store makes of the answer says less than the exchange does.
        let _said = self.store.client.put_opts(&location, PutPayload::new(), options).await;
        self.verdict(object, is_conditional, exchange.outcome())
    }

    fn verdict(&self, object: &Object, was_conditional: bool, outcome: Option<&Outcome>) -> Verdict {
        let Some(Outcome::Answered(answer)) = outcome else { return Verdict::Retry(wire::fault(outcome)) };
        match answer.judge() {
            Judgement::Stored => Verdict::Delivered,
            Judgement::Present if was_conditional && object.key.contains(&object.batch.to_string()) => {
                Verdict::Delivered
            }
            Judgement::Present => Verdict::Retry(answer.fault(FaultCode::Conflict)),
            Judgement::NotImplemented(fault) => {
                // Something that was asked for is not known there: the condition, or encryption. The next attempt
                // leaves the condition out, and one after that tries it again if that did not help.
                let _changed = self.is_conditional.compare_exchange(
                    was_conditional,
                    !was_conditional,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                Verdict::Retry(fault)
            }
            Judgement::Again(fault) => Verdict::Retry(fault),
            Judgement::Never(fault) => Verdict::Refused(fault),
        }
    }
}

#[async_trait]
impl ObjectSink for S3Sink {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: BODY_BYTES_MAX, pieces_max: u32::MAX, attempts_in_flight_max: ATTEMPTS_MAX }
    }

    fn destination(&self) -> String {
        self.store.destination.clone()
    }

    async fn place(&self, object: &Object) -> Verdict {
        let verdict = self.attempt(object).await;
        if let Verdict::Retry(Fault { code: FaultCode::Unauthenticated | FaultCode::Forbidden, .. }) = &verdict {
            self.store.credentials.forget().await;
        }
        verdict
    }
}

/// What is stored beside the bytes.
fn attributes(object: &Object) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, object.content_type.clone().into());
    if let Some(encoding) = &object.content_encoding {
        attributes.insert(Attribute::ContentEncoding, encoding.clone().into());
    }
    for (name, value) in &object.metadata {
        attributes.insert(Attribute::Metadata(Cow::Owned(name.clone())), value.clone().into());
    }
    attributes
}

async fn hash(body: &dyn Blob) -> std::io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut offset = 0;
    while offset < body.len() {
        let part = body.read_at(offset, HASHED_BYTES).await?;
        if part.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        context.update(&part);
        offset += part.len() as u64;
    }
    context.finish().as_ref().try_into().map_err(std::io::Error::other)
}
