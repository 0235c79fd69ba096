//! Where each request of an HTTP/1 connection ends, told from the bytes as they came.
//!
//! In: the bytes of a connection, in pieces of any size. Out: the number of the first head that says in more than one
//! way how long its body is, or in a way that others may read differently. The parser behind this is right by the
//! letter: it lets `Transfer-Encoding` win and drops the lengths beside it, unseen. But whoever stands between it and
//! a client may have read the other one, and then a part of one client's body is the next one's request.
//!
//! ```text
//!   start ── request line ──> fields ── empty line ──> body (so many bytes) ──> start
//!                                          └── chunked, odd, or HTTP/2 ──> rest: nothing more is looked at
//! ```
//!
//! Nothing behind a chunked body needs to be looked at, as the connection ends with its answer. Never changes a byte,
//! and holds at most [`LINE_BYTES_MAX`] of them.

/// Most bytes of a line that are kept while the rest of it is on its way. The two fields that matter are shorter.
const LINE_BYTES_MAX: usize = 256;

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Complete heads so far.
    heads: u64,
}

#[derive(Debug, Default)]
enum State {
    /// Before a request line.
    #[default]
    Start,
    /// Between a request line and the empty line.
    Fields(Claims),
    /// In a body of which so many bytes are still to come.
    Body(u64),
    /// Behind everything that will be read as a request.
    Rest,
}

/// What a head says of its body.
#[derive(Debug, Default)]
struct Claims {
    length: Option<u64>,
    is_chunked: bool,
    is_odd: bool,
}

impl Framing {
    /// Looks at the next bytes. Gives back the number of a head, counted from 0, whose framing is not plain; at most
    /// once, and nothing is looked at behind it.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> Option<u64> {
        loop {
            match &mut self.state {
                State::Rest => return None,
                State::Body(left) => {
                    let here = u64::try_from(bytes.len()).map_or(*left, |len| len.min(*left));
                    *left -= here;
                    bytes = usize::try_from(here).ok().and_then(|here| bytes.get(here..)).unwrap_or_default();
                    if *left > 0 {
                        return None;
                    }
                    self.state = State::Start;
                }
                State::Start | State::Fields(_) => {
                    if bytes.is_empty() {
                        return None;
                    }
                    let end = bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
                    let Some((line, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else {
                        self.keep(bytes);
                        return None;
                    };
                    bytes = rest;
                    if let Some(number) = self.line_came(line) {
                        return Some(number);
                    }
                }
            }
        }
    }

    /// Whether a head has begun and is not complete, so that HTTP/1 is spoken as far as can be told.
    pub(super) fn is_in_head(&self) -> bool {
        match &self.state {
            State::Start => !self.line.is_empty() && !b"PRI * HTTP/2".starts_with(self.line.as_slice()),
            State::Fields(_) => true,
            State::Body(_) | State::Rest => false,
        }
    }

    /// Keeps the part of a line that has come, as far as there is room.
    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend(part.iter().take(room));
    }

    /// The last part of a line has come, with its end.
    fn line_came(&mut self, part: &[u8]) -> Option<u64> {
        if self.line.is_empty() && part.len() <= LINE_BYTES_MAX {
            return self.read_line(part);
        }
        self.keep(part);
        let line = std::mem::take(&mut self.line);
        self.read_line(&line)
    }

    fn read_line(&mut self, line: &[u8]) -> Option<u64> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match &mut self.state {
            // Empty lines before a request are passed over, as the parser does.
            State::Start if line.is_empty() => {}
            State::Start if line.starts_with(b"PRI * HTTP/2") => self.state = State::Rest,
            State::Start => self.state = State::Fields(Claims::default()),
            State::Fields(claims) if !line.is_empty() => claims.add(line),
            State::Fields(claims) => {
                let number = self.heads;
                self.heads += 1;
                let (is_odd, is_chunked, length) = (claims.is_odd, claims.is_chunked, claims.length);
                self.state = if is_odd || is_chunked { State::Rest } else { State::Body(length.unwrap_or(0)) };
                return is_odd.then_some(number);
            }
            State::Body(_) | State::Rest => {}
        }
        None
    }
}

impl Claims {
    /// Takes one field in.
    fn add(&mut self, line: &[u8]) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default().trim_ascii();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            let digits = value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            self.is_odd |= self.length.is_some() || self.is_chunked || length.is_none();
            self.length = Some(length.unwrap_or(0));
        } else if name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_odd |= self.length.is_some() || self.is_chunked || !value.eq_ignore_ascii_case(b"chunked");
            self.is_chunked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head that is not plain, whatever pieces the bytes come in.
    #[track_caller]
    fn odd(bytes: &str) -> Option<u64> {
        let whole = Framing::default().follow(bytes.as_bytes());
        for size in 1..bytes.len() {
            let mut framing = Framing::default();
            let found = bytes.as_bytes().chunks(size).find_map(|piece| framing.follow(piece));
            assert_eq!(found, whole, "in pieces of {size}: {bytes:?}");
        }
        whole
    }

    #[test]
    fn a_plain_head_is_plain_however_it_is_spelled() {
        for plain in [
            "POST / HTTP/1.1\r\nhost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\ncontent-length:3\n\nabc",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: Chunked \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nx-content-length: 1, 2\r\nte: trailers\r\n\r\n",
        ] {
            assert_eq!(odd(plain), None, "{plain:?}");
        }
    }

    #[test]
    fn whatever_two_readers_may_take_differently_is_odd() {
        for fields in [
            "content-length: 3\r\ncontent-length: 3",
            "content-length: 3\r\ncontent-length: 4",
            "content-length: 3, 3",
            "content-length: +3",
            "content-length: 0x3",
            "content-length: ",
            "content-length: 99999999999999999999",
            "content-length: 3\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 3",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked, identity",
            "transfer-encoding: identity",
            "transfer-encoding: \"chunked\"",
            "transfer-encoding: chunked;q=1",
            "transfer-encoding: \u{b}chunked",
            "transfer-encoding:",
            "transfer-encoding: xchunked",
        ] {
            let head = format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\nabc");
            assert_eq!(odd(&head), Some(0), "{fields:?}");
        }
    }

    #[test]
    fn an_odd_head_is_found_behind_plain_requests_and_not_in_their_bodies() {
        let odd_head = "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx";
        let hidden = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{odd_head}", odd_head.len());
        assert_eq!(odd(&hidden), None);
        assert_eq!(odd(&format!("{hidden}\r\n\r\n{odd_head}")), Some(1));
        assert_eq!(odd(&format!("GET / HTTP/1.1\r\nhost: h\r\n\r\n{hidden}{odd_head}")), Some(2));
    }

    #[test]
    fn behind_chunks_and_in_http2_nothing_is_looked_at() {
        let odd_head = "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx";
        assert_eq!(odd(&format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{odd_head}")), None);
        assert_eq!(odd(&format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{odd_head}")), None);
    }

    #[test]
    fn a_head_is_under_way_from_its_first_byte_to_its_empty_line() {
        let in_head = |bytes: &str| {
            let mut framing = Framing::default();
            framing.follow(bytes.as_bytes());
            framing.is_in_head()
        };
        for begun in ["PO", "POST / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nhost: h\r\n", "GET / HTTP/1.1\r\n\r\nGET"] {
            assert!(in_head(begun), "{begun:?}");
        }
        let body = "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc";
        for other in ["", "\r\n", "P", "PRI * HT", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\n\r\n", body] {
            assert!(!in_head(other), "{other:?}");
        }
    }

    #[test]
    fn a_long_line_is_not_kept() {
        let mut framing = Framing::default();
        for _ in 0..1000 {
            assert_eq!(framing.follow(&[b'x'; 1000]), None);
        }
        assert!(framing.line.capacity() <= 2 * LINE_BYTES_MAX);
        let padded = format!("POST / HTTP/1.1\r\ncontent-length:{}5\r\n\r\n", " ".repeat(LINE_BYTES_MAX));
        assert_eq!(odd(&padded), Some(0), "a length out of sight is none");
    }
}
