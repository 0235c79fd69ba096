//! Decoding: the bytes of an object as stored, back to the raw bytes that went in.
//!
//! In: the stored bytes as a stream of parts, and caps. Out: raw bytes, a buffer at a time, and how many bytes and
//! records they were. What the object was compressed with is told by its first bytes, whatever it is called.
//!
//! ```text
//!   parts ── first bytes: gzip, zstd, neither? ── decoder ── caps ──> raw bytes, counted
//! ```
//!
//! Holds a part, a buffer and the decoder's window (32 KiB for gzip, up to 128 MiB for zstd frames of other writers),
//! never the object. Undoes one layer only: records that a producer compressed itself stay as they were put.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hydrant_core::{Blob, ByteSize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

/// How far decoding may go: the guard against small objects that claim to be huge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most raw bytes.
    pub bytes_max: ByteSize,
    /// Most raw bytes per stored byte. Not looked at before [`RATIO_FROM`], as small objects may compress to nearly
    /// nothing.
    pub ratio_max: u64,
}

impl Caps {
    /// For objects that this program may have written itself: eight times the largest buffer, and more than gzip can
    /// compress (1,032 times).
    pub const OBJECT: Self = Self { bytes_max: ByteSize::gib(1), ratio_max: 2_000 };
}

/// Raw bytes from which on the ratio counts.
pub const RATIO_FROM: ByteSize = ByteSize::mib(1);

/// What an object is compressed with, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Neither of the others: the bytes are what they are.
    None,
    /// Gzip members.
    Gzip,
    /// Zstd frames.
    Zstd,
}

/// The longest of the magic numbers.
const MAGIC_BYTES: usize = 4;

impl Codec {
    /// Tells by the first bytes, of which four are enough. Sources: RFC 1952 (with deflate, its only method), RFC 8878.
    pub fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Why an object could not be decoded any further. What was given out before is good as far as it goes, but its
/// checksum was not seen.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stored bytes could not be read.
    #[error("the object cannot be read")]
    Unreadable(#[source] io::Error),
    /// They are not what their beginning promised, or end too early.
    #[error("the object is not whole {codec} data")]
    Damaged {
        /// What it began as.
        codec: Codec,
        /// What is wrong.
        source: io::Error,
    },
    /// More raw bytes than the caps allow.
    #[error("the object holds more than {0}")]
    TooLarge(ByteSize),
    /// More raw bytes per stored byte than the caps allow.
    #[error("the object claims to be more than {0} times its stored size")]
    TooDense(u64),
}

/// What was decoded so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Raw bytes.
    pub bytes: u64,
    /// Lines: the number of records of an object whose records end with a line feed and hold no other. A last line
    /// without one counts too.
    pub records: u64,
}

/// An object being decoded.
pub struct Decoder {
    codec: Codec,
    caps: Caps,
    reader: Pin<Box<dyn AsyncRead + Send>>,
    stored: Arc<AtomicU64>,
    bytes: u64,
    line_feeds: u64,
    in_line: bool,
    beyond_cap: bool,
}

/// Raw bytes that are given out at a time, at most.
const BUFFER_BYTES: usize = 64 << 10;

impl Decoder {
    /// Looks at the first bytes of an object and makes ready to decode the rest.
    ///
    /// # Errors
    /// When the first bytes cannot be read.
    pub async fn open<S>(parts: S, caps: Caps) -> Result<Self, DecodeError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let stored = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&stored);
        let count = move |part: &Bytes| {
            counted.fetch_add(part.len() as u64, Ordering::Relaxed);
        };
        let mut parts = Box::pin(parts.inspect_ok(count).map_err(SourceError::wrap));
        let mut first = BytesMut::new();
        while first.len() < MAGIC_BYTES {
            match parts.try_next().await {
                Ok(Some(part)) => first.extend_from_slice(&part),
                Ok(None) => break,
                Err(error) => return Err(explain(error, Codec::None)),
            }
        }
        let codec = Codec::of(&first);
        let source = StreamReader::new(stream::iter([Ok(first.freeze())]).chain(parts));
        let reader: Pin<Box<dyn AsyncRead + Send>> = match codec {
            Codec::None => Box::pin(source),
            Codec::Gzip => {
                let mut decoder = GzipDecoder::new(source);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Codec::Zstd => {
                let mut decoder = ZstdDecoder::new(source);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        };
        Ok(Self { codec, caps, reader, stored, bytes: 0, line_feeds: 0, in_line: false, beyond_cap: false })
    }

    /// What the object is compressed with.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// What was given out so far.
    pub fn tally(&self) -> Tally {
        Tally { bytes: self.bytes, records: self.line_feeds + u64::from(self.in_line) }
    }

    /// The next raw bytes, at most 64 KiB of them; none at the end, after all checksums were found right.
    ///
    /// When a cap is passed, what lies below the cap is given out first. Cancel safe: what was read is either given
    /// out or still to come.
    ///
    /// # Errors
    /// See [`DecodeError`]. The error comes again when asked again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.beyond_cap {
            return Err(DecodeError::TooLarge(self.caps.bytes_max));
        }
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let read = self.reader.read_buf(&mut buffer).await.map_err(|error| explain(error, self.codec))?;
        if read == 0 {
            return Ok(None);
        }
        let room = usize::try_from(self.caps.bytes_max.get().saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        self.beyond_cap = read > room;
        if room == 0 {
            return Err(DecodeError::TooLarge(self.caps.bytes_max));
        }
        buffer.truncate(room);
        self.count(&buffer);
        let stored = self.stored.load(Ordering::Relaxed);
        if self.bytes > RATIO_FROM.get() && self.bytes / self.caps.ratio_max.max(1) > stored {
            return Err(DecodeError::TooDense(self.caps.ratio_max));
        }
        Ok(Some(buffer.freeze()))
    }

    fn count(&mut self, raw: &[u8]) {
        self.bytes += raw.len() as u64;
        self.line_feeds += raw.iter().map(|&byte| u64::from(byte == b'\n')).sum::<u64>();
        self.in_line = raw.last().is_some_and(|&byte| byte != b'\n');
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("codec", &self.codec).field("tally", &self.tally()).finish_non_exhaustive()
    }
}

/// An error of the source, marked so that it is still known behind the decoder.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SourceError(io::Error);

impl SourceError {
    fn wrap(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }
}

fn explain(error: io::Error, codec: Codec) -> DecodeError {
    match error.downcast::<SourceError>() {
        Ok(SourceError(error)) => DecodeError::Unreadable(error),
        Err(source) => DecodeError::Damaged { codec, source },
    }
}

/// Bytes that are read from a blob at a time. Large enough that a store is asked seldom.
const PART_BYTES: usize = 1 << 20;

/// The bytes of a blob, from its start to its end, as a stream of parts.
pub fn parts_of(blob: Arc<dyn Blob>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((blob, 0), |(blob, offset)| async move {
        if offset >= blob.len() {
            return Ok(None);
        }
        let part = blob.read_at(offset, PART_BYTES).await?;
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let next = offset + part.len() as u64;
        Ok(Some((part, (blob, next))))
    })
}

#[cfg(test)]
mod tests;
