//! Flight: one attempt at one batch.
//!
//! In: a batch of the outbox and where it goes. Out: what the destination said; or that the batch's own file could not be
//! read, which is nothing that the destination is to blame for. An attempt that panics or takes too long says nothing,
//! so its batch stays owed.
//!
//! ```text
//!   object:  file ── header ──> place, reads the body as it sends ──> verdict
//!   pieces:  file ── header and body ──> encode, without those that were answered ──> deliver ──> report
//!                                          └── some can never be sent: nothing is, and they are told
//! ```
//!
//! Header and body are read from the file at each attempt, so a batch that waits costs next to no memory. Never changes
//! the bytes of a batch, and never decides what follows.

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use hydrant_core::batch::Batch;
use hydrant_core::{BatchId, Blob, Fault, FaultCode, Object, ObjectSink, Piece, PieceSink, Report, Verdict};
use hydrant_storage::buffers::Buffers;
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::outbox::{Content, Found, Header, Outbox, pieces};

use super::pool::{Pool, finish};
use crate::encode::intended::Intended;

/// Longest attempt. Sinks have shorter time-outs of their own; this one catches a sink that forgot.
const ATTEMPT_MAX: Duration = Duration::from_mins(15);

/// What an attempt needs.
pub struct Flight {
    /// Which batch.
    pub batch: BatchId,
    /// Where its file lies.
    pub outbox: Outbox,
    /// Threads.
    pub pool: Pool,
    /// Where it goes.
    pub errand: Errand,
}

/// What is to be done with a batch.
#[derive(Clone)]
pub enum Errand {
    /// Its object is to be placed.
    Place {
        /// The store that it goes to.
        sink: Arc<dyn ObjectSink>,
        /// Its key in the dead-letter store, once it was turned there.
        redirected: Option<String>,
        /// Where it was meant to go, in words.
        intended: String,
    },
    /// Its pieces are to be delivered.
    Deliver {
        /// The sink that they go to.
        sink: Arc<dyn PieceSink>,
        /// Those that were answered for good, which are not sent again.
        answered: Ordinals,
    },
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Landing {
    /// As the store says.
    Placed(Verdict),
    /// As the sink says of each piece.
    Told(Told),
    /// These can never be sent. Nothing was.
    Unfit(BTreeMap<u32, Fault>),
    /// The disk did not give the batch. It lies where it lay.
    Unreadable(Fault),
    /// The batch's file is damaged, and this is how.
    Damaged(String),
}

/// A sink's report, and what it is on.
#[derive(Debug)]
pub struct Told {
    /// The pieces that were sent, by ordinal, and how many bytes each has.
    pub sent: Vec<(u32, u64)>,
    /// What the sink said.
    pub report: Report,
}

impl Flight {
    /// Makes the attempt. A panic on the way is that attempt's failure, and no more.
    pub async fn fly(self) -> (BatchId, Landing) {
        let (batch, outbox, pool) = (self.batch, self.outbox.clone(), self.pool.clone());
        let is_object = matches!(self.errand, Errand::Place { .. });
        let unread = Arc::new(OnceLock::new());
        let attempt = AssertUnwindSafe(self.attempt(Arc::clone(&unread))).catch_unwind();
        let landing = match tokio::time::timeout(ATTEMPT_MAX, attempt).await {
            Ok(Ok(landing)) => landing,
            Ok(Err(_panic)) => silent(is_object, Fault::new(FaultCode::Internal, "the attempt panicked")),
            Err(_elapsed) => {
                silent(is_object, Fault::new(FaultCode::TimedOut, format!("no answer in {} s", ATTEMPT_MAX.as_secs())))
            }
        };
        let landing = match unread.get() {
            Some(error) if !matches!(landing, Landing::Placed(Verdict::Delivered)) => {
                why_unread(error, batch, outbox, pool).await
            }
            _ => landing,
        };
        (batch, landing)
    }

    async fn attempt(self, unread: Arc<OnceLock<io::Error>>) -> Landing {
        let Self { batch, outbox, pool, errand } = self;
        match errand {
            Errand::Place { sink, redirected, intended } => {
                let (header, body) = match finish(pool.read(move || outbox.read(batch))).await {
                    Ok(read) => read,
                    Err(error) => return unread_at_first(error, &unread),
                };
                let body = Arc::new(Watched { body: pool.blob(body), unread });
                match object(header, redirected, &intended, body) {
                    Ok(object) => Landing::Placed(sink.place(&object).await),
                    Err(fault) => Landing::Placed(Verdict::Retry(fault)),
                }
            }
            Errand::Deliver { sink, answered } => {
                let buffers = pool.buffers().clone();
                match finish(pool.read(move || owed_pieces(&outbox, batch, &answered, &buffers))).await {
                    Ok(batch) => deliver(sink, batch, &pool).await,
                    Err(error) => unread_at_first(error, &unread),
                }
            }
        }
    }
}

/// How an attempt ended that did not say how it ended.
fn silent(is_object: bool, fault: Fault) -> Landing {
    let verdict = Verdict::Retry(fault);
    if is_object {
        Landing::Placed(verdict)
    } else {
        Landing::Told(Told { sent: Vec::new(), report: Report::All(verdict) })
    }
}

/// The batch could not even be begun with; what is made of that is decided where the attempt ends.
fn unread_at_first(error: io::Error, unread: &OnceLock<io::Error>) -> Landing {
    let fault = unreadable(&error);
    unread.set(error).ok(); // nothing else has been read
    Landing::Unreadable(fault)
}

/// A batch of separate pieces, without those that were answered. Blocks.
fn owed_pieces(outbox: &Outbox, id: BatchId, answered: &Ordinals, buffers: &Buffers) -> io::Result<Batch> {
    let (header, body) = outbox.read(id)?;
    if header.content != Content::Pieces {
        return Err(io::Error::other("it was sealed for a sink of another kind"));
    }
    let body = body.read_into(0, usize::try_from(body.bytes()).unwrap_or(usize::MAX), buffers)?;
    let pieces = pieces::read(&body).map_err(io::Error::other)?;
    let pieces = (0..).zip(pieces).filter(|(ordinal, _)| !answered.contains(*ordinal)).collect();
    Ok(Batch { id, sealed_at: header.sealed_at, pieces })
}

async fn deliver(sink: Arc<dyn PieceSink>, batch: Batch, pool: &Pool) -> Landing {
    if batch.pieces.is_empty() {
        return Landing::Told(Told { sent: Vec::new(), report: Report::Each(Vec::new()) });
    }
    let maker = Arc::clone(&sink);
    let making = pool.compute(move |_workspace| {
        let encoded = maker.encode(&batch);
        (batch, encoded)
    });
    let (batch, encoded) = finish(making).await;
    let is_sent = |ordinal: u32| batch.pieces.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal).is_ok();
    let unfit: BTreeMap<u32, Fault> =
        encoded.refused.iter().filter(|(ordinal, _)| is_sent(*ordinal)).cloned().collect();
    if !unfit.is_empty() {
        return Landing::Unfit(unfit);
    }
    let length = |piece: &Piece| u64::try_from(piece.data.len()).unwrap_or(u64::MAX);
    let sent = batch.pieces.iter().map(|(ordinal, piece)| (*ordinal, length(piece))).collect();
    let report = sink.deliver(&batch, &encoded).await;
    Landing::Told(Told { sent, report })
}

/// A body that remembers why it could not be read: of that, a sink's verdict tells too little.
#[derive(Debug)]
struct Watched {
    body: Arc<dyn Blob>,
    unread: Arc<OnceLock<io::Error>>,
}

#[async_trait]
impl Blob for Watched {
    fn len(&self) -> u64 {
        self.body.len()
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.body.read_at(offset, len).await.inspect_err(|error| {
            self.unread.get_or_init(|| io::Error::new(error.kind(), error.to_string()));
        })
    }
}

/// Tells damage from a disk that does not answer. Damage is believed only when the file, read as a whole once more, shows
/// it again: what follows cannot be undone.
async fn why_unread(error: &io::Error, batch: BatchId, outbox: Outbox, pool: Pool) -> Landing {
    if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) {
        return Landing::Unreadable(unreadable(error));
    }
    match pool.block(move || outbox.examine(batch)).await {
        Ok(Ok(Found::Damaged { why, .. })) => Landing::Damaged(why),
        Ok(Ok(Found::Whole { .. })) => Landing::Unreadable(unreadable(error)),
        Ok(Err(error)) => Landing::Unreadable(unreadable(&error)),
        Err(failed) => Landing::Unreadable(Fault::new(FaultCode::Internal, failed.to_string())),
    }
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::new(FaultCode::Damaged, format!("batch file: {error}"))
}

/// The object that a batch file holds, under the name that it has at its destination.
fn object(header: Header, redirected: Option<String>, intended: &str, body: Arc<dyn Blob>) -> Result<Object, Fault> {
    let batch = header.batch;
    let (key, content_type, content_encoding, mut metadata) = match header.content {
        Content::Object { key, content_type, content_encoding, metadata } => {
            (key, content_type, content_encoding, metadata)
        }
        Content::DeadLetters { key, content_type, .. } => (key, content_type, None, Vec::new()),
        Content::Pieces => {
            return Err(Fault::new(FaultCode::Invalid, "the batch was sealed for a sink of another kind"));
        }
    };
    let key = match redirected {
        None => key,
        Some(redirected) => {
            metadata.extend(Intended { store: intended.to_owned(), key }.metadata());
            redirected
        }
    };
    Ok(Object { batch, key, content_type, content_encoding, metadata, body })
}
