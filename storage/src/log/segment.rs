//! A segment: one file of the log, preallocated, used for one run of positions and then for another.
//!
//! In: the facts of its header; or the bytes of a file.
//! Out: the bytes of the header; or the facts; and the names that files of a log have.
//!
//! ```text
//!   0         2048       4096
//!   ┌─────────┬──────────┬───────┬───────┬──────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┐
//!   │ header  │ the same │ frame │ frame │ mark │ zeros, or an earlier life
//!   └─────────┴──────────┴───────┴───────┴──────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┘
//! ```
//!
//! A name that ends in `.log` is given only when the header under it is durable. So an unreadable header is damage,
//! never the trace of a crash; and what lies in a spare file is nobody's business.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BufMut;
use crc_fast::{CrcAlgorithm, checksum};
use hydrant_core::{Position, Timestamp};

use super::frame::{crc32, u32_at, u64_at};
use super::rack::Rack;
use crate::crash::{self, Point};
use crate::files::File;

/// Where the first frame starts.
pub(super) const FRAMES_START: u64 = 4096;

/// Where the second copy of the header lies: in another sector, so that one bad sector does not take a segment.
const COPY_AT: usize = 2048;

/// Bytes of one copy that mean something.
const HEADER_BYTES: usize = 60;

const MAGIC: [u8; 8] = *b"hydr-log";

/// Above every position that a log comes to, and every number of a spare file.
pub(super) const NUMBER_MAX: u64 = 1 << 60;

/// What the frames of a segment may be. Each layout holds what those before it do, so a segment has the lowest that will
/// do: a program that knows no other reads all logs into which nothing was redriven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// Records as producers put them, and marks.
    Plain,
    /// Beside them, records that were redriven, with where they come from.
    Origins,
}

impl Layout {
    const fn version(self) -> u32 {
        match self {
            Self::Plain => 1,
            Self::Origins => 2,
        }
    }

    const fn of(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::Plain),
            2 => Some(Self::Origins),
            _ => None,
        }
    }
}

/// The highest version that this program knows; it knows all below.
pub(super) const VERSION_MAX: u32 = Layout::Origins.version();

/// What stands in a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) layout: Layout,
    /// Which life of the stream wrote it.
    pub(super) incarnation: u64,
    /// Position of its first record.
    pub(super) base: Position,
    /// One past the last record before it. Below `base` only where the log was reopened in between.
    pub(super) previous_end: Position,
    /// Drawn anew at each use of the file; every frame's checksum depends on it.
    pub(super) salt: u64,
    /// Bytes that were allocated for the file. A shorter file has lost its end.
    pub(super) len: u64,
    pub(super) created_at: Timestamp,
}

/// What was found where a header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Header(Header),
    /// Written by another version of this program, with this layout.
    Foreign(u32),
    /// Neither copy is whole.
    Unreadable,
}

impl Header {
    /// The bytes before the first frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut one = Vec::with_capacity(COPY_AT);
        one.put_slice(&MAGIC);
        one.put_u32_le(self.layout.version());
        one.put_u64_le(self.incarnation);
        one.put_u64_le(self.base.get());
        one.put_u64_le(self.previous_end.get());
        one.put_u64_le(self.salt);
        one.put_u64_le(self.len);
        one.put_u64_le(self.created_at.as_millis());
        let crc = crc32(checksum(CrcAlgorithm::Crc32Iscsi, &one));
        one.put_u32_le(crc);
        one.resize(COPY_AT, 0);
        one.repeat(2)
    }

    /// What these bytes, the first of a file, say.
    pub(super) fn parse(bytes: &[u8]) -> Found {
        let copies = [bytes, bytes.get(COPY_AT..).unwrap_or_default()].map(Self::parse_copy);
        let whole = |copy: &Found| *copy != Found::Unreadable;
        copies.into_iter().find(whole).unwrap_or(Found::Unreadable)
    }

    fn parse_copy(bytes: &[u8]) -> Found {
        Self::try_parse_copy(bytes).unwrap_or(Found::Unreadable)
    }

    fn try_parse_copy(bytes: &[u8]) -> Option<Found> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        // Every layout keeps magic, version and this checksum in their places, so another one can be told by name.
        let covered = bytes.get(..HEADER_BYTES)?;
        if u32_at(bytes, HEADER_BYTES)? != crc32(checksum(CrcAlgorithm::Crc32Iscsi, covered)) {
            return None;
        }
        let version = u32_at(bytes, 8)?;
        let Some(layout) = Layout::of(version) else { return Some(Found::Foreign(version)) };
        Some(Found::Header(Self {
            layout,
            incarnation: u64_at(bytes, 12)?,
            base: Position::read(u64_at(bytes, 20)?)?,
            previous_end: Position::read(u64_at(bytes, 28)?)?,
            salt: u64_at(bytes, 36)?,
            len: u64_at(bytes, 44)?,
            created_at: Timestamp::from_millis(u64_at(bytes, 52)?),
        }))
    }
}

/// What a file in the folder of a log is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A segment that starts at this position.
    Segment(Position),
    /// A file without a use, kept because writing over it is faster than allocating.
    Spare(u64),
    /// A segment that was not finished when the process ended. Nothing was acknowledged in it.
    Unfinished,
    /// Not ours.
    Stranger,
}

impl Name {
    /// What this name says.
    pub(super) fn of(name: &str) -> Self {
        let Some((stem, ending)) = name.rsplit_once('.') else { return Self::Stranger };
        // Numbers that nobody reaches are not ours either; arithmetic further on need not think of them.
        let number = || stem.parse().ok().filter(|number| stem.len() == 20 && *number < NUMBER_MAX);
        match (ending, number()) {
            ("log", Some(base)) => Self::Segment(Position::new(base)),
            ("spare", Some(number)) => Self::Spare(number),
            ("new", Some(_)) => Self::Unfinished,
            _ => Self::Stranger,
        }
    }
}

/// The path of the segment that starts at `base`.
pub(super) fn path(dir: &Path, base: Position) -> PathBuf {
    dir.join(format!("{:020}.log", base.get()))
}

/// The path of a file that is no segment any more. The number is no position: the segment of an earlier life may
/// have started at the same one.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.spare"))
}

/// The path of a file that is to become a segment.
pub(super) fn unfinished_path(dir: &Path, base: Position) -> PathBuf {
    dir.join(format!("{:020}.new", base.get()))
}

/// A segment's file, open.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) layout: Layout,
    pub(super) base: Position,
    /// See [`Header::previous_end`].
    pub(super) previous_end: Position,
    /// `None` when the header is unreadable, and with it every frame.
    pub(super) salt: Option<u64>,
    /// Its length now, in bytes.
    pub(super) len: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

impl Segment {
    /// Writes the header over the start of `file`, makes it durable, and gives the file its name. On return the
    /// segment is there for good.
    ///
    /// The order is the point: header, sync, name, sync of the folder. Turned round, a crash could leave the name of
    /// the new segment on the records of an old one.
    pub(super) fn make(rack: &Rack, file: Arc<dyn File>, from: &Path, header: &Header) -> Result<Self, MakeError> {
        file.write_at(0, &[IoSlice::new(&header.encode())]).map_err(MakeError::Unsure)?;
        file.sync().map_err(MakeError::Unsure)?;
        crash::reach(Point::AppendHeaded);
        let path = path(&rack.dir, header.base);
        rack.files.rename(from, &path).map_err(MakeError::NotNamed)?;
        crash::reach(Point::AppendNamed);
        rack.sync_dir().map_err(MakeError::Unsure)?;
        let &Header { layout, base, previous_end, salt, len, .. } = header;
        Ok(Self { layout, base, previous_end, salt: Some(salt), len, path, file })
    }
}

/// Why a file did not become a segment.
#[derive(Debug)]
pub(super) enum MakeError {
    /// A write or a sync failed, so nothing that this folder says can be relied on.
    Unsure(io::Error),
    /// The file kept its old name; all else stands as before.
    NotNamed(io::Error),
}
