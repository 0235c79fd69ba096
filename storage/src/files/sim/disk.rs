//! What a simulated disk holds: names and bytes, as they are seen now, as a crash leaves them for sure, and the
//! changes that lie between, each with its own fate.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Op, Times};

/// What a disk may keep or lose alone.
const SECTOR_BYTES: usize = 512;

/// Operations that the trace remembers, the latest ones.
const TRACE_MAX: usize = 10_000;

/// What becomes of a change that was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Any,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) random: Random,
    /// Grows with each crash and kill.
    pub(super) life: u64,
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) nodes: BTreeMap<usize, Node>,
    pub(super) nodes_made: usize,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Vec<Fault>,
    /// Which operation the process does not live to see.
    pub(super) death: Option<(Op, u64)>,
    /// The process is dead: nothing changes any more.
    pub(super) is_dead: bool,
    /// Syncs that do nothing.
    pub(super) lies: Vec<Op>,
    pub(super) counts: BTreeMap<Op, u64>,
    pub(super) trace: VecDeque<(Op, PathBuf)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) op: Op,
    pub(super) at: u64,
    pub(super) times: Times,
    pub(super) kind: ErrorKind,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Dir,
    File(Content),
}

/// One step that a folder makes: it loses a name, gets one, or both (a rename).
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) removed: Option<(PathBuf, usize)>,
    pub(super) added: Option<(PathBuf, usize)>,
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
    pub(super) fn begin(&mut self, op: Op, path: &Path) -> io::Result<()> {
        let count = self.counts.entry(op).or_default();
        *count += 1;
        let count = *count;
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back((op, path.to_owned()));
        self.is_dead |= self.death == Some((op, count));
        if self.is_dead {
            return Err(io::Error::other("the process is dead"));
        }
        let hits = |fault: &&Fault| match fault.times {
            Times::Once => fault.at == count,
            Times::FromThenOn => fault.at <= count,
        };
        match self.faults.iter().filter(|fault| fault.op == op).find(hits) {
            Some(fault) => Err(io::Error::new(fault.kind, "made to fail")),
            None => Ok(()),
        }
    }

    pub(super) fn add(&mut self, node: Node) -> usize {
        self.nodes_made += 1;
        self.nodes.insert(self.nodes_made, node);
        self.nodes_made
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    pub(super) fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let node = self.names.get(dir).and_then(|node| self.nodes.get(node));
        if is_root(dir) || matches!(node, Some(Node::Dir)) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        let node = self.names.get(path).ok_or(ErrorKind::NotFound)?;
        match self.nodes.get(node) {
            Some(Node::File(_)) => Ok(*node),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn content(&mut self, node: usize) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Bytes of files that have a name. One without takes none, whoever has it open.
    pub(super) fn used(&self) -> u64 {
        let held = |node| if let Some(Node::File(content)) = self.nodes.get(node) { content.held() } else { 0 };
        self.names.values().map(held).sum()
    }

    pub(super) fn free(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }

    pub(super) fn settle_names(&mut self, dir: &Path, fate: Fate) {
        for change in std::mem::take(&mut self.pending_names) {
            if !change.is_in(dir) {
                self.pending_names.push(change);
            } else if fate == Fate::Kept || self.random.one_in(2) {
                change.apply(&mut self.durable_names);
            }
        }
    }

    /// Another process starts.
    pub(super) fn revive(&mut self) {
        self.life += 1;
        self.is_dead = false;
        self.death = None;
    }

    pub(super) fn crash(&mut self) {
        self.revive();
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
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
    /// Bytes that the file has room for.
    pub(super) allocated: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

impl Content {
    /// What it takes on the disk, in whole blocks.
    pub(super) fn held(&self) -> u64 {
        Self::blocks(self.allocated.max(self.now.len() as u64))
    }

    /// By how much it takes more when it is `len` bytes long.
    pub(super) fn growth(&self, len: u64) -> u64 {
        Self::blocks(len).saturating_sub(self.held())
    }

    const fn blocks(bytes: u64) -> u64 {
        bytes.next_multiple_of(4096)
    }

    pub(super) fn apply(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// Decides what becomes of all that is pending.
    pub(super) fn settle(&mut self, fate: Fate, random: &mut Random) {
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

pub(super) fn is_root(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.parent().is_none()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough to decide what a disk loses.
#[derive(Clone, Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Another source, decided by this one.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }
}
