//! Goal: a batch that was written bit by bit is the same file as one that was written at once, and a draft is nothing
//! until then. Method: the simulated disk; each operation of a draft fails or is the last one before a crash.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hydrant_core::ByteSize;

use super::super::testing::{body, header};
use super::super::{Outbox, file_name};
use super::*;
use crate::files::Files;
use crate::files::sim::{Op, SimFiles, Times};
use crate::space::Share;
use crate::testing::{StillClock, share};

const DIR: &str = "/data/outbox";

/// Bytes of an append: less than a block, so that blocks are cut.
const PART_BYTES: usize = 100_000;

fn open_with(files: &SimFiles, share: Arc<Share>) -> Outbox {
    Outbox::open(Path::new(DIR), Arc::new(files.clone()), StillClock::shared(), share).unwrap().0
}

fn open(files: &SimFiles) -> Outbox {
    open_with(files, share(ByteSize::mib(64)))
}

fn path(number: u8) -> PathBuf {
    Path::new(DIR).join(file_name(header(number).batch))
}

/// Writes batch `number` with a body of `len` bytes, some at a time.
fn write(outbox: &Outbox, number: u8, len: usize) -> Result<(), SealError> {
    let mut draft = outbox.draft(header(number).batch, Claim::DataSeal);
    for part in body(number, len).concat().chunks(PART_BYTES) {
        draft.append(&[Bytes::copy_from_slice(part)])?;
    }
    draft.seal(&header(number))
}

#[test]
fn the_file_is_the_same_as_if_it_had_been_written_at_once() {
    for len in [0, 1, PART_BYTES, 262_144, 262_145, 3_000_000] {
        let (drafted, sealed) = (SimFiles::new(1), SimFiles::new(1));
        let outbox = open(&drafted);
        write(&outbox, 1, len).unwrap();
        open(&sealed).seal(&header(1), &body(1, len), Claim::DataSeal).unwrap();
        assert!(drafted.bytes(&path(1)) == sealed.bytes(&path(1)), "{len}");
        assert_eq!(outbox.usage().bytes, on_disk(drafted.bytes(&path(1)).len() as u64));
        drafted.crash();
        assert_eq!(open(&drafted).usage().batches, 1, "{len}: it is durable");
    }
}

/// Every change that a draft asks of the disk, one after the other, is the last that works before the power fails.
#[test]
fn a_crash_at_any_step_leaves_the_batch_whole_or_not_at_all() {
    let base = SimFiles::new(7);
    drop(open(&base));
    let mut survived = 0;
    for op in Op::CHANGES {
        for nth in 1..8 {
            for seed in 0..20 {
                let files = base.fork(seed);
                let outbox = open(&files);
                files.fail(op, nth, Times::FromThenOn, ErrorKind::Other);
                let outcome = write(&outbox, 2, 350_000);
                drop(outbox);
                files.heal();
                files.crash();
                let outbox = open(&files);
                let is_there = outbox.usage().batches == 1;
                assert!(is_there || outcome.is_err(), "{op:?} {nth}, seed {seed}: lost");
                if is_there {
                    survived += 1;
                    let read = outbox.body(header(2).batch).unwrap().read(0, usize::MAX).unwrap();
                    assert!(read == body(2, 350_000).concat(), "{op:?} {nth}, seed {seed}");
                }
                let left = files.list(Path::new(DIR)).unwrap();
                assert!(!left.contains(&temporary_name(header(2).batch)), "{op:?} {nth}, seed {seed}: {left:?}");
            }
        }
    }
    assert!(survived > 0);
}

#[test]
fn a_dropped_draft_leaves_nothing_behind() {
    let files = SimFiles::new(1);
    let share = share(ByteSize::mib(64));
    let outbox = open_with(&files, Arc::clone(&share));
    let before = (files.used(), share.used());
    drop(outbox.draft(header(1).batch, Claim::DataSeal));
    let mut draft = outbox.draft(header(1).batch, Claim::DataSeal);
    draft.append(&body(1, 1_000_000)).unwrap();
    assert!(files.used() > before.0 && share.used() - before.1 == files.used() - before.0);
    drop(draft);
    assert_eq!((files.used(), share.used()), before);
    write(&outbox, 1, 10).unwrap();
    assert_eq!(share.used(), files.used(), "space is counted as the disk counts it");
}

#[test]
fn a_full_disk_is_no_poison_and_leaves_nothing_behind() {
    for op in [Op::Create, Op::Allocate, Op::Write] {
        for nth in 1..4 {
            let files = SimFiles::new(3);
            let share = share(ByteSize::mib(64));
            let outbox = open_with(&files, Arc::clone(&share));
            let before = (files.used(), share.used());
            files.fail(op, nth, Times::Once, ErrorKind::StorageFull);
            match write(&outbox, 1, 350_000) {
                Ok(()) => assert!(nth > 1, "{op:?} {nth}: there are fewer of them"),
                Err(SealError::NoSpace(_)) => assert_eq!((files.used(), share.used()), before, "{op:?} {nth}"),
                other => panic!("{op:?} {nth}: {other:?}"),
            }
            files.heal();
            write(&outbox, 2, 1000).unwrap();
        }
    }
}

#[test]
fn a_share_that_is_used_up_ends_the_draft_and_nothing_else() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::mib(1));
    let outbox = open_with(&files, Arc::clone(&share));
    let used = share.used();
    assert!(matches!(write(&outbox, 1, 2_000_000), Err(SealError::NoSpace(_))));
    assert_eq!(share.used(), used);
    write(&outbox, 1, 300_000).unwrap();
}

#[test]
fn a_failed_write_or_fsync_poisons() {
    for op in [Op::Write, Op::Sync, Op::Rename, Op::SyncDir, Op::Truncate] {
        let files = SimFiles::new(3);
        let outbox = open(&files);
        files.fail(op, 1, Times::Once, ErrorKind::Other);
        assert!(matches!(write(&outbox, 1, 1000), Err(SealError::Poisoned(_))), "{op:?}");
        assert!(matches!(write(&outbox, 2, 1000), Err(SealError::Poisoned(_))), "{op:?}");
    }
}

#[test]
fn a_large_draft_is_synced_before_its_seal_has_much_to_write() {
    let files = SimFiles::new(1);
    let outbox = open(&files);
    let mut draft = outbox.draft(header(1).batch, Claim::DataSeal);
    let part = Bytes::from(vec![7; 1 << 20]);
    let before = (files.count(Op::Sync), files.count(Op::Allocate));
    for _ in 0..32 {
        draft.append(std::slice::from_ref(&part)).unwrap();
    }
    assert_eq!(files.count(Op::Sync) - before.0, 4);
    assert!(files.count(Op::Allocate) - before.1 < 10, "steps grow");
    draft.seal(&header(1)).unwrap();
}

#[test]
#[should_panic(expected = "is not batch")]
fn sealing_a_draft_as_another_batch_is_a_bug() {
    let files = SimFiles::new(1);
    drop(open(&files).draft(header(1).batch, Claim::DataSeal).seal(&header(2)));
}
