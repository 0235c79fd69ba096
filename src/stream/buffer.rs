//! Buffer: the open batch of a route. Pure; takes the time as an argument.
//!
//! In: records in log order. Out: the bytes of one object before compression, or pieces as a batch file has them, with what
//! names them: which records, how many, when the oldest arrived. Never splits a record, and is never larger than its size
//! hint unless a single record is.
//!
//! Objects up to [`WHOLE_BYTES_MAX`] are held until they are sealed. Of larger ones the bytes are handed over a
//! unit at a time, to be compressed while the next come in.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hydrant_core::{ByteSize, PartitionKeys, PieceId, Position, Span, Timestamp};
use hydrant_storage::log::Frame;
use hydrant_storage::outbox::pieces;

use crate::blocks::Chain;
use crate::config::spec::{Delimiter, Hints};
use crate::encode::compress::{UNIT_BYTES, WHOLE_BYTES_MAX};

/// An open buffer.
#[derive(Debug)]
pub struct Buffer {
    hints: Hints,
    form: Form,
    data: Chain,
    held: Held,
    due: Option<Duration>,
    /// Room for what stands before a piece.
    head: Vec<u8>,
}

/// How records lie in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As one object: one after the other, with this behind each.
    Object(Delimiter),
    /// As separate pieces.
    Pieces {
        /// At most so many.
        most: u64,
    },
}

impl Form {
    const fn delimiter(self) -> Delimiter {
        match self {
            Self::Object(delimiter) => delimiter,
            Self::Pieces { .. } => Delimiter::None,
        }
    }
}

/// What a buffer holds, and what is sealed of it.
#[derive(Debug, Default)]
pub struct Held {
    /// Payloads one after the other, each with the delimiter behind it or its head before it, but for the units that were
    /// handed over.
    pub data: Vec<Bytes>,
    /// How many bytes those are, with the units, without heads.
    pub raw_bytes: u64,
    /// Which records: ascending, apart from each other, not empty.
    pub spans: Vec<Span>,
    /// How many records.
    pub records: u64,
    /// When the oldest of them was accepted.
    pub oldest_arrival: Timestamp,
}

/// Why a buffer is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The next record would not fit the size hint.
    Size,
    /// The oldest record is as old as the interval hint.
    Age,
    /// An attempt may start, and the interval is zero.
    Room,
    /// Other streams need the memory.
    Pressure,
    /// The log needs the disk.
    LogShare,
    /// Somebody asked for it.
    Drain,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Size, Self::Age, Self::Room, Self::Pressure, Self::LogShare, Self::Drain];

    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Room => "room",
            Self::Pressure => "pressure",
            Self::LogShare => "log-share",
            Self::Drain => "drain",
        }
    }
}

/// The time of a push: by the wall clock, to compare with arrivals, and by the monotonic one, to wait by.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the wall clock.
    pub wall: Timestamp,
    /// By the monotonic clock.
    pub monotonic: Duration,
}

impl Buffer {
    /// An empty buffer whose bytes lie in `data`, which is empty.
    pub fn new(hints: Hints, form: Form, data: Chain) -> Self {
        Self { hints, form, data, held: Held::default(), due: None, head: Vec::with_capacity(pieces::HEAD_BYTES_MAX) }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.held.records == 0
    }

    /// Bytes of all its records, with the units that were handed over.
    pub fn len(&self) -> u64 {
        self.held.raw_bytes
    }

    /// Whether it takes no more, whatever comes.
    pub fn is_full(&self) -> bool {
        self.len() >= self.size() || self.holds_most(self.held.records)
    }

    /// Whether that is as many records as may lie in a batch.
    fn holds_most(&self, records: u64) -> bool {
        matches!(self.form, Form::Pieces { most } if records >= most)
    }

    /// How large an object may become.
    pub fn size(&self) -> u64 {
        self.hints.size.get()
    }

    /// Lets objects become so large from now on, this one too.
    pub fn set_size(&mut self, bytes: u64) {
        self.hints.size = ByteSize::bytes(bytes);
    }

    /// Bytes of memory that it takes up.
    pub fn footprint(&self) -> u64 {
        self.data.footprint()
    }

    /// Whether its bytes are handed over in units.
    pub fn is_in_units(&self) -> bool {
        self.hints.size.get() > WHOLE_BYTES_MAX as u64
    }

    /// Whether a unit should be handed over before it takes more.
    pub fn is_unit_full(&self) -> bool {
        self.is_in_units() && self.data.len() >= UNIT_BYTES
    }

    /// Hands the bytes over that it holds.
    pub fn take_unit(&mut self) -> Vec<Bytes> {
        self.data.take()
    }

    /// When it must be sealed for its age, by the monotonic clock; `None` while it is empty.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Takes records `range` (by index) of a frame as far as they fit, and returns how many it took. Fewer than
    /// all means that a unit is full, or else the buffer: hand it over or seal it, then go on with the rest.
    pub fn push(&mut self, frame: &Frame, range: Range<usize>, now: Now) -> usize {
        let length_of = |index| frame.length(index) as usize;
        let begin: usize = (0..range.start).map(length_of).sum();
        let delimiter = self.form.delimiter().as_bytes();
        let is_bare = self.form == Form::Object(Delimiter::None); // then all are copied at once
        let mut end = begin;
        let mut taken = 0;
        for index in range.clone() {
            let length = length_of(index);
            let waiting = if is_bare { end - begin } else { 0 };
            let grown = self.held.raw_bytes + (waiting + length + delimiter.len()) as u64;
            let is_first = self.is_empty() && taken == 0;
            let is_unit_full = self.is_in_units() && self.data.len() + waiting >= UNIT_BYTES;
            let is_full = grown > self.hints.size.get() || self.holds_most(self.held.records + taken as u64);
            if is_unit_full || (is_full && !is_first) {
                break;
            }
            if !is_bare {
                self.add_head(frame, index, length);
                self.add(&frame.data[end..end + length]);
                self.add(delimiter);
            }
            end += length;
            taken += 1;
        }
        if is_bare {
            self.add(&frame.data[begin..end]);
        }
        if taken > 0 {
            self.note(frame, Span::new(frame.first.plus(range.start as u64), taken as u64), now);
        }
        taken
    }

    /// Adds what stands before a record that is to be a piece.
    fn add_head(&mut self, frame: &Frame, index: usize, length: usize) {
        if let Form::Pieces { .. } = self.form {
            let id = PieceId::whole(frame.first.plus(index as u64));
            self.head.clear();
            pieces::put_head(&mut self.head, id, frame.arrived_at, &PartitionKeys::default(), length);
            self.data.extend(&self.head);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.data.extend(bytes);
        self.held.raw_bytes += bytes.len() as u64;
    }

    /// Empties the buffer for the seal.
    pub fn take(&mut self) -> Held {
        self.due = None;
        Held { data: self.data.take(), ..std::mem::take(&mut self.held) }
    }

    /// The first record it holds.
    pub fn first(&self) -> Option<Position> {
        self.held.spans.first().map(|span| span.first)
    }

    /// When the oldest of its records was accepted.
    pub fn oldest_arrival(&self) -> Option<Timestamp> {
        (!self.is_empty()).then_some(self.held.oldest_arrival)
    }

    fn note(&mut self, frame: &Frame, span: Span, now: Now) {
        if self.is_empty() {
            let age = now.wall.since(frame.arrived_at).min(self.hints.interval);
            self.due = Some(now.monotonic + self.hints.interval.saturating_sub(age));
            self.held.oldest_arrival = frame.arrived_at;
        }
        self.held.oldest_arrival = self.held.oldest_arrival.min(frame.arrived_at);
        self.held.records += span.count();
        match self.held.spans.last_mut() {
            Some(last) if last.end == span.first => last.end = span.end,
            _ => self.held.spans.push(span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Blocks;

    const NOW: Now = Now { wall: Timestamp::from_millis(100_000), monotonic: Duration::from_secs(5) };

    fn frame(first: u64, arrived_ms: u64, payloads: &[&[u8]]) -> Frame {
        Frame {
            first: Position::new(first),
            arrived_at: Timestamp::from_millis(arrived_ms),
            data: payloads.concat().into(),
            lengths: payloads
                .iter()
                .flat_map(|payload| u32::try_from(payload.len()).unwrap().to_le_bytes())
                .collect::<Vec<u8>>()
                .into(),
            origin: None,
        }
    }

    fn buffer(size: u64, delimiter: Delimiter) -> Buffer {
        let hints = Hints { size: ByteSize::bytes(size), interval: Duration::from_mins(1) };
        Buffer::new(hints, Form::Object(delimiter), Blocks::new(ByteSize::mib(1)).chain())
    }

    fn span(first: u64, end: u64) -> Span {
        Span { first: Position::new(first), end: Position::new(end) }
    }

    #[test]
    fn records_follow_each_other_without_anything_between() {
        let mut buffer = buffer(100, Delimiter::None);
        assert_eq!(buffer.push(&frame(1, 100_000, &[b"abc", b"", b"abc"]), 0..3, NOW), 3);
        assert_eq!(buffer.push(&frame(4, 100_000, &[b"abc"]), 0..1, NOW), 1);
        let held = buffer.take();
        assert_eq!(
            (held.data.concat().as_slice(), held.records, held.spans.as_slice()),
            (b"abcabcabc".as_slice(), 4, [span(1, 5)].as_slice())
        );
        assert!(buffer.is_empty() && buffer.due().is_none());
    }

    #[test]
    fn a_delimiter_follows_every_record() {
        let mut buffer = buffer(100, Delimiter::Newline);
        buffer.push(&frame(1, 100_000, &[b"abc", b"", b"d"]), 0..3, NOW);
        assert_eq!(buffer.take().data.concat(), b"abc\n\nd\n");
    }

    #[test]
    fn it_takes_what_fits_its_size_and_never_splits_a_record() {
        for (delimiter, size) in [(Delimiter::None, 8), (Delimiter::Newline, 10)] {
            let mut buffer = buffer(size, delimiter);
            let frame = frame(1, 100_000, &[b"abcd", b"efgh", b"i"]);
            assert_eq!(buffer.push(&frame, 0..3, NOW), 2);
            assert_eq!(buffer.push(&frame, 2..3, NOW), 0, "it is full");
            assert_eq!(buffer.take().records, 2);
            assert_eq!(buffer.push(&frame, 2..3, NOW), 1);
            assert_eq!(buffer.take().spans, [span(3, 4)]);
        }
    }

    #[test]
    fn a_record_larger_than_the_size_goes_alone() {
        let mut buffer = buffer(4, Delimiter::None);
        let frame = frame(1, 100_000, &[b"large record", b"x"]);
        assert_eq!(buffer.push(&frame, 0..2, NOW), 1);
        assert_eq!(buffer.push(&frame, 1..2, NOW), 0);
    }

    #[test]
    fn parts_of_a_frame_leave_gaps_in_the_spans() {
        let mut buffer = buffer(100, Delimiter::None);
        let frame = frame(10, 100_000, &[b"a", b"b", b"c", b"d"]);
        buffer.push(&frame, 0..1, NOW);
        buffer.push(&frame, 2..4, NOW);
        let held = buffer.take();
        assert_eq!(
            (held.data.concat().as_slice(), held.spans.as_slice()),
            (b"acd".as_slice(), [span(10, 11), span(12, 14)].as_slice())
        );
    }

    #[test]
    fn its_age_counts_from_the_oldest_arrival_and_at_most_the_interval() {
        let due_after = |arrived_ms| {
            let mut buffer = buffer(100, Delimiter::None);
            buffer.push(&frame(1, arrived_ms, &[b"a"]), 0..1, NOW);
            buffer.due().unwrap().checked_sub(NOW.monotonic).unwrap().as_millis()
        };
        assert_eq!(due_after(100_000), 60_000, "accepted now");
        assert_eq!(due_after(70_000), 30_000, "accepted half a minute ago");
        assert_eq!(due_after(0), 0, "older than the interval");
        assert_eq!(due_after(500_000), 60_000, "the wall clock went back");
    }

    #[test]
    fn a_record_without_bytes_is_a_record() {
        let mut buffer = buffer(100, Delimiter::None);
        assert_eq!(buffer.push(&frame(1, 100_000, &[b""]), 0..1, NOW), 1);
        assert!(!buffer.is_empty() && buffer.due().is_some());
        assert_eq!(buffer.take().data.concat(), b"");
    }

    #[test]
    fn large_objects_are_handed_over_in_units_and_named_as_a_whole() {
        let record = [7; 300_000];
        let frame = frame(1, 100_000, &[&record[..]; 10]);
        for delimiter in [Delimiter::None, Delimiter::Newline] {
            let mut buffer = buffer(WHOLE_BYTES_MAX as u64 + 1, delimiter);
            assert_eq!(buffer.push(&frame, 0..10, NOW), 4, "a unit is full with the record that crosses its end");
            assert!(buffer.is_unit_full());
            assert_eq!(buffer.push(&frame, 4..10, NOW), 0);
            let unit = buffer.take_unit().concat().len() as u64;
            assert_eq!(
                (unit, buffer.len(), buffer.footprint()),
                (4 * (300_000 + delimiter.as_bytes().len() as u64), unit, 0)
            );
            assert_eq!(buffer.push(&frame, 4..6, NOW), 2);
            let held = buffer.take();
            assert_eq!((held.records, held.spans, held.raw_bytes), (6, vec![span(1, 7)], unit / 2 * 3));
            assert_eq!(held.data.concat().len() as u64, unit / 2);
        }
    }

    #[test]
    fn pieces_keep_their_names_and_are_counted_without_their_heads() {
        let hints = Hints { size: ByteSize::bytes(10), interval: Duration::from_mins(1) };
        let mut buffer = Buffer::new(hints, Form::Pieces { most: 3 }, Blocks::new(ByteSize::mib(1)).chain());
        let frame = frame(7, 100_000, &[b"abc", b"", b"d", b"e"]);
        assert_eq!(buffer.push(&frame, 1..4, NOW), 3);
        assert!(buffer.is_full(), "three are as many as may be");
        assert_eq!(buffer.push(&frame, 0..1, NOW), 0);
        let held = buffer.take();
        assert_eq!((held.raw_bytes, held.records, held.spans), (2, 3, vec![span(8, 11)]));
        let read = pieces::read(&held.data.concat().into()).unwrap();
        let read: Vec<_> = read.iter().map(|piece| (piece.id.position.get(), piece.data.as_ref())).collect();
        assert_eq!(read, [(8, b"".as_ref()), (9, b"d"), (10, b"e")]);
        assert_eq!(buffer.push(&frame, 0..4, NOW), 3, "10 bytes would hold all four");
        assert_eq!(buffer.take().raw_bytes, 4);
    }

    #[test]
    fn a_full_buffer_takes_no_more_though_its_units_were_handed_over() {
        let record = [7; 1_000_000];
        let frame = frame(1, 100_000, &[&record[..]; 10]);
        let mut buffer = buffer(9_000_000, Delimiter::None);
        let mut taken = 0;
        loop {
            taken += buffer.push(&frame, taken..10, NOW);
            if !buffer.is_unit_full() {
                break;
            }
            buffer.take_unit();
        }
        assert_eq!((taken, buffer.len()), (9, 9_000_000));
    }
}
