//! As much of HTTP/1.1 as a scripted server needs: heads and bodies of announced length in, answers out, garbage
//! among them. The scripted servers speak through it.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// Longest head that is read, and longest body. Bounds of a test server.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: u64 = 256 << 20;

/// How much of a body is quoted.
const QUOTED_BYTES_MAX: usize = 1000;

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// As on the request line, percent-encoded.
    pub(crate) path: String,
    /// As on the request line, without `?`.
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the query has this parameter, with a value or without.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.query.split('&').any(|pair| pair.split('=').next() == Some(name))
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| decode(value))
    }
}

/// An answer, well-formed or not.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// Sent instead of everything else.
    garbage: Option<Bytes>,
}

impl Answer {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// An error document as S3 sends it.
    pub fn error(status: u16, code: &str) -> Self {
        let document = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>scripted</Message>\
             <Resource>/</Resource></Error>"
        );
        Self::status(status).header("content-type", "application/xml").body(document)
    }

    /// Bytes that are no HTTP.
    pub fn garbage(bytes: impl Into<Bytes>) -> Self {
        Self { garbage: Some(bytes.into()), ..Self::default() }
    }

    /// The answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The answer with this body.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The body, to be changed on its way out.
    pub(crate) fn body_mut(&mut self) -> &mut Bytes {
        &mut self.body
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        if let Some(garbage) = &self.garbage {
            return garbage.to_vec();
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            let _written = write!(head, "{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name == "content-length") {
            let _written = write!(head, "content-length: {}\r\n", self.body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// What a careless server quotes of a request: all its headers, and the beginning of its body.
pub(crate) fn quote(head: &Head, body: &[u8]) -> String {
    let mut quoted = String::new();
    for (name, value) in &head.headers {
        let _written = write!(quoted, "{name}: {value}; ");
    }
    quoted.push_str(&String::from_utf8_lossy(body.get(..QUOTED_BYTES_MAX).unwrap_or(body)));
    quoted
}

/// The next head; nothing when the client has no more to ask.
pub(crate) async fn read_head(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    let mut limited = connection.take(HEAD_BYTES_MAX as u64);
    let mut line = String::new();
    if limited.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(malformed()) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (head.method, head.path, head.query) = (method.to_owned(), path.to_owned(), query.to_owned());
    loop {
        let mut line = String::new();
        limited.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

pub(crate) async fn read_body(connection: &mut BufReader<TcpStream>, head: &Head) -> io::Result<Bytes> {
    let len: u64 = head.header("content-length").and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
    if len > BODY_BYTES_MAX {
        return Err(malformed());
    }
    let mut body = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    connection.read_exact(&mut body).await?;
    Ok(body.into())
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Undoes percent-encoding.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
