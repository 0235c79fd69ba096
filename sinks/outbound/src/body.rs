//! Request bodies: bytes at hand, in one row or in parts, or a blob that is read while it is sent.
//!
//! In: a [`Blob`]. Out: its bytes in parts of [`PART_BYTES`], each read when the connection asks for it, so a request
//! holds two or three parts in memory whatever its length. A read that fails ends the request, and its reason can be
//! found again in the error that the client gives.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use hydrant_core::Blob;

/// How much of a blob is read at once. Large enough that a read costs little beside the copy into the socket, small
/// enough that a hundred requests hold no more than some tens of MiB.
pub(crate) const PART_BYTES: usize = 256 << 10;

/// What a request carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Bytes),
    /// These bytes, one part behind the other.
    Parts(Vec<Bytes>),
    /// The bytes of this blob, read while they are sent.
    Blob(Arc<dyn Blob>),
}

impl Body {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.iter().map(|part| part.len() as u64).sum(),
            Self::Blob(blob) => blob.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body as the client takes it. `progress` grows with each part that the connection has taken.
    pub(crate) fn into_client_body(self, progress: Arc<AtomicU64>) -> reqwest::Body {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::Parts(parts) => reqwest::Body::wrap_stream(stream::iter(in_small_parts(parts).map(move |part| {
                progress.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(part)
            }))),
            Self::Blob(blob) => reqwest::Body::wrap_stream(stream::try_unfold(0, move |offset| {
                let (blob, progress) = (Arc::clone(&blob), Arc::clone(&progress));
                async move {
                    progress.fetch_add(1, Ordering::Relaxed);
                    if offset == blob.len() {
                        return Ok(None);
                    }
                    let part = read_part(&*blob, offset).await.map_err(Unreadable)?;
                    let next = offset + part.len() as u64;
                    Ok::<_, Unreadable>(Some((part, next)))
                }
            })),
        }
    }
}

/// The same bytes in parts of at most [`PART_BYTES`]: a connection takes a part as a whole, so a large one would show no
/// progress for as long as it takes.
fn in_small_parts(parts: Vec<Bytes>) -> impl Iterator<Item = Bytes> {
    parts.into_iter().flat_map(|mut rest| {
        std::iter::from_fn(move || {
            let len = rest.len().min(PART_BYTES);
            (len > 0).then(|| rest.split_to(len))
        })
    })
}

/// Reads the part at `offset`. An empty one before the end is an error: the request would never get further.
async fn read_part(blob: &dyn Blob, offset: u64) -> io::Result<Bytes> {
    let part = blob.read_at(offset, PART_BYTES).await?;
    let fits = !part.is_empty() && offset + part.len() as u64 <= blob.len();
    if fits { Ok(part) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "blob is not as long as it says")) }
}

/// The request's own body could not be read.
#[derive(Debug, thiserror::Error)]
#[error("request body cannot be read: {0}")]
pub(crate) struct Unreadable(io::Error);

impl Unreadable {
    /// The reason, if an unreadable body is among the causes of `error`.
    pub(crate) fn find(error: &(dyn Error + 'static)) -> Option<String> {
        causes(error).find_map(|cause| cause.downcast_ref::<Self>()).map(|unreadable| unreadable.0.to_string())
    }
}

/// An error and everything that caused it, outermost first.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
