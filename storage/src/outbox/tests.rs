//! Goal: a batch is there whole or not at all, whatever the disk does, and no wrong byte of it is ever handed out.
//! Method: the simulated disk; each operation of a seal fails or is the last one before a crash; each byte of a file
//! is flipped or cut.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{BatchId, ByteSize};
use proptest::prelude::*;

use super::testing::{body, header};
use super::*;
use crate::fields::crc32c;
use crate::files::sim::{Op, SimFiles, Times};
use crate::testing::{StillClock, share};

const DIR: &str = "/data/outbox";

fn open_with(files: &SimFiles, share: Arc<Share>) -> (Outbox, Vec<Found>) {
    Outbox::open(Path::new(DIR), Arc::new(files.clone()), StillClock::shared(), share).unwrap()
}

fn open(files: &SimFiles) -> (Outbox, Vec<Found>) {
    open_with(files, share(ByteSize::mib(64)))
}

fn sealed(files: &SimFiles, number: u8, len: usize) -> Outbox {
    let (outbox, _) = open(files);
    outbox.seal(&header(number), &body(number, len), Claim::DataSeal).unwrap();
    outbox
}

fn batches(found: &[Found]) -> Vec<BatchId> {
    found
        .iter()
        .map(|found| if let Found::Whole { summary, .. } = found { summary.batch } else { panic!("{found:?}") })
        .collect()
}

fn path(number: u8) -> PathBuf {
    Path::new(DIR).join(file_name(header(number).batch))
}

// What a seal gives.

#[test]
fn a_sealed_batch_is_found_again_with_its_header_and_its_bytes() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 700_000));
    files.crash();
    let (outbox, found) = open(&files);
    assert!(matches!(&found[..], [Found::Whole { summary, .. }] if *summary == header(1).into()));
    let (found, read) = outbox.read(header(1).batch).unwrap();
    assert_eq!(found, header(1));
    assert_eq!(read.read(0, usize::MAX).unwrap(), body(1, 700_000).concat());
}

#[test]
fn a_batch_of_another_version_is_no_damage_and_refuses_the_open() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 10_000));
    let (version, crc) = (8..12, 28..32);
    let whole = files.bytes(&path(1));
    files.damage(&path(1), |bytes| bytes[version.start] ^= 1 << 4);
    assert!(matches!(&open(&files).1[..], [Found::Damaged { .. }]), "a flipped bit");
    files.damage(&path(1), |bytes| {
        let header_bytes = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        bytes[version].copy_from_slice(&7_u32.to_le_bytes());
        let sum = crc32c([&bytes[..crc.start], &bytes[bytes.len() - header_bytes..]]);
        bytes[crc].copy_from_slice(&sum.to_le_bytes());
    });
    let opened = Outbox::open(Path::new(DIR), Arc::new(files.clone()), StillClock::shared(), share(ByteSize::mib(64)));
    let error = opened.unwrap_err();
    assert!(!error.is_poison() && error.to_string().contains("version 7 of the format is not known"), "{error}");
    files.damage(&path(1), |bytes| *bytes = whole);
    assert_eq!(batches(&open(&files).1), [header(1).batch], "the version that wrote it has all of it");
}

#[test]
fn batches_come_back_in_the_order_of_their_seals() {
    let files = SimFiles::new(1);
    let (outbox, _) = open(&files);
    for number in [3, 1, 2] {
        outbox.seal(&header(number), &body(number, 10), Claim::DataSeal).unwrap();
    }
    let expected: Vec<BatchId> = [1, 2, 3].map(|number| header(number).batch).into();
    assert_eq!(batches(&open(&files).1), expected);
}

#[test]
fn an_empty_body_is_a_body() {
    let files = SimFiles::new(1);
    let outbox = sealed(&files, 1, 0);
    assert_eq!(outbox.body(header(1).batch).unwrap().read(0, 100).unwrap(), Bytes::new());
}

#[test]
fn any_part_of_a_body_can_be_read() {
    let files = SimFiles::new(1);
    let read = sealed(&files, 1, 600_000).body(header(1).batch).unwrap();
    let whole = body(1, 600_000).concat();
    proptest!(|(offset in 0_usize..700_000, len in 0_usize..700_000)| {
        let from = offset.min(whole.len());
        let upto = (from + len).min(whole.len());
        prop_assert_eq!(read.read(offset as u64, len).unwrap(), &whole[from..upto]);
    });
}

#[test]
fn a_body_outlives_the_removal_of_its_batch() {
    let files = SimFiles::new(1);
    let outbox = sealed(&files, 1, 300_000);
    let kept = outbox.body(header(1).batch).unwrap();
    outbox.remove(header(1).batch).unwrap();
    assert_eq!(kept.bytes(), 300_000);
    assert_eq!(kept.read(262_000, 1000).unwrap(), body(1, 300_000).concat()[262_000..263_000]);
}

#[test]
#[should_panic(expected = "is sealed already")]
fn sealing_a_batch_twice_is_a_bug() {
    let files = SimFiles::new(1);
    let outbox = sealed(&files, 1, 10);
    drop(outbox.seal(&header(1), &body(1, 10), Claim::DataSeal));
}

#[test]
fn many_threads_may_seal_at_once_and_share_fsyncs_of_the_folder() {
    let files = SimFiles::new(1);
    let (outbox, _) = open(&files);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let outbox = &outbox;
            scope.spawn(move || outbox.seal(&header(number), &body(number, 1000), Claim::DataSeal).unwrap());
        }
    });
    assert_eq!(outbox.usage().batches, 16);
    assert!(files.count(Op::SyncDir) <= 17);
    files.crash();
    assert_eq!(open(&files).1.len(), 16);
}

// What the disk may do.

/// Every change that a seal asks of the disk, one after the other, is the last that works before the power fails.
#[test]
fn a_crash_at_any_step_of_a_seal_leaves_the_batch_whole_or_not_at_all() {
    let base = SimFiles::new(7);
    drop(sealed(&base, 1, 1000));
    for op in Op::CHANGES {
        for nth in 1..4 {
            for seed in 0..40 {
                let files = base.fork(seed);
                let (outbox, _) = open(&files);
                files.fail(op, nth, Times::FromThenOn, ErrorKind::Other);
                let outcome = outbox.seal(&header(2), &body(2, 3000), Claim::DataSeal);
                drop(outbox);
                files.heal();
                files.crash();
                let (outbox, found) = open(&files);
                let found = batches(&found);
                assert!(found.contains(&header(1).batch), "{op:?} {nth}, seed {seed}: an older batch is gone");
                assert!(found.contains(&header(2).batch) || outcome.is_err(), "{op:?} {nth}, seed {seed}: lost");
                for number in [1, 2].into_iter().filter(|number| found.contains(&header(*number).batch)) {
                    let len = if number == 1 { 1000 } else { 3000 };
                    let read = outbox.body(header(number).batch).unwrap().read(0, usize::MAX).unwrap();
                    assert_eq!(read, body(number, len).concat(), "{op:?} {nth}, seed {seed}");
                }
            }
        }
    }
}

#[test]
fn a_sealed_batch_survives_any_crash() {
    let base = SimFiles::new(7);
    let outbox = sealed(&base, 1, 5000);
    for seed in 0..200 {
        let files = base.fork(seed);
        files.crash();
        let (after, found) = open(&files);
        assert_eq!(batches(&found), [header(1).batch], "seed {seed}");
        let read = after.body(header(1).batch).unwrap().read(0, usize::MAX).unwrap();
        assert_eq!(read, body(1, 5000).concat(), "seed {seed}");
    }
    drop(outbox);
}

#[test]
fn a_failed_write_or_fsync_poisons_and_is_never_tried_again() {
    for op in [Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        let files = SimFiles::new(3);
        let outbox = sealed(&files, 1, 100);
        files.fail(op, 1, Times::Once, ErrorKind::Other);
        let failed = outbox.seal(&header(2), &body(2, 100), Claim::DataSeal);
        assert!(matches!(failed, Err(SealError::Poisoned(_))), "{op:?}");
        let before = Op::CHANGES.map(|op| files.count(op));
        let refused = outbox.seal(&header(3), &body(3, 100), Claim::Owed);
        assert!(matches!(refused, Err(SealError::Poisoned(_))), "{op:?}");
        assert!(outbox.sync().is_err(), "{op:?}");
        assert_eq!(Op::CHANGES.map(|op| files.count(op)), before, "{op:?}: the disk was asked for something");
        outbox.body(header(1).batch).unwrap().read(0, 100).unwrap();
    }
}

#[test]
fn a_folder_that_takes_no_new_file_is_no_poison() {
    let files = SimFiles::new(3);
    let outbox = sealed(&files, 1, 100);
    for op in [Op::Create, Op::Allocate] {
        files.fail(op, 1, Times::Once, ErrorKind::Other);
        let failed = outbox.seal(&header(2), &body(2, 100), Claim::DataSeal);
        assert!(matches!(failed, Err(SealError::NotCreated(_))), "{op:?}");
    }
    outbox.seal(&header(2), &body(2, 100), Claim::DataSeal).unwrap();
}

#[test]
fn a_full_disk_is_no_poison_and_leaves_nothing_behind() {
    for op in [Op::Create, Op::Allocate, Op::Write] {
        let files = SimFiles::new(3);
        let share = share(ByteSize::mib(1));
        let (outbox, _) = open_with(&files, Arc::clone(&share));
        let before = (files.used(), share.used());
        files.fail(op, 1, Times::Once, ErrorKind::StorageFull);
        let failed = outbox.seal(&header(1), &body(1, 1000), Claim::DataSeal);
        assert!(matches!(failed, Err(SealError::NoSpace(_))), "{op:?}: {failed:?}");
        assert_eq!((files.used(), share.used()), before, "{op:?}");
        outbox.seal(&header(1), &body(1, 1000), Claim::DataSeal).unwrap();
    }
}

#[test]
fn a_seal_waits_for_space_and_goes_on_when_some_was_given_back() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::kib(64));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    outbox.seal(&header(1), &body(1, 40_000), Claim::DataSeal).unwrap();
    let refused = outbox.seal(&header(2), &body(2, 40_000), Claim::DataSeal);
    assert!(matches!(refused, Err(SealError::NoSpace(_))));
    outbox.remove(header(1).batch).unwrap();
    outbox.seal(&header(2), &body(2, 40_000), Claim::DataSeal).unwrap();
}

#[test]
fn dead_letters_are_sealed_on_a_full_disk_out_of_the_reserve_which_is_made_again_later() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::mib(32));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    outbox.seal(&header(1), &body(1, 300_000), Claim::DataSeal).unwrap();
    files.set_capacity(Some(files.used()));
    let data = outbox.seal(&header(2), &body(2, 100_000), Claim::DataSeal);
    assert!(matches!(data, Err(SealError::NoSpace(_))), "data does not get the reserve");
    outbox.seal(&header(3), &body(3, 100_000), Claim::Owed).unwrap();
    assert_eq!(outbox.body(header(3).batch).unwrap().read(0, usize::MAX).unwrap(), body(3, 100_000).concat());
    let second = outbox.seal(&header(4), &body(4, 100_000), Claim::Owed);
    assert!(second.is_err() || files.used() <= 32 << 20, "no more than the disk holds");
    outbox.remove(header(1).batch).unwrap();
    files.set_capacity(None);
    outbox.sync().unwrap();
    files.set_capacity(Some(files.used()));
    outbox.seal(&header(5), &body(5, 100_000), Claim::Owed).unwrap();
    files.crash();
    assert_eq!(open(&files).1.iter().filter(|found| found.batch() == Some(header(5).batch)).count(), 1);
}

#[test]
fn no_batch_of_records_is_sealed_whose_dead_letters_would_have_no_room() {
    let files = SimFiles::new(3);
    let (outbox, _) = open(&files);
    files.set_capacity(Some(files.used() + (1 << 20)));
    let refused = outbox.seal(&header(1), &body(1, 1_000_000), Claim::DataSeal);
    assert!(matches!(refused, Err(SealError::NoSpace(_))), "there is room for it alone");
    files.set_capacity(Some(files.used() + (3 << 20)));
    outbox.seal(&header(1), &body(1, 1_000_000), Claim::DataSeal).unwrap();
    files.set_capacity(Some(files.used()));
    outbox.seal(&header(2), &body(2, 1_400_000), Claim::Owed).unwrap();
    // It is used up now, so the next batch waits, while what is owed may try.
    let refused = outbox.seal(&header(3), &body(3, 100), Claim::DataSeal);
    assert!(matches!(refused, Err(SealError::NoSpace(_))));
    outbox.remove(header(2).batch).unwrap();
    outbox.sync().unwrap();
    outbox.seal(&header(4), &body(4, 1_400_000), Claim::Owed).unwrap();
}

#[test]
fn the_reserve_of_a_full_disk_outlives_a_restart_and_a_crash() {
    for end in [SimFiles::kill, SimFiles::crash] {
        let files = SimFiles::new(3);
        let (outbox, _) = open(&files);
        outbox.seal(&header(1), &body(1, 1_000_000), Claim::DataSeal).unwrap();
        outbox.sync().unwrap();
        drop(outbox);
        files.set_capacity(Some(0));
        end(&files);
        let share = share(ByteSize::mib(64));
        let (outbox, _) = open_with(&files, Arc::clone(&share));
        assert_eq!(share.used(), files.used());
        outbox.seal(&header(2), &body(2, 1_400_000), Claim::Owed).unwrap();
        assert_eq!(share.used(), files.used());
    }
}

#[test]
fn the_reserve_is_small_while_nothing_waits() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::mib(512));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    let idle = files.used();
    assert_eq!((idle, share.used()), (64 << 10, 64 << 10));
    outbox.seal(&header(1), &body(1, 5_000_000), Claim::DataSeal).unwrap();
    assert_eq!(files.used(), (8 << 20) + on_disk(files.bytes(&path(1)).len() as u64));
    outbox.sync().unwrap();
    outbox.remove(header(1).batch).unwrap();
    outbox.sync().unwrap();
    assert_eq!((files.used(), share.used()), (idle, idle));
    drop(outbox);
    files.crash();
    drop(open_with(&files, Arc::clone(&share)));
    assert_eq!((files.used(), share.used()), (idle, 0));
}

/// As many batches as may wait do; then data waits, and what lets batches go does not. A ledger of so many fits too.
#[test]
fn as_many_batches_as_may_wait_can_be_sealed_recorded_and_found_again() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::gib(5));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    let ledger_dir = Path::new("/data/ledger");
    let open_ledger = || {
        crate::ledger::Ledger::open(ledger_dir, Arc::new(files.clone()), StillClock::shared(), Arc::clone(&share))
            .unwrap()
    };
    let (mut ledger, mut state) = open_ledger();
    let numbered = |number: usize| {
        let mut bytes = [7; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Header { batch: BatchId::from_bytes(bytes), ..header(1) }
    };
    for number in 0..BATCHES_MAX {
        let header = numbered(number);
        outbox.seal(&header, &[Bytes::from_static(b"one record")], Claim::DataSeal).unwrap();
        let sealed = crate::ledger::Entry::Sealed { batch: header.batch, pieces: header.pieces };
        state.apply(&sealed).unwrap();
    }
    let crowded = outbox.seal(&numbered(BATCHES_MAX), &[], Claim::DataSeal);
    assert!(matches!(crowded, Err(SealError::Crowded { batches: BATCHES_MAX })), "{crowded:?}");
    outbox.seal(&numbered(BATCHES_MAX), &[], Claim::Owed).unwrap();
    outbox.remove(numbered(BATCHES_MAX).batch).unwrap();
    outbox.remove(numbered(0).batch).unwrap();
    outbox.seal(&numbered(0), &[], Claim::DataSeal).unwrap();
    ledger.checkpoint(&state).unwrap();
    assert_eq!(share.used(), files.used());
    let ledger_bytes: usize =
        files.paths().iter().filter(|path| path.starts_with(ledger_dir)).map(|path| files.bytes(path).len()).sum();
    println!("{BATCHES_MAX} batches: a ledger of {ledger_bytes} bytes");
    drop((outbox, ledger));
    files.crash();
    assert_eq!(open_with(&files, Arc::clone(&share)).1.len(), BATCHES_MAX);
    assert_eq!(open_ledger().1, state);
}

#[test]
fn a_removed_batch_may_come_back_until_the_removal_is_made_durable() {
    let base = SimFiles::new(3);
    let outbox = sealed(&base, 1, 100);
    outbox.remove(header(1).batch).unwrap();
    outbox.remove(header(1).batch).unwrap();
    let back = (0..50).filter(|seed| {
        let files = base.fork(*seed);
        files.crash();
        !open(&files).1.is_empty()
    });
    assert!(back.count() > 0);
    outbox.sync().unwrap();
    for seed in 0..50 {
        let files = base.fork(seed);
        files.crash();
        assert!(open(&files).1.is_empty(), "seed {seed}");
    }
}

#[test]
fn space_is_counted_as_the_disk_counts_it_and_given_back_when_the_outbox_is_dropped() {
    let files = SimFiles::new(3);
    let share = share(ByteSize::mib(1));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    outbox.seal(&header(1), &body(1, 1000), Claim::DataSeal).unwrap();
    outbox.seal(&header(2), &body(2, 2000), Claim::DataSeal).unwrap();
    assert_eq!(share.used(), files.used());
    outbox.remove(header(1).batch).unwrap();
    assert_eq!(share.used(), files.used());
    drop(outbox);
    assert_eq!(share.used(), 0);
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    assert_eq!(share.used(), files.used());
    assert_eq!(outbox.usage().batches, 1);
}

// Damage.

/// Opens the outbox after `change` was done to the file of batch 1, and reads what can be read.
fn read_after(base: &SimFiles, change: impl FnOnce(&mut Vec<u8>)) -> Result<Bytes, String> {
    let files = base.fork(1);
    files.damage(&path(1), change);
    let (outbox, found) = open(&files);
    match &found[..] {
        [Found::Whole { summary, .. }] => {
            assert_eq!(*summary, header(1).into());
            outbox.body(header(1).batch).unwrap().read(0, usize::MAX).map_err(|error| error.to_string())
        }
        [Found::Damaged { batch, why, .. }] => {
            assert_eq!(*batch, Some(header(1).batch));
            assert_eq!(outbox.body(header(1).batch).unwrap_err().kind(), ErrorKind::InvalidData);
            Err(why.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_byte_of_a_batch_file_is_detected() {
    let base = SimFiles::new(1);
    drop(sealed(&base, 1, 300));
    for at in 0..base.bytes(&path(1)).len() {
        for bit in [1, 0x80] {
            read_after(&base, |bytes| bytes[at] ^= bit).expect_err(&format!("byte {at}"));
        }
    }
    println!("{} flipped bits", 2 * base.bytes(&path(1)).len());
}

#[test]
fn a_batch_file_cut_anywhere_or_too_long_is_detected() {
    let base = SimFiles::new(1);
    drop(sealed(&base, 1, 300));
    for len in 0..base.bytes(&path(1)).len() {
        read_after(&base, |bytes| bytes.truncate(len)).expect_err(&format!("cut at {len}"));
    }
    read_after(&base, |bytes| bytes.push(0)).unwrap_err();
    println!("{} cuts", base.bytes(&path(1)).len());
}

#[test]
fn a_damaged_block_is_named_and_the_others_can_be_read() {
    let base = SimFiles::new(1);
    drop(sealed(&base, 1, 600_000));
    base.damage(&path(1), |bytes| bytes[32 + 300_000] ^= 1);
    let (outbox, found) = open(&base);
    assert_eq!(batches(&found), [header(1).batch], "an open does not read bodies");
    let read = outbox.body(header(1).batch).unwrap();
    let error = read.read(262_143, 2).unwrap_err();
    assert_eq!(error.to_string(), "checksum of block 1 of the body does not match");
    read.read(0, 262_144).unwrap();
    read.read(524_288, 75_712).unwrap();
}

#[test]
fn swapped_blocks_and_tables_of_other_batches_are_detected() {
    let (base, other) = (SimFiles::new(1), SimFiles::new(1));
    drop(sealed(&base, 1, 600_000));
    drop(sealed(&other, 2, 600_000));
    let other = other.bytes(&path(2));
    read_after(&base, |bytes| bytes[32..32 + 524_288].rotate_left(262_144)).unwrap_err();
    let body_and_table = 32..32 + 600_000 + 16;
    read_after(&base, |bytes| bytes[body_and_table.clone()].copy_from_slice(&other[body_and_table])).unwrap_err();
}

#[test]
fn a_file_under_another_batchs_name_is_damage() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 300));
    files.rename(&path(1), &path(2)).unwrap();
    let (_, found) = open(&files);
    assert!(matches!(&found[..], [Found::Damaged { why, .. }] if why == "file and header name different batches"));
}

#[test]
fn a_header_that_is_whole_is_kept_when_the_rest_is_not() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 300));
    let table_at = 32 + 300;
    files.damage(&path(1), |bytes| bytes[table_at] ^= 1);
    assert!(matches!(&open(&files).1[..], [Found::Damaged { summary: Some(found), .. }] if *found == header(1).into()));
}

#[test]
fn a_damaged_batch_can_be_set_aside_and_goes_on_taking_space() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 300));
    files.damage(&path(1), |bytes| bytes[20] ^= 1);
    let share = share(ByteSize::mib(1));
    let (outbox, _) = open_with(&files, Arc::clone(&share));
    outbox.set_aside(header(1).batch).unwrap();
    outbox.set_aside(header(1).batch).unwrap();
    assert_eq!((outbox.usage().batches, share.used()), (0, files.used()));
    drop(outbox);
    assert_eq!(share.used(), 0);
    files.crash();
    let (_outbox, found) = open_with(&files, Arc::clone(&share));
    assert!(matches!(&found[..], [Found::Damaged { name, batch: None, .. }] if name.ends_with(".batch.damaged")));
    assert_eq!(share.used(), files.used());
}

#[test]
fn a_batch_that_was_set_aside_never_comes_back() {
    let base = SimFiles::new(1);
    let outbox = sealed(&base, 1, 300);
    outbox.set_aside(header(1).batch).unwrap();
    for seed in 0..50 {
        let files = base.fork(seed);
        files.crash();
        let (_, found) = open(&files);
        assert!(matches!(&found[..], [Found::Damaged { batch: None, .. }]), "seed {seed}: {found:?}");
    }
}

/// A batch whose seal the last process did not live to finish is seen under its name; once an open has told of it, it is
/// there for good.
#[test]
fn what_an_open_finds_is_there_after_the_power_failed() {
    for op in [Op::SyncDir, Op::Rename] {
        for seed in 0..50 {
            let files = SimFiles::new(seed);
            let outbox = sealed(&files, 1, 300);
            outbox.remove(header(1).batch).unwrap();
            files.die(op, 1);
            outbox.seal(&header(2), &body(2, 300), Claim::DataSeal).unwrap_err();
            files.kill();
            let told = batches(&open(&files).1);
            files.crash();
            assert_eq!(batches(&open(&files).1), told, "{op:?}, seed {seed}");
        }
    }
}

#[test]
fn unfinished_files_are_removed_and_strangers_are_left_alone() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 300));
    for name in ["left.tmp", "notes.txt", ".hidden"] {
        files.create(&Path::new(DIR).join(name)).unwrap();
    }
    let (_, found) = open(&files);
    assert!(
        matches!(&found[..], [Found::Whole { .. }, Found::Damaged { name, batch: None, .. }] if name == "notes.txt")
    );
    let names = files.list(Path::new(DIR)).unwrap();
    assert!(names.contains(&"notes.txt".to_owned()) && !names.contains(&"left.tmp".to_owned()), "{names:?}");
}

proptest! {
    #[test]
    fn any_bytes_of_a_head_and_header_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some((head, _)) = bytes.split_first_chunk() {
            prop_assert!(Head::decode(head).is_err());
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    let letters = vec![Letters { batch: header(8).batch, ordinals: [0, 7, 8].into_iter().collect() }];
    let dead =
        Content::DeadLetters { key: "errors/1".into(), content_type: "text/plain".into(), letters: letters.clone() };
    for content in [header(9).content, Content::Pieces, dead.clone()] {
        let header = Header { content, ..header(9) };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
    assert_eq!(Summary::from(Header { content: dead, ..header(9) }).letters, letters);
    assert_eq!(Summary::from(header(9)).letters, []);
}

/// A change of this dump is a change of the format: it needs another version number and a line in
/// `docs/formats/outbox.md`.
#[test]
fn the_bytes_of_a_batch_file_are_these() {
    let files = SimFiles::new(1);
    drop(sealed(&files, 1, 40));
    let lines: Vec<String> = files.bytes(&path(1)).chunks(32).map(crate::testing::hex).collect();
    assert_eq!(lines, include_str!("golden.hex").lines().collect::<Vec<_>>(), "\n{}\n", lines.join("\n"));
}
