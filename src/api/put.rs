//! Putting records: `PutRecord` and `PutRecordBatch`.
//!
//! In: the body of a request. Out: an answer, once all its records are durable in the log of their stream, or an
//! error, and none of them is stored. Never stores a part of a request.

use std::time::Duration;

use hydrant_core::Span;
use hydrant_storage::buffers::Buffer;
use hydrant_storage::log::{AppendError, Payloads};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Api;
use super::body::Received;
use super::error::ServiceError;
use super::wire::{self, Put, PutKind};
use crate::streams::LiveStream;

/// Bodies up to this size are read where they arrive, bigger ones on the blocking pool: async workers should not
/// compute for more than half a millisecond, in which 2 MiB are read.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// How long a request waits for its records to become durable. Disks that hang must not pile up requests, and
/// clients of the service give up after 60 s.
const DURABLE_WITHIN: Duration = Duration::from_secs(50);

impl Api {
    pub(super) async fn put(&self, kind: PutKind, received: Received) -> Result<Vec<u8>, ServiceError> {
        // The share of the budget is held until the answer is known: until then the bytes are.
        let Received { bytes, share: _share, .. } = received;
        let Put { stream, payloads } = self.read_put(kind, bytes).await?;
        let live = self.stream(&stream)?;
        let count = payloads.lengths.len();
        let incarnation = live.identity().incarnation;
        match (kind, append(live, payloads).await) {
            (PutKind::One, Ok(span)) => Ok(wire::put_record_answer(incarnation, span)),
            (PutKind::Batch, Ok(span)) => Ok(wire::batch_stored_answer(incarnation, span)),
            // A batch is throttled entry by entry, and that is an answer like any other.
            (PutKind::Batch, Err(ServiceError::ServiceUnavailable)) => Ok(wire::batch_throttled_answer(count)),
            (PutKind::One | PutKind::Batch, Err(error)) => Err(error),
        }
    }

    async fn read_put(&self, kind: PutKind, body: Buffer) -> Result<Put, ServiceError> {
        if body.len() <= INLINE_BYTES_MAX {
            return Put::read(kind, body);
        }
        let _slot = self.readers.acquire().await.map_err(|_| ServiceError::InternalFailure)?;
        spawn_blocking(move || Put::read(kind, body)).await.map_err(|error| {
            tracing::error!(%error, "reading a put ended without an answer");
            ServiceError::InternalFailure
        })?
    }
}

/// Appends, and says on the wire what came of it. What only the operator should know goes to the log.
async fn append(live: &LiveStream, payloads: Payloads) -> Result<Span, ServiceError> {
    let stream = &live.spec().name;
    let why = match timeout(DURABLE_WITHIN, live.append(payloads)).await {
        Ok(Ok(span)) => return Ok(span),
        Ok(Err(AppendError::Full | AppendError::Unavailable(_))) => return Err(ServiceError::ServiceUnavailable),
        Ok(Err(
            error @ (AppendError::TooLarge { .. }
            | AppendError::Poisoned(_)
            | AppendError::Unknown(_)
            | AppendError::Closed),
        )) => error.to_string(),
        Err(_) => format!("not durable within {} s", DURABLE_WITHIN.as_secs()),
    };
    tracing::warn!(stream, error = %why, "records were not acknowledged");
    Err(ServiceError::InternalFailure)
}
