//! Goal: whatever byte of a lane's files is not what was written, and wherever a file ends too early, each record that was
//! acknowledged is delivered as it was or named as lost, and nothing panics. Method: one lane with something of
//! everything; each byte of each file flipped, each file cut at each length; each time a start as the server makes it,
//! and all that it owes is delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_core::{BatchId, ByteSize, Position};

use super::Action;
use super::lane::{DIR, World};
use super::model::{Id, body, payload};
use crate::files::sim::SimFiles;
use crate::ledger::{Checkpoint, Ledger, Recovery};
use crate::log::{Committers, Frame, Log, Opened, Options};
use crate::outbox::{Found, Outbox};
use crate::testing::{StillClock, share};

/// What a start made of a damaged disk.
#[derive(Debug, Default)]
struct Drained {
    /// Records by position, as they arrived; twice what arrived twice.
    arrived: Vec<(Position, Id)>,
    /// Positions that were named as lost, by the log or with a batch.
    lost: BTreeSet<Position>,
    /// Where records were named as lost without saying how many.
    lost_from: Option<Position>,
}

/// A disk with a log of several segments, batches that are owed, settled and redirected, a checkpoint with entries behind
/// it; and what is owed.
fn written() -> (SimFiles, BTreeMap<Position, Id>) {
    let mut world = World::new(SimFiles::new(1));
    for action in [
        Action::Append(12),
        Action::Read(3000),
        Action::Seal { every: 2, rest: 0 },
        Action::Seal { every: 1, rest: 0 },
        Action::Settle(0),
        Action::Append(15),
        Action::Append(20),
        Action::Read(12_000),
        Action::Seal { every: 3, rest: 1 },
        Action::Checkpoint,
        Action::Seal { every: 2, rest: 0 },
        Action::Redirect(0),
        Action::Append(9),
    ] {
        world.step(&action);
    }
    let owed = world.owed();
    assert!(owed.len() > 40);
    world.files.kill();
    (world.files.clone(), owed)
}

/// Starts as the server does, and delivers everything. An error is a refusal to start, in words.
fn drain(files: &SimFiles) -> Result<Drained, String> {
    let (dir, share) = (Path::new(DIR), share(ByteSize::mib(4)));
    let disk = || Arc::new(files.clone());
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let (outbox, found) = Outbox::open(&dir.join("outbox"), disk(), StillClock::shared(), Arc::clone(&share))
        .map_err(|error| words(&error))?;
    let (mut ledger, mut state) = Ledger::open(&dir.join("ledger"), disk(), StillClock::shared(), Arc::clone(&share))
        .map_err(|error| words(&error))?;
    let recovery = Recovery::new(&state, found);
    let mut drained = Drained::default();
    for damaged in &recovery.damaged {
        drained.give_up(&mut state, &outbox, damaged.batch, None);
    }
    for adopted in &recovery.adopted {
        let (batch, pieces) = (adopted.batch, adopted.pieces.clone());
        state.apply(&crate::ledger::Entry::Sealed { batch, pieces }).map_err(|error| words(&error))?;
    }
    let options = Options {
        floor: recovery.highest.plus(1),
        forgotten: state.forget,
        segment_bytes_first: ByteSize::kib(8),
        segment_bytes_max: ByteSize::kib(32),
        ..Options::new(1)
    };
    let committers = Committers::start(0).unwrap();
    let Opened { log, lost } = Log::open(&dir.join("log"), &options, disk(), StillClock::shared(), share, &committers)
        .map_err(|error| words(&error))?;
    // Of a newest segment that is cut, or that nothing can be read of, nobody knows how far it went.
    drained.lost_from = lost.iter().filter(|lost| lost.span.is_empty()).map(|lost| lost.span.first).min();
    for batch in recovery.owed.iter().chain(&recovery.adopted).map(|summary| summary.batch) {
        if let Ok(bytes) = outbox.body(batch).and_then(|body| body.read(0, usize::MAX)) {
            drained.arrived.extend(records(&bytes));
        } else {
            assert!(matches!(outbox.examine(batch), Ok(Found::Damaged { .. })));
            drained.give_up(&mut state, &outbox, batch, Some(log.first_kept()));
        }
    }
    ledger.checkpoint(&state).map_err(|error| words(&error))?;
    drained.read(&log, &state);
    Ok(drained)
}

impl Drained {
    fn give_up(&mut self, state: &mut Checkpoint, outbox: &Outbox, batch: BatchId, kept_from: Option<Position>) {
        outbox.set_aside(batch).unwrap();
        let given = state.give_back(batch, kept_from.unwrap_or(state.forget)).unwrap();
        let again = |at: &Position| given.again.completes(*at);
        let inside = (given.hull.first.get()..given.hull.end.get()).map(Position::new);
        if given.lost > 0 {
            self.lost.extend(inside.filter(|at| !again(at)));
        }
    }

    /// What packing would find in the log, and seal.
    fn read(&mut self, log: &Log, state: &Checkpoint) {
        let mut reader = log.reader(state.forget);
        loop {
            let slice = reader.next(4000).unwrap();
            for lost in &slice.lost {
                self.lost.extend((lost.span.first.get()..lost.span.end.get()).map(Position::new));
            }
            for (position, data) in slice.frames.iter().flat_map(Frame::records) {
                if position >= state.forget && !state.sealed_above.completes(position) {
                    let id = Id::from_le_bytes(data[..8].try_into().unwrap());
                    assert_eq!(data, payload(id), "record {position} has other bytes");
                    self.arrived.push((position, id));
                }
            }
            if slice.frames.is_empty() && slice.lost.is_empty() {
                return;
            }
        }
    }

    /// The one question.
    fn check(&self, owed: &BTreeMap<Position, Id>, context: &str) {
        let arrived: BTreeMap<Position, Id> = self.arrived.iter().copied().collect();
        assert_eq!(arrived.len(), self.arrived.len(), "{context}: something arrived twice");
        for (at, id) in owed {
            match arrived.get(at) {
                Some(found) => assert_eq!(found, id, "{context}: another record arrived for {at}"),
                None => assert!(
                    self.lost.contains(at) || self.lost_from.is_some_and(|from| from <= *at),
                    "{context}: {at} is gone without a word"
                ),
            }
        }
    }
}

/// The records of a batch's body.
fn records(bytes: &[u8]) -> Vec<(Position, Id)> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((position, behind)) = rest.split_first_chunk::<8>() {
        let id = Id::from_le_bytes(behind[..8].try_into().unwrap());
        found.push((Position::new(u64::from_le_bytes(*position)), id));
        rest = &behind[payload(id).len()..];
    }
    assert_eq!(body(&found), bytes);
    found
}

/// How far a file holds more than zeros, and some of the zeros.
fn meaningful(bytes: &[u8]) -> usize {
    (bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) + 64).min(bytes.len())
}

/// Does `change` to each file at each place, and asks; says how many places there were and how many starts were refused.
fn everywhere(change: impl Fn(&mut Vec<u8>, usize)) -> (usize, usize) {
    let (base, owed) = written();
    drain(&base.fork(1)).unwrap().check(&owed, "no damage");
    let (mut cases, mut refused) = (0, 0);
    let files: Vec<PathBuf> = base.paths();
    assert!(
        ["log", "batch", "ledger"].iter().all(|kind| files.iter().any(|path| path.to_string_lossy().ends_with(kind)))
    );
    for path in files.iter().filter(|path| !path.ends_with("reserve")) {
        let bytes = base.bytes(path);
        let end = meaningful(&bytes);
        for at in (0..end).chain((end..bytes.len()).step_by(509)) {
            let files = base.fork(1);
            files.damage(path, |bytes| change(bytes, at));
            let context = format!("{} at {at}", path.display());
            match drain(&files) {
                Ok(drained) => drained.check(&owed, &context),
                // Only a ledger that is damaged in its middle stops the lane, and says so.
                Err(why) => {
                    assert!(
                        path.to_string_lossy().ends_with(".ledger") && why.contains("damaged at byte"),
                        "{context}: {why}"
                    );
                    refused += 1;
                }
            }
            cases += 1;
        }
    }
    (cases, refused)
}

#[test]
fn a_flipped_byte_anywhere_loses_nothing_without_a_word() {
    let (cases, refused) = everywhere(|bytes, at| bytes[at] ^= 1 << (at % 8));
    println!("{cases} flipped bytes; {refused} of them stop the lane for an operator");
}

#[test]
fn a_file_that_ends_anywhere_loses_nothing_without_a_word() {
    let (cases, refused) = everywhere(Vec::truncate);
    println!("{cases} cuts; {refused} of them stop the lane for an operator");
}
