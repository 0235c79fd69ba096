//! Walking a segment from frame to frame, over whatever lies there.
//!
//! In: a segment's file, where to start, where to stop.
//! Out: frames that are confirmed (magic, salt, checksums, position), and the holes between them.
//!
//! Never decides what a hole means: below what was durable it is damage, above it a torn tail. Never fails for
//! what it finds, only when the disk does not answer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::Position;

use super::frame::{ALIGNMENT, HEADER_BYTES, Header, MAGIC};
use super::segment::Segment;
use crate::buffers::Buffers;
use crate::redriven::Origin;

/// A frame whose every byte is confirmed.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) header: Header,
    pub(super) table: Bytes,
    pub(super) data: Bytes,
    /// Where the records come from, if they were redriven.
    pub(super) origin: Option<Origin>,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame, at the expected position.
    Frame(Whole),
    /// One frame whose header is confirmed and whose body is not. Its records end before `end`.
    Damaged { end: Position },
    /// Something that cannot be read. Records from the expected position up to `end` were or may have been there;
    /// `None` when nothing readable comes behind it.
    Hole { end: Option<Position> },
}

/// Reads a segment in large parts, and steps through them.
#[derive(Debug)]
pub(super) struct Walker {
    segment: Arc<Segment>,
    salt: u64,
    offset: u64,
    limit: u64,
    chunk: Bytes,
    chunk_at: u64,
    chunk_bytes: usize,
    buffers: Buffers,
}

impl Walker {
    /// Walks from `offset`, where a frame starts, and looks at no byte at or behind `limit`. Reads `chunk_bytes` at
    /// once, into these buffers. `None` when the segment's header is unreadable, for then no frame can be confirmed.
    pub(super) fn new(
        segment: &Arc<Segment>,
        offset: u64,
        limit: u64,
        chunk_bytes: usize,
        buffers: Buffers,
    ) -> Option<Self> {
        let salt = segment.salt?;
        let limit = limit.min(segment.len);
        let segment = Arc::clone(segment);
        Some(Self { segment, salt, offset, limit, chunk: Bytes::new(), chunk_at: 0, chunk_bytes, buffers })
    }

    /// Where the next step starts.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether a confirmed header follows whose frame is in memory already, so that the next step reads nothing.
    pub(super) fn is_ready(&self) -> bool {
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        self.held(self.offset, HEADER_BYTES as u64)
            .and_then(|bytes| Header::parse(bytes.first_chunk()?, self.salt))
            .is_some_and(|header| self.offset + header.frame_len() <= chunk_end)
    }

    /// The next frame or hole, when the record at `expected` is the next that was written.
    ///
    /// # Errors
    /// What the disk says when it cannot be read. The walker stands where it stood.
    pub(super) fn step(&mut self, expected: Position) -> io::Result<Step> {
        let Some(header) = self.header_at(self.offset, expected)? else { return self.search(expected) };
        if header.first > expected {
            return Ok(Step::Hole { end: Some(header.first) });
        }
        let start = self.offset + HEADER_BYTES as u64;
        let body = self.bytes(start, header.body_len())?;
        self.offset = (self.offset + header.frame_len()).min(self.limit);
        let whole = body.and_then(|body| confirmed(header, body));
        Ok(whole.map_or(Step::Damaged { end: header.span().end }, Step::Frame))
    }

    /// Looks for the next place that has a confirmed header, and stops before it.
    fn search(&mut self, expected: Position) -> io::Result<Step> {
        let mut at = self.offset;
        while let Some(found) = self.next_magic(at + ALIGNMENT as u64)? {
            if let Some(header) = self.header_at(found, expected)? {
                self.offset = found;
                return Ok(Step::Hole { end: Some(header.first) });
            }
            at = found;
        }
        self.offset = self.limit;
        Ok(Step::Hole { end: None })
    }

    /// The first place at or behind `from` where a frame could start.
    fn next_magic(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + HEADER_BYTES as u64 <= self.limit {
            if self.held(at, HEADER_BYTES as u64).is_none() {
                self.read(at, self.chunk_bytes as u64)?;
            }
            let Some(start) = usize::try_from(at - self.chunk_at).ok() else { return Ok(None) };
            let held = self.chunk.get(start..).unwrap_or_default();
            if held.len() < HEADER_BYTES {
                return Ok(None);
            }
            let places = held.as_chunks::<ALIGNMENT>().0;
            if let Some(place) = places.iter().position(|place| place.starts_with(&MAGIC)) {
                return Ok(Some(at + (ALIGNMENT * place) as u64));
            }
            at += (ALIGNMENT * places.len()) as u64;
        }
        Ok(None)
    }

    /// The header at this place, if this segment wrote one there and it does not lie behind `expected`.
    fn header_at(&mut self, at: u64, expected: Position) -> io::Result<Option<Header>> {
        let salt = self.salt;
        let bytes = self.bytes(at, HEADER_BYTES as u64)?;
        let header = bytes.as_deref().and_then(<[u8]>::first_chunk).and_then(|bytes| Header::parse(bytes, salt));
        Ok(header.filter(|header| header.first >= expected))
    }

    /// These bytes of the file; `None` when they go beyond the limit.
    fn bytes(&mut self, at: u64, len: u64) -> io::Result<Option<Bytes>> {
        if at.checked_add(len).is_none_or(|end| end > self.limit) {
            return Ok(None);
        }
        if self.held(at, len).is_none() {
            self.read(at, len.max(self.chunk_bytes as u64))?;
        }
        Ok(self.held(at, len))
    }

    /// These bytes, if they are in memory.
    fn held(&self, at: u64, len: u64) -> Option<Bytes> {
        let start = usize::try_from(at.checked_sub(self.chunk_at)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= self.chunk.len()).then(|| self.chunk.slice(start..end))
    }

    /// Reads anew from `at`, up to `len` bytes.
    fn read(&mut self, at: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len.min(self.limit.saturating_sub(at))).unwrap_or(usize::MAX);
        self.chunk = Bytes::new(); // first, so that its memory can be used again
        let mut buffer = self.buffers.take(len);
        let count = self.segment.file.read_at(at, &mut buffer)?;
        buffer.truncate(count);
        self.chunk = buffer.freeze();
        self.chunk_at = at;
        Ok(())
    }
}

/// The frame of this header and this body, if they belong together.
fn confirmed(header: Header, mut data: Bytes) -> Option<Whole> {
    let table = data.split_to(usize::try_from(header.table_len()).ok()?);
    let origin = data.split_off(data.len().checked_sub(header.origin_len.into())?);
    if !header.confirms(&table, &data, &origin) {
        return None;
    }
    let origin = if origin.is_empty() { None } else { Some(Origin::decode(&origin).ok()?) };
    let names_each = origin.as_ref().is_none_or(|origin| origin.ordinals.len() == u64::from(header.count));
    names_each.then_some(Whole { header, table, data, origin })
}
