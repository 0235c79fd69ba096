//! Places objects: one conditional `PutObject`, or for large ones a conditional upload in parts, and what the answer means.
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
use crate::multipart::{self, Sizes};
use crate::store::{Patience, Store};
use crate::transport::{Exchange, Outcome, Upload};
use crate::wire::{self, Judgement, check_key};

/// Most bytes of an object. Source: Amazon S3 API reference, `PutObject`; in parts it could be more.
const BODY_BYTES_MAX: ByteSize = ByteSize::gib(5);

/// Attempts at once. Each holds two or three parts of 256 KiB; the store's own limit is far above (3,500 puts a
/// second and prefix at S3).
const ATTEMPTS_MAX: u32 = 32;

/// How much of a body is hashed before other tasks have their turn: a tenth of a millisecond or so.
const HASHED_BYTES: usize = 256 << 10;

/// Most bytes of an answer. An upload's has a few hundred.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Places objects in a bucket.
#[derive(Debug)]
pub struct S3Sink {
    store: Arc<Store>,
    sizes: Sizes,
    /// Whether uploads in one request say `If-None-Match: *`. Not every store knows that.
    is_conditional: AtomicBool,
    /// The same of uploads in parts: a store may know one and not the other.
    is_completion_conditional: AtomicBool,
}

impl S3Sink {
    /// The sink for this bucket. Connects to nothing and asks nobody for credentials.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub fn new(config: &StoreConfig, sse: &Sse, secrets: &dyn Secrets) -> Result<Self, String> {
        Self::with(config, sse, secrets, Patience::default(), Sizes::default())
    }

    pub(crate) fn with(
        config: &StoreConfig,
        sse: &Sse,
        secrets: &dyn Secrets,
        patience: Patience,
        sizes: Sizes,
    ) -> Result<Self, String> {
        Ok(Self {
            store: Arc::new(Store::new(config, sse, secrets, patience)?),
            sizes,
            is_conditional: AtomicBool::new(true),
            is_completion_conditional: AtomicBool::new(true),
        })
    }

    async fn attempt(&self, object: &Object) -> Verdict {
        let location =
            match check_key(&object.key).and_then(|()| Path::parse(&object.key).map_err(|_| "key is no path")) {
                Ok(location) => location,
                Err(reason) => return Verdict::Refused(Fault::new(FaultCode::Invalid, reason)),
            };
        let is_large = object.body.len() > self.sizes.whole_bytes_max;
        let conditional = if is_large { &self.is_completion_conditional } else { &self.is_conditional };
        let was_conditional = conditional.load(Ordering::Relaxed);
        let judgement = if is_large {
            let attempt = multipart::Attempt {
                store: &self.store,
                object,
                location: &location,
                attributes: attributes(object),
                part_bytes: self.sizes.part_bytes,
                is_conditional: was_conditional,
            };
            attempt.make().await
        } else {
            self.put(object, &location, was_conditional).await
        };
        verdict(object, conditional, was_conditional, judgement)
    }

    /// Sends the object in one request.
    async fn put(&self, object: &Object, location: &Path, is_conditional: bool) -> Judgement {
        let sha256 = match hash(&*object.body).await {
            Ok(hash) => hash,
            Err(reason) => {
                let message = format!("read batch {}: {reason}", object.batch);
                return Judgement::Again(Fault::new(FaultCode::Damaged, message));
            }
        };
        let bounds = self.store.patience.bounds(object.body.len(), ANSWER_BYTES_MAX);
        let exchange = Exchange::upload(bounds, Upload { body: Arc::clone(&object.body), sha256 });
        let options = PutOptions {
            mode: if is_conditional { PutMode::Create } else { PutMode::Overwrite },
            attributes: attributes(object),
            extensions: exchange.extensions(),
            ..PutOptions::default()
        };
        // What object_store makes of the answer says less than the exchange does.
        let _said = self.store.client.put_opts(location, PutPayload::new(), options).await;
        match exchange.outcome() {
            Some(Outcome::Answered(answer)) => answer.judge(),
            outcome => Judgement::Again(wire::fault(outcome)),
        }
    }
}

/// What an attempt has to say of the object. `conditional` is what the next attempt should ask for, `was_conditional`
/// what this one did.
fn verdict(object: &Object, conditional: &AtomicBool, was_conditional: bool, judgement: Judgement) -> Verdict {
    match judgement {
        Judgement::Stored => Verdict::Delivered,
        Judgement::Present(_) if was_conditional && object.key.contains(&object.batch.to_string()) => {
            Verdict::Delivered
        }
        Judgement::NotImplemented(fault) => {
            // Something that was asked for is not known there: the condition, or encryption. The next attempt
            // leaves the condition out, and one after that tries it again if that did not help.
            let (relaxed, next) = (Ordering::Relaxed, !was_conditional);
            let _changed = conditional.compare_exchange(was_conditional, next, relaxed, relaxed);
            Verdict::Retry(fault)
        }
        Judgement::Present(fault) | Judgement::Again(fault) => Verdict::Retry(fault),
        Judgement::Never(fault) => Verdict::Refused(fault),
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

pub(crate) async fn hash(body: &dyn Blob) -> std::io::Result<[u8; 32]> {
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
