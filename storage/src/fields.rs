//! Fields: the small binary encoding that batch headers and ledger entries share.
//!
//! Integers are little-endian, or varints (seven bits a byte, low bits first, high bit set on all but the last).
//! A text or a list is its length as a varint and then its content. Reading is pure: it takes untrusted bytes,
//! allocates no more than they could fill, and answers [`Malformed`] for whatever it cannot read.

use crc_fast::{CrcAlgorithm, Digest};
use hydrant_core::Position;

/// Bytes that do not say what they should. Names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub(crate) &'static str);

/// CRC-32C of several parts, as if they stood one after the other.
pub(crate) fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    low_half(digest.finalize())
}

/// The 32 bits of a CRC that the library hands out as 64.
pub(crate) fn low_half(crc: u64) -> u32 {
    u32::try_from(crc & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// Reads fields from the front of untrusted bytes.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array(what).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed(what));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed(what))
    }

    /// A varint that is a position.
    pub(crate) fn position(&mut self, what: &'static str) -> Result<Position, Malformed> {
        Position::read(self.varint(what)?).ok_or(Malformed(what))
    }

    /// A varint that fits 32 bits.
    pub(crate) fn varint_u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.varint(what)?).map_err(|_| Malformed(what))
    }

    /// How many items follow, each of at least `item_bytes_min` bytes; so what is left bounds the answer.
    pub(crate) fn count(&mut self, item_bytes_min: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint(what)?).map_err(|_| Malformed(what))?;
        if count > self.rest.len() / item_bytes_min.max(1) { Err(Malformed(what)) } else { Ok(count) }
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, Malformed> {
        let len = self.count(1, what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed(what))
    }

    /// A text behind a byte that says whether there is one.
    pub(crate) fn optional_text(&mut self, what: &'static str) -> Result<Option<String>, Malformed> {
        match self.byte(what)? {
            0 => Ok(None),
            1 => self.text(what).map(Some),
            _ => Err(Malformed(what)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).unwrap_or(u64::MAX));
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

const fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_reads_back_as_it_was_written(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.varint("value"), Ok(value));
            prop_assert!(fields.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes);
            while fields.varint("a").is_ok() && fields.optional_text("b").is_ok() && fields.u32("c").is_ok() {}
        }
    }

    #[test]
    fn a_varint_above_64_bits_is_malformed() {
        assert_eq!(Fields::new(&[0xff; 11]).varint("v"), Err(Malformed("v")));
        let mut too_high = [0xff; 10];
        too_high[9] = 2;
        assert_eq!(Fields::new(&too_high).varint("v"), Err(Malformed("v")));
        too_high[9] = 1;
        assert_eq!(Fields::new(&too_high).varint("v"), Ok(u64::MAX));
    }

    #[test]
    fn a_length_beyond_what_is_there_is_malformed_before_anything_is_allocated() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(Fields::new(&out).text("name"), Err(Malformed("name")));
        assert_eq!(Fields::new(&[9, 1, 1]).count(2, "runs"), Err(Malformed("runs")));
    }

    #[test]
    fn the_crc_is_castagnolis() {
        assert_eq!(crc32c([b"1234".as_slice(), b"56789"]), 0xE306_9283);
    }
}
