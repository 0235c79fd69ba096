//! A simulated disk: everything a real one may do to us, decided by a seed, so that a failing run can be run again.
//!
//! In: the operations of [`Files`] and [`File`]; from the test, when to crash, what to fail, how full to be.
//! Out: what a disk would answer. The same seed and the same operations give the same answers.
//!
//! ```text
//!   write ──> now (what reads see) ──sync──> durable (what a crash leaves for sure)
//!                └── crash ──> each write since the last sync: kept, dropped, or torn at 512-byte sectors
//!   create, rename, remove ──> names now ──sync_dir──> durable names
//!                └── crash ──> each change since the last sync_dir of its folder: kept or dropped, each for itself
//! ```
//!
//! Harsher than most disks on purpose. A sync of a file does not keep its name. The length of a file after a crash
//! is anything between what was durable and what was written. After a failed sync, what it should have kept is kept
//! or lost for good, can still be read until the crash, and no later sync brings it back. A failed write leaves any
//! part of itself.

mod disk;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Files};
use disk::{Change, Content, Disk, Fate, Fault, NameChange, Node, Random, is_root};

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Op {
    CreateDirAll,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Len,
    Read,
    Write,
    Allocate,
    Truncate,
    Sync,
}

impl Op {
    /// All that change something, or make a change durable.
    pub const CHANGES: [Self; 9] = [
        Self::CreateDirAll,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::Sync,
    ];
}

/// How often an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// That one only.
    Once,
    /// That one and all later ones of its kind.
    FromThenOn,
}

/// A disk. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

impl fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk();
        f.debug_struct("SimFiles").field("life", &disk.life).field("names", &disk.names).finish_non_exhaustive()
    }
}

impl SimFiles {
    /// An empty disk that decides by this seed.
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: Random(seed), ..Disk::default() })) }
    }

    /// Another disk with the same content, faults and capacity, which goes on by this seed. Files that are open on
    /// the first one stay with it.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let mut disk = self.disk().clone();
        disk.random = Random(seed);
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The power fails and comes back. What was not durable is kept, dropped or torn; files that are open stay so
    /// and answer every call with an error, as nobody of the next life may write through them. Faults stay.
    pub fn crash(&self) {
        self.disk().crash();
    }

    /// The process dies and another one starts; the kernel goes on. Nothing is lost, and files that are open answer
    /// as after a crash.
    pub fn kill(&self) {
        self.disk().revive();
    }

    /// The process dies before the `nth` operation of this kind from now on (1 is the next): that one and all later ones
    /// of any kind do nothing but answer an error, until [`kill`](Self::kill) or [`crash`](Self::crash).
    pub fn die(&self, op: Op, nth: u64) {
        let mut disk = self.disk();
        let at = disk.counts.get(&op).copied().unwrap_or_default() + nth;
        disk.death = Some((op, at));
    }

    /// Whether the process has died, and nobody has noticed yet.
    pub fn is_dead(&self) -> bool {
        self.disk().is_dead
    }

    /// Fails the `nth` operation of this kind from now on (1 is the next) with an error of this kind.
    pub fn fail(&self, op: Op, nth: u64, times: Times, kind: ErrorKind) {
        let mut disk = self.disk();
        let at = disk.counts.get(&op).copied().unwrap_or_default() + nth;
        disk.faults.push(Fault { op, at, times, kind });
    }

    /// From now on operations of this kind, [`Op::Sync`] or [`Op::SyncDir`], say yes and do nothing: the negative
    /// control of every test that crashes.
    pub fn lie(&self, op: Op) {
        self.disk().lies.push(op);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.disk().faults.clear();
    }

    /// How many bytes files may take together, in whole blocks of 4 KiB; `None` for as many as they like.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes that files take, in whole blocks of 4 KiB.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// How many operations of this kind were asked for, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.disk().counts.get(&op).copied().unwrap_or_default()
    }

    /// The last operations, oldest first, with the path they were about.
    pub fn trace(&self) -> Vec<(Op, PathBuf)> {
        self.disk().trace.iter().cloned().collect()
    }

    /// All files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        let disk = self.disk();
        let is_file = |node: &usize| matches!(disk.nodes.get(node), Some(Node::File(_)));
        disk.names.iter().filter(|(_, node)| is_file(node)).map(|(path, _)| path.clone()).collect()
    }

    /// What a file holds now; nothing when there is none.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let disk = self.disk();
        let node = disk.names.get(path).and_then(|node| disk.nodes.get(node));
        if let Some(Node::File(content)) = node { content.now.clone() } else { Vec::new() }
    }

    /// Damages a file: changes its bytes for good, behind everybody's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let node = disk.names.get(path).copied();
        if let Some(Node::File(content)) = node.and_then(|node| disk.nodes.get_mut(&node)) {
            change(&mut content.now);
            content.durable.clone_from(&content.now);
            content.pending.clear();
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A test that panicked with the lock held has failed already.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, disk: &Disk, path: &Path, node: usize, writable: bool) -> Arc<dyn File> {
        let (disk, life) = (Arc::clone(&self.disk), disk.life);
        Arc::new(SimFile { disk, life, node, path: path.to_owned(), writable })
    }
}

impl Files for SimFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Op::CreateDirAll, dir)?;
        for dir in dir.ancestors().filter(|dir| !is_root(dir)) {
            match disk.names.get(dir).and_then(|node| disk.nodes.get(node)) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => {
                    let node = disk.add(Node::Dir);
                    disk.names.insert(dir.to_owned(), node);
                    disk.durable_names.insert(dir.to_owned(), node);
                }
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.begin(Op::List, dir)?;
        disk.check_dir(dir)?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.begin(Op::Create, path)?;
        disk.check_dir(path.parent().unwrap_or(path))?;
        if disk.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let node = disk.add(Node::File(Content::default()));
        disk.change(NameChange { removed: None, added: Some((path.to_owned(), node)) });
        Ok(self.handle(&disk, path, node, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.begin(Op::Open, path)?;
        let node = disk.file(path)?;
        Ok(self.handle(&disk, path, node, true))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.begin(Op::Open, path)?;
        let node = disk.file(path)?;
        Ok(self.handle(&disk, path, node, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Op::Rename, from)?;
        let node = disk.file(from)?;
        disk.check_dir(to.parent().unwrap_or(to))?;
        disk.change(NameChange { removed: Some((from.to_owned(), node)), added: Some((to.to_owned(), node)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Op::Remove, path)?;
        let node = disk.file(path)?;
        disk.change(NameChange { removed: Some((path.to_owned(), node)), added: None });
        Ok(())
    }

    fn free(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.disk().free().unwrap_or(u64::MAX))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let outcome = disk.begin(Op::SyncDir, dir);
        disk.check_dir(dir)?;
        if disk.is_dead || disk.lies.contains(&Op::SyncDir) {
            return outcome;
        }
        disk.settle_names(dir, if outcome.is_ok() { Fate::Kept } else { Fate::Any });
        outcome
    }
}

/// An open file of a simulated disk.
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    life: u64,
    node: usize,
    path: PathBuf,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimFile").field(&self.path).finish()
    }
}

impl SimFile {
    /// Counts the operation; fails when it is to fail, or when the process that opened the file is gone.
    fn begin(&self, op: Op) -> (MutexGuard<'_, Disk>, io::Result<()>) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.life != self.life {
            return (disk, Err(io::Error::other("the file was opened in an earlier life")));
        }
        if !self.writable && Op::CHANGES.contains(&op) {
            return (disk, Err(ErrorKind::PermissionDenied.into()));
        }
        let outcome = disk.begin(op, &self.path);
        (disk, outcome)
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let (mut disk, outcome) = self.begin(Op::Len);
        outcome?;
        Ok(disk.content(self.node)?.now.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (mut disk, outcome) = self.begin(Op::Read);
        outcome?;
        let now = &disk.content(self.node)?.now;
        let found = usize::try_from(offset).ok().and_then(|offset| now.get(offset..)).unwrap_or_default();
        let count = found.len().min(buf.len());
        buf.split_at_mut(count).0.copy_from_slice(found.split_at(count).0);
        Ok(count)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let (mut disk, mut outcome) = self.begin(Op::Write);
        if disk.life != self.life || disk.is_dead || !self.writable {
            return outcome;
        }
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let grown = disk.content(self.node)?.growth(offset + bytes.len() as u64);
        if outcome.is_ok() && disk.free().is_some_and(|free| grown > free) {
            outcome = Err(ErrorKind::StorageFull.into());
        }
        if outcome.is_err() {
            // Only the front of it, as when the disk was full half-way.
            let kept = disk.random.below(bytes.len() as u64 + 1);
            bytes.truncate(usize::try_from(kept).unwrap_or_default());
        }
        let content = disk.content(self.node)?;
        content.apply(Change::Write { offset, bytes });
        outcome
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let (mut disk, outcome) = self.begin(Op::Allocate);
        outcome?;
        let grown = disk.content(self.node)?.growth(len);
        if disk.free().is_some_and(|free| grown > free) {
            return Err(ErrorKind::StorageFull.into());
        }
        let content = disk.content(self.node)?;
        content.allocated = content.allocated.max(len);
        if (content.now.len() as u64) < len {
            content.apply(Change::Len(len));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let (mut disk, outcome) = self.begin(Op::Truncate);
        outcome?;
        let content = disk.content(self.node)?;
        content.allocated = content.allocated.min(len);
        content.apply(Change::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, outcome) = self.begin(Op::Sync);
        if disk.life != self.life || disk.is_dead || !self.writable || disk.lies.contains(&Op::Sync) {
            return outcome;
        }
        let fate = if outcome.is_ok() { Fate::Kept } else { Fate::Any };
        let mut random = disk.random.split();
        disk.content(self.node)?.settle(fate, &mut random);
        outcome
    }
}

#[cfg(test)]
mod tests;
