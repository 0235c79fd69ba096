//! A line: one connection of the bench, as a task among others. What [`client`](crate::client) does with a thread for
//! each connection, without their switches: those would be most of what a put of one record costs on one machine.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Answer, read_answer};

/// Up to this size head and body go out in one write.
const JOINED_BYTES_MAX: usize = 64 << 10;

/// Room for an answer at first: one to a single record has some 300 bytes, one to a full batch 20 KB.
const ANSWER_BYTES: usize = 4 << 10;

/// A connection to one server, opened when first needed and again after an error.
#[derive(Debug)]
pub(super) struct Line {
    to: SocketAddr,
    within: Duration,
    open: Option<TcpStream>,
    /// What is sent at once, and what has come of an answer.
    out: Vec<u8>,
    come: Vec<u8>,
}

impl Line {
    /// A line to this address on which each answer may take so long; nothing is opened yet.
    pub(super) fn new(to: SocketAddr, within: Duration) -> Self {
        Self { to, within, open: None, out: Vec::new(), come: Vec::with_capacity(ANSWER_BYTES) }
    }

    /// Sends one request and waits for its answer. `head` ends with the empty line.
    ///
    /// # Errors
    /// When the request could not be sent or the answer not be read; it may have been acted upon or not.
    pub(super) async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<Answer> {
        let answer =
            timeout(self.within, self.exchange(head, body)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        let closes = answer.as_ref().is_ok_and(|answer| answer.header("connection") == Some("close"));
        if answer.is_err() || closes {
            self.open = None;
        }
        answer
    }

    async fn exchange(&mut self, head: &[u8], body: &[u8]) -> io::Result<Answer> {
        let stream = match &mut self.open {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        if head.len() + body.len() <= JOINED_BYTES_MAX {
            self.out.clear();
            self.out.extend_from_slice(head);
            self.out.extend_from_slice(body);
            stream.write_all(&self.out).await?;
        } else {
            stream.write_all(head).await?;
            stream.write_all(body).await?;
        }
        self.come.clear();
        loop {
            if stream.read_buf(&mut self.come).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match read_answer(&mut self.come.as_slice()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {} // it goes on
                answer => return answer,
            }
        }
    }
}
