//! Letters: refused pieces that lie in no batch of dead letters yet. Pure; takes the time as an argument.
//!
//! In: ordinals of a batch, as the ledger hears that they were refused. Out: those that are to lie in the next batch of
//! dead letters, when there are enough of them or the oldest has waited long enough. Holds names only: bytes are read
//! from the batch files, which stay until then, and reasons stand in the ledger's state.
//!
//! So one poisonous record in each of ten thousand batches makes a few objects, not ten thousand.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hydrant_core::BatchId;
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::outbox::Letters;

use crate::config::spec::Hints;

/// Most pieces in a batch of dead letters, and most batches that they come from: the ledger's entry of such a batch fits
/// the room that is kept for it on a full disk (64 KiB).
pub const LETTERS_MAX: u64 = 4096;
/// See [`LETTERS_MAX`].
const SOURCES_MAX: usize = 1024;

/// Largest batch of dead letters, by the bytes of its records: it is made in memory.
pub const BYTES_MAX: u64 = 8 << 20;

/// How many letters may wait before no attempt is made that could refuse more. They take a few bytes each, their reasons
/// up to a kilobyte, and the disk is full before there are so many unless sealing them fails.
const WAITING_MAX: u64 = 100_000;

/// The buffer of dead letters.
#[derive(Debug)]
pub struct Buffer {
    hints: Hints,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    count: u64,
    bytes: u64,
    /// How many may lie in the next batch: fewer after there was no room for it.
    most: u64,
    not_before: Duration,
}

/// Refused pieces of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    batch: BatchId,
    ordinals: Ordinals,
    /// Of all of them, about.
    bytes: u64,
    since: Duration,
}

/// Letters that are to lie in the next batch.
#[derive(Debug, Default)]
pub struct Taken(Vec<Waiting>);

impl Buffer {
    /// An empty buffer.
    pub fn new(hints: Hints) -> Self {
        let not_before = Duration::ZERO;
        Self { hints, waiting: VecDeque::new(), count: 0, bytes: 0, most: LETTERS_MAX, not_before }
    }

    /// How many wait.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more may be refused.
    pub fn has_room(&self) -> bool {
        self.count < WAITING_MAX
    }

    /// Adds refused pieces of a batch, which have about so many bytes.
    pub fn push(&mut self, batch: BatchId, ordinals: Ordinals, bytes: u64, now: Duration) {
        if !ordinals.is_empty() {
            self.count += ordinals.len();
            self.bytes += bytes;
            self.waiting.push_back(Waiting { batch, ordinals, bytes, since: now });
        }
    }

    /// When the next batch is to be sealed; `None` while there is nothing.
    pub fn due(&self) -> Option<Duration> {
        let oldest = self.waiting.front()?;
        let is_full = self.bytes >= self.size() || self.count >= self.most || self.waiting.len() >= SOURCES_MAX;
        let due = if is_full { Duration::ZERO } else { oldest.since + self.hints.interval };
        Some(due.max(self.not_before))
    }

    /// Before this time nothing is sealed, however long it waits: there was no room.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Takes what is to lie in the next batch, the oldest first, of the batches that can be read. The others stay where they
    /// are.
    pub fn take(&mut self, can_be_read: impl Fn(BatchId) -> bool) -> Taken {
        let (mut taken, mut passed, mut count, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        while let Some(next) = self.waiting.pop_front() {
            if !can_be_read(next.batch) {
                passed.push(next);
                continue;
            }
            let (now, later) = next.split(self.most - count);
            count += now.ordinals.len();
            bytes += now.bytes;
            taken.push(now);
            if let Some(later) = later {
                self.waiting.push_front(later);
            }
            if count >= self.most || bytes >= self.size() || taken.len() >= SOURCES_MAX {
                break;
            }
        }
        passed.into_iter().rev().for_each(|passed| self.waiting.push_front(passed));
        self.count -= count;
        self.bytes = self.bytes.saturating_sub(bytes);
        Taken(taken)
    }

    /// Puts back what was taken and not sealed; it is due again at `not_before`.
    pub fn put_back(&mut self, taken: Taken, not_before: Duration) {
        self.not_before = not_before;
        for waiting in taken.0.into_iter().rev() {
            self.count += waiting.ordinals.len();
            self.bytes += waiting.bytes;
            self.waiting.push_front(waiting);
        }
    }

    /// There was no room for a batch of dead letters: the next is to be smaller.
    pub fn shrink(&mut self) {
        self.most = (self.most / 2).max(1);
    }

    /// A batch of dead letters was sealed: the next may be larger again.
    pub fn grow(&mut self) {
        self.most = (self.most * 2).min(LETTERS_MAX);
    }

    /// Forgets the letters of a batch that is gone.
    pub fn forget(&mut self, batch: BatchId) {
        self.waiting.retain(|waiting| waiting.batch != batch);
        self.count = self.waiting.iter().map(|waiting| waiting.ordinals.len()).sum();
        self.bytes = self.waiting.iter().map(|waiting| waiting.bytes).sum();
    }

    fn size(&self) -> u64 {
        self.hints.size.get().min(BYTES_MAX)
    }
}

impl Taken {
    /// The letters, by the batch that they come from.
    pub fn by_batch(&self) -> BTreeMap<BatchId, Ordinals> {
        let mut letters: BTreeMap<BatchId, Ordinals> = BTreeMap::new();
        for waiting in &self.0 {
            letters.entry(waiting.batch).or_default().add(&waiting.ordinals);
        }
        letters
    }

    /// What is left of them without these.
    #[must_use]
    pub fn without(mut self, sealed: &[Letters]) -> Self {
        for letters in sealed {
            for waiting in self.0.iter_mut().filter(|waiting| waiting.batch == letters.batch) {
                waiting.ordinals.remove(&letters.ordinals);
            }
        }
        self.0.retain(|waiting| !waiting.ordinals.is_empty());
        self
    }
}

impl Waiting {
    /// The first `most` letters, and the others if there are more.
    fn split(self, most: u64) -> (Self, Option<Self>) {
        let count = self.ordinals.len();
        if count <= most {
            return (self, None);
        }
        let first: Ordinals = self.ordinals.iter().take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
        let mut rest = self.ordinals;
        rest.remove(&first);
        let (batch, since, bytes) = (self.batch, self.since, self.bytes / count * most);
        let later = Self { batch, ordinals: rest, bytes: self.bytes - bytes, since };
        (Self { batch, ordinals: first, bytes, since }, Some(later))
    }
}

#[cfg(test)]
mod tests {
    use hydrant_core::ByteSize;

    use super::*;

    const HINTS: Hints = Hints { size: ByteSize::bytes(1000), interval: Duration::from_mins(1) };

    fn batch(number: u8) -> BatchId {
        BatchId::from_bytes([number; 16])
    }

    fn set(ordinals: std::ops::Range<u32>) -> Ordinals {
        ordinals.collect()
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn letters_of_many_batches_wait_together_until_the_oldest_is_old_enough() {
        let mut letters = Buffer::new(HINTS);
        assert_eq!(letters.due(), None);
        letters.push(batch(1), set(3..4), 10, at(5));
        letters.push(batch(2), set(0..1), 10, at(20));
        letters.push(batch(1), set(7..8), 10, at(30));
        letters.push(batch(3), Ordinals::new(), 0, at(31));
        assert_eq!((letters.len(), letters.due()), (3, Some(at(65))));
        let expected = [(batch(1), [3, 7].into_iter().collect()), (batch(2), set(0..1))].into();
        assert_eq!(letters.take(|_| true).by_batch(), expected);
        assert!(letters.is_empty() && letters.due().is_none());
    }

    #[test]
    fn they_are_due_at_once_when_there_are_enough() {
        let mut letters = Buffer::new(HINTS);
        letters.push(batch(1), set(0..2), 1000, at(5));
        assert_eq!(letters.due(), Some(at(0)), "by size");
        let mut letters = Buffer::new(Hints { size: ByteSize::mib(5), ..HINTS });
        letters.push(batch(1), set(0..5000), 5000, at(5));
        assert_eq!(letters.due(), Some(at(0)), "by number");
        assert_eq!(letters.take(|_| true).by_batch(), [(batch(1), set(0..4096))].into());
        assert_eq!((letters.len(), letters.due()), (904, Some(at(65))));
        assert_eq!(letters.take(|_| true).by_batch(), [(batch(1), set(4096..5000))].into());
        for _ in 0..SOURCES_MAX {
            letters.push(batch(1), set(0..1), 1, at(5));
        }
        assert_eq!(letters.due(), Some(at(0)), "by batches");
    }

    #[test]
    fn what_found_no_room_is_tried_again_later_and_in_smaller_batches() {
        let mut letters = Buffer::new(HINTS);
        letters.push(batch(1), set(0..10), 2000, at(0));
        let taken = letters.take(|_| true);
        letters.push(batch(2), set(0..1), 1, at(1));
        letters.put_back(taken, at(9));
        assert_eq!((letters.len(), letters.bytes, letters.due()), (11, 2001, Some(at(9))));
        for _ in 0..10 {
            letters.shrink();
        }
        assert_eq!(letters.take(|_| true).by_batch(), [(batch(1), set(0..4))].into());
        letters.grow();
        assert_eq!(letters.take(|_| true).by_batch().len(), 1);
    }

    #[test]
    fn a_batch_that_cannot_be_read_does_not_hold_up_the_others() {
        let mut letters = Buffer::new(Hints { size: ByteSize::mib(5), ..HINTS });
        letters.push(batch(1), set(0..5000), 5000, at(0));
        letters.push(batch(2), set(0..3), 3, at(1));
        letters.push(batch(1), set(5000..5001), 1, at(2));
        letters.push(batch(3), set(0..1), 1, at(3));
        let taken = letters.take(|wanted| wanted != batch(1));
        assert_eq!(taken.by_batch(), [(batch(2), set(0..3)), (batch(3), set(0..1))].into());
        assert_eq!((letters.len(), letters.bytes), (5001, 5001));
        assert!(letters.take(|wanted| wanted != batch(1)).by_batch().is_empty());
        assert_eq!(letters.take(|_| true).by_batch(), [(batch(1), set(0..4096))].into());
    }

    #[test]
    fn a_batch_that_is_gone_takes_its_letters_along() {
        let mut letters = Buffer::new(HINTS);
        letters.push(batch(1), set(0..2), 10, at(0));
        letters.push(batch(2), set(0..1), 5, at(1));
        letters.forget(batch(1));
        assert_eq!((letters.len(), letters.bytes, letters.due()), (1, 5, Some(at(61))));
    }
}
