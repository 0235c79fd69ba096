//! Outbox: sealed batches that are owed to a destination, one file each.
//!
//! In: batches, each with its header and final bytes. Out: their bodies, as often as an attempt needs them.
//!
//! ```text
//!   seal:    take space ─> create ID.tmp ─> allocate ─> write ─> fsync ─> rename to ID.batch ─> fsync folder
//!   draft:   the same, but the body is written while it comes into being, and space is taken in steps
//!   settle:                                               unlink ID.batch ─> (later) fsync folder
//!   open:    remove *.tmp ─> fsync folder ─> read every header
//! ```
//!
//! The seal is the file: a batch exists when its name is durable, and not before. Bytes of a batch never change.
//! The outbox does not know what is settled (that is the ledger's), never renames or rewrites a batch, and never
//! retries a failed write: the first one poisons it for this process, while what lies in it can still be read.

mod body;
mod draft;
mod format;
mod header;
pub mod pieces;
mod reserve;
mod slip;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hydrant_core::{BatchId, Clock, Position, Timestamp};

pub use self::body::Body;
pub use self::draft::Draft;
pub use self::format::{BLOCK_BYTES, Damage, HEADER_BYTES_MAX};
pub use self::header::{Content, Header, Letters, SinkMark, Summary};

use self::body::Opened;
use self::format::{BlockCrcs, Head, as_u64};
use self::reserve::Reserve;
use crate::crash::{self, Point, Slip};
use crate::files::{File, Files};
use crate::folder::Folder;
use crate::space::{Claim, NoSpace, Share, is_full, on_disk};
use crate::timing::Histogram;

/// Most batches that may wait in one outbox. Each takes a block of disk or more, some half a kilobyte of memory, a place
/// in every checkpoint, and a read at the next start. At the default hints it is half a terabyte, or a year.
pub const BATCHES_MAX: usize = 100_000;

const BATCH: &str = ".batch";
const TEMPORARY: &str = ".tmp";

/// The sealed batches of one lane. Cheap to clone; calls may run at the same time on any threads. All of them
/// block.
#[derive(Clone, Debug)]
pub struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: Folder,
    share: Arc<Share>,
    reserve: Reserve,
    held: Mutex<Held>,
}

/// Batch files and what they take on the disk.
#[derive(Debug, Default)]
struct Held {
    bytes_of: BTreeMap<BatchId, u64>,
    bytes: u64,
    /// Seals under way.
    sealing: usize,
    /// Taken by files that are no batches: left over, set aside, or somebody else's.
    stray: u64,
}

/// Why an outbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused. Another try may pass.
    #[error("open outbox {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// An fsync failed, so a later one proves nothing. Only another process may open it again.
    #[error("open outbox {}: fsync: {source}", path.display())]
    Unsure {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
}

impl OpenError {
    /// Whether only another process may try again.
    pub const fn is_poison(&self) -> bool {
        matches!(self, Self::Unsure { .. })
    }
}

/// Why a batch was not sealed. It was not, unless `Poisoned`: then it may be found at the next open.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No room. Try again when something was freed; nothing is poisoned.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// As many batches wait as may. Try again when some were removed; nothing is poisoned.
    #[error("{batches} batches wait, as many as may")]
    Crowded {
        /// How many.
        batches: usize,
    },
    /// The header names more pieces than one may. Seal smaller batches.
    #[error("header of {bytes} bytes is too large")]
    HeaderTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The folder took no new file. Nothing was written; another try may pass.
    #[error("create batch file: {0}")]
    NotCreated(#[source] io::Error),
    /// A write or an fsync failed, now or earlier. Only a restart helps.
    #[error("outbox is poisoned by a write error: {0}")]
    Poisoned(#[source] Arc<io::Error>),
}

/// A file that an open found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A sealed batch. The blocks of its body are checked when they are read.
    Whole {
        /// What it is.
        summary: Summary,
        /// Length of its file.
        bytes: u64,
    },
    /// Something that is not what a seal wrote. It stays until it is removed.
    Damaged {
        /// Name of the file.
        name: String,
        /// The batch, by the name of the file.
        batch: Option<BatchId>,
        /// Length of its file.
        bytes: u64,
        /// What it is, if its header is whole.
        summary: Option<Summary>,
        /// What is wrong.
        why: String,
    },
}

impl Found {
    /// The batch that it is the file of, whole or not.
    pub fn batch(&self) -> Option<BatchId> {
        match self {
            Self::Whole { summary, .. } => Some(summary.batch),
            Self::Damaged { batch, .. } => *batch,
        }
    }
}

/// How full an outbox is and how its disk behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that all batch files take on the disk.
    pub bytes: u64,
    /// How many there are.
    pub batches: u64,
    /// How long fsyncs took: of files and of the folder.
    pub fsyncs: Histogram,
}

impl Outbox {
    /// Opens the outbox in `dir`, or makes an empty one. Removes what unfinished seals left, makes durable what it
    /// found, reads every header. What is found counts as used space, even above the limit.
    ///
    /// Found batches come in the order of their seals, as far as the wall clock tells; damaged files come last.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be read. A damaged file is no error but [`Found::Damaged`].
    pub fn open(
        dir: &Path,
        files: Arc<dyn Files>,
        clock: Arc<dyn Clock>,
        share: Arc<Share>,
    ) -> Result<(Self, Vec<Found>), OpenError> {
        let folder = Folder::new(dir.to_owned(), files, clock);
        folder.make().map_err(|source| OpenError::Unsure { path: dir.to_owned(), source })?;
        let reserve = Reserve::new(Arc::clone(&share));
        let inner = Inner { folder, share, reserve, held: Mutex::default() };
        let found = inner.recover()?;
        Ok((Self { inner: Arc::new(inner) }, found))
    }

    /// Seals a batch: on return its file is durable and may be sent. `body` is one run of bytes in parts.
    ///
    /// # Errors
    /// See [`SealError`].
    ///
    /// # Panics
    /// When this outbox holds the batch already: a bug of the caller.
    pub fn seal(&self, header: &Header, body: &[Bytes], claim: Claim) -> Result<(), SealError> {
        let inner = &*self.inner;
        inner.folder.poison.check().map_err(SealError::Poisoned)?;
        assert!(!inner.held().bytes_of.contains_key(&header.batch), "batch {} is sealed already", header.batch);
        let header_bytes = header.encode();
        if header_bytes.len() > HEADER_BYTES_MAX {
            return Err(SealError::HeaderTooLarge { bytes: header_bytes.len() });
        }
        let head = Head::new(&header_bytes, body.iter().map(|part| as_u64(part.len())).sum());
        let (start, table) = (head.encode(), head.table(&BlockCrcs::of(body)));
        let parts = [start.as_slice()].into_iter().chain(body.iter().map(|part| &**part));
        let parts: Vec<IoSlice<'_>> = parts.chain([table.as_slice(), &header_bytes]).map(IoSlice::new).collect();
        let bytes = head.file_bytes();
        inner.begin(claim)?;
        let sealed = inner
            .provide(header.raw_bytes.max(bytes), claim)
            .and_then(|()| inner.write(header.batch, &parts, bytes, claim));
        let mut counts = inner.held();
        counts.sealing -= 1;
        match &sealed {
            Ok(()) => counts.insert(header.batch, on_disk(bytes)),
            // Whatever lies there now stays until the next open.
            Err(SealError::Poisoned(_)) => counts.stray += on_disk(bytes),
            Err(_) => {}
        }
        drop(counts);
        sealed
    }

    /// Begins a batch whose body comes into being bit by bit. Nothing is written before its first bytes.
    pub fn draft(&self, batch: BatchId, claim: Claim) -> Draft {
        Draft::new(Arc::clone(&self.inner), batch, claim)
    }

    /// The body of a batch.
    ///
    /// # Errors
    /// When there is no such batch, when its file cannot be read, or, as [`io::ErrorKind::InvalidData`] around a
    /// [`Damage`], when it is not what was written.
    pub fn body(&self, batch: BatchId) -> io::Result<Body> {
        self.read(batch).map(|(_, body)| body)
    }

    /// Header and body of a batch, read again.
    ///
    /// # Errors
    /// As [`body`](Self::body).
    pub fn read(&self, batch: BatchId) -> io::Result<(Header, Body)> {
        let folder = &self.inner.folder;
        let slips = crash::slips(Slip::SendBeforeSeal);
        let name = if slips { slip::name_now(folder, batch) } else { file_name(batch) };
        match body::open(&*folder.files, &folder.path(&name), batch)? {
            Opened::Whole(header, body) => Ok((header, body)),
            Opened::Damaged(_, damage) => Err(damage.into()),
        }
    }

    /// Reads all of a batch's file, every block of its body, and says what it is: the last word before a batch is given
    /// up because an attempt met damage in it.
    ///
    /// # Errors
    /// When its file cannot be read, which says nothing of what is in it. One that is not there is damage.
    pub fn examine(&self, batch: BatchId) -> io::Result<Found> {
        let Folder { files, dir, .. } = &self.inner.folder;
        let name = file_name(batch);
        match inspect(&**files, dir, name.clone()).and_then(|file| with_body(&**files, dir, name.clone(), file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = "its file is missing".to_owned();
                Ok(Found::Damaged { name, batch: Some(batch), bytes: 0, summary: None, why })
            }
            examined => examined,
        }
    }

    /// Removes a batch's file. One that is not there is fine. Durable after [`sync`](Self::sync), and until then
    /// the next open may find it again.
    ///
    /// # Errors
    /// When the disk refuses; the file stays and another try may pass.
    pub fn remove(&self, batch: BatchId) -> io::Result<()> {
        let inner = &*self.inner;
        match inner.folder.remove(&file_name(batch)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        let freed = inner.held().remove(batch);
        inner.share.give(freed);
        Ok(())
    }

    /// Gives a damaged batch's file another name (`.damaged` behind its own), so that no later open takes it for a
    /// batch and a person can look at it. One that is not there is fine. Durable on return.
    ///
    /// # Errors
    /// When the disk refuses; the file keeps its name, or nobody knows which it has after a power cut.
    pub fn set_aside(&self, batch: BatchId) -> io::Result<()> {
        let name = file_name(batch);
        self.inner.folder.set_aside(&name, &format!("{name}.damaged"))?;
        let mut held = self.inner.held();
        held.stray += held.remove(batch);
        Ok(())
    }

    /// Makes all removals so far durable.
    ///
    /// # Errors
    /// When the fsync failed, now or earlier: the outbox is poisoned and nothing is known of any removal.
    pub fn sync(&self) -> io::Result<()> {
        let inner = &*self.inner;
        inner.folder.sync().map_err(io::Error::other)?;
        inner.reserve.restock(&inner.folder, || inner.held().is_empty());
        Ok(())
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let held = self.inner.held();
        Usage { bytes: held.bytes, batches: as_u64(held.bytes_of.len()), fsyncs: self.inner.folder.fsyncs.read() }
    }
}

impl Inner {
    /// Brings the folder in order and reads what is in it.
    fn recover(&self) -> Result<Vec<Found>, OpenError> {
        let path = || self.folder.dir.clone();
        let fail = |source| OpenError::Io { path: path(), source };
        let mut names = self.folder.files.list(&self.folder.dir).map_err(fail)?;
        names.retain(|name| !name.starts_with('.'));
        for name in names.extract_if(.., |name| name.ends_with(TEMPORARY)) {
            self.folder.remove(&name).map_err(fail)?;
        }
        let mut largest = 0;
        if names.extract_if(.., |name| name == reserve::NAME).next().is_some() {
            self.reserve.adopt(&self.folder).map_err(fail)?;
        }
        self.folder.sync().map_err(|source| OpenError::Unsure { path: path(), source })?;
        let mut found = Vec::new();
        for name in names {
            let file = inspect(&*self.folder.files, &self.folder.dir, name).map_err(fail)?;
            let (Found::Whole { bytes, .. } | Found::Damaged { bytes, .. }) = &file;
            let taken = on_disk(*bytes);
            self.share.occupy(taken);
            match file.batch() {
                Some(batch) => self.held().insert(batch, taken),
                None => self.held().stray += taken,
            }
            if let Found::Whole { summary, bytes } = &file {
                largest = largest.max(summary.raw_bytes).max(*bytes);
            }
            found.push(file);
        }
        // Without room for it, it is made later; a full disk can be opened and drained.
        self.reserve.provide(&self.folder, largest).ok();
        self.reserve.restock(&self.folder, || found.is_empty());
        found.sort_by_key(|found| match found {
            Found::Whole { summary, .. } => {
                (false, summary.sealed_at, summary.pieces.hull().first, Some(summary.batch))
            }
            Found::Damaged { batch, .. } => (true, Timestamp::default(), Position::ZERO, *batch),
        });
        Ok(found)
    }

    /// Counts a seal in, if another batch may wait. Dead letters and their like let others go, so they may always.
    fn begin(&self, claim: Claim) -> Result<(), SealError> {
        let mut held = self.held();
        let batches = held.bytes_of.len() + held.sealing;
        if claim == Claim::DataSeal && batches >= BATCHES_MAX {
            return Err(SealError::Crowded { batches });
        }
        held.sealing += 1;
        Ok(())
    }

    /// Makes sure that the dead letters which a batch of records of this size may give have room.
    fn provide(&self, bytes: u64, claim: Claim) -> Result<(), SealError> {
        if claim == Claim::DataSeal { self.reserve.provide(&self.folder, bytes) } else { Ok(()) }
    }

    /// From nothing to a durable file of this batch.
    fn write(&self, batch: BatchId, parts: &[IoSlice<'_>], bytes: u64, claim: Claim) -> Result<(), SealError> {
        let temporary = temporary_name(batch);
        let file = match self.allocated(&temporary, bytes, claim) {
            Err(SealError::NoSpace(full)) if claim == Claim::Owed => {
                self.reserve.turn_into(&self.folder, &temporary, bytes)?.ok_or(full)?
            }
            other => other?,
        };
        crash::reach(Point::SealAllocated);
        match file.write_at(0, parts) {
            // Not every file system keeps what it allocated. Nothing relies on this file yet, so this is no poison.
            Err(error) if is_full(&error) => {
                self.discard(&temporary, bytes);
                return Err(self.share.disk_full(bytes).into());
            }
            written => self.folder.poison.guard(written).map_err(SealError::Poisoned)?,
        }
        crash::reach(Point::SealWritten);
        self.make_durable(&*file, batch, claim).map_err(SealError::Poisoned)
    }

    /// From a finished temporary file to a batch.
    fn make_durable(&self, file: &dyn File, batch: BatchId, claim: Claim) -> Result<(), Arc<io::Error>> {
        let (synced, named) = match claim {
            Claim::Owed => (Point::BurySynced, Point::BuryNamed),
            Claim::Append | Claim::DataSeal => (Point::SealSynced, Point::SealNamed),
        };
        if crash::slips(Slip::SendBeforeSeal) {
            slip::name_later(&self.folder, batch);
            return Ok(());
        }
        self.folder.sync_file(file)?;
        crash::reach(synced);
        self.folder.rename(&temporary_name(batch), &file_name(batch))?;
        crash::reach(named);
        self.folder.sync()
    }

    /// A new file with room for `bytes` bytes, or nothing.
    fn allocated(&self, temporary: &str, bytes: u64, claim: Claim) -> Result<Arc<dyn File>, SealError> {
        self.share.take(on_disk(bytes), claim)?;
        let file = match self.folder.create(temporary) {
            Ok(file) => file,
            Err(error) => {
                self.share.give(on_disk(bytes));
                return Err(self.not_created(error, bytes));
            }
        };
        match file.allocate(bytes) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.discard(temporary, bytes);
                Err(self.not_created(error, bytes))
            }
        }
    }

    fn not_created(&self, error: io::Error, bytes: u64) -> SealError {
        if is_full(&error) { self.share.disk_full(bytes).into() } else { SealError::NotCreated(error) }
    }

    /// Removes an unfinished file. One that cannot be removed goes on counting; the next open removes it.
    fn discard(&self, temporary: &str, bytes: u64) {
        match self.folder.remove(temporary) {
            Ok(()) => self.share.give(on_disk(bytes)),
            Err(_) => self.held().stray += on_disk(bytes),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing between lock and unlock can panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    /// The files stay; only the count of them ends with this handle.
    fn drop(&mut self) {
        let bytes = {
            let held = self.held();
            held.bytes + held.stray
        };
        self.share.give(bytes);
    }
}

impl Held {
    /// Whether no batch is there or about to be.
    fn is_empty(&self) -> bool {
        self.bytes_of.is_empty() && self.sealing == 0
    }

    fn insert(&mut self, batch: BatchId, bytes: u64) {
        self.bytes_of.insert(batch, bytes);
        self.bytes += bytes;
    }

    /// How much that freed.
    fn remove(&mut self, batch: BatchId) -> u64 {
        let bytes = self.bytes_of.remove(&batch).unwrap_or(0);
        self.bytes -= bytes;
        bytes
    }
}

/// What the file of this name is. Writes nothing.
fn inspect(files: &dyn Files, dir: &Path, name: String) -> io::Result<Found> {
    let path = dir.join(&name);
    let Some(batch) = batch_of(&name) else {
        // It may be anything, a folder too; what can be told of its length counts as used.
        let bytes = files.open_read_only(&path).and_then(|file| file.len()).unwrap_or(0);
        let why = "not the name of a batch file".to_owned();
        return Ok(Found::Damaged { name, batch: None, bytes, summary: None, why });
    };
    let bytes = files.open_read_only(&path)?.len()?;
    Ok(match body::open(files, &path, batch)? {
        Opened::Whole(header, _) => Found::Whole { summary: header.into(), bytes },
        Opened::Damaged(header, why) => {
            let summary = header.map(Summary::from);
            Found::Damaged { name, batch: Some(batch), bytes, summary, why: why.to_string() }
        }
    })
}

/// Reads the whole outbox in `dir`, every block of every body, and writes nothing. A batch that is removed
/// meanwhile is left out.
///
/// # Errors
/// When the folder or a file cannot be read.
pub(crate) fn verify(files: &dyn Files, dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in files.list(dir)?.into_iter().filter(|name| !is_ours_but_no_batch(name)) {
        match inspect(files, dir, name.clone()).and_then(|file| with_body(files, dir, name, file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => found.push(file?),
        }
    }
    Ok(found)
}

fn is_ours_but_no_batch(name: &str) -> bool {
    name.starts_with('.') || name.ends_with(TEMPORARY) || name == reserve::NAME
}

/// The same, unless a block of the body is damaged.
fn with_body(files: &dyn Files, dir: &Path, name: String, file: Found) -> io::Result<Found> {
    let Found::Whole { summary, bytes } = file else {
        return Ok(file);
    };
    let damage = match body::open(files, &dir.join(&name), summary.batch)? {
        Opened::Damaged(_, damage) => Some(damage.to_string()),
        Opened::Whole(_, body) => body.verify()?,
    };
    Ok(match damage {
        None => Found::Whole { summary, bytes },
        Some(why) => Found::Damaged { name, batch: Some(summary.batch), bytes, summary: Some(summary), why },
    })
}

fn temporary_name(batch: BatchId) -> String {
    format!("{batch}{TEMPORARY}")
}

pub(crate) fn file_name(batch: BatchId) -> String {
    format!("{batch}{BATCH}")
}

/// Whether a file of this name is a batch.
pub(crate) fn is_batch(name: &str) -> bool {
    batch_of(name).is_some()
}

/// The batch that a file of this name holds. Only the name that we would give it counts.
fn batch_of(name: &str) -> Option<BatchId> {
    let batch = name.strip_suffix(BATCH)?.parse().ok()?;
    (file_name(batch) == name).then_some(batch)
}
