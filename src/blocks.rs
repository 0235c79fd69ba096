//! Blocks: the memory that records and object bytes lie in on their way from the log to the outbox.
//!
//! In: bytes, a few at a time. Out: the same bytes as parts to compress, write or send. All of it lies in pieces of one
//! size that go round and round, so what is held never grows beyond the most that was needed at once, and an
//! allocator has nothing to keep, split or give back. A buffer of five MiB that grows by doubling costs sixteen, and
//! what is freed of it stays with the process for a while.
//!
//! Never limits anybody: who may hold how much is for the [budget](crate::stream::budget) to say.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hydrant_core::ByteSize;

/// Bytes of a block. Small enough that a thousand streams with a record each hold 64 MiB, large enough that a block
/// costs nothing beside the bytes in it.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Where blocks come from and go back to. Cheap to clone.
#[derive(Clone)]
pub struct Blocks {
    home: Arc<Home>,
}

struct Home {
    free: Mutex<Vec<Vec<u8>>>,
    /// Most that are kept for the next user.
    most: usize,
}

/// One block. Dropping it gives it back.
struct Block {
    bytes: Vec<u8>,
    home: Arc<Home>,
}

/// Bytes that grow at their end, in blocks.
#[derive(Debug)]
pub struct Chain {
    blocks: Vec<Block>,
    len: usize,
    source: Blocks,
}

impl Blocks {
    /// Blocks of which `kept` bytes at most wait for their next user.
    pub fn new(kept: ByteSize) -> Self {
        let most = usize::try_from(kept.get()).unwrap_or(usize::MAX) / BLOCK_BYTES;
        Self { home: Arc::new(Home { free: Mutex::default(), most }) }
    }

    /// No bytes yet.
    pub fn chain(&self) -> Chain {
        Chain { blocks: Vec::new(), len: 0, source: self.clone() }
    }

    fn block(&self) -> Block {
        let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        Block { bytes, home: Arc::clone(&self.home) }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Blocks").field("free", &free).field("most", &self.home.most).finish()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.home.most {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            free.push(bytes);
        }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Chain {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How much memory they take: whole blocks.
    pub fn footprint(&self) -> u64 {
        (self.blocks.len() * BLOCK_BYTES) as u64
    }

    /// Adds `bytes` at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.write(|room| {
                let (now, later) = rest.split_at(rest.len().min(room.capacity() - room.len()));
                room.extend_from_slice(now);
                later
            });
        }
    }

    /// Lets `writer` add to the end, as far as the room of this vector goes, of which there is always some. It must
    /// not make it grow beyond that.
    ///
    /// # Panics
    /// When it did: the bytes would lie in memory that does not go round.
    pub fn write<T>(&mut self, writer: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.blocks.last().is_none_or(|block| block.bytes.len() == block.bytes.capacity()) {
            self.blocks.push(self.source.block());
        }
        let Some(Block { bytes, .. }) = self.blocks.last_mut() else { unreachable!("pushed above") };
        let (before, capacity) = (bytes.len(), bytes.capacity());
        let result = writer(bytes);
        assert!(bytes.capacity() == capacity, "a writer left its block");
        self.len = self.len - before + bytes.len();
        result
    }

    /// The bytes so far, for good; the chain is empty again.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.len = 0;
        std::mem::take(&mut self.blocks).into_iter().map(Bytes::from_owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(blocks: &Blocks) -> usize {
        blocks.home.free.lock().unwrap().len()
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let blocks = Blocks::new(ByteSize::mib(1));
        let mut chain = blocks.chain();
        let all: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        for part in all.chunks(100_001) {
            chain.extend(part);
        }
        assert_eq!((chain.len(), chain.footprint()), (1_200_000, 19 * BLOCK_BYTES as u64));
        assert!(chain.take().concat() == all);
        assert!(chain.is_empty() && chain.footprint() == 0 && chain.take().is_empty());
    }

    #[test]
    fn blocks_are_used_again_once_nobody_reads_them() {
        let blocks = Blocks::new(ByteSize::mib(1));
        let mut chain = blocks.chain();
        chain.extend(&[1; 3 * BLOCK_BYTES]);
        let parts = chain.take();
        let addresses: Vec<_> = parts.iter().map(|part| part.as_ptr()).collect();
        let last = parts[2].slice(10..20);
        drop(parts);
        assert_eq!(free(&blocks), 2, "a part of the third is still read");
        drop(last);
        chain.extend(&[2; 3 * BLOCK_BYTES]);
        assert_eq!(free(&blocks), 0);
        assert!(chain.take().iter().all(|part| addresses.contains(&part.as_ptr()) && part[..] == [2; BLOCK_BYTES]));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let blocks = Blocks::new(ByteSize::bytes(2 * BLOCK_BYTES as u64));
        let mut chain = blocks.chain();
        chain.extend(&[0; 5 * BLOCK_BYTES]);
        drop(chain);
        assert_eq!(free(&blocks), 2);
    }

    #[test]
    #[should_panic(expected = "left its block")]
    fn a_writer_that_makes_its_room_grow_is_a_bug() {
        Blocks::new(ByteSize::mib(1)).chain().write(|room| room.reserve(2 * BLOCK_BYTES));
    }
}
