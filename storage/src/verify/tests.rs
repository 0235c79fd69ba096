//! Goal: verify names each damage with its place and changes nothing. Method: a lane on the simulated disk, damaged in
//! one way at a time.

use std::sync::Arc;

use hydrant_core::{BatchId, ByteSize, Position, Timestamp};

use super::*;
use crate::catalog::{DataDir, Declaration};
use crate::files::sim::{Op, SimFiles};
use crate::ledger::{Entry, Ledger};
use crate::outbox::testing::{body, header};
use crate::outbox::{Header, Outbox};
use crate::space::Claim;
use crate::testing::{StillClock, share};

const DATA: &str = "/data";

/// Two batches are owed, one is settled and its file still there, one is unknown to the ledger.
fn lane() -> (SimFiles, PathBuf) {
    let files = SimFiles::new(1);
    let disk = || Arc::new(files.clone());
    let mut data = DataDir::open_without_lock(Path::new(DATA), disk()).unwrap();
    let declaration = Declaration { name: "web", definition: "", sink_kind: "s3" };
    let (_, dir) = data.declare(declaration, Timestamp::default(), 1).unwrap();
    let share = share(ByteSize::mib(64));
    let (outbox, _) = Outbox::open(&dir.join("outbox"), disk(), StillClock::shared(), Arc::clone(&share)).unwrap();
    let (mut ledger, mut state) = Ledger::open(&dir.join("ledger"), disk(), StillClock::shared(), share).unwrap();
    // Nothing is owed by the log, which has no files here.
    state.advance(Position::new(1000));
    ledger.checkpoint(&state).unwrap();
    for number in 1..5 {
        outbox.seal(&header(number), &body(number, 300_000), Claim::DataSeal).unwrap();
    }
    for number in 1..4 {
        let Header { batch, pieces, .. } = header(number);
        ledger.append(&[Entry::Sealed { batch, pieces }]).unwrap();
    }
    ledger.append(&[Entry::Settled { batch: header(3).batch }]).unwrap();
    (files, dir)
}

fn damages(files: &SimFiles) -> Vec<(PathBuf, Option<u64>, String)> {
    let report = verify(Path::new(DATA), files).unwrap();
    report.damages().map(|(_, damage)| (damage.path.clone(), damage.offset, damage.what.clone())).collect()
}

fn batch_path(dir: &Path, batch: BatchId) -> PathBuf {
    dir.join("outbox").join(outbox::file_name(batch))
}

#[test]
fn a_whole_directory_is_read_through_and_left_as_it_is() {
    let (files, dir) = lane();
    let before = Op::CHANGES.map(|op| files.count(op));
    let report = verify(Path::new(DATA), &files).unwrap();
    assert_eq!(Op::CHANGES.map(|op| files.count(op)), before);
    assert_eq!(report.damages().count(), 0);
    let [stream] = &report.streams[..] else { panic!("{report:?}") };
    assert_eq!((stream.name.as_str(), &stream.dir), ("web", &dir));
    assert_eq!((stream.ledger.appends, stream.ledger.batches_owed, stream.ledger.highest), (4, 2, 38));
    let OutboxSummary { batches, batches_unknown_to_ledger, batches_settled, .. } = stream.outbox;
    assert_eq!((batches, batches_unknown_to_ledger, batches_settled), (4, 1, 1));
}

#[test]
fn a_flipped_byte_deep_in_a_body_is_found() {
    let (files, dir) = lane();
    let path = batch_path(&dir, header(1).batch);
    files.damage(&path, |bytes| bytes[290_000] ^= 1);
    assert_eq!(damages(&files), [(path, None, "checksum of block 1 of the body does not match".into())]);
}

#[test]
fn an_owed_batch_that_is_missing_is_named() {
    let (files, dir) = lane();
    let path = batch_path(&dir, header(2).batch);
    files.remove(&path).unwrap();
    assert_eq!(damages(&files), [(path, None, "missing, although the ledger says that it is owed".into())]);
}

#[test]
fn a_damaged_ledger_is_named_with_its_byte_and_the_outbox_is_still_read() {
    let (files, dir) = lane();
    let path = dir.join("ledger").join("0000000000000002.ledger");
    files.damage(&path, |bytes| bytes[60] ^= 1);
    files.damage(&batch_path(&dir, header(1).batch), |bytes| bytes.truncate(100));
    let found = damages(&files);
    assert_eq!(found[0], (path, Some(54), "an invalid entry lies before a valid one".into()));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn what_a_stream_owes_is_told_by_its_ledger_and_changes_nothing() {
    let (files, dir) = lane();
    let before = Op::CHANGES.map(|op| files.count(op));
    let records = header(1).pieces.len() + header(2).pieces.len();
    assert_eq!(owed(&dir, 1, &files), Some(Owed { records, batches: 2 }));
    assert_eq!(Op::CHANGES.map(|op| files.count(op)), before);
    files.damage(&dir.join("ledger").join("0000000000000002.ledger"), |bytes| bytes[60] ^= 1);
    assert_eq!(owed(&dir, 1, &files), None);
}

#[test]
fn a_folder_that_holds_nothing_of_ours_is_refused_and_says_what_it_is() {
    let files = SimFiles::new(1);
    files.create_dir_all(Path::new("/other")).unwrap();
    let refused = |path: &str| verify(Path::new(path), &files).unwrap_err().to_string();
    assert_eq!(refused("/other"), "/other holds no data: it is empty; name the directory of `server.data`");
    assert_eq!(refused("/nowhere"), "/nowhere holds no data: it is not there; name the directory of `server.data`");
    files.create(Path::new("/other/thesis.tex")).unwrap();
    assert!(
        matches!(verify(Path::new("/other"), &files), Err(OpenError::Foreign { found, .. }) if found == "thesis.tex")
    );
}
