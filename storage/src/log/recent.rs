//! Recent frames: what has just become durable, still in memory for a reader that follows closely.
//!
//! In: the frames of a round, once they are on the disk. Out: those that the reader wants next, so that it need not read
//! back, copy and check what was written a moment ago.
//!
//! ```text
//!   commit ──durable──> [ frame ][ frame ][ frame ] ──> reader, while it follows
//!                          └── no room: the oldest goes, and the reader finds it on the disk
//! ```
//!
//! A log whose reader does not ask while all that is kept was written anew keeps nothing until it asks again: its reader
//! stands still, and will find what it wants next on the disk only.
//!
//! Only ever a shortcut: the frames of one log lie without a gap up to the last that was kept, and what is not here lies in
//! the segments. Never holds what is not durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_core::{ByteSize, Position};

use super::reader::Frame;

/// Most bytes that the frames of one log may take of the room: what comes while a reader that follows makes its round.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// What a frame costs beside its bytes: its place in the queue and the owners of its two parts.
const FRAME_BYTES: u64 = 256;

/// Memory for recent frames of all logs together. Cheap to clone. The default has room for none.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    free: Arc<AtomicU64>,
}

impl Room {
    /// Room for so many bytes of records. They lie in the requests that they came in, which may take up to three times as much
    /// of memory.
    pub(super) fn new(bytes: ByteSize) -> Self {
        Self { free: Arc::new(bytes.get().into()) }
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The recent frames of one log.
#[derive(Debug)]
pub(super) struct Recent {
    room: Room,
    kept: Mutex<Kept>,
}

/// Frames one behind the other, and what they take of the room.
#[derive(Debug, Default)]
struct Kept {
    frames: VecDeque<Frame>,
    bytes: u64,
    /// Written since the reader asked last.
    unasked: u64,
}

impl Recent {
    pub(super) fn new(room: Room) -> Self {
        Self { room, kept: Mutex::default() }
    }

    /// Keeps frames that are durable now, and lie in their order behind all that were kept before. The oldest make way for
    /// the newest; one that is too large even so leaves none.
    pub(super) fn keep(&self, frames: impl Iterator<Item = Frame>) {
        let mut kept = self.kept();
        frames.for_each(|frame| kept.push(frame, &self.room));
    }

    /// The frames from `position` on, as many as `bytes_max` bytes hold and at least one, for good; none when the record at
    /// `position` is not here. Those below it go too: the reader has passed them.
    pub(super) fn take(&self, position: Position, bytes_max: usize) -> Vec<Frame> {
        let mut kept = self.kept();
        kept.unasked = 0;
        while kept.frames.front().is_some_and(|frame| frame.span().end <= position) {
            kept.pop_first(&self.room);
        }
        let mut taken = Vec::new();
        if kept.frames.front().is_none_or(|frame| frame.first > position) {
            return taken;
        }
        let mut bytes = 0;
        while let Some(frame) = kept.frames.front()
            && (taken.is_empty() || bytes + frame.bytes() <= bytes_max)
        {
            bytes += frame.bytes();
            taken.extend(kept.pop_first(&self.room));
        }
        taken
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Frames and their count change together, in steps that cannot panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, frame: Frame, room: &Room) {
        let bytes = size(&frame);
        self.unasked += bytes;
        if self.unasked > LOG_BYTES_MAX {
            while self.pop_first(room).is_some() {}
            return;
        }
        while self.bytes + bytes > LOG_BYTES_MAX || !room.take(bytes) {
            if self.pop_first(room).is_none() {
                return;
            }
        }
        self.bytes += bytes;
        self.frames.push_back(frame);
    }

    fn pop_first(&mut self, room: &Room) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= size(&frame);
        room.give(size(&frame));
        Some(frame)
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.room.give(self.kept().bytes);
    }
}

fn size(frame: &Frame) -> u64 {
    frame.bytes() as u64 + FRAME_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hydrant_core::Timestamp;

    use super::*;

    const MIB: usize = 1 << 20;

    fn frame(first: u64, records: usize, bytes: usize) -> Frame {
        Frame {
            first: Position::new(first),
            arrived_at: Timestamp::from_millis(0),
            data: Bytes::from(vec![7; bytes]),
            lengths: Bytes::from(vec![0; 4 * records]),
            origin: None,
        }
    }

    fn firsts(frames: &[Frame]) -> Vec<u64> {
        frames.iter().map(|frame| frame.first.get()).collect()
    }

    #[test]
    fn a_reader_that_follows_gets_whole_frames_and_only_once() {
        let recent = Recent::new(Room::new(ByteSize::mib(8)));
        recent.keep([frame(1, 2, 100), frame(3, 5, 100), frame(8, 1, 100)].into_iter());
        assert_eq!(
            firsts(&recent.take(Position::new(4), 150)),
            [3],
            "the frame that holds the record, and no more than fits"
        );
        assert_eq!(firsts(&recent.take(Position::new(8), 1)), [8], "at least one");
        assert_eq!(firsts(&recent.take(Position::new(8), MIB)), [] as [u64; 0]);
    }

    #[test]
    fn a_reader_elsewhere_gets_none() {
        let recent = Recent::new(Room::new(ByteSize::mib(8)));
        recent.keep([frame(10, 2, 100)].into_iter());
        assert!(recent.take(Position::new(9), MIB).is_empty(), "the record before it may lie on the disk");
        assert!(recent.take(Position::new(12), MIB).is_empty(), "it comes with the next round");
        assert!(recent.take(Position::new(10), MIB).is_empty(), "whoever was beyond it does not come back for it");
    }

    /// Goal: memory is bounded for one log and for all, comes back, and what is left has no gap.
    #[test]
    fn room_is_bounded_and_given_back() {
        let room = Room::new(ByteSize::mib(5));
        let (busy, other) = (Recent::new(room.clone()), Recent::new(room.clone()));
        let free = || room.free.load(Ordering::Relaxed);
        let put = |recent: &Recent, first| {
            recent.keep([frame(first, 1, MIB)].into_iter());
            assert!(recent.take(Position::ZERO, MIB).is_empty());
        };
        (1..=6).for_each(|first| put(&busy, first));
        assert_eq!(free() >> 20, 1, "one log may not take all");
        (1..=6).for_each(|first| put(&other, first));
        assert_eq!(free() >> 20, 0);
        assert!(other.take(Position::new(5), MIB).is_empty(), "its older ones made way");
        assert_eq!(firsts(&busy.take(Position::new(4), 8 * MIB)), [4, 5, 6]);
        other.keep([frame(7, 1, 5 * MIB)].into_iter());
        assert!(other.take(Position::new(6), MIB).is_empty(), "what is too large leaves no gap behind");
        other.keep([frame(8, 1, MIB)].into_iter());
        drop(other);
        assert_eq!(free(), 5 << 20);
    }

    #[test]
    fn a_log_whose_reader_stands_still_takes_room_from_nobody() {
        let room = Room::new(ByteSize::mib(8));
        let recent = Recent::new(room.clone());
        recent.keep((1..=5).map(|first| frame(first, 1, MIB)));
        assert_eq!(room.free.load(Ordering::Relaxed), 8 << 20);
        assert!(recent.take(Position::new(5), MIB).is_empty());
        recent.keep([frame(6, 1, MIB)].into_iter());
        assert_eq!(firsts(&recent.take(Position::new(6), MIB)), [6], "it reads again");
    }
}
