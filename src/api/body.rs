//! Bodies: the bytes of a request, taken in under limits.
//!
//! In: the frames of a body as they arrive. Out: all of them in one buffer, with their SHA-256 if somebody asks for
//! it: hashed frame by frame, while a frame is still in the cache and so that no worker computes for long.
//!
//! Three things are bounded. Size: at most `body_bytes_max`, known before anything is hashed. Memory: a buffer grows
//! only by permits of a budget that all requests share, and as bytes arrive, not as they are promised, so a client
//! that announces much and sends little holds little, and one without a key of ours nothing. Time: bytes must keep up with `body_rate_min`.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hydrant_storage::buffers::{Buffer, Buffers};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Limits;
use super::error::ServiceError;

/// What a buffer starts with. A client has to send this much before we believe the length that it announced.
const FIRST_BYTES: usize = 256 << 10;

/// How long a client that was refused may take for the rest of its body before the connection ends instead. Enough for
/// an honest one; anybody can ask for it.
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// How long a request waits for its share of the budget before the client is told to slow down.
const BUDGET_WAIT: Duration = Duration::from_secs(1);

/// A body that was taken in. Its share of the budget is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Received {
    /// The bytes, if they were asked for.
    pub(super) bytes: Buffer,
    /// Their SHA-256, if it was asked for.
    pub(super) sha256: Option<[u8; 32]>,
    /// The share of the budget that `bytes` takes up.
    pub(super) share: Share,
}

/// A part of the budget for bodies, in bytes.
#[derive(Debug)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

/// What to do with the bytes of a body as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Keep them; nobody signed.
    Bytes,
    /// Keep and hash them.
    BytesAndHash,
    /// Hash them only: the answer is known to be no, and takes up no memory.
    Hash,
}

/// Takes a body in.
///
/// Cancel safe: a dropped call gives everything back.
///
/// # Errors
/// [`ServiceError::RequestEntityTooLarge`], [`ServiceError::RequestTimeout`], [`ServiceError::RequestAborted`], or
/// [`ServiceError::ServiceUnavailable`] when the budget is used up. The rest of the body is not read.
pub(super) async fn receive<B>(
    body: &mut B,
    wanted: Wanted,
    limits: &Limits,
    budget: &Arc<Semaphore>,
    buffers: &Buffers,
) -> Result<Received, ServiceError>
where
    B: Body<Data = Bytes> + Unpin,
{
    check_announced(body, limits)?;
    let expected = announced(body);
    let mut received = Received { bytes: Buffer::from(Vec::new()), sha256: None, share: Share(None) };
    let mut hash = (wanted != Wanted::Bytes).then(|| digest::Context::new(&digest::SHA256));
    let started = Instant::now();
    let mut len: usize = 0;
    while let Some(data) = next_data(body, limits.body_deadline(started, len)).await? {
        len = len.saturating_add(data.len());
        if len > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        if let Some(hash) = &mut hash {
            hash.update(&data);
        }
        if wanted != Wanted::Hash {
            received.reserve(len, expected, limits.body_bytes_max, budget, buffers).await?;
            if let Some(room) = received.bytes.get_mut(len - data.len()..len) {
                room.copy_from_slice(&data);
            }
        }
    }
    received.bytes.truncate(len);
    received.sha256 = hash.map(|hash| {
        let mut bytes = [0; 32];
        hash.finish().as_ref().copy_to_slice(&mut bytes);
        bytes
    });
    Ok(received)
}

/// Refuses a body that says that it is too large, before anything is done for it.
///
/// # Errors
/// [`ServiceError::RequestEntityTooLarge`].
pub(super) fn check_announced(body: &impl Body, limits: &Limits) -> Result<(), ServiceError> {
    if announced(body) > limits.body_bytes_max { Err(too_large(limits)) } else { Ok(()) }
}

/// The least that a body says it will be.
fn announced(body: &impl Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

fn too_large(limits: &Limits) -> ServiceError {
    ServiceError::RequestEntityTooLarge { limit: limits.body_bytes_max }
}

impl Received {
    /// Makes room for `len` bytes in all, and takes the permits for it first.
    async fn reserve(
        &mut self,
        len: usize,
        expected: usize,
        most: usize,
        budget: &Arc<Semaphore>,
        buffers: &Buffers,
    ) -> Result<(), ServiceError> {
        let have = self.bytes.len();
        if len <= have {
            return Ok(());
        }
        let wish = if have == 0 { expected.min(FIRST_BYTES) } else { expected.max(have.saturating_mul(2)) };
        let room = len.max(wish.min(most));
        let more = u32::try_from(room - have).map_err(|_| ServiceError::ServiceUnavailable)?;
        let permit = timeout(BUDGET_WAIT, Arc::clone(budget).acquire_many_owned(more)).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ServiceError::ServiceUnavailable);
        };
        match &mut self.share {
            Share(Some(share)) => share.merge(permit),
            Share(none) => *none = Some(permit),
        }
        let mut larger = buffers.take(room);
        if let Some(front) = larger.get_mut(..have) {
            front.copy_from_slice(&self.bytes);
        }
        self.bytes = larger;
        Ok(())
    }
}

/// Reads on and keeps nothing, so that the connection of a client that was refused can be used again. Gives up on a body
/// that is larger than any that is taken, or slower than [`DISCARD_WITHIN`].
pub(super) async fn discard<B>(body: &mut B, limits: &Limits)
where
    B: Body<Data = Bytes> + Unpin,
{
    let started = Instant::now();
    let mut seen: usize = 0;
    while announced(body) <= limits.body_bytes_max && seen <= limits.body_bytes_max {
        let deadline = limits.body_deadline(started, seen).min(started + DISCARD_WITHIN);
        match next_data(body, deadline).await {
            Ok(Some(data)) => seen = seen.saturating_add(data.len()),
            Ok(None) | Err(_) => return,
        }
    }
}

/// The next bytes of a body; `None` at its end. Trailers are passed over.
async fn next_data<B>(body: &mut B, deadline: Instant) -> Result<Option<Bytes>, ServiceError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(ServiceError::RequestTimeout("body")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(ServiceError::RequestAborted),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
