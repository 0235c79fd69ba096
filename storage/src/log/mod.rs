//! The log of accepted records: the first of the two durable places on the road of a record.
//!
//! In: requests, each with its records. Out: their positions once they are on the disk; slices for packing to read.
//!
//! ```text
//!              ┌─────────────────────────── one stream ───────────────────────────┐
//!   append ──> │ queue ──> commit: write, sync ──> segments ──> reader            │ ──> slices
//!        <──── │ positions, when durable               │                          │
//!              │                                       └── forget: spare files    │ <── checkpoint
//!              └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Promises, in the order of their weight:
//!
//! 1. What was answered with positions is on the disk, whole, and is read back byte for byte in the order of
//!    positions, or reported as [`Lost`]. Never silently neither.
//! 2. A position names one record for ever. Gaps exist only where the log was reopened.
//! 3. A reader never sees what is not durable, nor bytes of an earlier use of a file.
//! 4. After a failed write or sync nothing more is taken; after a full disk, as soon as there is room.
//!
//! Knows nothing of what the records mean and never gives one back to the producer's side. Files and time come
//! through seams. The layout on disk is in `docs/formats/log.md`.

mod segment;

mod frame;

mod walk;

mod rack;

mod tail;

mod recover;

mod check;

mod commit;

mod committers;

mod shared;

mod recent;

mod reader;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{ByteSize, Clock, Position, Span};

use crate::buffers::Buffers;
use crate::files::Files;
use crate::redriven::{Origin, Redriven};
use crate::space::Share;
use crate::timing::Histogram;
pub(crate) use check::{Checked, Damage, Known, check, end};
use commit::Committer;
pub use committers::Committers;
use rack::Rack;
pub use reader::{Frame, ReadError, Reader, Slice};
use recover::Recovered;
use segment::Layout;
use shared::{Gate, Shared};

/// Bytes read at a time in search of redriven records.
const SLICE_BYTES: usize = 1 << 20;

/// Records to store together, all or none: their payloads one after the other, and the length of each.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    /// All payloads, one after the other.
    pub data: Bytes,
    /// The length of each payload, in order; their sum is the length of `data`.
    pub lengths: Vec<u32>,
}

/// Why an append was refused. Nothing was stored, except perhaps after [`Unknown`](Self::Unknown).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log holds as much as it may, or the disk is full. Producers should slow down and try again.
    #[error("log is full")]
    Full,
    /// The request is larger than the queue of the log; it will never be taken.
    #[error("request of {bytes} is larger than the {max} that a log takes at once")]
    TooLarge {
        /// What it would take in the log.
        bytes: ByteSize,
        /// The most that is taken.
        max: ByteSize,
    },
    /// No file could be made to write to, for a reason that may pass. The same may be tried again.
    #[error("no segment to write to: {0}")]
    Unavailable(String),
    /// An earlier write or sync failed, so later ones prove nothing. Only opening the log again helps.
    #[error("log is poisoned by an earlier write error: {0}")]
    Poisoned(String),
    /// The write or sync of these very records failed. They may be found when the log is opened again, or not.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The log was closed.
    #[error("log is closed")]
    Closed,
}

/// Why a log could not be opened. Nothing on the disk was changed, but for files without a use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk did not do what was asked.
    #[error("{act} {path}: {source}")]
    Io {
        /// What was to be done.
        act: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A segment has a layout that this program does not know. A newer version wrote it.
    #[error("segment {path} has layout {version}, and this program knows none above {}", segment::VERSION_MAX)]
    Version {
        /// The segment.
        path: String,
        /// Its layout.
        version: u32,
    },
    /// A segment belongs to another stream, or to an earlier one of the same name.
    #[error("segment {path} belongs to stream {found:016x}, not to {expected:016x}")]
    OtherStream {
        /// The segment.
        path: String,
        /// Whose it is.
        found: u64,
        /// Whose log this is.
        expected: u64,
    },
}

impl OpenError {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }
}

/// How a log is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which stream it belongs to; a recreated stream of the same name has another number.
    pub incarnation: u64,
    /// The lowest position that may be given next: one past the highest that the ledger or the outbox names.
    /// Everything below it is taken to have been durable once.
    pub floor: Position,
    /// Every record below is given up by all lanes, by their durable checkpoints. At least what
    /// [`Log::forget`] was ever called with, or forgotten records are reported as lost.
    pub forgotten: Position,
    /// Size of the first segment after an open; each later one is twice as large. An idle stream takes this much.
    pub segment_bytes_first: ByteSize,
    /// Size at which segments stop to grow. Larger ones are made rarely, smaller ones are forgotten sooner.
    pub segment_bytes_max: ByteSize,
    /// Most that may wait to be written. Also bounds one request.
    pub queue_bytes_max: ByteSize,
    /// Where salts are drawn from; random when `None`. Only a simulation gives it.
    pub salt_seed: Option<u64>,
    /// What readers read into.
    pub buffers: Buffers,
}

impl Options {
    /// The usual sizes: segments of 1 MiB doubling to 64 MiB, a queue of 16 MiB (four of the largest requests that
    /// the service takes). Positions are those of a new stream; memory is not used again.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            floor: Position::FIRST,
            forgotten: Position::ZERO,
            segment_bytes_first: ByteSize::mib(1),
            segment_bytes_max: ByteSize::mib(64),
            queue_bytes_max: ByteSize::mib(16),
            salt_seed: None,
            buffers: Buffers::default(),
        }
    }
}

/// An open log, and what was found when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// Records that are known to be gone, as far as opening finds out. For the log line at the start only: a
    /// [`Reader`] that comes by reports each of them, and damage in older segments too, which opening does not read.
    pub lost: Vec<Lost>,
}

/// Records that were acknowledged and cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which. Empty when it is not known whether anything is.
    pub span: Span,
    /// What happened to them.
    pub why: String,
}

/// What a log takes, and how its disk does.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Of these, bytes of files that wait to be used again.
    pub spare_bytes: u64,
    /// Records that are kept, gaps and damage counted in.
    pub records: u64,
    /// Files that hold them.
    pub segments: usize,
    /// How long each sync took; that of a new segment counts with its write and its name.
    pub syncs: Histogram,
    /// Why the log takes nothing any more, if so.
    pub poisoned: Option<String>,
}

/// The log of one stream: a cheap handle, all of which mean the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared.rack.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in this folder, or makes it. Reads the newest segment through, makes durable what it found, and
    /// takes no space. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] when the disk does not answer, or the files are not ours. Damage is no error.
    pub fn open(
        dir: &Path,
        options: &Options,
        files: Arc<dyn Files>,
        clock: Arc<dyn Clock>,
        share: Arc<Share>,
        committers: &Committers,
    ) -> Result<Opened, OpenError> {
        files.create_dir_all(dir).map_err(OpenError::io("make folder", dir))?;
        let Recovered { lists, next, lost, bytes } = recover::recover(dir, options, &*files)?;
        share.occupy(bytes);
        let salt_seed = options.salt_seed.unwrap_or_else(random_seed);
        let committer = Committer::new(options, salt_seed, Arc::clone(&clock), lists.end, next);
        let rack = Rack::new(dir.to_owned(), files, share, lists);
        let log = Self { shared: Shared::new(options, rack, committer, clock, committers) };
        log.forget(options.forgotten).map_err(OpenError::io("put away segments in", dir))?;
        Ok(Opened { log, lost })
    }

    /// Stores records. Resolves when they are durable, all of them, with their positions. Waits for room in the
    /// queue; no records at all are stored at once, and get an empty span.
    ///
    /// Not cancel safe: a call that is dropped may still store its records, as any request may whose answer was
    /// lost. Nothing else is harmed.
    ///
    /// # Errors
    /// See [`AppendError`].
    ///
    /// # Panics
    /// When the lengths do not add up to the data.
    pub async fn append(&self, payloads: Payloads) -> Result<Span, AppendError> {
        self.shared.append(payloads, None).await
    }

    /// As [`append`](Self::append), for dead letters that are put back: the log tells by [`Frame::origin`] and
    /// [`redriven`](Self::redriven) where they come from, as long as it has them.
    ///
    /// # Errors
    /// See [`AppendError`].
    ///
    /// # Panics
    /// When the lengths do not add up to the data, or the origin names another number of lines than there are records.
    pub async fn append_redriven(&self, payloads: Payloads, origin: &Origin) -> Result<Span, AppendError> {
        self.shared.append(payloads, Some(origin)).await
    }

    /// Where those of the durable records at or above `from` come from that were redriven. Reads only segments that may
    /// hold such, a slice at a time: none, as long as nothing was. Blocks.
    ///
    /// # Errors
    /// [`ReadError`] when the disk does not answer.
    pub fn redriven(&self, from: Position) -> Result<Redriven, ReadError> {
        let mut redriven = Redriven::default();
        for span in self.shared.rack.spans_of(Layout::Origins, from) {
            let mut reader = self.reader(span.first);
            while reader.position() < span.end {
                for Origin { object, ordinals, .. } in reader.next(SLICE_BYTES)?.redriven() {
                    redriven.add(*object, ordinals);
                }
            }
        }
        Ok(redriven)
    }

    /// A reader that starts at `from`, or at the first record that is still kept.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// Waits until a record at `position` or beyond is durable, or the log is closed: then it returns at once, for
    /// ever. Cancel safe: it holds nothing.
    pub async fn wait_beyond(&self, position: Position) {
        let mut progress = self.shared.progress.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        progress.wait_for(|now| now.end > position || now.closed).await.ok();
    }

    /// Waits until the log is poisoned; for ever if it never is. Cancel safe: it holds nothing.
    pub async fn wait_poisoned(&self) {
        let mut progress = self.shared.progress.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        progress.wait_for(|now| now.poisoned).await.ok();
    }

    /// One past the last durable record.
    pub fn end(&self) -> Position {
        self.shared.progress.borrow().end
    }

    /// The lowest position that a reader may still find a record at, forgotten or not: files are put away whole.
    pub fn first_kept(&self) -> Position {
        self.shared.rack.first_kept()
    }

    /// Puts away whole segments whose records all lie below `upto`, because every lane's durable checkpoint has
    /// passed it. On return they do not come back. Blocks.
    ///
    /// # Errors
    /// When the disk does not do it. What is left is tried again with the next call; a failed sync poisons the log.
    pub fn forget(&self, upto: Position) -> io::Result<()> {
        self.shared.forget(upto)
    }

    /// Removes the files that are kept for later segments: something else needs their room on the disk. Blocks.
    pub fn free_spares(&self) {
        self.shared.free_spares();
    }

    /// What the log takes now.
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// Refuses new appends from now on; those in the queue are still stored and answered. Readers go on.
    pub fn close(&self) {
        self.shared.shut(Gate::Closed);
    }
}

/// A number that nobody outside can guess, from the keys that the standard library draws from the system.
fn random_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}
