//! Flight: one attempt at one batch.
//!
//! In: a batch of the outbox and the store that it goes to. Out: what the store said; or that the batch's own file could
//! not be read, which is nothing that the store is to blame for. An attempt that panics or takes too long says nothing,
//! so its batch stays owed.
//!
//! Header and body are read from the file at each attempt, so a batch that waits costs next to no memory. Never changes
//! the bytes of a batch, and never decides what follows.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use hydrant_core::{BatchId, Blob, Fault, FaultCode, Object, ObjectSink, Verdict};
use hydrant_storage::outbox::{Content, Found, Header, Outbox};

use super::pool::{Pool, finish};

/// Longest attempt. Sinks have shorter time-outs of their own; this one catches a sink that forgot.
const ATTEMPT_MAX: Duration = Duration::from_mins(15);

/// What an attempt needs.
pub struct Flight {
    /// Which batch.
    pub batch: BatchId,
    /// Its key in the dead-letter store, once it was turned there.
    pub redirected: Option<String>,
    /// Where it was meant to go, in words.
    pub intended: String,
    /// Where its file lies.
    pub outbox: Outbox,
    /// Threads.
    pub pool: Pool,
    /// The store that it goes to.
    pub sink: Arc<dyn ObjectSink>,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Landing {
    /// As the store says.
    Answered(Verdict),
    /// The disk did not give the batch. That says nothing of what is on it: another attempt may read it.
    Unreadable(Fault),
    /// The batch's file is missing, or not what was written, as a second reading confirmed.
    Damaged(String),
}

impl Flight {
    /// Makes the attempt.
    pub async fn fly(self) -> (BatchId, Landing) {
        let (batch, outbox, pool) = (self.batch, self.outbox.clone(), self.pool.clone());
        let unread = Arc::new(OnceLock::new());
        let attempt = AssertUnwindSafe(self.attempt(Arc::clone(&unread))).catch_unwind();
        let verdict = match tokio::time::timeout(ATTEMPT_MAX, attempt).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => Verdict::Retry(Fault::new(FaultCode::Internal, "the attempt panicked")),
            Err(_elapsed) => {
                Verdict::Retry(Fault::new(FaultCode::TimedOut, format!("no answer in {} s", ATTEMPT_MAX.as_secs())))
            }
        };
        let landing = match unread.get() {
            Some(error) if verdict != Verdict::Delivered => why_unread(error, batch, outbox, pool).await,
            _ => Landing::Answered(verdict),
        };
        (batch, landing)
    }

    async fn attempt(self, unread: Arc<OnceLock<io::Error>>) -> Verdict {
        let Self { batch, redirected, intended, outbox, pool, sink } = self;
        let (header, body) = match finish(pool.read(move || outbox.read(batch))).await {
            Ok(read) => read,
            Err(error) => {
                let fault = unreadable(&error);
                unread.set(error).ok(); // nothing else has been read
                return Verdict::Retry(fault);
            }
        };
        let body = Arc::new(Watched { body: pool.blob(body), unread });
        sink.place(&object(header, redirected, &intended, body)).await
    }
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
fn object(header: Header, redirected: Option<String>, intended: &str, body: Arc<dyn Blob>) -> Object {
    let Content::Object { key, content_type, content_encoding, mut metadata } = header.content;
    let key = match redirected {
        None => key,
        Some(redirected) => {
            metadata.push(("hydrant-intended-store".to_owned(), visible(intended)));
            metadata.push(("hydrant-intended-key".to_owned(), visible(&key)));
            redirected
        }
    };
    Object { batch: header.batch, key, content_type, content_encoding, metadata, body }
}

/// Percent-encodes what may not stand in a metadata value, the percent sign included.
fn visible(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
