//! Sinks: where records go. Two contracts, because destinations come in two kinds: stores that take named objects
//! whole, and services that take separate pieces in a request.
//!
//! What every sink promises; the conformance suite has a test for each number:
//!
//! 1. One call is one attempt. A sink does not retry, sleep, buffer or batch, and switches off its client library's
//!    own retries.
//! 2. The answer speaks for each piece. Silence has no meaning; an unknown outcome is [`Verdict::Retry`].
//! 3. [`Verdict::Delivered`] only after the destination has confirmed that it stored the data durably.
//! 4. The future may be dropped at any await and leaves nothing behind that a later attempt could not overwrite or
//!    ignore.
//! 5. The same batch again, in this process or the next, has the same id, name and `sealed_at`, and the same bytes
//!    for the pieces still owed; delivering it twice has the effect of delivering it once wherever the destination
//!    allows that.
//! 6. A sink that works in a transaction commits only when every piece it holds is accepted; otherwise it rolls
//!    back and names the pieces that are [`Verdict::Refused`], the rest being [`Verdict::Retry`].
//! 7. `&self`, called many times at once: by each of its streams up to [`Limits::attempts_in_flight_max`].
//! 8. [`Verdict::Refused`] is only for faults *of a record* (its type, size or schema). What an operator can mend
//!    (wrong credentials, missing bucket, full disk, unknown host) is [`Verdict::Retry`]: an expired password must
//!    not empty a stream into the dead letters. [`Verdict::Discarded`] is for such a fault that the sink's own
//!    configuration names: nothing is ever thrown away by default.
//! 9. Faults carry no credentials and no record bytes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::{Batch, BatchId, Object};
use crate::{ByteSize, Fault, Piece, Timestamp};

/// What a destination says of a whole, or of one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stored durably over there. Nothing is owed any more.
    Delivered,
    /// Not known to be stored; to be tried again as it is.
    Retry(Fault),
    /// Never acceptable as it is, through a fault of the record itself.
    Refused(Fault),
    /// The same, and the operator has asked for such records to be thrown away and counted instead of becoming dead
    /// letters. Of a piece only: a whole object is refused then.
    Discarded(Fault),
}

/// What a sink can take. The buffer never seals beyond it: one batch is one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of records in a request or object, as they were accepted. A sink whose encoding makes more of them
    /// leaves room for that here. A single record may be larger: then it travels alone, and
    /// [`encode`](PieceSink::encode) may refuse it.
    pub body_bytes_max: ByteSize,
    /// Most pieces in a request.
    pub pieces_max: u32,
    /// Most attempts under way at once.
    pub attempts_in_flight_max: u32,
}

/// A store of named objects that are placed whole or not at all: S3 and its kin, a folder, a stage for COPY.
#[async_trait]
pub trait ObjectSink: Send + Sync {
    /// What it can take.
    fn limits(&self) -> Limits;

    /// Where objects go, for logs and batch headers: `s3://bucket`, `file:///folder`. No credentials.
    fn destination(&self) -> String;

    /// Makes one attempt to place the object under its key. A key that already holds this batch's object is
    /// [`Verdict::Delivered`]. Cancel safe: see promise 4.
    async fn place(&self, object: &Object) -> Verdict;
}

/// A service that takes separate pieces, several in one request: a table, an index, an HTTP endpoint.
#[async_trait]
pub trait PieceSink: Send + Sync {
    /// What it can take.
    fn limits(&self) -> Limits;

    /// Where pieces go, for logs and batch headers. No credentials.
    fn destination(&self) -> String;

    /// Turns the pieces into the request's bytes. Pure and CPU-bound: it runs on the pool, once per attempt, and
    /// gives the same bytes for the same batch. May refuse pieces that can never be sent: nothing is sent then, and the
    /// next attempt comes without them.
    fn encode(&self, batch: &Batch) -> Encoded;

    /// Makes one attempt to deliver what [`encode`](Self::encode) made of this batch. Cancel safe: see promise 4.
    async fn deliver(&self, batch: &Batch, encoded: &Encoded) -> Report;

    /// Says that no batch of this lane comes again that was sealed before `moment`, so that what the destination keeps to
    /// know batches again may go. To be called as batches are settled, with the `sealed_at` of the oldest that is still
    /// owed; nothing is lost where it is not.
    fn forget_sealed_before(&self, _moment: Timestamp) {}

    /// What the service calls records that this kind of destination did not take: a part of the names of dead letters,
    /// such as `http-endpoint-failed`. Lower-case letters, digits, `-` and `_`; at most
    /// [`ERROR_TYPE_BYTES_MAX`] of them.
    fn error_type(&self) -> &'static str {
        "delivery-failed"
    }

    /// What the destination knows a piece by (document id, index, table), for its dead letter: members that the
    /// service's error record has for this kind of destination. The same for the same piece at any time.
    fn known_as(&self, _piece: Sent<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Longest [`error_type`](PieceSink::error_type): object names have a limit, and prefixes are checked with it.
pub const ERROR_TYPE_BYTES_MAX: usize = 40;

/// A piece and what it is sent with, as [`PieceSink::known_as`] is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The batch.
    pub batch: BatchId,
    /// When the batch was sealed.
    pub sealed_at: Timestamp,
    /// Which of the batch's pieces it is.
    pub ordinal: u32,
    /// The piece.
    pub piece: &'a Piece,
}

/// A request as [`PieceSink::encode`] made it.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The body, in parts that are sent one after the other.
    pub body: Vec<Bytes>,
    /// Pieces that the body does not hold, by ordinal, each with the reason.
    pub refused: Vec<(u32, Fault)>,
}

/// One attempt's answers: a verdict for every piece that was sent, by ordinal in the batch as sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The same verdict for all of them.
    All(Verdict),
    /// One verdict for each, ascending by ordinal, none missing. Where a sink gets that wrong, the pieces without a
    /// verdict, or with several, count as not known to be stored.
    Each(Vec<(u32, Verdict)>),
}

/// Any sink.
#[derive(Clone)]
pub enum Sink {
    /// Takes named objects.
    Objects(Arc<dyn ObjectSink>),
    /// Takes separate pieces.
    Pieces(Arc<dyn PieceSink>),
}

impl Sink {
    /// What it can take.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Objects(sink) => sink.limits(),
            Self::Pieces(sink) => sink.limits(),
        }
    }

    /// Where it sends to, for logs and batch headers. No credentials.
    pub fn destination(&self) -> String {
        match self {
            Self::Objects(sink) => sink.destination(),
            Self::Pieces(sink) => sink.destination(),
        }
    }
}
