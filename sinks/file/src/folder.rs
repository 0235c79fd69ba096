//! The folder on disk: temporary files, names that are never taken from anyone, folders that outlive a power cut.
//!
//! In: paths and finished files. Out: durable entries. Everything here blocks and runs on the blocking pool, where a
//! step that has begun runs to its end.
//!
//! Never writes to a file that has its final name, never removes one that was confirmed, and never follows a link or
//! waits for a pipe that somebody put under the name of an object.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_core::{BatchId, Fault};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use crate::wire::{Layout, fault};

/// Age from which a temporary file belongs to no attempt any more. Far above what any attempt takes.
const LEFT_BEHIND_AFTER: Duration = Duration::from_hours(24);

/// Folders known to be durable. A bound for long-lived servers whose prefixes hold the hour: cleared when reached.
const DURABLE_FOLDERS_MAX: usize = 1024;

/// Mode of folders that are made here, and of files: the server's own user writes, its group may read, nobody else may
/// look. Records are nobody else's business, and a group is how a reader gets at them without being root. The umask
/// may take more away.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// Threads that one folder may hold at once. Twice the attempts of a sink: those that were given up may still hang in
/// the kernel while the next ones try, and a mount that hangs for ever then keeps these and no more.
const THREADS_MAX: usize = 8;

/// Tells temporary files of one process apart.
static TEMPORARY_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The folder and what this process knows about it.
#[derive(Debug)]
pub(crate) struct Folder {
    layout: Layout,
    /// Folders whose own entry was fsynced by this process.
    durable: Mutex<HashSet<PathBuf>>,
    /// Names that some attempt is giving or confirming now.
    in_work: Mutex<HashSet<PathBuf>>,
    /// Whether this process has looked for what a crash left behind.
    is_swept: AtomicBool,
    threads: Threads,
}

/// How a rename ended.
pub(crate) enum Named {
    /// The file has its name and is durable.
    Ours,
    /// The name was there already.
    Taken(File),
}

/// A name that one attempt is at work on.
struct Claim<'a> {
    folder: &'a Folder,
    path: &'a Path,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.folder.in_work.lock().unwrap_or_else(PoisonError::into_inner).remove(self.path);
    }
}

impl Folder {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            durable: Mutex::default(),
            in_work: Mutex::default(),
            is_swept: AtomicBool::new(false),
            threads: Threads::new(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where steps that block run.
    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Creates a file that disappears with its handle unless it is given a name. Its own name tells attempts apart:
    /// those of one batch by number, those of two servers that share the folder by their batches.
    pub(crate) fn temporary(&self, batch: BatchId) -> io::Result<Temporary> {
        let folder = self.layout.temporary();
        self.make_folder(&folder)?;
        let temporary = loop {
            let number = TEMPORARY_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{batch}-{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path) {
                Ok(file) => break Temporary { file, path },
                // Left by a crash of a process with our number, as in a container. The next number is free.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            sweep(&folder, &temporary);
        }
        Ok(temporary)
    }

    /// Gives a finished temporary file its name, and makes file and name durable.
    pub(crate) fn give_name(&self, temporary: &Temporary, path: &Path) -> io::Result<Named> {
        let _alone = self.claim(path)?;
        temporary.file.sync_all()?;
        self.make_parents(path)?;
        match rename_without_overwriting(&temporary.path, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match open_existing(path)? {
                Some(existing) => Ok(Named::Taken(existing)),
                None => Err(Errno::NOENT.into()), // gone again in between
            },
            Err(error) => Err(error),
            Ok(()) => {
                sync_parent(path).inspect_err(|_| {
                    // The entry may or may not be on disk, and a second fsync would prove nothing. Without the name,
                    // the next attempt writes everything anew.
                    let _unlinked = fs::remove_file(path);
                })?;
                Ok(Named::Ours)
            }
        }
    }

    /// Keeps `bytes` under `path`, durably, over what was there.
    pub(crate) fn keep(&self, batch: BatchId, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = self.temporary(batch)?;
        temporary.file.write_all(bytes)?;
        temporary.file.sync_all()?;
        self.make_parents(path)?;
        fs::rename(&temporary.path, path)?;
        sync_parent(path)
    }

    /// Makes a file durable that somebody else gave its name, perhaps a process that crashed right after.
    pub(crate) fn make_durable(&self, file: &File, path: &Path) -> io::Result<()> {
        let _alone = self.claim(path)?;
        file.sync_all()?;
        self.make_parents(path)?;
        sync_parent(path)
    }

    /// Takes a name for one attempt. An attempt that was given up may still be at work on its thread and take the name
    /// away again, so no other one may rely on it before that has ended.
    fn claim<'a>(&'a self, path: &'a Path) -> io::Result<Claim<'a>> {
        if self.in_work.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
            return Ok(Claim { folder: self, path });
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "an earlier attempt is still at work on this name"))
    }

    /// Makes the folders that `path` lies in.
    fn make_parents(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.make_folder(parent))
    }

    /// Makes `folder` and all above it, and makes durable what this process has not yet seen durable: a folder that
    /// is there already may have been made by a process that crashed before its fsync.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if !folder.is_dir() {
            // Somebody may have tidied away a folder that we remember.
            self.forget_durable();
        }
        let unknown: Vec<&Path> = folder.ancestors().take_while(|path| !self.is_durable(path)).collect();
        for path in unknown.into_iter().rev() {
            match DirBuilder::new().mode(FOLDER_MODE).create(path) {
                Ok(()) => sync_parent(path)?,
                Err(_) if path.is_dir() => self.make_existing_durable(path)?,
                Err(error) => return Err(error),
            }
            self.remember_durable(path);
        }
        Ok(())
    }

    /// As far up as the root. What lies above is not ours, and we may not even be allowed to open it.
    fn make_existing_durable(&self, folder: &Path) -> io::Result<()> {
        if !folder.starts_with(self.layout.root()) {
            return Ok(());
        }
        match sync_parent(folder) {
            Err(error) if folder == self.layout.root() && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }

    fn is_durable(&self, folder: &Path) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    fn remember_durable(&self, folder: &Path) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_FOLDERS_MAX {
            durable.clear();
        }
        durable.insert(folder.to_owned());
    }

    fn forget_durable(&self) {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A file without its final name. Removed when dropped; once renamed, there is nothing left to remove.
#[derive(Debug)]
pub(crate) struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    /// Writes all of `part` at `offset`.
    pub(crate) fn write_at(&self, part: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(part, offset)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what stays is removed by a later process.
        let _unlinked = fs::remove_file(&self.path);
    }
}

/// Opens the file at `path`, if there is one. A name found in a folder may be anything: a link is not followed, and a
/// pipe is not waited for.
///
/// # Errors
/// [`Errno::EXIST`] when it is no file.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<File>> {
    let careful = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(careful).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(Errno::EXIST.into()),
        // A link, or a socket.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NXIO)) => {
            Err(Errno::EXIST.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Renames unless the new name exists. File systems that cannot do this in one step get a second name instead, of
/// which the first is then removed; those that can do neither answer with an error.
fn rename_without_overwriting(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        result => result.map_err(io::Error::from),
    }
}

/// Makes the entry of `path` in its folder durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Removes temporary files that no attempt can own any more. Age is counted by the file system's own clock, of which
/// `now` is a fresh sample: another server that shares the folder may have another idea of the time. Best effort.
fn sweep(folder: &Path, now: &Temporary) {
    let Ok(now) = now.file.metadata().and_then(|it| it.modified()) else { return };
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|it| it.modified()).ok().and_then(|then| now.duration_since(then).ok());
        if age.is_some_and(|age| age > LEFT_BEHIND_AFTER) {
            let _unlinked = fs::remove_file(entry.path());
        }
    }
}

/// The threads that one folder may hold. A thread that hangs in the kernel cannot be ended, so its permit is held by the
/// step itself and not by whoever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(THREADS_MAX)))
    }

    /// Runs `act` where it may block, once there is a thread for it. A dropped wait does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let act = move || {
            let result = act();
            drop(permit);
            result
        };
        tokio::task::spawn_blocking(act).await.map_err(|_| io::Error::other("the task did not end as it should"))?
    }

    /// The same, for a step of an attempt.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        name: &'static str,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        self.run(act).await.map_err(|error| fault(name, &error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Longer than anything here takes on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn steps_that_hang_keep_a_few_threads_and_no_more() {
        let threads = Threads::new();
        let (go, hang) = channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let (tell, told) = channel();
        for _ in 0..THREADS_MAX + 3 {
            let (threads, hang, tell) = (threads.clone(), Arc::clone(&hang), tell.clone());
            tokio::spawn(async move {
                let step = move || {
                    tell.send(()).map_err(io::Error::other)?;
                    // As a mount that does not answer. Ends when the test has seen enough.
                    let _ended = hang.lock().map(|hang| hang.recv());
                    Ok(())
                };
                tokio::time::timeout(Duration::from_millis(50), threads.run(step)).await
            });
        }
        let count = move |most: usize| {
            (0..most).take_while(|_| told.recv_timeout(DEADLINE).is_ok()).count() + told.try_iter().count()
        };
        let (held, count) = tokio::task::spawn_blocking(move || (count(THREADS_MAX), count)).await.unwrap();
        assert_eq!(held, THREADS_MAX);
        let late = tokio::time::timeout(Duration::from_millis(500), threads.run(|| Ok(())));
        assert!(late.await.is_err(), "those who gave up waiting did not free a thread");
        drop(go);
        assert_eq!(count(0), 0);
        tokio::time::timeout(DEADLINE, threads.run(|| Ok(()))).await.expect("all threads are free again").unwrap();
    }
}
