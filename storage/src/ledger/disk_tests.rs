//! Goal: whatever the disk does, the ledger says after an open what was appended before, or a little more; and a
//! full disk never keeps a batch from being settled. Method: the simulated disk beside a plain model.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use hydrant_core::{BatchId, ByteSize, Position, Span};

use super::*;
use crate::files::sim::{Op, SimFiles, Times};
use crate::testing::{StillClock, share};

const DIR: &str = "/data/ledger";

fn open_with(files: &SimFiles, share: Arc<Share>) -> Result<(Ledger, Checkpoint), OpenError> {
    Ledger::open(Path::new(DIR), Arc::new(files.clone()), StillClock::shared(), share)
}

fn open(files: &SimFiles) -> (Ledger, Checkpoint) {
    open_with(files, share(ByteSize::mib(64))).unwrap()
}

fn batch(number: u32) -> BatchId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    BatchId::from_bytes(bytes)
}

fn sealed(number: u32) -> Entry {
    let span = Span::new(Position::new(u64::from(number) * 3 + 1), 3);
    Entry::Sealed { batch: batch(number), pieces: [span].into_iter().collect() }
}

fn settled(number: u32) -> Entry {
    Entry::Settled { batch: batch(number) }
}

fn after<'a>(start: &Checkpoint, entries: impl IntoIterator<Item = &'a Entry>) -> Checkpoint {
    let mut state = start.clone();
    for entry in entries {
        state.apply(entry).unwrap();
    }
    state
}

fn ledgers(files: &SimFiles) -> Vec<String> {
    files.list(Path::new(DIR)).unwrap()
}

#[test]
fn what_was_appended_is_there_after_any_crash() {
    let base = SimFiles::new(1);
    let (mut ledger, start) = open(&base);
    assert_eq!(start, Checkpoint::default());
    let appends = [vec![sealed(1), sealed(2)], vec![settled(1)], vec![], vec![sealed(3)]];
    for entries in &appends {
        ledger.append(entries).unwrap();
    }
    for seed in 0..50 {
        let files = base.fork(seed);
        files.crash();
        assert_eq!(open(&files).1, after(&start, appends.iter().flatten()), "seed {seed}");
    }
}

#[test]
fn an_append_that_was_cut_short_is_there_whole_or_not_at_all_and_the_ledger_goes_on() {
    let base = SimFiles::new(1);
    let (mut ledger, start) = open(&base);
    ledger.append(&[sealed(1)]).unwrap();
    let (mut whole, mut cut) = (0, 0);
    for seed in 0..200 {
        let files = base.fork(seed);
        let (mut ledger, _) = open(&files);
        files.fail(Op::Sync, 1, Times::FromThenOn, ErrorKind::Other);
        let many: Vec<Entry> = (2..80).map(sealed).collect();
        assert!(matches!(ledger.append(&many), Err(LedgerError::Poisoned(_))));
        files.heal();
        files.crash();
        let (mut ledger, state) = open(&files);
        let all = [sealed(1)].into_iter().chain(many).collect::<Vec<_>>();
        if state == after(&start, &all) {
            whole += 1;
        } else {
            assert_eq!(state, after(&start, &all[..1]), "seed {seed}");
            cut += u64::from(ledger.cut_bytes() > 0);
        }
        ledger.append(&[settled(1)]).unwrap();
        files.crash();
        assert_eq!(open(&files).1, after(&state, &[settled(1)]), "seed {seed}");
    }
    assert!(whole > 0 && cut > 0, "both were tried: {whole} whole, {cut} cut");
}

#[test]
fn a_failed_write_or_fsync_poisons_and_is_never_tried_again() {
    for op in [Op::Write, Op::Sync] {
        let files = SimFiles::new(1);
        let (mut ledger, state) = open(&files);
        files.fail(op, 1, Times::Once, ErrorKind::Other);
        assert!(matches!(ledger.append(&[sealed(1)]), Err(LedgerError::Poisoned(_))), "{op:?}");
        let before = Op::CHANGES.map(|op| files.count(op));
        assert!(matches!(ledger.append(&[sealed(2)]), Err(LedgerError::Poisoned(_))), "{op:?}");
        assert!(matches!(ledger.checkpoint(&state), Err(LedgerError::Poisoned(_))), "{op:?}");
        assert_eq!(Op::CHANGES.map(|op| files.count(op)), before, "{op:?}: the disk was asked for something");
    }
}

/// Every change that a checkpoint asks of the disk, one after the other, fails; then the power does.
#[test]
fn a_checkpoint_that_fails_at_any_step_loses_nothing() {
    let base = SimFiles::new(1);
    let (mut ledger, start) = open(&base);
    let entries = [sealed(1), sealed(2), settled(1)];
    ledger.append(&entries).unwrap();
    let before = after(&start, &entries);
    let mut next = before.clone();
    next.advance(Position::new(7));
    next.unlinked(batch(1));
    for op in Op::CHANGES {
        for nth in 1..3 {
            for times in [Times::Once, Times::FromThenOn] {
                for seed in 0..30 {
                    let files = base.fork(seed);
                    let (mut ledger, _) = open(&files);
                    files.fail(op, nth, times, ErrorKind::Other);
                    let outcome = ledger.checkpoint(&next);
                    files.heal();
                    let later = ledger.append(&[sealed(9)]);
                    files.crash();
                    let (_, state) = open(&files);
                    let what = format!("{op:?} {nth} {times:?}, seed {seed}: {outcome:?}");
                    let extra = if later.is_ok() { vec![sealed(9)] } else { vec![] };
                    let new = after(&next, &extra);
                    assert!(state == new || outcome.is_err() && state == after(&before, &extra), "{what}");
                    assert_eq!(ledgers(&files).len(), 1, "{what}: {:?}", ledgers(&files));
                }
            }
        }
    }
}

#[test]
fn a_checkpoint_starts_small_again_and_gives_the_old_files_room_back() {
    let files = SimFiles::new(1);
    let share = share(ByteSize::mib(64));
    let (mut ledger, mut state) = open_with(&files, Arc::clone(&share)).unwrap();
    for number in 0..3_000 {
        let entries = [sealed(number), settled(number)];
        ledger.append(&entries).unwrap();
        state = after(&state, &entries);
        state.unlinked(batch(number));
    }
    assert!(ledger.grown() > STEP_BYTES / 2);
    state.advance(Position::new(9_001));
    ledger.checkpoint(&state).unwrap();
    assert_eq!(ledger.grown(), 0);
    assert_eq!(share.used(), files.used());
    assert_eq!(files.used(), on_disk(RESERVE_BYTES + 1));
    drop(ledger);
    assert_eq!(share.used(), 0);
    let (ledger, found) = open_with(&files, Arc::clone(&share)).unwrap();
    assert_eq!((found, share.used()), (state, files.used()));
    drop(ledger);
}

#[test]
fn on_a_full_disk_every_owed_batch_can_still_be_settled() {
    for by_share in [true, false] {
        let files = SimFiles::new(1);
        let share = share(if by_share { ByteSize::kib(512) } else { ByteSize::mib(64) });
        let (mut ledger, mut state) = open_with(&files, share).unwrap();
        if !by_share {
            files.set_capacity(Some(600 << 10));
        }
        let mut owed = 0;
        while ledger.append(&[sealed(owed)]).map_err(|error| assert!(matches!(error, LedgerError::NoSpace(_)))).is_ok()
        {
            state = after(&state, &[sealed(owed)]);
            owed += 1;
        }
        assert!(owed > 1000, "{owed}");
        for number in 0..owed {
            ledger.append(&[settled(number)]).unwrap();
            state = after(&state, &[settled(number)]);
        }
        files.crash();
        assert_eq!(open(&files).1, state);
    }
}

#[test]
fn on_a_full_disk_a_batch_that_is_sealed_and_settled_at_once_may_use_the_reserve() {
    let files = SimFiles::new(1);
    let (mut ledger, mut state) = open(&files);
    files.set_capacity(Some(files.used()));
    let mut owed = 0;
    while ledger.append(&[sealed(owed)]).is_ok() {
        state = after(&state, &[sealed(owed)]);
        owed += 1;
    }
    let at_once = [sealed(owed), settled(owed)];
    ledger.append(&at_once).unwrap();
    let instead = [sealed(owed + 1), settled(0)];
    ledger.append(&instead).unwrap();
    state = after(&state, at_once.iter().chain(&instead));
    files.crash();
    assert_eq!(open(&files).1, state);
}

#[test]
fn the_reserve_is_made_good_as_soon_as_the_disk_has_room_again() {
    let files = SimFiles::new(1);
    let (mut ledger, _) = open(&files);
    files.set_capacity(Some(files.used()));
    for number in 0..1_000 {
        ledger.append(&[sealed(number), settled(number)]).unwrap();
    }
    files.set_capacity(None);
    ledger.append(&[sealed(2_000), settled(2_000)]).unwrap();
    assert!(ledger.current.allocated - ledger.current.end >= reserve(0));
}

/// The next process sees what the last one did not live to make durable; once an open has told of it, it is for good.
#[test]
fn what_an_open_tells_is_there_after_the_power_failed() {
    for op in [Op::Sync, Op::Rename, Op::SyncDir, Op::Remove] {
        for seed in 0..50 {
            let files = SimFiles::new(seed);
            let (mut ledger, mut state) = open(&files);
            ledger.append(&[sealed(1)]).unwrap();
            state = after(&state, &[sealed(1)]);
            files.die(op, 1);
            if op == Op::Sync {
                ledger.append(&[sealed(2)]).unwrap_err();
            } else {
                state.advance(Position::new(3));
                ledger.checkpoint(&state).ok();
            }
            files.kill();
            let (_, told) = open(&files);
            files.crash();
            assert_eq!(open(&files).1, told, "{op:?}, seed {seed}");
        }
    }
}

/// After an fsync that failed, the kernel may show what it will never write, and say yes to the next fsync.
#[test]
fn what_is_read_after_a_failed_fsync_is_written_again_before_it_is_told() {
    let mut told_more = 0;
    for seed in 0..50 {
        let files = SimFiles::new(seed);
        let (mut ledger, start) = open(&files);
        files.fail(Op::Sync, 1, Times::Once, ErrorKind::Other);
        ledger.append(&[sealed(1)]).unwrap_err();
        files.kill();
        let (_, told) = open(&files);
        told_more += usize::from(told != start);
        files.crash();
        assert_eq!(open(&files).1, told, "seed {seed}");
    }
    assert!(told_more > 0);
}

#[test]
fn a_checkpoint_without_room_is_put_off_and_the_old_file_goes_on() {
    let files = SimFiles::new(1);
    let (mut ledger, state) = open(&files);
    files.set_capacity(Some(files.used()));
    assert!(matches!(ledger.checkpoint(&state), Err(LedgerError::NoSpace(_))));
    ledger.append(&[sealed(1)]).unwrap();
    files.set_capacity(None);
    let state = after(&state, &[sealed(1)]);
    ledger.checkpoint(&state).unwrap();
    files.crash();
    assert_eq!(open(&files).1, state);
}

#[test]
fn an_open_needs_no_room() {
    let files = SimFiles::new(1);
    let (mut ledger, _) = open(&files);
    ledger.append(&[sealed(1)]).unwrap();
    drop(ledger);
    files.set_capacity(Some(0));
    let full = share(ByteSize::bytes(1));
    let (mut ledger, state) = open_with(&files, full).unwrap();
    assert_eq!(state.owed().count(), 1);
    ledger.append(&[settled(1)]).unwrap();
}

#[test]
fn damage_stops_the_open_and_says_where() {
    let files = SimFiles::new(1);
    let (mut ledger, _) = open(&files);
    for number in 1..4 {
        ledger.append(&[sealed(number)]).unwrap();
    }
    let at = ledger.current.checkpoint_end;
    drop(ledger);
    let name = &ledgers(&files)[0];
    files.damage(&Path::new(DIR).join(name), |bytes| bytes[usize::try_from(at).unwrap() + 30] ^= 1);
    let error = open_with(&files, share(ByteSize::mib(1))).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { offset, damage: Damage::Gap, .. } if *offset == at), "{error}");
    assert_eq!(
        error.to_string(),
        "ledger /data/ledger/0000000000000001.ledger is damaged at byte 53: an invalid entry lies before a valid one"
    );
}

#[test]
fn an_old_file_that_came_back_does_not_count() {
    let files = SimFiles::new(1);
    let (mut ledger, state) = open(&files);
    let old = files.bytes(&Path::new(DIR).join(&ledgers(&files)[0]));
    let state = after(&state, &[sealed(1)]);
    ledger.append(&[sealed(1)]).unwrap();
    ledger.checkpoint(&state).unwrap();
    drop(ledger);
    files.create(&Path::new(DIR).join(file_name(1))).unwrap();
    files.damage(&Path::new(DIR).join(file_name(1)), |bytes| *bytes = old);
    assert_eq!(open(&files).1, state);
    assert_eq!(ledgers(&files), [file_name(2)]);
}
