//! A frame: the records of one request as they lie in a segment. The byte table is in `docs/formats/log.md`.
//!
//! In: payloads and what the log knows of them; or bytes read from a disk that may be damaged in any way.
//! Out: the bytes of a frame; or a header that this segment, in this use of its file, has written.
//!
//! ```text
//!   ┌─────────── header, 48 bytes ───────────┬────────────────── body ─────────────────┬─────┐
//!   │ magic  header crc  body crc  …  durable │ length of each │ payloads │ their origin │ pad │
//!   └─────────────┬───────────┬──────────────┴────────────────────────────┬────────────┴─────┘
//!          salted: this life  plain: computed by the producer's thread    only of records that were redriven
//! ```
//!
//! Pure. Never trusts a length before the checksum that covers it.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use crc_fast::{CrcAlgorithm, Digest, checksum};
use hydrant_core::{Position, Span, Timestamp};

use super::Payloads;
use super::reader::Frame;
use super::segment::Layout;
use crate::redriven::Origin;

/// Length of a frame's header in bytes.
pub(super) const HEADER_BYTES: usize = 48;

/// Frames start at multiples of this many bytes, so that one behind damage is found by looking at few places.
pub(super) const ALIGNMENT: usize = 8;

/// First bytes of every frame. Not a number that zeros, text or old lengths look like.
pub(super) const MAGIC: [u8; 4] = [0xF7, b'h', b'y', 0x1D];

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records.
    Records,
    /// Nothing: it only says how far the log was durable.
    Mark,
    /// Records that are dead letters put back, and where they come from.
    Redriven,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::Records => 1,
            Self::Mark => 2,
            Self::Redriven => 3,
        }
    }

    const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Records),
            2 => Some(Self::Mark),
            3 => Some(Self::Redriven),
            _ => None,
        }
    }
}

/// What stands in the header of a frame, apart from the checksum over the header itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes of the origin in the body; none but of redriven records.
    pub(super) origin_len: u16,
    /// Records in the body.
    pub(super) count: u32,
    /// Bytes of payload in the body.
    pub(super) data_len: u32,
    /// Checksum of the body: table of lengths and payloads.
    pub(super) body_crc: u32,
    pub(super) first: Position,
    pub(super) arrived_at: Timestamp,
    /// Every record below this was durable when the frame was written.
    pub(super) durable_to: Position,
}

impl Header {
    /// A frame without records.
    pub(super) const fn mark(durable_to: Position, now: Timestamp) -> Self {
        Self {
            kind: Kind::Mark,
            origin_len: 0,
            count: 0,
            data_len: 0,
            body_crc: 0,
            first: durable_to,
            arrived_at: now,
            durable_to,
        }
    }

    pub(super) const fn span(&self) -> Span {
        Span::new(self.first, self.count as u64)
    }

    /// Bytes of table, payloads and origin.
    pub(super) const fn body_len(&self) -> u64 {
        self.table_len() + self.data_len as u64 + self.origin_len as u64
    }

    /// Bytes of the table of lengths.
    pub(super) const fn table_len(&self) -> u64 {
        4 * self.count as u64
    }

    /// Bytes from the start of this frame to the start of the next.
    pub(super) const fn frame_len(&self) -> u64 {
        frame_len(self.body_len())
    }

    /// The bytes of the header in a segment with this salt.
    pub(super) fn encode(&self, salt: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        rest.put_slice(&MAGIC);
        rest.put_u32_le(0);
        rest.put_u32_le(self.body_crc);
        rest.put_u16_le(self.kind.code());
        rest.put_u16_le(self.origin_len);
        rest.put_u32_le(self.count);
        rest.put_u32_le(self.data_len);
        rest.put_u64_le(self.first.get());
        rest.put_u64_le(self.arrived_at.as_millis());
        rest.put_u64_le(self.durable_to.get());
        let crc = salted_crc(&bytes, salt).to_le_bytes();
        if let Some(place) = bytes.get_mut(4..8) {
            place.copy_from_slice(&crc);
        }
        bytes
    }

    /// The header in these bytes, if a segment with this salt has written it.
    ///
    /// That is all it says: whether the body is whole, and whether the position fits, is for the caller to find.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES], salt: u64) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let header = Self::parse_unchecked(bytes)?;
        (u32_at(bytes, 4)? == salted_crc(bytes, salt)).then_some(header)
    }

    /// What the bytes say, true or not.
    pub(super) fn parse_unchecked(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let count = u32_at(bytes, 16)?;
        let (kind, origin_len) = (Kind::from_code(u16_at(bytes, 12)?)?, u16_at(bytes, 14)?);
        if (kind == Kind::Redriven) != (origin_len > 0) {
            return None;
        }
        Some(Self {
            kind,
            origin_len,
            count,
            data_len: u32_at(bytes, 20)?,
            body_crc: u32_at(bytes, 8)?,
            first: Position::read(u64_at(bytes, 24)?)?,
            arrived_at: Timestamp::from_millis(u64_at(bytes, 32)?),
            durable_to: Position::read(u64_at(bytes, 40)?)?,
        })
    }

    /// Whether this body belongs to the header, byte for byte, and its lengths fill it.
    pub(super) fn confirms(&self, table: &[u8], data: &[u8], origin: &[u8]) -> bool {
        let sum = || lengths(table).map(u64::from).sum::<u64>();
        body_crc(table, data, origin) == self.body_crc && sum() == u64::from(self.data_len)
    }
}

/// A request's records, ready to be written but for what the log adds. Made outside the commit thread.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) count: u32,
    pub(super) table: Vec<u8>,
    pub(super) data: Bytes,
    pub(super) data_len: u32,
    /// Where the records come from, if they were redriven.
    origin: Option<Arc<Origin>>,
    /// The same as bytes.
    pub(super) origin_bytes: Vec<u8>,
    origin_len: u16,
    pub(super) body_crc: u32,
    pub(super) arrived_at: Timestamp,
}

impl Draft {
    /// The draft of a frame with these records, which come from there if they were redriven; `None` when there are more
    /// of them, or more bytes, than a frame can count (2^32, and 2^16 of the origin).
    ///
    /// # Panics
    /// When the lengths do not add up to the length of the data, or the origin names another number of lines.
    pub(super) fn new(payloads: Payloads, origin: Option<&Origin>, arrived_at: Timestamp) -> Option<Self> {
        let Payloads { data, lengths } = payloads;
        let sum: u64 = lengths.iter().copied().map(u64::from).sum();
        assert!(sum == data.len() as u64, "lengths of payloads must add up to their bytes");
        let names_each = origin.is_none_or(|origin| origin.ordinals.len() == lengths.len() as u64);
        assert!(names_each, "each redriven record comes from a line of its own");
        let (count, data_len) = (u32::try_from(lengths.len()).ok()?, u32::try_from(data.len()).ok()?);
        let mut table = Vec::with_capacity(4 * lengths.len());
        for length in lengths {
            table.put_u32_le(length);
        }
        let origin_bytes = origin.map(Origin::encode).unwrap_or_default();
        let origin_len = u16::try_from(origin_bytes.len()).ok()?;
        let body_crc = body_crc(&table, &data, &origin_bytes);
        let origin = origin.cloned().map(Arc::new);
        Some(Self { count, table, data, data_len, origin, origin_bytes, origin_len, body_crc, arrived_at })
    }

    /// The header of the frame.
    pub(super) const fn header(&self, first: Position, durable_to: Position) -> Header {
        let &Self { count, data_len, origin_len, body_crc, arrived_at, .. } = self;
        let kind = if origin_len > 0 { Kind::Redriven } else { Kind::Records };
        Header { kind, origin_len, count, data_len, body_crc, first, arrived_at, durable_to }
    }

    /// The layout of a segment that may hold it.
    pub(super) const fn layout(&self) -> Layout {
        if self.origin_len > 0 { Layout::Origins } else { Layout::Plain }
    }

    /// The records, as a reader gets them. Leaves a draft without any.
    pub(super) fn take_frame(&mut self, first: Position) -> Frame {
        let (data, lengths) = (std::mem::take(&mut self.data), std::mem::take(&mut self.table).into());
        Frame { first, arrived_at: self.arrived_at, data, lengths, origin: self.origin.take() }
    }

    /// Bytes that the frame will take.
    pub(super) const fn frame_len(&self) -> u64 {
        frame_len(self.table.len() as u64 + self.data.len() as u64 + self.origin_len as u64)
    }

    /// Zeros behind the body, up to the next frame.
    pub(super) fn padding(&self) -> &'static [u8] {
        const ZEROS: &[u8] = &[0; ALIGNMENT];
        let end = self.table.len() + self.data.len() + self.origin_bytes.len();
        ZEROS.split_at(end.next_multiple_of(ZEROS.len()) - end).0
    }
}

/// The numbers of a table of lengths.
pub(super) fn lengths(table: &[u8]) -> impl ExactSizeIterator<Item = u32> + Clone {
    table.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Bytes that the frame of these records will take, but for where they come from.
pub(super) fn bytes_of(payloads: &Payloads) -> u64 {
    frame_len(4 * payloads.lengths.len() as u64 + payloads.data.len() as u64)
}

/// Bytes from the start of a frame with such a body to the start of the next.
const fn frame_len(body_len: u64) -> u64 {
    (HEADER_BYTES as u64 + body_len).next_multiple_of(ALIGNMENT as u64)
}

fn body_crc(table: &[u8], data: &[u8], origin: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(table);
    digest.update(data);
    digest.update(origin);
    crc32(digest.finalize())
}

/// The checksum of a header, its own place left out, behind the salt: in another life of the file another number.
fn salted_crc(header: &[u8; HEADER_BYTES], salt: u64) -> u32 {
    let mut salted = *header;
    if let Some(place) = salted.get_mut(..8) {
        place.copy_from_slice(&salt.to_le_bytes());
    }
    crc32(checksum(CrcAlgorithm::Crc32Iscsi, &salted))
}

/// The library computes 32-bit checksums in 64 bits.
pub(super) fn crc32(wide: u64) -> u32 {
    u32::try_from(wide & u64::from(u32::MAX)).unwrap_or_default()
}

/// As [`u32_at`].
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The little-endian number at this place, if the bytes go that far.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
