//! Record ids: what a producer gets for a record that was stored. Pure.

use std::fmt;

use base64_simd::STANDARD as BASE64;
use hydrant_core::Position;

/// A name for a record that a producer can keep: 24 characters of base64, of which clients know nothing.
///
/// ```text
///   1 byte    format, 1
///   8 bytes   incarnation of the stream      ── 12 characters, the same for all records of an answer
///   8 bytes   position of the record
///   1 byte    check: all bytes before it, xored                   ── 12 characters
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// Of the stream.
    pub incarnation: u64,
    /// In its log.
    pub position: Position,
}

const RECORD_ID_FORMAT: u8 = 1;

impl RecordId {
    /// How many characters an id has.
    pub const LEN: usize = 24;

    fn bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        let parts = [RECORD_ID_FORMAT]
            .into_iter()
            .chain(self.incarnation.to_be_bytes())
            .chain(self.position.get().to_be_bytes());
        let mut check = 0;
        for (slot, byte) in bytes.iter_mut().zip(parts) {
            *slot = byte;
            check ^= byte;
        }
        if let Some(last) = bytes.last_mut() {
            *last = check;
        }
        bytes
    }

    /// Reads an id back. `None` for anything that is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode_to_vec(text).ok()?;
        let ([RECORD_ID_FORMAT], rest) = bytes.split_first_chunk::<1>()? else { return None };
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (position, _) = rest.split_first_chunk::<8>()?;
        let id = Self {
            incarnation: u64::from_be_bytes(*incarnation),
            position: Position::new(u64::from_be_bytes(*position)),
        };
        (id.bytes().as_slice() == bytes).then_some(id)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode_to_string(self.bytes()))
    }
}

impl RecordId {
    /// Writes the id behind what is there.
    pub(super) fn push(self, out: &mut Vec<u8>) {
        BASE64.encode_append(self.bytes(), out);
    }
}
