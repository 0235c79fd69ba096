//! Reading the log: from a position on, whole frames in order, as far as they are durable.
//!
//! In: the rack, a position, how many bytes are wanted.
//! Out: slices of frames, and which records are lost.
//!
//! Never passes the durable end, never shows a frame that is not confirmed to its last byte, and never stops for
//! damage: it says what is gone and goes on behind it. What has just been written it gets from memory. Only a disk that
//! does not answer stops it, for then nothing is known to be lost; the same call may be made again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{Position, Span, Timestamp};

use super::Lost;
use super::frame::lengths;
use super::rack::{Mark, Place, Rack};
use super::segment::Segment;
use super::shared::Shared;
use super::walk::{Step, Walker, Whole};
use crate::redriven::Origin;

/// The disk could not be read. Nothing was passed over.
#[derive(Debug, thiserror::Error)]
#[error("read segment {path}: {source}")]
pub struct ReadError {
    path: String,
    source: io::Error,
}

/// What one call of [`Reader::next`] gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Frames in the order of their positions. Empty only when the reader has caught up with the durable end.
    pub frames: Vec<Frame>,
    /// Records that were acknowledged and cannot be read, in order; each lies before, between or after the frames.
    pub lost: Vec<Lost>,
    /// Where the next slice starts: everything below is in `frames`, in `lost`, or in earlier slices.
    pub end: Position,
}

/// The records of one request, or the rest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Position of the first record.
    pub first: Position,
    /// When the request was accepted.
    pub arrived_at: Timestamp,
    /// All payloads, one after the other. Shares memory with the other frames of its slice, or with the request.
    pub data: Bytes,
    /// The length of each payload, as a table of little-endian 32-bit numbers.
    pub lengths: Bytes,
    /// Where the records come from, if they were redriven; of a frame that is not given whole, all that came in it.
    pub origin: Option<Arc<Origin>>,
}

impl Slice {
    /// Where those of the records come from that were redriven.
    pub fn redriven(&self) -> impl Iterator<Item = &Origin> {
        self.frames.iter().filter_map(|frame| frame.origin.as_deref())
    }
}

impl Frame {
    /// How many records it holds.
    pub fn count(&self) -> usize {
        self.lengths.len() / 4
    }

    /// Bytes of memory: payloads and their lengths.
    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.lengths.len()
    }

    /// The length of a record in bytes; zero when there is no such record.
    pub fn length(&self, index: usize) -> u32 {
        lengths(&self.lengths).nth(index).unwrap_or_default()
    }

    /// The positions of its records.
    pub fn span(&self) -> Span {
        Span::new(self.first, self.count() as u64)
    }

    /// Positions and payloads, in order.
    pub fn records(&self) -> impl Iterator<Item = (Position, &[u8])> {
        let mut rest = self.data.as_ref();
        lengths(&self.lengths).enumerate().map(move |(index, length)| {
            let (record, behind) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
            rest = behind;
            (self.first.plus(index as u64), record)
        })
    }

    /// The same without the records below `from`.
    fn starting_at(mut self, from: Position) -> Self {
        let skipped = usize::try_from(Span { first: self.first, end: from }.count()).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.count());
        let bytes: usize = lengths(&self.lengths).take(skipped).map(|length| length as usize).sum();
        self.first = self.first.plus(skipped as u64);
        self.data = self.data.slice(bytes.min(self.data.len())..);
        self.lengths = self.lengths.slice(4 * skipped..);
        self
    }
}

impl From<Whole> for Frame {
    fn from(Whole { header, table, data, origin }: Whole) -> Self {
        let origin = origin.map(Arc::new);
        Self { first: header.first, arrived_at: header.arrived_at, data, lengths: table, origin }
    }
}

/// A place in the log that moves forward.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Shared>,
    position: Position,
    /// Where it stands in the segment it read last.
    standing: Option<(Arc<Segment>, Mark)>,
    /// Bytes of the last frame it read: the next is mostly as long, and is best read at once.
    frame_bytes: usize,
}

impl Reader {
    pub(super) fn new(log: Arc<Shared>, from: Position) -> Self {
        Self { log, position: from, standing: None, frame_bytes: 0 }
    }

    /// The next record that it will give, or a gap or damage in front of it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next frames: as many whole ones as `bytes_max` bytes hold, at least one if there is one. Blocks for a
    /// read of about that size.
    ///
    /// # Errors
    /// [`ReadError`] when the disk does not answer. The reader stands where it stood, and may be asked again.
    pub fn next(&mut self, bytes_max: usize) -> Result<Slice, ReadError> {
        let log = Arc::clone(&self.log);
        let mut slice = Slice::default();
        for frame in log.recent.take(self.position, bytes_max) {
            self.standing = None; // or the segment could not be used again
            let frame = frame.starting_at(self.position);
            self.move_to(frame.span().end);
            slice.frames.push(frame);
        }
        while slice.frames.is_empty() {
            match log.rack.find(self.position) {
                Place::CaughtUp { end, missing } => {
                    slice.lost.extend(missing.map(absent));
                    self.move_to(end);
                    break;
                }
                Place::In { segment, start, end, missing } => {
                    slice.lost.extend(missing.map(absent));
                    self.move_to(segment.base);
                    let result = self.read(&log.rack, &segment, start, end, bytes_max, &mut slice);
                    if let Err(source) = result {
                        if slice.frames.is_empty() && slice.lost.is_empty() {
                            return Err(ReadError { path: segment.path.display().to_string(), source });
                        }
                        // What was found before is passed, and would be missed; the next call meets the error again.
                        break;
                    }
                }
            }
        }
        slice.end = self.position;
        Ok(slice)
    }

    /// Reads in one segment until the slice is full or the segment is at its end.
    fn read(
        &mut self,
        rack: &Rack,
        segment: &Arc<Segment>,
        start: Mark,
        end: Mark,
        bytes_max: usize,
        slice: &mut Slice,
    ) -> io::Result<()> {
        let mut at = match self.standing.take() {
            Some((standing, mark)) if Arc::ptr_eq(&standing, segment) && mark.position >= start.position => mark,
            _ => start,
        };
        let (chunk_bytes, buffers) = (bytes_max.max(self.frame_bytes), self.log.buffers.clone());
        let Some(mut walker) = Walker::new(segment, at.offset, end.offset, chunk_bytes, buffers) else {
            self.lose(end.position, "both copies of the segment's header are unreadable", slice);
            return Ok(());
        };
        while at.position < end.position && (slice.frames.is_empty() || walker.is_ready()) {
            match walker.step(at.position)? {
                Step::Frame(whole) if whole.header.span().end <= end.position => {
                    at.position = whole.header.span().end;
                    self.frame_bytes = usize::try_from(whole.header.frame_len()).unwrap_or_default();
                    if at.position > self.position {
                        slice.frames.push(Frame::from(whole).starting_at(self.position));
                        self.move_to(at.position);
                    }
                }
                // A frame behind the end was written and never acknowledged: the log was cut before it.
                Step::Frame(_) => at.position = end.position,
                Step::Damaged { end: to } => at.position = to.min(end.position),
                Step::Hole { end: to } => at.position = to.unwrap_or(end.position).min(end.position),
            }
            at.offset = walker.offset();
            if at.position > self.position {
                self.lose(at.position, "a damaged frame", slice);
            }
        }
        if rack.end_of(segment).is_some() {
            self.standing = Some((Arc::clone(segment), at));
        }
        Ok(())
    }

    /// Passes over records that cannot be read.
    fn lose(&mut self, to: Position, why: &str, slice: &mut Slice) {
        let span = Span { first: self.position, end: to };
        if !span.is_empty() {
            slice.lost.push(Lost { span, why: why.to_owned() });
        }
        self.move_to(to);
    }

    fn move_to(&mut self, position: Position) {
        self.position = self.position.max(position);
    }
}

fn absent(span: Span) -> Lost {
    Lost { span, why: "no segment holds these records".to_owned() }
}
