//! Ledger: what was sealed, answered, redirected, settled and lost in one lane, and a checkpoint of it.
//!
//! In: entries, appended before what relies on them is done. Out, after a restart: a [`Checkpoint`] with all of
//! them applied.
//!
//! ```text
//!   append:      one frame, one write, one fdatasync into room that was allocated before
//!   checkpoint:  N+1.tmp ─> fsync ─> rename to N+1.ledger ─> fsync folder ─> unlink N.ledger
//!   open:        the highest number counts; a torn tail is cut, damage is an error
//! ```
//!
//! The arithmetic of what is still needed from the log lives with its user; this is the file and its recovery. A
//! ledger has one owner, makes no decision, and never retries a failed write.

mod checkpoint;
mod entry;
mod format;
mod recovery;

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_core::Clock;

pub use self::checkpoint::{BatchState, Checkpoint, Contradiction, GivenBack};
pub use self::entry::{Answers, Entry, Refusal, Refused, Stage};
pub use self::format::Damage;
pub use self::recovery::{DamagedBatch, Recovery};

use self::format::{FILE_BYTES_MAX, Scanned};
use crate::crash::{self, Point};
use crate::files::{File, Files};
use crate::folder::Folder;
use crate::space::{Claim, NoSpace, Share, is_full, on_disk};
use crate::timing::Histogram;

const LEDGER: &str = ".ledger";
const TEMPORARY: &str = ".tmp";

/// Room is allocated in steps of this many bytes: a thousand entries, so that allocation is rare and an idle ledger
/// small.
const STEP_BYTES: u64 = 64 << 10;

/// Room kept free behind the last entry for what lets batches go, beside [`RESERVE_BYTES_PER_BATCH`].
const RESERVE_BYTES: u64 = 64 << 10;

/// Room kept free for each batch that is owed: a `Settled` in a frame of its own takes 37 bytes.
const RESERVE_BYTES_PER_BATCH: u64 = 64;

/// The ledger of one lane. Calls block.
#[derive(Debug)]
pub struct Ledger {
    folder: Folder,
    share: Arc<Share>,
    current: Current,
    /// Batches that are sealed and not settled.
    owed: u64,
    /// Bytes of older files that could not be unlinked.
    stray: u64,
    cut_bytes: u64,
}

/// The file that is appended to.
#[derive(Debug)]
struct Current {
    file: Arc<dyn File>,
    number: u64,
    /// Number of the next frame.
    sequence: u64,
    /// Where the checkpoint ends.
    checkpoint_end: u64,
    /// Where the next frame goes.
    end: u64,
    /// How much of the file has room on the disk.
    allocated: u64,
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused. Another try may pass.
    #[error("open ledger {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A write or an fsync failed, so a later one proves nothing. Only another process may open it again.
    #[error("open ledger {}: write or fsync: {source}", path.display())]
    Unsure {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// There is no room for a new ledger.
    #[error("open ledger {}: {source}", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Whose limit was reached.
        source: NoSpace,
    },
    /// The ledger is not what was written. What is owed cannot be told, so nothing may be sent or forgotten before
    /// an operator has looked.
    #[error("ledger {} is damaged at byte {offset}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
}

impl OpenError {
    /// Whether only another process may try again.
    pub const fn is_poison(&self) -> bool {
        matches!(self, Self::Unsure { .. })
    }
}

/// Why entries were not stored. They were not, unless `Poisoned`: then they may be found at the next open.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No room. Try again when something was freed; nothing is poisoned. Never the answer to a `Settled` on a file
    /// system that keeps what it allocated.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// More in one call than a ledger file may hold.
    #[error("{bytes} bytes are too much for a ledger file")]
    TooLarge {
        /// How much.
        bytes: usize,
    },
    /// The disk gave no room, for another reason than being full. Another try may pass.
    #[error("make room for the ledger: {0}")]
    NotAllocated(#[source] io::Error),
    /// A write or an fsync failed, now or earlier. Only a restart helps.
    #[error("ledger is poisoned by a write error: {0}")]
    Poisoned(#[source] Arc<io::Error>),
}

impl Ledger {
    /// Opens the ledger in `dir`, or makes an empty one. Gives the last checkpoint with all later entries applied;
    /// what it says is durable.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        dir: &Path,
        files: Arc<dyn Files>,
        clock: Arc<dyn Clock>,
        share: Arc<Share>,
    ) -> Result<(Self, Checkpoint), OpenError> {
        let fail = |source| OpenError::Io { path: dir.to_owned(), source };
        let folder = Folder::new(dir.to_owned(), files, clock);
        folder.make().map_err(|source| OpenError::Unsure { path: dir.to_owned(), source })?;
        let names = folder.files.list(dir).map_err(fail)?;
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            folder.remove(name).map_err(fail)?;
        }
        match names.iter().filter_map(|name| number_of(name)).max() {
            Some(number) => Self::recover(folder, share, &names, number),
            None => Self::start(folder, share),
        }
    }

    /// A ledger that never was.
    fn start(folder: Folder, share: Arc<Share>) -> Result<(Self, Checkpoint), OpenError> {
        let state = Checkpoint::default();
        let current = write_file(&folder, &share, 1, &state).map_err(|error| {
            let path = folder.dir.clone();
            match error {
                LedgerError::NoSpace(source) => OpenError::NoSpace { path, source },
                LedgerError::Poisoned(source) => OpenError::Unsure { path, source },
                other => OpenError::Io { path, source: io::Error::other(other) },
            }
        })?;
        Ok((Self { folder, share, current, owed: 0, stray: 0, cut_bytes: 0 }, state))
    }

    /// The ledger of the file with this number; older ones were replaced by it.
    fn recover(
        folder: Folder,
        share: Arc<Share>,
        names: &[String],
        number: u64,
    ) -> Result<(Self, Checkpoint), OpenError> {
        let path = folder.path(&file_name(number));
        let fail = |source| OpenError::Io { path: path.clone(), source };
        let file = folder.files.open(&path).map_err(fail)?;
        let (bytes, scanned) = scan(&*file, &path, number)?;
        // What an earlier process wrote and could not sync any more is acted on only after this.
        let renewed = folder.poison.guard(renew(&*file, &bytes, &scanned));
        renewed
            .and_then(|()| folder.sync_file(&*file))
            .and_then(|()| folder.sync())
            .map_err(|source| OpenError::Unsure { path: path.clone(), source })?;
        for older in names.iter().filter(|name| number_of(name).is_some_and(|older| older < number)) {
            folder.remove(older).map_err(fail)?;
        }
        let allocated = on_disk(as_u64(bytes.len()));
        share.occupy(allocated);
        let current = Current {
            file,
            number,
            sequence: scanned.frames,
            checkpoint_end: as_u64(scanned.checkpoint_end),
            end: as_u64(scanned.end),
            allocated,
        };
        let owed = as_u64(scanned.state.owed().count());
        let cut_bytes = as_u64(scanned.torn_end - scanned.end);
        Ok((Self { folder, share, current, owed, stray: 0, cut_bytes }, scanned.state))
    }

    /// Appends entries, all or none. They are durable on return.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        self.folder.poison.check().map_err(LedgerError::Poisoned)?;
        if entries.is_empty() {
            return Ok(());
        }
        let body = format::entries(entries);
        let Current { number, sequence, end, .. } = self.current;
        let frame = format::frame(number, sequence, &body).ok_or(LedgerError::TooLarge { bytes: body.len() })?;
        let next = end + as_u64(frame.len());
        let owed = owed_after(self.owed, entries);
        match self.make_room(next + reserve(owed)) {
            // What owes no more than before may use what is kept: it lets a batch go, or leaves all as it was.
            Err(_) if owed <= self.owed => self.make_room(next)?,
            made => made?,
        }
        match self.current.file.write_at(end, &[IoSlice::new(&frame)]) {
            // Not every file system keeps what it allocated. The next append writes over it.
            Err(error) if is_full(&error) => return Err(self.share.disk_full(as_u64(frame.len())).into()),
            written => self.folder.poison.guard(written).map_err(LedgerError::Poisoned)?,
        }
        reach_written(entries);
        self.folder.sync_file(&*self.current.file).map_err(LedgerError::Poisoned)?;
        reach_recorded(entries);
        self.current.sequence += 1;
        self.current.end = next;
        self.owed = owed;
        Ok(())
    }

    /// Starts a new file with this state, which must hold every entry appended so far, and unlinks the old one. The
    /// state is durable on return.
    ///
    /// # Errors
    /// See [`LedgerError`]. After `NoSpace`, `TooLarge` and `NotAllocated` the old file goes on as if nothing had
    /// been asked.
    pub fn checkpoint(&mut self, state: &Checkpoint) -> Result<(), LedgerError> {
        self.folder.poison.check().map_err(LedgerError::Poisoned)?;
        let next = write_file(&self.folder, &self.share, self.current.number + 1, state)?;
        crash::reach(Point::CheckpointDurable);
        let old = std::mem::replace(&mut self.current, next);
        self.owed = as_u64(state.owed().count());
        match self.folder.remove(&file_name(old.number)) {
            Ok(()) => self.share.give(old.allocated),
            // It is not looked at any more, and the next open removes it.
            Err(_) => self.stray += old.allocated,
        }
        Ok(())
    }

    /// Bytes appended since the last checkpoint. The caller decides when the next one is due.
    pub fn grown(&self) -> u64 {
        self.current.end - self.current.checkpoint_end
    }

    /// Bytes of a torn tail that the open cut.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// How long fsyncs took.
    pub fn fsyncs(&self) -> Histogram {
        self.folder.fsyncs.read()
    }

    /// Makes sure that the file has room up to `wanted`.
    fn make_room(&mut self, wanted: u64) -> Result<(), LedgerError> {
        let Current { file, allocated, .. } = &self.current;
        if wanted <= *allocated {
            return Ok(());
        }
        let target = wanted.next_multiple_of(STEP_BYTES);
        let more = target - allocated;
        self.share.take(more, Claim::Owed)?;
        if let Err(error) = file.allocate(target) {
            self.share.give(more);
            return Err(not_allocated(error, &self.share, more));
        }
        self.current.allocated = target;
        Ok(())
    }
}

impl Drop for Ledger {
    /// The file stays; only the count of it ends with this handle.
    fn drop(&mut self) {
        self.share.give(self.current.allocated + self.stray);
    }
}

/// A new ledger file, durable under its name.
fn write_file(folder: &Folder, share: &Share, number: u64, state: &Checkpoint) -> Result<Current, LedgerError> {
    let body = state.encode();
    let frame = format::frame(number, 0, &body).ok_or(LedgerError::TooLarge { bytes: body.len() })?;
    let head = format::head(number, state);
    let end = as_u64(head.len() + frame.len());
    let allocated = on_disk(end + reserve(as_u64(state.owed().count())));
    let (temporary, name) = (format!("{}{TEMPORARY}", file_name(number)), file_name(number));
    share.take(allocated, Claim::Owed)?;
    let file = folder.create(&temporary).map_err(|error| {
        share.give(allocated);
        not_allocated(error, share, allocated)
    })?;
    let filled = file.allocate(allocated).and_then(|()| file.write_at(0, &[IoSlice::new(&head), IoSlice::new(&frame)]));
    match filled {
        Err(error) if is_full(&error) => {
            // One that cannot be removed goes uncounted until the next open removes it.
            drop(folder.remove(&temporary));
            share.give(allocated);
            return Err(share.disk_full(allocated).into());
        }
        filled => folder.poison.guard(filled).map_err(LedgerError::Poisoned)?,
    }
    crash::reach(Point::CheckpointWritten);
    let durable = || {
        folder.sync_file(&*file)?;
        crash::reach(Point::CheckpointSynced);
        folder.rename(&temporary, &name)?;
        crash::reach(Point::CheckpointNamed);
        folder.sync()
    };
    durable().map_err(LedgerError::Poisoned)?;
    Ok(Current { file, number, sequence: 1, checkpoint_end: end, end, allocated })
}

/// The crash points between the write of entries and their sync.
fn reach_written(entries: &[Entry]) {
    for entry in entries {
        match entry {
            Entry::Answered { .. } => crash::reach(Point::AnswerWritten),
            Entry::Buried { .. } => crash::reach(Point::BuryWritten),
            Entry::Settled { .. } => crash::reach(Point::SettleWritten),
            Entry::Redirected { .. } => crash::reach(Point::RedirectWritten),
            _ => {}
        }
    }
}

/// The crash points between the sync of entries and what relies on them, but for those that lie with what does.
fn reach_recorded(entries: &[Entry]) {
    for entry in entries {
        match entry {
            Entry::Answered { .. } => crash::reach(Point::AnswerRecorded),
            Entry::Buried { .. } => crash::reach(Point::BuryRecorded),
            _ => {}
        }
    }
}

fn not_allocated(error: io::Error, share: &Share, wanted: u64) -> LedgerError {
    if is_full(&error) { share.disk_full(wanted).into() } else { LedgerError::NotAllocated(error) }
}

/// Reads the newest ledger file in `dir` and writes nothing. `None` when there is none.
///
/// # Errors
/// As [`Ledger::open`].
pub(crate) fn verify(files: &dyn Files, dir: &Path) -> Result<Option<Scanned>, OpenError> {
    let fail = |source| OpenError::Io { path: dir.to_owned(), source };
    let names = files.list(dir).map_err(fail)?;
    let Some(number) = names.iter().filter_map(|name| number_of(name)).max() else {
        return Ok(None);
    };
    let path = dir.join(file_name(number));
    let file = files.open_read_only(&path).map_err(fail)?;
    scan(&*file, &path, number).map(|(_, scanned)| Some(scanned))
}

/// The bytes of the file, and what they say.
fn scan(file: &dyn File, path: &Path, number: u64) -> Result<(Vec<u8>, Scanned), OpenError> {
    let damaged = |offset, damage| OpenError::Damaged { path: path.to_owned(), offset: as_u64(offset), damage };
    let bytes = read_whole(file).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let bytes = bytes.ok_or_else(|| damaged(0, Damage::TooLarge))?;
    let scanned = format::scan(&bytes, number).map_err(|(offset, damage)| damaged(offset, damage))?;
    Ok((bytes, scanned))
}

/// Writes what was read once more, and zeros over a torn tail, so that nothing of it can ever be taken for a frame.
///
/// If an fsync failed in an earlier process, what it should have kept may still be read and yet never reach the
/// disk: the kernel takes it for clean. Written again, it is kept by the next fsync.
fn renew(file: &dyn File, bytes: &[u8], scanned: &Scanned) -> io::Result<()> {
    let zeros = vec![0; scanned.torn_end - scanned.end];
    let (believed, _) = bytes.split_at(scanned.end);
    file.write_at(0, &[IoSlice::new(believed), IoSlice::new(&zeros)])
}

/// The whole file; `None` when it is larger than a ledger gets.
fn read_whole(file: &dyn File) -> io::Result<Option<Vec<u8>>> {
    let len = file.len()?;
    let Some(len) = usize::try_from(len).ok().filter(|_| len <= FILE_BYTES_MAX) else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

const fn reserve(owed: u64) -> u64 {
    RESERVE_BYTES + RESERVE_BYTES_PER_BATCH * owed
}

fn owed_after(owed: u64, entries: &[Entry]) -> u64 {
    entries.iter().fold(owed, |owed, entry| match entry {
        Entry::Sealed { .. } | Entry::Buried { .. } => owed + 1,
        Entry::Settled { .. } => owed.saturating_sub(1),
        _ => owed,
    })
}

fn file_name(number: u64) -> String {
    format!("{number:016x}{LEDGER}")
}

/// The number of the ledger file of this name. Only the name that we would give it counts.
fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(LEDGER)?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
