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

mod reader;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hydrant_core::{ByteSize, Clock, Position, Span};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::files::Files;
use crate::space::Share;
use crate::timing::{Histogram, Timings};
pub(crate) use check::{Checked, Damage, Known, check};
use commit::{Committer, Pending, Round};
pub use committers::Committers;
use committers::Pool;
use frame::Draft;
use rack::{ForgetError, Rack};
pub use reader::{Frame, ReadError, Reader, Slice};
use recover::Recovered;

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
    #[error("segment {path} has layout {version}, and this program knows {} only", segment::VERSION)]
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
}

impl Options {
    /// The usual sizes: segments of 1 MiB doubling to 64 MiB, a queue of 16 MiB (four of the largest requests that
    /// the service takes). Positions are those of a new stream.
    pub const fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            floor: Position::FIRST,
            forgotten: Position::ZERO,
            segment_bytes_first: ByteSize::mib(1),
            segment_bytes_max: ByteSize::mib(64),
            queue_bytes_max: ByteSize::mib(16),
            salt_seed: None,
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
        let end = lists.end;
        let committer = Committer::new(options, salt_seed, Arc::clone(&clock), end, next);
        let queue_bytes_max = u32::try_from(options.queue_bytes_max.get()).unwrap_or(u32::MAX);
        let shared = Shared {
            rack: Rack::new(dir.to_owned(), files, share, lists),
            clock,
            pool: committers.pool(),
            room: Arc::new(Semaphore::new(queue_bytes_max as usize)),
            queue_bytes_max,
            segment_bytes_first: options.segment_bytes_first.get(),
            queue: Mutex::default(),
            committer: Mutex::new(committer),
            progress: watch::Sender::new(Progress { end, closed: false }),
            times: Timings::default(),
        };
        let log = Self { shared: Arc::new(shared) };
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
        self.shared.append(payloads).await
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

    /// One past the last durable record.
    pub fn end(&self) -> Position {
        self.shared.progress.borrow().end
    }

    /// Puts away whole segments whose records all lie below `upto`, because every lane's durable checkpoint has
    /// passed it. On return they do not come back. Blocks.
    ///
    /// # Errors
    /// When the disk does not do it. What is left is tried again with the next call; a failed sync poisons the log.
    pub fn forget(&self, upto: Position) -> io::Result<()> {
        self.shared.forget(upto)
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

/// What all handles of a log share.
#[derive(Debug)]
pub(crate) struct Shared {
    rack: Rack,
    clock: Arc<dyn Clock>,
    pool: Arc<Pool>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    queue_bytes_max: u32,
    segment_bytes_first: u64,
    queue: Mutex<Queue>,
    /// Locked only by the one thread that serves this log.
    committer: Mutex<Committer>,
    progress: watch::Sender<Progress>,
    times: Timings,
}

/// What waits to be written. Bounded by `room`.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Pending>,
    /// Whether the log is in the pool or being served.
    scheduled: bool,
    gate: Gate,
}

/// Whether the log takes records.
#[derive(Clone, Debug, Default)]
enum Gate {
    #[default]
    Open,
    Closed,
    Poisoned(String),
}

impl Gate {
    fn check(&self) -> Result<(), AppendError> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(AppendError::Closed),
            Self::Poisoned(why) => Err(AppendError::Poisoned(why.clone())),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    end: Position,
    closed: bool,
}

impl Shared {
    async fn append(self: &Arc<Self>, payloads: Payloads) -> Result<Span, AppendError> {
        if payloads.lengths.is_empty() {
            self.queue().gate.check()?;
            return Ok(Span::new(self.progress.borrow().end, 0));
        }
        let max = ByteSize::bytes(self.queue_bytes_max.into());
        let bytes = ByteSize::bytes(frame::bytes_of(&payloads));
        let too_large = AppendError::TooLarge { bytes, max };
        let Some(permits) = u32::try_from(bytes.get()).ok().filter(|bytes| *bytes <= self.queue_bytes_max) else {
            return Err(too_large);
        };
        let draft = Draft::new(payloads, self.clock.now()).ok_or(too_large)?;
        let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(permits).await else {
            return Err(self.queue().gate.check().err().unwrap_or(AppendError::Closed));
        };
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending { draft, answer, permit })?;
        // Dropped without a word only when a round panicked.
        answered.await.unwrap_or_else(|_| Err(AppendError::Unknown("the commit thread failed".to_owned())))
    }

    fn enqueue(self: &Arc<Self>, pending: Pending) -> Result<(), AppendError> {
        let mut queue = self.queue();
        queue.gate.check()?;
        queue.waiting.push(pending);
        if std::mem::replace(&mut queue.scheduled, true) {
            return Ok(());
        }
        drop(queue);
        if self.pool.push(Arc::clone(self)) {
            return Ok(());
        }
        self.shut(Gate::Closed);
        self.queue().waiting.clear();
        Err(AppendError::Closed)
    }

    /// Stores what waits. Called by one thread at a time; says whether more has come meanwhile.
    pub(crate) fn round(&self) -> bool {
        let waiting = std::mem::take(&mut self.queue().waiting);
        if let Round::Poisoned(why) = self.commit(waiting) {
            self.shut(Gate::Poisoned(why));
        }
        let mut queue = self.queue();
        queue.scheduled = !queue.waiting.is_empty();
        queue.scheduled
    }

    fn commit(&self, waiting: Vec<Pending>) -> Round {
        let poisoned = match &self.queue().gate {
            Gate::Poisoned(why) => Some(why.clone()),
            Gate::Open | Gate::Closed => None,
        };
        if let Some(why) = poisoned {
            return commit::refuse(waiting, why);
        }
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let published = |end| self.progress.send_modify(|progress| progress.end = end);
        let round = || {
            let round = committer.round(waiting, &self.rack, &self.times, &published);
            match round {
                Round::Done if self.queue().waiting.is_empty() => match committer.mark() {
                    Ok(()) => Round::Done,
                    Err(error) => Round::Poisoned(error.to_string()),
                },
                round => round,
            }
        };
        // A panic is a bug of ours. It must not take the thread from the other logs, nor leave this one half-written.
        catch_unwind(AssertUnwindSafe(round))
            .unwrap_or_else(|_| Round::Poisoned("the commit round panicked".to_owned()))
    }

    fn forget(&self, upto: Position) -> io::Result<()> {
        if let Gate::Poisoned(why) = &self.queue().gate {
            return Err(io::Error::other(format!("log is poisoned: {why}")));
        }
        self.rack.forget(upto, self.segment_bytes_first).map_err(|error| match error {
            ForgetError::Later(error) => error,
            ForgetError::Unsure(error) => {
                self.shut(Gate::Poisoned(error.to_string()));
                error
            }
        })
    }

    /// Takes nothing any more. What was shut stays as it was shut.
    fn shut(&self, gate: Gate) {
        let closed = matches!(gate, Gate::Closed);
        {
            let mut queue = self.queue();
            if matches!((&queue.gate, &gate), (Gate::Open, _) | (Gate::Closed, Gate::Poisoned(_))) {
                if let Gate::Poisoned(why) = &gate {
                    tracing::error!(dir = %self.rack.dir.display(), error = why, "log is poisoned");
                }
                queue.gate = gate;
            }
        }
        self.room.close();
        if closed {
            self.progress.send_modify(|progress| progress.closed = true);
        }
    }

    fn usage(&self) -> Usage {
        let rack::Held { bytes, spare_bytes, records, segments } = self.rack.held();
        let poisoned = match &self.queue().gate {
            Gate::Poisoned(why) => Some(why.clone()),
            Gate::Open | Gate::Closed => None,
        };
        Usage { bytes, spare_bytes, records, segments, syncs: self.times.read(), poisoned }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that nobody outside can guess, from the keys that the standard library draws from the system.
fn random_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}
