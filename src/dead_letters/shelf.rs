//! Shelf: the dead letters of one stream, as they lie in its dead-letter store.
//!
//! In: names, a page at a time; objects, a part at a time. Out: the objects of this stream in the order of their keys, by
//! kind; and in each either lines that are dead letters, or the place that a whole object was meant for.
//!
//! An object is the stream's when the error prefix would name it so: the store may hold data, and dead letters of other
//! streams. Whether it went there whole is told by its metadata. Never writes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use hydrant_core::source::{Listed, Stored};
use hydrant_core::{ByteSize, Fault, FaultCode, ObjectSource};

use crate::config::spec::{SinkSpec, StreamSpec};
use crate::encode::decode::{Caps, DecodeError, Decoder, parts_of};
use crate::encode::intended::Intended;
use crate::encode::letter::Letter;
use crate::encode::name::{ErrorPrefix, ErrorType, Named, Prefix};
use crate::stream::letters::LETTERS_MAX;

/// Names asked of the store at a time. Source: S3 gives no more.
const PAGE: usize = 1000;

/// Longest line that is read: a record of 10 MiB, the largest that the service takes anywhere, as base64, with its message.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The dead letters of one stream.
#[derive(Clone)]
pub struct Shelf {
    source: Arc<dyn ObjectSource>,
    stream: String,
    error_prefix: ErrorPrefix,
    /// Of the stream's data objects, if it writes objects.
    prefix: Option<Prefix>,
    kinds: Vec<ErrorType>,
}

/// An object of dead letters, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// Its length in bytes, as stored.
    pub bytes: u64,
    /// What its key says.
    pub named: Named,
}

/// What an object of dead letters is.
pub enum Content {
    /// Records that were refused one by one.
    Letters(Letters),
    /// An object that could not be placed where it was meant to go.
    Whole(Whole),
    /// Neither: it has the name, but no line of it is a dead letter, and nothing says where it was meant to go.
    Unknown,
}

/// An object that could not be placed.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Where it was meant to go.
    pub intended: Intended,
    /// The object, with the metadata that it was sealed with.
    pub stored: Stored,
}

/// The lines of an object, one after the other.
pub struct Letters {
    decoder: Decoder,
    read: BytesMut,
    /// Where in `read` no end of a line was found yet.
    searched: usize,
    is_over: bool,
    next: u32,
}

/// One line: its number, from 0, and the letter. `None` where the line is none.
pub type Line = (u32, Option<Letter>);

/// Why dead letters could not be read any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store does not give them.
    #[error("{0}")]
    Store(#[from] Fault),
    /// The object is not what was written.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// More lines than Hydrant puts into an object.
    #[error("there are more than {LETTERS_MAX} lines")]
    TooManyLines,
    /// A line that nobody wrote.
    #[error("line {line} is longer than {}", ByteSize::bytes(LINE_BYTES_MAX as u64))]
    LineTooLong {
        /// Its number, from 1.
        line: u64,
    },
}

impl ReadError {
    /// Whether it lies in this one object, so that others may well be read: it is not what was written, or it is gone.
    pub fn is_of_object(&self) -> bool {
        match self {
            Self::Store(fault) => fault.code == FaultCode::NotFound,
            Self::Decode(error) => !matches!(error, DecodeError::Unreadable(_)),
            Self::TooManyLines | Self::LineTooLong { .. } => true,
        }
    }
}

impl Shelf {
    /// The dead letters of this stream, read from its dead-letter store.
    pub fn new(spec: &StreamSpec, source: Arc<dyn ObjectSource>) -> Self {
        let (prefix, of_sink) = match &spec.sink {
            SinkSpec::Objects(objects) => (Some(objects.prefix.clone()), None),
            SinkSpec::Pieces(pieces) => (None, Some(pieces.error_type)),
        };
        let mut kinds: Vec<ErrorType> =
            [ErrorType::DeliveryFailed, ErrorType::ProcessingFailed].into_iter().chain(of_sink).collect();
        kinds.sort_by_key(|kind| kind.as_str());
        kinds.dedup_by_key(|kind| kind.as_str());
        Self { source, stream: spec.name.clone(), error_prefix: spec.dead_letter.error_prefix.clone(), prefix, kinds }
    }

    /// All of its objects, a page of names in memory.
    pub fn walk(&self) -> Walk<'_> {
        Walk { shelf: self, kinds: self.kinds.iter(), kind: None, after: None, page: VecDeque::new() }
    }

    /// Opens an object and finds out what it is.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn open(&self, found: &Found) -> Result<Content, ReadError> {
        let mut stored = self.source.open(&found.key).await?;
        if let Some(intended) = Intended::take(&mut stored.metadata) {
            return Ok(Content::Whole(Whole { intended, stored }));
        }
        let mut letters = Letters::open(&stored).await?;
        Ok(if letters.begin_with_one().await? { Content::Letters(letters) } else { Content::Unknown })
    }

    /// Whether the stream itself would give a whole object the place that it says it was meant for. Whoever may write to the
    /// dead-letter store could ask for any other, and would get it written with our keys.
    pub fn is_meant_for(&self, found: &Found, intended: &Intended) -> bool {
        let named = self.prefix.as_ref().and_then(|prefix| prefix.read(&self.stream, &intended.key));
        named == Some(found.named)
    }

    fn found(&self, kind: ErrorType, Listed { key, len }: Listed) -> Option<Found> {
        let named = self.error_prefix.read(kind, &self.stream, &key)?;
        Some(Found { key, bytes: len, named })
    }
}

/// A walk over the objects of a shelf.
pub struct Walk<'a> {
    shelf: &'a Shelf,
    kinds: std::slice::Iter<'a, ErrorType>,
    /// The kind that is listed, and what its keys start with; none when the next is to be begun.
    kind: Option<(ErrorType, String)>,
    after: Option<String>,
    page: VecDeque<Found>,
}

impl Walk<'_> {
    /// The next object.
    ///
    /// # Errors
    /// What the store says. The same call may be made again.
    pub async fn next(&mut self) -> Result<Option<Found>, Fault> {
        loop {
            if let Some(found) = self.page.pop_front() {
                return Ok(Some(found));
            }
            if self.kind.is_none() {
                let Some(kind) = self.kinds.next() else { return Ok(None) };
                self.kind = Some((*kind, self.shelf.error_prefix.beginning(*kind)));
            }
            self.turn_page().await?;
        }
    }

    async fn turn_page(&mut self) -> Result<(), Fault> {
        let Some((kind, beginning)) = &self.kind else { return Ok(()) };
        let listed = self.shelf.source.list(beginning, self.after.as_deref(), PAGE).await?;
        let kind = *kind;
        self.after = listed.last().filter(|_| listed.len() == PAGE).map(|last| last.key.clone());
        if self.after.is_none() {
            self.kind = None;
        }
        self.page.extend(listed.into_iter().filter_map(|listed| self.shelf.found(kind, listed)));
        Ok(())
    }
}

impl Letters {
    async fn open(stored: &Stored) -> Result<Self, DecodeError> {
        let decoder = Decoder::open(parts_of(Arc::clone(&stored.body)), Caps::OBJECT).await?;
        Ok(Self { decoder, read: BytesMut::new(), searched: 0, is_over: false, next: 0 })
    }

    /// The next line.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Line>, ReadError> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let number = self.next;
        if u64::from(number) >= LETTERS_MAX {
            return Err(ReadError::TooManyLines);
        }
        self.next = self.next.saturating_add(1);
        Ok(Some((number, Letter::read(&line))))
    }

    /// Whether there is a dead letter in the first line, which stays the next one.
    async fn begin_with_one(&mut self) -> Result<bool, ReadError> {
        let line = match self.line().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(true),
            Err(ReadError::LineTooLong { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_letter = Letter::read(&line).is_some();
        let rest = self.read.split();
        self.read.extend_from_slice(&line);
        self.read.extend_from_slice(b"\n");
        self.read.extend_from_slice(&rest);
        self.searched = 0;
        Ok(is_letter)
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(at) = self.read.iter().skip(self.searched).position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + at).freeze();
                self.read.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.read.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(ReadError::LineTooLong { line: u64::from(self.next) + 1 });
            }
            if self.is_over {
                self.searched = 0;
                return Ok(Some(self.read.split().freeze()).filter(|line| !line.is_empty()));
            }
            match self.decoder.next().await? {
                Some(part) => self.read.extend_from_slice(&part),
                None => self.is_over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests;
