//! The end of a connection whose client may still be sending.
//!
//! A socket that is closed while bytes wait in it unread is reset, and a reset takes away the answer that the client has
//! not read yet. So what the client still sends is read and thrown away until it ends its side, falls silent, or has
//! had time enough.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may go on sending. Enough to see the answer behind a batch of 500 full records on a slow line.
const IN_ALL: Duration = Duration::from_secs(10);

/// How long it may be silent before it is taken for gone.
const SILENT: Duration = Duration::from_secs(2);

/// Bytes that are thrown away at once.
const AT_ONCE: usize = 16 << 10;

/// Reads what nobody wants any more.
#[derive(Debug)]
pub(super) struct Linger {
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
}

impl Linger {
    pub(super) fn start() -> Self {
        Self { end: Box::pin(sleep(IN_ALL)), silence: Box::pin(sleep(SILENT)) }
    }

    /// Ready when the socket may be closed.
    pub(super) fn poll<S: AsyncRead + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; AT_ONCE];
        loop {
            if self.end.as_mut().poll(cx).is_ready() || self.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.silence.as_mut().reset(Instant::now() + SILENT);
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}
