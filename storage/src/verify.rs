//! Verify: reads everything in a data directory and says what is damaged. Never writes and takes no lock.
//!
//! Meant for a directory that nobody uses. Beside a running server it may report what was only half read.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hydrant_core::{BatchId, Position};
use serde::Serialize;

use crate::catalog::{self, OpenError};
use crate::files::Files;
use crate::ledger::{self, Checkpoint, Recovery};
use crate::log::{self, Checked};
use crate::outbox::{self, Found};

/// What was read in a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each stream, by name.
    pub streams: Vec<StreamReport>,
}

impl Report {
    /// All damage, with the stream it was found in.
    pub fn damages(&self) -> impl Iterator<Item = (&str, &Damage)> {
        self.streams.iter().flat_map(|stream| stream.damages.iter().map(|damage| (stream.name.as_str(), damage)))
    }
}

/// What was read of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// The log.
    pub log: LogSummary,
    /// The ledger.
    pub ledger: LedgerSummary,
    /// The outbox.
    pub outbox: OutboxSummary,
    /// Everything that is not as it was written.
    pub damages: Vec<Damage>,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    /// Files with records.
    pub segments: u64,
    /// Their length together.
    pub bytes: u64,
    /// Records whose every byte was checked and is right.
    pub records: u64,
    /// Position of the first record that it may hold.
    pub first: u64,
    /// One past the last.
    pub end: u64,
}

/// What a ledger says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerSummary {
    /// Appends since the last checkpoint.
    pub appends: u64,
    /// Batches that are sealed and not settled.
    pub batches_owed: u64,
    /// The log may forget what lies below.
    pub forget: u64,
    /// The highest position that was ever sealed or lost.
    pub highest: u64,
    /// Records that were lost, ever.
    pub lost_records: u64,
    /// Bytes of an append that was never acknowledged; the next start cuts them.
    pub torn_bytes: u64,
}

/// What an outbox holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutboxSummary {
    /// Batch files whose every byte was checked and is right.
    pub batches: u64,
    /// Their length.
    pub bytes: u64,
    /// Of those, how many the ledger does not know yet; the next start adopts them.
    pub batches_unknown_to_ledger: u64,
    /// Of those, how many are settled; the next start removes them.
    pub batches_settled: u64,
}

/// One thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file or folder.
    pub path: PathBuf,
    /// The byte in it, where one can be named.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a stream still owes its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Records that are acknowledged and not settled.
    pub records: u64,
    /// Batches of them that are sealed.
    pub batches: u64,
}

/// What the stream in `dir` owes, by its ledger and the end of its log; batches are not looked at. `None` when they
/// cannot be read.
pub fn owed(dir: &Path, incarnation: u64, files: &dyn Files) -> Option<Owed> {
    let state = ledger::verify(files, &dir.join("ledger")).ok()?.map(|scanned| scanned.state).unwrap_or_default();
    let floor = state.highest.plus(1).max(state.forget);
    let end = log::end(&dir.join("log"), incarnation, floor, files).ok()?;
    let in_log = end.get().saturating_sub(state.forget.get().max(Position::FIRST.get()));
    let sealed: u64 = state.owed().map(|(_, batch)| batch.pieces_sealed).sum();
    let records = in_log.saturating_sub(state.sealed_above.len()).saturating_add(sealed);
    Some(Owed { records, batches: count(state.owed().count()) })
}

/// Reads the data directory `dir`.
///
/// # Errors
/// When it is no data directory, or its catalog cannot be read. Whatever is wrong with a stream is in the report.
pub fn verify(dir: &Path, files: &dyn Files) -> Result<Report, OpenError> {
    let streams = catalog::read(dir, files)?;
    Ok(Report {
        streams: streams
            .into_iter()
            .map(|(name, (entry, dir))| verify_stream(name, entry.incarnation, dir, files))
            .collect(),
    })
}

fn verify_stream(name: String, incarnation: u64, dir: PathBuf, files: &dyn Files) -> StreamReport {
    let mut damages = Vec::new();
    let (ledger, checkpoint) = verify_ledger(files, &dir.join("ledger"), &mut damages);
    let outbox = verify_outbox(files, &dir.join("outbox"), checkpoint.as_ref(), &mut damages);
    let log = verify_log(files, &dir.join("log"), incarnation, checkpoint.as_ref(), &mut damages);
    StreamReport { name, dir, log, ledger, outbox, damages }
}

/// Without a ledger nobody knows what was forgotten, so nothing is missed.
fn verify_log(
    files: &dyn Files,
    dir: &Path,
    incarnation: u64,
    checkpoint: Option<&Checkpoint>,
    damages: &mut Vec<Damage>,
) -> LogSummary {
    let known = checkpoint.map(|checkpoint| log::Known {
        forgotten: checkpoint.forget,
        floor: checkpoint.highest.plus(1).max(checkpoint.forget),
    });
    match log::check(dir, incarnation, known, files) {
        Ok(Checked { segments, bytes, records, span, damages: found }) => {
            damages.extend(found.into_iter().map(|log::Damage { path, offset, what }| Damage { path, offset, what }));
            LogSummary { segments, bytes, records, first: span.first.get(), end: span.end.get() }
        }
        Err(error) => {
            damages.push(Damage { path: dir.to_owned(), offset: None, what: error.to_string() });
            LogSummary::default()
        }
    }
}

fn verify_ledger(files: &dyn Files, dir: &Path, damages: &mut Vec<Damage>) -> (LedgerSummary, Option<Checkpoint>) {
    match ledger::verify(files, dir) {
        Ok(None) => (LedgerSummary::default(), Some(Checkpoint::default())),
        Ok(Some(scanned)) => {
            let state = scanned.state;
            let summary = LedgerSummary {
                appends: scanned.frames - 1,
                batches_owed: count(state.owed().count()),
                forget: state.forget.get(),
                highest: state.highest.get(),
                lost_records: state.lost_records,
                torn_bytes: count(scanned.torn_end - scanned.end),
            };
            (summary, Some(state))
        }
        Err(ledger::OpenError::Damaged { path, offset, damage }) => {
            damages.push(Damage { path, offset: Some(offset), what: damage.to_string() });
            (LedgerSummary::default(), None)
        }
        Err(error) => {
            damages.push(Damage { path: dir.to_owned(), offset: None, what: error.to_string() });
            (LedgerSummary::default(), None)
        }
    }
}

/// Without a ledger only the files themselves can be checked.
fn verify_outbox(
    files: &dyn Files,
    dir: &Path,
    checkpoint: Option<&Checkpoint>,
    damages: &mut Vec<Damage>,
) -> OutboxSummary {
    let found = match outbox::verify(files, dir) {
        Ok(found) => found,
        Err(error) => {
            damages.push(Damage { path: dir.to_owned(), offset: None, what: error.to_string() });
            return OutboxSummary::default();
        }
    };
    let mut summary = OutboxSummary::default();
    for file in &found {
        match file {
            Found::Whole { bytes, .. } => {
                summary.batches += 1;
                summary.bytes += bytes;
            }
            Found::Damaged { name, why, .. } => {
                damages.push(Damage { path: dir.join(name), offset: None, what: why.clone() });
            }
        }
    }
    if let Some(checkpoint) = checkpoint {
        let there: BTreeSet<BatchId> = found.iter().filter_map(Found::batch).collect();
        let missing = checkpoint.owed().map(|(batch, _)| batch).filter(|batch| !there.contains(batch));
        damages.extend(missing.map(|batch| Damage {
            path: dir.join(outbox::file_name(batch)),
            offset: None,
            what: "missing, although the ledger says that it is owed".to_owned(),
        }));
        let recovery = Recovery::new(checkpoint, found);
        summary.batches_unknown_to_ledger = count(recovery.adopted.len());
        summary.batches_settled = count(recovery.remove.len());
    }
    summary
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
