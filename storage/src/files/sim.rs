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

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Files};

/// What a disk may keep or lose alone.
const SECTOR_BYTES: usize = 512;

/// Operations that the trace remembers, the latest ones.
const TRACE_MAX: usize = 10_000;

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
        self.disk().life += 1;
    }

    /// Fails the `nth` operation of this kind from now on (1 is the next) with an error of this kind.
    pub fn fail(&self, op: Op, nth: u64, times: Times, kind: ErrorKind) {
        let mut disk = self.disk();
        let at = disk.counts.get(&op).copied().unwrap_or_default() + nth;
        disk.faults.push(Fault { op, at, times, kind });
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.disk().faults.clear();
    }

    /// How many bytes files may hold together; `None` for as many as they like.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes that files hold.
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

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let outcome = disk.begin(Op::SyncDir, dir);
        disk.check_dir(dir)?;
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
        if disk.life != self.life || !self.writable {
            return outcome;
        }
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let grown = (offset + bytes.len() as u64).saturating_sub(disk.content(self.node)?.held());
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
        let grown = len.saturating_sub(disk.content(self.node)?.held());
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
        if disk.life != self.life || !self.writable {
            return outcome;
        }
        let fate = if outcome.is_ok() { Fate::Kept } else { Fate::Any };
        let mut random = disk.random.split();
        disk.content(self.node)?.settle(fate, &mut random);
        outcome
    }
}

/// What becomes of a change that was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Any,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    random: Random,
    /// Grows with each crash and kill.
    life: u64,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    nodes: BTreeMap<usize, Node>,
    nodes_made: usize,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    counts: BTreeMap<Op, u64>,
    trace: VecDeque<(Op, PathBuf)>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    op: Op,
    at: u64,
    times: Times,
    kind: ErrorKind,
}

#[derive(Clone, Debug)]
enum Node {
    Dir,
    File(Content),
}

/// One step that a folder makes: it loses a name, gets one, or both (a rename).
#[derive(Clone, Debug)]
struct NameChange {
    removed: Option<(PathBuf, usize)>,
    added: Option<(PathBuf, usize)>,
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        self.removed.iter().chain(&self.added).any(|(path, _)| path.parent() == Some(dir))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some((path, node)) = &self.removed
            && names.get(path) == Some(node)
        {
            names.remove(path);
        }
        if let Some((path, node)) = &self.added {
            names.insert(path.clone(), *node);
        }
    }
}

impl Disk {
    /// Counts an operation, and fails it if it is to fail.
    fn begin(&mut self, op: Op, path: &Path) -> io::Result<()> {
        let count = self.counts.entry(op).or_default();
        *count += 1;
        let count = *count;
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back((op, path.to_owned()));
        let hits = |fault: &&Fault| match fault.times {
            Times::Once => fault.at == count,
            Times::FromThenOn => fault.at <= count,
        };
        match self.faults.iter().filter(|fault| fault.op == op).find(hits) {
            Some(fault) => Err(io::Error::new(fault.kind, "made to fail")),
            None => Ok(()),
        }
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes_made += 1;
        self.nodes.insert(self.nodes_made, node);
        self.nodes_made
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let node = self.names.get(dir).and_then(|node| self.nodes.get(node));
        if is_root(dir) || matches!(node, Some(Node::Dir)) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        let node = self.names.get(path).ok_or(ErrorKind::NotFound)?;
        match self.nodes.get(node) {
            Some(Node::File(_)) => Ok(*node),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn content(&mut self, node: usize) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Bytes of files that have a name. One without takes none, whoever has it open.
    fn used(&self) -> u64 {
        let held = |node| if let Some(Node::File(content)) = self.nodes.get(node) { content.held() } else { 0 };
        self.names.values().map(held).sum()
    }

    fn free(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }

    fn settle_names(&mut self, dir: &Path, fate: Fate) {
        for change in std::mem::take(&mut self.pending_names) {
            if !change.is_in(dir) {
                self.pending_names.push(change);
            } else if fate == Fate::Kept || self.random.one_in(2) {
                change.apply(&mut self.durable_names);
            }
        }
    }

    fn crash(&mut self) {
        self.life += 1;
        for change in std::mem::take(&mut self.pending_names) {
            if self.random.one_in(2) {
                change.apply(&mut self.durable_names);
            }
        }
        self.names.clone_from(&self.durable_names);
        let named: Vec<usize> = self.names.values().copied().collect();
        self.nodes.retain(|node, _| named.contains(node));
        let mut random = self.random.split();
        for node in self.nodes.values_mut() {
            if let Node::File(content) = node {
                content.settle(Fate::Any, &mut random);
                content.now.clone_from(&content.durable);
            }
        }
    }
}

/// The bytes of a file: as reads see them, as a crash leaves them for sure, and what lies between.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Bytes that the file has room for.
    allocated: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

impl Content {
    fn held(&self) -> u64 {
        self.allocated.max(self.now.len() as u64)
    }

    fn apply(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// Decides what becomes of all that is pending.
    fn settle(&mut self, fate: Fate, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            match (fate, change) {
                (Fate::Any, Change::Write { offset, bytes }) => {
                    tear(offset, &bytes, random).for_each(|change| change.apply(&mut self.durable));
                }
                (Fate::Any, Change::Len(_)) if random.one_in(2) => {}
                (_, change) => change.apply(&mut self.durable),
            }
        }
        // The length may have become durable without the bytes.
        if fate == Fate::Any && self.durable.len() < self.now.len() && random.one_in(3) {
            let missing = (self.now.len() - self.durable.len()) as u64;
            let len = self.durable.len() as u64 + random.below(missing + 1);
            Change::Len(len).apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(written.len());
                if bytes.len() < end && !written.is_empty() {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(start..end) {
                    place.copy_from_slice(written);
                }
            }
            Self::Len(len) => bytes.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
        }
    }
}

/// What is left of a write that was not made durable: all, nothing, or some of its sectors.
fn tear(offset: u64, bytes: &[u8], random: &mut Random) -> impl Iterator<Item = Change> {
    let fate = random.below(3);
    let mut left = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let sector = SECTOR_BYTES as u64;
        let here = usize::try_from(sector - at % sector).unwrap_or(SECTOR_BYTES).min(rest.len());
        let (bytes, behind) = rest.split_at(here);
        if fate == 0 || (fate == 1 && random.one_in(2)) {
            left.push(Change::Write { offset: at, bytes: bytes.to_vec() });
        }
        (at, rest) = (at + here as u64, behind);
    }
    left.into_iter()
}

fn is_root(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.parent().is_none()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough to decide what a disk loses.
#[derive(Clone, Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// A number below `end`, which is not zero.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Another source, decided by this one.
    fn split(&mut self) -> Self {
        Self(self.next())
    }
}

#[cfg(test)]
mod tests;
