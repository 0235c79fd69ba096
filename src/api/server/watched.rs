//! The socket of a connection as the HTTP parser sees it.
//!
//! On the way in it tells the [`Activity`] of every read, and has [`Framing`] look at the bytes before the parser does.
//! On the way out it replaces the parser's own answers to what is no HTTP, which have a status and nothing else, by
//! ones with the type and text that clients of the service expect. Everything else passes as it is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::READ_BYTES;
use super::activity::Activity;
use super::framing::Framing;
use crate::api::error::ServiceError;

/// How the parser's own answers begin, and what is said instead. They come alone, as one write, and are the last of
/// their connection. No answer of the API is without a body.
static REPLACED: LazyLock<[(&[u8], Vec<u8>); 3]> = LazyLock::new(|| {
    let malformed = ServiceError::MalformedHttpRequest("The request cannot be read as HTTP.").into_http1();
    let too_large = ServiceError::RequestHeadersTooLarge { limit: READ_BYTES }.into_http1();
    [
        (b"HTTP/1.1 400 Bad Request\r\n", malformed),
        (b"HTTP/1.1 414 URI Too Long\r\n", too_large.clone()),
        (b"HTTP/1.1 431 Request Header Fields Too Large\r\n", too_large),
    ]
});

/// A socket that is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
    framing: Framing,
    /// What is still to be written instead of the parser's answer.
    instead: Option<&'static [u8]>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity, framing: Framing::default(), instead: None }
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes what stands for `answer` if it is one of the parser's own. `None` if it is not.
    fn replace(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Option<Poll<io::Result<()>>> {
        if self.instead.is_none() {
            self.instead = Some(instead_of(answer)?);
        }
        while let Some(rest) = self.instead.filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(len)) => self.instead = rest.get(len..),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        self.instead = None;
        Some(Poll::Ready(Ok(())))
    }
}

fn instead_of(answer: &[u8]) -> Option<&'static [u8]> {
    // Looked at for every write: most are told by their status.
    let (_, instead) = REPLACED.iter().find(|(start, _)| answer.starts_with(start))?;
    let is_empty = answer.ends_with(b"\r\n\r\n") && answer.windows(19).any(|it| it == b"content-length: 0\r\n");
    is_empty.then_some(instead.as_slice())
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let come = buf.filled().get(before..).unwrap_or_default();
        if !come.is_empty() {
            this.activity.read();
            if let Some(number) = this.framing.follow(come) {
                this.activity.found_odd(number);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.replace(cx, buf) {
            Some(replaced) => replaced.map_ok(|()| buf.len()),
            None => Pin::new(&mut self.socket).poll_write(cx, buf),
        }
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
        if let [only] = bufs
            && let Some(replaced) = self.replace(cx, only)
        {
            return replaced.map_ok(|()| only.len());
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
