//! A small HTTP/1.1 client: one connection, kept open, one request at a time, blocking.
//!
//! In: a head and a body, ready made. Out: status, headers and body. It never sends anything twice, never follows a
//! redirect and never decodes a body: whoever counts what was promised must know what was sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Largest answer that is read: an object of 128 MiB before compression, with room to spare.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

/// Longest head of an answer.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// Up to this size head and body go out in one write.
const JOINED_BYTES_MAX: usize = 64 << 10;

/// A connection to one server, opened when first needed and again after an error.
#[derive(Debug)]
pub struct Connection {
    to: SocketAddr,
    host: String,
    timeout: Duration,
    open: Option<BufReader<TcpStream>>,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as sent.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

impl Connection {
    /// A connection to `http://host:port`; nothing is opened yet.
    ///
    /// # Errors
    /// When the address is not such a URL or has no address.
    pub fn to(endpoint: &str, timeout: Duration) -> io::Result<Self> {
        let host = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("not an http:// address: {endpoint}"))
        })?;
        let to = host.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("no address for {host}")))?;
        Ok(Self { to, host: host.to_owned(), timeout, open: None })
    }

    /// Where it goes.
    pub fn address(&self) -> SocketAddr {
        self.to
    }

    /// What the `Host` header must say.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Opens the connection unless it is open.
    ///
    /// # Errors
    /// When nobody listens; then nothing was sent.
    pub fn open(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(BufReader::new(connect(self.to, self.timeout)?));
        }
        Ok(())
    }

    /// Sends one request and waits for its answer. `head` ends with the empty line.
    ///
    /// # Errors
    /// When the request could not be sent or the answer not be read; it may have been acted upon or not.
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<Answer> {
        let answer = self.exchange(head, body);
        let closes =
            answer.as_ref().is_ok_and(|answer| answer.header("connection").is_some_and(|value| value == "close"));
        if answer.is_err() || closes {
            self.open = None;
        }
        answer
    }

    fn exchange(&mut self, head: &[u8], body: &[u8]) -> io::Result<Answer> {
        self.open()?;
        let reader = self.open.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut stream = reader.get_ref();
        if head.len() + body.len() <= JOINED_BYTES_MAX {
            stream.write_all(&[head, body].concat())?;
        } else {
            stream.write_all(head)?;
            stream.write_all(body)?;
        }
        read_answer(reader)
    }
}

fn connect(to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// Reads one answer, to its last byte.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when it is not all there.
pub(crate) fn read_answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let mut head = from.take(HEAD_BYTES_MAX);
    let status = read_line(&mut head)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken("status line"))?;
    let mut answer = Answer { status, ..Answer::default() };
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken("header"))?;
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = read_chunks(from)?;
    } else {
        let len = answer.header("content-length").map_or(Ok(0), str::parse).map_err(|_| broken("content-length"))?;
        read_exactly(from, len, &mut answer.body)?;
    }
    Ok(answer)
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(&mut from.by_ref().take(HEAD_BYTES_MAX))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let len = u64::from_str_radix(digits, 16).map_err(|_| broken("chunk length"))?;
        if len == 0 {
            while !read_line(&mut from.by_ref().take(HEAD_BYTES_MAX))?.is_empty() {}
            return Ok(body);
        }
        read_exactly(from, len, &mut body)?;
        read_line(&mut from.by_ref().take(2))?;
    }
}

fn read_exactly(from: &mut impl BufRead, len: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if len + body.len() as u64 > ANSWER_BYTES_MAX {
        return Err(broken("answer: too long"));
    }
    let read = from.by_ref().take(len).read_to_end(body)? as u64;
    if read == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let text = line.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unreadable {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bodies_of_known_length_and_chunked_ones_and_leaves_what_follows() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A:  b \r\n\r\nabcHTTP/1.1 404 Not Found\r\n\
            transfer-encoding: chunked\r\n\r\n4;x=y\r\nwiki\r\n1\r\n!\r\n0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let mut from = &wire[..];
        let first = read_answer(&mut from).unwrap();
        assert_eq!((first.status, first.header("x-a"), &first.body[..]), (200, Some("b"), &b"abc"[..]));
        let second = read_answer(&mut from).unwrap();
        assert_eq!((second.status, &second.body[..]), (404, &b"wiki!"[..]));
        assert_eq!(read_answer(&mut from).unwrap().status, 204);
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        for wire in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", "nonsense\r\n\r\n"] {
            assert!(read_answer(&mut wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
