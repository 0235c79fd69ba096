//! What a connection is doing, and until when it may.
//!
//! ```text
//!   idle ── first byte ──> head ── request ──> serving ── answer ──> idle
//!   `idle`                 `header_within`     the limits of the body
//! ```
//!
//! HTTP/2 carries frames that belong to no request, so once a connection has turned out to speak it, only idle and
//! serving count. Kept in atomics because streams of HTTP/2 end in other tasks; each is a fact of its own, none
//! guards another.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::api::Limits;

/// No head has begun.
const NONE: u64 = u64::MAX;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    serving: AtomicUsize,
    /// Milliseconds from `opened` to the end of the last request.
    idle_since: AtomicU64,
    /// Milliseconds from `opened` to the first byte of a head that is not complete, or [`NONE`].
    head_since: AtomicU64,
    is_http2: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            serving: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NONE),
            is_http2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NONE - 1)
    }

    /// Bytes have come.
    fn read(&self) {
        if self.serving.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NONE {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// A head is complete: its request is being served until the answer is dropped.
    pub(super) fn serving(self: &Arc<Self>, version: Version) -> Serving {
        self.is_http2.store(version == Version::HTTP_2, Relaxed);
        self.serving.fetch_add(1, Relaxed);
        self.head_since.store(NONE, Relaxed);
        Serving(Arc::clone(self))
    }

    /// Until when the connection may go on as it is. `None` while a request is being served.
    pub(super) fn deadline(&self, limits: &Limits, full: bool) -> Option<Instant> {
        if self.serving.load(Relaxed) > 0 {
            return None;
        }
        let head = self.head_since.load(Relaxed);
        let (since, within) = if head != NONE && !self.is_http2.load(Relaxed) {
            (head, limits.header_within)
        } else {
            (self.idle_since.load(Relaxed), if full { limits.idle_when_full } else { limits.idle })
        };
        Some(self.opened + Duration::from_millis(since) + within)
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(super) struct Serving(Arc<Activity>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Relaxed);
        self.0.serving.fetch_sub(1, Relaxed);
    }
}

/// A socket that tells its [`Activity`] of every read.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
