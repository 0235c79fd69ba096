//! The simulated disk must be as bad as it says, or the tests that stand on it prove nothing.

use super::*;

const SEEDS: u64 = 200;

fn write(file: &dyn File, offset: u64, bytes: &[u8]) {
    file.write_at(offset, &[IoSlice::new(bytes)]).unwrap();
}

/// How many of the seeds leave the disk so that `holds` says yes.
fn seeds_where(run: impl Fn(&SimFiles), holds: impl Fn(&SimFiles) -> bool) -> u64 {
    let outcome = |seed: u64| {
        let files = SimFiles::new(seed);
        files.create_dir_all(Path::new("d")).unwrap();
        run(&files);
        holds(&files)
    };
    (0..SEEDS).map(|seed| u64::from(outcome(seed))).sum()
}

fn synced_file(files: &SimFiles) -> Arc<dyn File> {
    let file = files.create(Path::new("d/a")).unwrap();
    write(&*file, 0, &[1; 4096]);
    file.sync().unwrap();
    files.sync_dir(Path::new("d")).unwrap();
    file
}

#[test]
fn what_was_synced_survives_every_crash() {
    let run = |files: &SimFiles| {
        synced_file(files);
        files.crash();
    };
    assert_eq!(seeds_where(run, |files| files.bytes(Path::new("d/a")) == [1; 4096]), SEEDS);
}

#[test]
fn what_was_not_synced_is_kept_dropped_or_torn_at_sectors() {
    let run = |files: &SimFiles| {
        write(&*synced_file(files), 100, &[2; 3000]);
        files.crash();
    };
    let twos =
        |files: &SimFiles| -> usize { files.bytes(Path::new("d/a")).iter().map(|byte| usize::from(*byte == 2)).sum() };
    let (kept, dropped) = (seeds_where(run, |files| twos(files) == 3000), seeds_where(run, |files| twos(files) == 0));
    let torn = seeds_where(run, |files| {
        let bytes = files.bytes(Path::new("d/a"));
        let whole = |(sector, bytes): (usize, &[u8])| {
            let written = if sector == 0 { &bytes[100..] } else { bytes };
            let written = &written[..written.len().min(3100_usize.saturating_sub(sector * 512))];
            written.windows(2).all(|pair| pair[0] == pair[1])
        };
        assert!(bytes.chunks(512).enumerate().all(whole));
        (1..3000).contains(&twos(files))
    });
    assert!(kept > 20 && dropped > 20 && torn > 20, "{kept} {dropped} {torn}");
    assert_eq!(kept + dropped + torn, SEEDS);
}

#[test]
fn names_without_a_sync_of_their_folder_come_and_go_each_for_itself() {
    let run = |files: &SimFiles| {
        synced_file(files);
        files.create(Path::new("d/b")).unwrap().sync().unwrap();
        files.rename(Path::new("d/a"), Path::new("d/c")).unwrap();
        files.crash();
    };
    for expected in [&["a"][..], &["a", "b"], &["c"], &["b", "c"]] {
        let seen = seeds_where(run, |files| files.list(Path::new("d")).unwrap() == expected);
        assert!(seen > 20, "{expected:?}: {seen}");
    }
}

#[test]
fn a_length_is_not_to_be_trusted() {
    let run = |files: &SimFiles| {
        write(&*synced_file(files), 4096, &[2; 8192]);
        files.crash();
    };
    let longer_without_bytes = |files: &SimFiles| {
        let bytes = files.bytes(Path::new("d/a"));
        bytes.len() > 4096 && bytes[4096..].iter().all(|byte| *byte == 0)
    };
    assert!(seeds_where(run, longer_without_bytes) > 10);
    assert!(seeds_where(run, |files| files.bytes(Path::new("d/a")).len() == 4096) > 10);
}

#[test]
fn after_a_failed_sync_no_later_one_brings_the_bytes_back() {
    let run = |files: &SimFiles| {
        let file = synced_file(files);
        write(&*file, 0, &[2; 512]);
        files.fail(Op::Sync, 1, Times::Once, ErrorKind::Other);
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(files.bytes(Path::new("d/a"))[0], 2, "it can still be read");
        files.crash();
    };
    let lost = seeds_where(run, |files| files.bytes(Path::new("d/a"))[0] == 1);
    assert!((20..SEEDS - 20).contains(&lost), "{lost}");
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let files = SimFiles::new(1);
    files.set_capacity(Some(3 * 4096));
    let file = files.create(Path::new("a")).unwrap();
    file.allocate(5000).unwrap();
    assert_eq!(file.allocate(3 * 4096 + 1).unwrap_err().kind(), ErrorKind::StorageFull);
    let other = files.create(Path::new("b")).unwrap();
    assert_eq!(other.allocate(5000).unwrap_err().kind(), ErrorKind::StorageFull, "it takes whole blocks");
    assert_eq!((file.len().unwrap(), files.used()), (5000, 2 * 4096));
    files.remove(Path::new("a")).unwrap();
    files.open(Path::new("b")).unwrap().allocate(3 * 4096).unwrap();
}

#[test]
fn the_chosen_operation_fails_once_or_from_then_on() {
    let files = SimFiles::new(1);
    let file = files.create(Path::new("a")).unwrap();
    files.fail(Op::Write, 2, Times::Once, ErrorKind::Other);
    let outcomes = |op: &dyn Fn() -> io::Result<()>| [op(), op(), op(), op()].map(|outcome| outcome.is_ok());
    assert_eq!(outcomes(&|| file.write_at(0, &[IoSlice::new(b"x")])), [true, false, true, true]);
    files.fail(Op::Sync, 3, Times::FromThenOn, ErrorKind::Other);
    assert_eq!(outcomes(&|| file.sync()), [true, true, false, false]);
    files.heal();
    assert_eq!(outcomes(&|| file.sync()), [true; 4]);
    assert_eq!((files.count(Op::Write), files.count(Op::Sync)), (4, 8));
    assert_eq!(files.trace().last(), Some(&(Op::Sync, PathBuf::from("a"))));
}

#[test]
fn a_file_opened_before_a_crash_writes_nothing_after_it() {
    let files = SimFiles::new(1);
    files.create_dir_all(Path::new("d")).unwrap();
    let file = synced_file(&files);
    files.kill();
    file.write_at(0, &[IoSlice::new(b"late")]).unwrap_err();
    file.sync().unwrap_err();
    assert_eq!(files.bytes(Path::new("d/a")), [1; 4096]);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let files = SimFiles::new(seed);
        files.create_dir_all(Path::new("d")).unwrap();
        write(&*synced_file(&files), 0, &(0..4096).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>());
        files.create(Path::new("d/b")).unwrap();
        files.crash();
        (files.paths(), files.bytes(Path::new("d/a")))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert!((1..20).any(|seed| run(seed) != run(0)));
}
