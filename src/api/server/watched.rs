//! The socket of a connection as the HTTP parser sees it.
//!
//! On the way in it tells the [`Activity`] of every read, and has [`Framing`] look at the bytes before the parser does.
//! On the way out it replaces the parser's own answers to what is no HTTP, which have a status and nothing else, by
//! ones with the type and text that clients of the service expect. Everything else passes as it is.
//!
//! At the end it sees to it that a client hears why: one whose head took too long is told so, and where a client may
//! still be sending, the socket is read until it stops.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::READ_BYTES;
use super::activity::Activity;
use super::framing::Framing;
use super::linger::Linger;
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

/// Said to a client whose head did not come in time.
static TOO_SLOW: LazyLock<Vec<u8>> = LazyLock::new(|| ServiceError::RequestTimeout("headers").into_http1());

/// A socket that is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
    framing: Framing,
    /// What is still to be written instead of the parser's answer, or as the last words.
    instead: Option<&'static [u8]>,
    /// Whether the client may still be sending when the connection ends.
    is_cut: bool,
    /// Under way since our side was ended.
    linger: Option<Linger>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity, framing: Framing::default(), instead: None, is_cut: false, linger: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Tells a client that its head took too long, and ends the connection.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_cut && self.framing.is_in_head() {
            self.is_cut = true;
            self.instead = Some(TOO_SLOW.as_slice());
        }
        if ready!(self.poll_instead(cx)).is_err() {
            return Poll::Ready(());
        }
        self.poll_end(cx).map(drop)
    }

    /// Ends our side, and lets a client that may still be sending come to its end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let linger = match &mut self.linger {
            Some(linger) => linger,
            none => {
                ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                if !self.is_cut && !self.activity.is_cut() {
                    return Poll::Ready(Ok(()));
                }
                none.insert(Linger::start())
            }
        };
        linger.poll(&mut self.socket, cx).map(Ok)
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes what stands for `answer` if it is one of the parser's own. `None` if it is not.
    fn replace(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Option<Poll<io::Result<()>>> {
        if self.instead.is_none() {
            self.instead = Some(instead_of(answer)?);
            self.is_cut = true;
        }
        Some(self.poll_instead(cx))
    }

    /// Writes what is left of our own words.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.instead.filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.instead = rest.get(len..),
            }
        }
        self.instead = None;
        Poll::Ready(Ok(()))
    }
}

fn instead_of(answer: &[u8]) -> Option<&'static [u8]> {
    // Looked at for every write: most are told by their status.
    let (_, instead) = REPLACED.iter().find(|(start, _)| answer.starts_with(start))?;
    let is_empty = answer.ends_with(b"\r\n\r\n") && answer.windows(19).any(|it| it == b"content-length: 0\r\n");
    is_empty.then_some(instead.as_slice())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.activity.is_over() {
            // Read as the end of the client's side, which ends the parser.
            return this.poll_too_slow(cx).map(Ok);
        }
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        self.poll_end(cx)
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
