//! Bodies for the checks: bytes at hand, a read that never ends, a read that fails.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::Blob;
use tokio::sync::Notify;

/// Bytes in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlob(pub Bytes);

#[async_trait]
impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(io::Error::other)?.min(self.0.len());
        Ok(self.0.slice(start..start.saturating_add(len).min(self.0.len())))
    }
}

/// Bytes of which some reads succeed and the next one never ends.
#[derive(Debug)]
pub struct StallingBlob {
    bytes: MemoryBlob,
    reads_left: AtomicUsize,
    stalled: Notify,
}

impl StallingBlob {
    /// Stalls after `reads` reads.
    pub fn after(reads: usize, bytes: Bytes) -> Self {
        Self { bytes: MemoryBlob(bytes), reads_left: AtomicUsize::new(reads), stalled: Notify::new() }
    }

    /// Resolves once a read stalls.
    pub async fn stalled(&self) {
        self.stalled.notified().await;
    }
}

#[async_trait]
impl Blob for StallingBlob {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = self.reads_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err() {
            self.stalled.notify_one();
            std::future::pending::<()>().await;
        }
        self.bytes.read_at(offset, len).await
    }
}

/// Bytes of which some reads succeed and the others fail.
#[derive(Debug)]
pub struct UnreadableBlob {
    bytes: MemoryBlob,
    reads_left: AtomicUsize,
}

impl UnreadableBlob {
    /// Fails after `reads` reads.
    pub fn after(reads: usize, bytes: Bytes) -> Self {
        Self { bytes: MemoryBlob(bytes), reads_left: AtomicUsize::new(reads) }
    }
}

#[async_trait]
impl Blob for UnreadableBlob {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = self.reads_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.bytes.read_at(offset, len).await,
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "checksum differs")),
        }
    }
}
