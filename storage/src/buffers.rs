//! Buffers: memory for bytes that must lie in one row: the body of a request, a slice of a log, a part of a batch file.
//!
//! In: how many bytes are wanted. Out: a buffer of that length, which comes back when the last that reads it is gone.
//! An allocator is given such a piece on one thread and gets it back on another, thousands of times a second, and keeps
//! what came back for a while before the system sees it again. Here it goes to the next who asks, warm.
//!
//! ```text
//!   take ──> Buffer, filled by its owner ──freeze──> Bytes, shared ──last one dropped──┐
//!    ^                                                                                 │
//!    └───────────── kept, up to a bound; of those above it the oldest are freed <──────┘
//! ```
//!
//! Never limits anybody: who may hold how much is for others to say.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hydrant_core::ByteSize;

/// Shorter ones are left to the allocator, which has them at hand.
const SHARED_BYTES_MIN: usize = 32 << 10;

/// Where buffers come from and go back to. Cheap to clone. The default keeps none.
#[derive(Clone, Default)]
pub struct Buffers {
    home: Arc<Home>,
}

#[derive(Default)]
struct Home {
    free: Mutex<Free>,
    /// Most bytes that are kept for the next user.
    most: usize,
}

/// Those that nobody uses, the one that came back last at the end.
#[derive(Default)]
struct Free {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Bytes to be filled. What is in them at first is nobody's business: zeros, or what was there before.
pub struct Buffer {
    /// Initialised to its whole length.
    bytes: Vec<u8>,
    len: usize,
    home: Option<Arc<Home>>,
}

impl Buffers {
    /// Buffers of which `kept` bytes at most wait for their next user.
    pub fn new(kept: ByteSize) -> Self {
        let most = usize::try_from(kept.get()).unwrap_or(usize::MAX);
        Self { home: Arc::new(Home { free: Mutex::default(), most }) }
    }

    /// Bytes that wait for their next user.
    pub fn free(&self) -> usize {
        self.home.free().bytes
    }

    /// A buffer of `len` bytes. It takes up to half as much again of memory: one that is at hand costs less than one
    /// that fits.
    pub fn take(&self, len: usize) -> Buffer {
        if len < SHARED_BYTES_MIN {
            return Buffer { bytes: vec![0; len], len, home: None };
        }
        let kept = self.home.free().take(len);
        let bytes = kept.unwrap_or_else(|| vec![0; rounded(len)]);
        Buffer { bytes, len, home: Some(Arc::clone(&self.home)) }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("free", &self.free()).field("most", &self.home.most).finish()
    }
}

impl Home {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// The one that came back last among those that fit: it is the warmest, and the others grow old and go.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (len..=len + len / 2).contains(&buffer.len());
        let at = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(at)?;
        self.bytes -= buffer.len();
        Some(buffer)
    }

    /// Keeps this one. Gives back those for which there is no room, to be freed by somebody who holds no lock.
    fn keep(&mut self, buffer: Vec<u8>, most: usize) -> Vec<Vec<u8>> {
        self.bytes += buffer.len();
        self.buffers.push_back(buffer);
        let mut gone = Vec::new();
        while self.bytes > most
            && let Some(oldest) = self.buffers.pop_front()
        {
            self.bytes -= oldest.len();
            gone.push(oldest);
        }
        gone
    }
}

/// Up to an eighth more, so that there are eight sizes between a number and its double.
fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(1))
}

impl Buffer {
    /// Bytes of memory that it takes up.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all behind the first `len` bytes; nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes for good. The memory goes back when the last copy and the last part of them is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl From<Vec<u8>> for Buffer {
    /// One that belongs to nobody: it is freed in the end.
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let gone = home.free().keep(std::mem::take(&mut self.bytes), home.most);
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    #[test]
    fn memory_is_used_again_once_nobody_reads_it() {
        let buffers = Buffers::new(ByteSize::mib(8));
        let mut buffer = buffers.take(LEN);
        buffer.fill(7);
        buffer.truncate(10);
        let address = buffer.as_ptr();
        let bytes = buffer.freeze();
        let part = bytes.slice(2..4);
        assert_eq!(bytes, [7; 10].as_slice());
        drop(bytes);
        assert_eq!(buffers.free(), 0, "a part is still read");
        drop(part);
        assert_eq!(buffers.free(), LEN);
        let again = buffers.take(LEN - 100);
        assert_eq!((again.as_ptr(), again.len(), buffers.free()), (address, LEN - 100, 0));
    }

    #[test]
    fn nobody_gets_one_that_is_much_too_large_and_short_ones_are_not_kept() {
        let buffers = Buffers::new(ByteSize::mib(8));
        drop(buffers.take(LEN));
        assert_eq!(buffers.take(LEN / 2).capacity(), LEN / 2);
        drop(buffers.take(100));
        assert_eq!(buffers.free(), LEN + LEN / 2);
    }

    #[test]
    fn what_is_kept_has_a_bound_and_the_oldest_goes() {
        let buffers = Buffers::new(ByteSize::mib(2));
        let all = [buffers.take(LEN), buffers.take(LEN), buffers.take(LEN)];
        let last = all[2].as_ptr();
        drop(all);
        assert_eq!(buffers.free(), 2 * LEN);
        assert_eq!(buffers.take(LEN).as_ptr(), last);
        let none = Buffers::default();
        drop(none.take(LEN));
        assert_eq!(none.free(), 0);
    }

    #[test]
    fn sizes_are_rounded_by_an_eighth_at_most() {
        for len in [SHARED_BYTES_MIN, SHARED_BYTES_MIN + 1, 100_000, LEN - 1, LEN, LEN + 1, 5_600_000] {
            let size = rounded(len);
            assert!((len..=len + len / 8).contains(&size), "{len}: {size}");
        }
    }
}
