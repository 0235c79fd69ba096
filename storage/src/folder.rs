//! A folder of the outbox or the ledger: files by name, and fsyncs that are timed, shared and never tried again
//! after a failure.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hydrant_core::Clock;

use crate::crash::{self, Point};
use crate::files::{File, Files};
use crate::poison::Poison;
use crate::timing::Timings;

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) poison: Poison,
    pub(crate) fsyncs: Timings,
    clock: Arc<dyn Clock>,
    /// Syncs asked for so far; each comes after the change it is for.
    asked: AtomicU64,
    /// Of those, how many are answered by the last fsync of the folder. One such fsync runs at a time.
    answered: Mutex<u64>,
}

impl Folder {
    pub(crate) fn new(dir: PathBuf, files: Arc<dyn Files>, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir,
            files,
            clock,
            poison: Poison::default(),
            fsyncs: Timings::default(),
            asked: AtomicU64::new(0),
            answered: Mutex::new(0),
        }
    }

    /// Makes the folder if it is not there, durably. Whatever fails of that poisons the folder: an fsync of those above
    /// it may have.
    pub(crate) fn make(&self) -> Result<(), Arc<io::Error>> {
        self.poison.guard(self.files.create_dir_all(&self.dir))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a new file; what an earlier try left under this name goes first.
    pub(crate) fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path(name);
        match self.files.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.files.remove(&path)?;
                self.files.create(&path)
            }
            other => other,
        }
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(&self.path(name))
    }

    /// Renames, or poisons the folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Arc<io::Error>> {
        self.poison.guard(self.files.rename(&self.path(from), &self.path(to)))
    }

    /// Renames a file that nothing relies on, durably. One that is not there is fine; a failure poisons nothing.
    pub(crate) fn set_aside(&self, from: &str, to: &str) -> io::Result<()> {
        match self.files.rename(&self.path(from), &self.path(to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                crash::reach(Point::AsideNamed);
                self.sync().map_err(io::Error::other)
            }
        }
    }

    /// Makes a file durable, or poisons the folder.
    pub(crate) fn sync_file(&self, file: &dyn File) -> Result<(), Arc<io::Error>> {
        self.poison.guard(self.timed(|| file.sync()))
    }

    /// Makes every change of names before this call durable, or poisons the folder. Calls that come while an fsync
    /// runs share the next one. After a failure no call succeeds, so none relies on an fsync that the failed one
    /// may have left nothing to do.
    pub(crate) fn sync(&self) -> Result<(), Arc<io::Error>> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // The count is right even if another thread panicked while it held the lock: it is set after the fsync.
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        self.poison.check()?;
        if *answered < mine {
            let upto = self.asked.load(Ordering::SeqCst);
            self.poison.guard(self.timed(|| self.files.sync_dir(&self.dir)))?;
            *answered = upto;
        }
        Ok(())
    }

    fn timed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let start = self.clock.monotonic();
        let result = sync();
        self.fsyncs.record(self.clock.monotonic().saturating_sub(start));
        result
    }
}
