//! Sealed batches as a sink sees them: a name that never changes, and bytes that never change.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{Piece, Timestamp};

/// Names a sealed batch: 128 random bits, drawn once at the seal and kept through every attempt and restart.
///
/// Written as a lower-case UUID: in object keys, request ids and document ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(Uuid);

impl BatchId {
    /// The id made of 16 random bytes; version and variant bits are set as a version 4 UUID has them.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The id with exactly these bytes, as read from disk.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes, as written to disk.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BatchId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// Bytes that lie somewhere else, read in parts. A batch body is sent from its file this way, so no attempt needs
/// the whole of it in memory.
#[async_trait]
pub trait Blob: Send + Sync + fmt::Debug {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads up to `len` bytes from `offset`; fewer only at the end. Cancel safe: a dropped read leaves nothing.
    ///
    /// # Errors
    /// When the bytes cannot be read, or are not the bytes that were written.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

/// A named object whose bytes are final.
#[derive(Clone, Debug)]
pub struct Object {
    /// The batch whose bytes these are.
    pub batch: BatchId,
    /// Where it goes: the full key inside the store, UTF-8, at most 1,024 bytes, no leading slash.
    pub key: String,
    /// The `Content-Type` to store with it.
    pub content_type: String,
    /// The `Content-Encoding` to store with it, if the bytes are compressed.
    pub content_encoding: Option<String>,
    /// More to store with it, as `x-amz-meta-*` or its like: lower-case ASCII names, visible ASCII values.
    pub metadata: Vec<(String, String)>,
    /// The bytes.
    pub body: Arc<dyn Blob>,
}

/// Pieces that travel in one request. The same batch has the same id and `sealed_at` in each attempt; an attempt
/// after the first may carry fewer pieces, never others.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// The pieces still owed, each with its ordinal in the batch as sealed, ascending.
    pub pieces: Vec<(u32, Piece)>,
}
