//! Goal: a stream finds its data again or says that it cannot, and two processes never share a directory. Method: the
//! simulated disk, and a temporary folder where the lock and modes are asked for.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use hydrant_core::{BatchId, ByteSize};

use super::*;
use crate::files::real::RealFiles;
use crate::files::sim::{Op, SimFiles, Times};
use crate::testing::{StillClock, share};

const DATA: &str = "/data";

fn open(files: &SimFiles) -> Result<DataDir, OpenError> {
    DataDir::open_without_lock(Path::new(DATA), Arc::new(files.clone()))
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn declared<'a>(name: &'a str, definition: &'a str, sink_kind: &'a str) -> Declaration<'a> {
    Declaration { name, definition, sink_kind }
}

fn declare(data: &mut DataDir, name: &str, definition: &str) -> Result<(StreamEntry, PathBuf), DeclareError> {
    data.declare(declared(name, definition, "s3"), at(5), 0xabc)
}

#[test]
fn a_stream_keeps_its_identity_and_folder_over_a_crash() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    let (made, path) = data.declare(declared("web", "size: 5MiB", "s3"), at(5), 0xabc).unwrap();
    assert_eq!((made.incarnation, made.version, made.created_at, made.updated_at), (0xabc, 1, at(5), None));
    assert_eq!(path, Path::new("/data/streams/web-0000000000000abc"));
    files.crash();
    let mut data = open(&files).unwrap();
    let again = data.declare(declared("web", "size: 5MiB", "s3"), at(9), 0xdef).unwrap();
    assert_eq!(again, (made, path.clone()));
    assert_eq!(files.list(&path).unwrap(), ["ledger", "log", "outbox"]);
}

#[test]
fn another_definition_is_the_next_version() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    declare(&mut data, "web", "a").unwrap();
    let (changed, _) = data.declare(declared("web", "b", "s3"), at(9), 1).unwrap();
    assert_eq!((changed.version, changed.updated_at, changed.incarnation), (2, Some(at(9)), 0xabc));
    files.crash();
    assert_eq!(open(&files).unwrap().streams()["web"], changed);
}

#[test]
fn a_stream_whose_data_vanished_is_an_error_and_is_never_made_again_empty() {
    for gone in ["", "/log", "/outbox", "/ledger"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut data = DataDir::open(&path, Arc::new(RealFiles)).unwrap();
        let (_, stream) = declare(&mut data, "web", "a").unwrap();
        std::fs::remove_dir_all(format!("{}{gone}", stream.display())).unwrap();
        let error = declare(&mut data, "web", "a").unwrap_err();
        assert!(matches!(&error, DeclareError::DirectoryVanished { .. }), "{gone}: {error}");
        drop(data);
        let mut data = DataDir::open(&path, Arc::new(RealFiles)).unwrap();
        declare(&mut data, "web", "a").unwrap_err();
        declare(&mut data, "other", "a").unwrap();
    }
}

#[test]
fn another_kind_of_sink_is_refused_while_batches_are_owed() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    let (_, path) = declare(&mut data, "web", "a").unwrap();
    let batch = path.join("outbox").join(format!("{}.batch", BatchId::from_bytes([1; 16])));
    files.create(&batch).unwrap();
    let error = data.declare(declared("web", "b", "file"), at(9), 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream web still owes 1 batches to its s3 sink; drain it before its sink becomes file"
    );
    assert_eq!(data.streams()["web"].version, 1);
    files.remove(&batch).unwrap();
    let (changed, _) = data.declare(declared("web", "b", "file"), at(9), 1).unwrap();
    assert_eq!((changed.version, changed.sink_kind.as_str()), (2, "file"));
}

#[test]
fn streams_that_are_declared_no_more_are_told_of_with_their_bytes() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    declare(&mut data, "kept", "a").unwrap();
    let (_, path) = declare(&mut data, "left", "a").unwrap();
    files.create(&path.join("log").join("x")).unwrap();
    files.damage(&path.join("log").join("x"), |bytes| bytes.resize(1234, 0));
    assert_eq!(
        data.undeclared(&["kept"].into()),
        [Undeclared { name: "left".into(), path, bytes: 1234, owed: Some(Owed::default()) }]
    );
}

/// The next process sees what the last one did not live to make durable; once an open has told of it, it is for good.
#[test]
fn what_an_open_tells_is_there_after_the_power_failed() {
    for op in [Op::Sync, Op::Rename, Op::SyncDir] {
        for seed in 0..50 {
            let files = SimFiles::new(seed);
            let mut data = open(&files).unwrap();
            declare(&mut data, "web", "a").unwrap();
            files.die(op, 1);
            declare(&mut data, "web", "b").unwrap_err();
            files.kill();
            let told = open(&files).unwrap().streams().clone();
            files.crash();
            assert_eq!(*open(&files).unwrap().streams(), told, "{op:?}, seed {seed}");
        }
    }
}

#[test]
fn the_name_of_a_new_data_directory_is_made_durable() {
    let parent = tempfile::tempdir().unwrap();
    let files = SimFiles::new(1); // has the folders above it, and is asked to sync them
    lock::make_private_dir(&parent.path().join("data"), &files).unwrap();
    assert_eq!(files.count(Op::SyncDir), 1);
}

#[test]
fn only_names_of_streams_become_folders() {
    let mut data = open(&SimFiles::new(1)).unwrap();
    let long = "x".repeat(65);
    for name in ["", "a/b", "a b", "ä", "a\0", &long] {
        assert!(matches!(declare(&mut data, name, "a"), Err(DeclareError::BadName(_))), "{name:?}");
    }
    declare(&mut data, "..", "a").unwrap();
    declare(&mut data, "aZ0_-.", "a").unwrap();
}

/// Every change that a declaration asks of the disk fails, once or from then on; then the power does.
#[test]
fn a_declaration_that_fails_at_any_step_changes_nothing_or_everything() {
    let base = SimFiles::new(1);
    declare(&mut open(&base).unwrap(), "old", "a").unwrap();
    for (op, nth, seed) in
        Op::CHANGES.iter().flat_map(|op| (1..4).flat_map(move |nth| (0..10).map(move |seed| (*op, nth, seed))))
    {
        for name in ["old", "new"] {
            let files = base.fork(seed);
            let mut data = open(&files).unwrap();
            files.fail(op, nth, Times::FromThenOn, ErrorKind::Other);
            let outcome = declare(&mut data, name, "b");
            files.heal();
            files.crash();
            let mut data = open(&files).unwrap();
            let what = format!("{op:?} {nth}, seed {seed}, {name}: {outcome:?}");
            let version = data.streams().get(name).map(|entry| (entry.version, entry.definition.clone()));
            if let Ok((entry, _)) = &outcome {
                assert_eq!(version, Some((entry.version, "b".into())), "{what}");
            }
            data.declare(declared(name, "b", "s3"), at(9), 0xdef).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(data.streams().contains_key("old"), "{what}");
        }
    }
}

#[test]
fn a_full_disk_refuses_a_declaration_until_there_is_room() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    declare(&mut data, "web", "a").unwrap();
    files.set_capacity(Some(files.used()));
    assert!(matches!(declare(&mut data, "web", "b"), Err(DeclareError::Io { .. })));
    declare(&mut data, "web", "a").unwrap();
    files.set_capacity(None);
    assert_eq!(declare(&mut data, "web", "b").unwrap().0.version, 2);
}

#[test]
fn every_flipped_or_cut_byte_of_the_catalog_is_detected() {
    let files = SimFiles::new(1);
    let mut data = open(&files).unwrap();
    declare(&mut data, "web", "a: \"é\"").unwrap();
    let known = data.streams().clone();
    let path = Path::new(DATA).join("catalog.json");
    let whole = files.bytes(&path);
    for index in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[index] ^= 1;
        // White space between the fields means nothing.
        assert!(format::decode(&flipped).map_or(true, |read| read == known), "byte {index}");
        assert!(format::decode(&whole[..index]).map_or(true, |read| read == known), "cut at {index}");
    }
    files.damage(&path, |bytes| bytes[30] ^= 1);
    assert!(matches!(open(&files).unwrap_err(), OpenError::Damaged { .. }));
}

#[test]
fn a_catalog_that_is_gone_is_damage_when_there_is_data() {
    let files = SimFiles::new(1);
    let (_, path) = declare(&mut open(&files).unwrap(), "web", "a").unwrap();
    files.create(&path.join("log").join("x")).unwrap();
    files.remove(&Path::new(DATA).join("catalog.json")).unwrap();
    let error = open(&files).unwrap_err();
    assert_eq!(error.to_string(), "/data/catalog.json: missing, although there are streams");
}

#[test]
fn a_folder_of_somebody_else_or_of_another_version_is_not_touched() {
    let files = SimFiles::new(1);
    files.create_dir_all(Path::new(DATA)).unwrap();
    files.create(&Path::new(DATA).join("thesis.tex")).unwrap();
    assert!(matches!(open(&files).unwrap_err(), OpenError::Foreign { found, .. } if found == "thesis.tex"));
    assert_eq!(files.list(Path::new(DATA)).unwrap(), ["thesis.tex"]);
    let files = SimFiles::new(1);
    drop(open(&files).unwrap());
    files.damage(&Path::new(DATA).join("format"), |bytes| *bytes = b"hydrant data 2\n".to_vec());
    let error = open(&files).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data directory /data has the format \"hydrant data 2\", which another version wrote; this program reads \"hydrant data 1\""
    );
}

#[test]
fn a_format_file_that_no_version_writes_is_damage() {
    for damaged in [&b"hydrant data 1"[..], b"hydrant data x\n", b"", b"\xff\n", b"hydrant\n"] {
        let files = SimFiles::new(1);
        drop(open(&files).unwrap());
        files.damage(&Path::new(DATA).join("format"), |bytes| *bytes = damaged.to_vec());
        let error = open(&files).unwrap_err();
        assert!(matches!(&error, OpenError::Damaged { path, .. } if path.ends_with("format")), "{error}");
    }
}

#[test]
fn a_data_directory_is_private_and_one_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some").join("data");
    let first = DataDir::open(&path, Arc::new(RealFiles)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("lock"))), (0o700, 0o600));
    let second = DataDir::open(&path, Arc::new(RealFiles)).unwrap_err();
    assert_eq!(second.to_string(), format!("data directory {} is in use by another process", path.display()));
    drop(first);
    DataDir::open(&path, Arc::new(RealFiles)).unwrap();
}

#[test]
fn a_stream_lives_on_a_real_disk() {
    use crate::ledger::{Entry, Ledger, Recovery};
    use crate::outbox::{Found, Outbox};
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(RealFiles);
    let mut data = DataDir::open(&dir.path().join("data"), Arc::clone(&files)).unwrap();
    let (_, path) = declare(&mut data, "web", "a").unwrap();
    let header = crate::outbox::testing::header(1);
    let open = || {
        let share = share(ByteSize::mib(64));
        let outbox =
            Outbox::open(&path.join("outbox"), Arc::clone(&files), StillClock::shared(), Arc::clone(&share)).unwrap();
        let ledger = Ledger::open(&path.join("ledger"), Arc::clone(&files), StillClock::shared(), share).unwrap();
        (outbox, ledger)
    };
    {
        let ((outbox, _), (mut ledger, _)) = open();
        outbox.seal(&header, &crate::outbox::testing::body(1, 700_000), crate::space::Claim::DataSeal).unwrap();
        ledger.append(&[Entry::Sealed { batch: header.batch, pieces: header.pieces.clone() }]).unwrap();
    }
    let report = verify::verify(data.path(), &RealFiles).unwrap();
    // Nothing was ever appended to the log, so it misses what the ledger names, and nothing else is wrong.
    let places: Vec<_> = report.damages().map(|(_, damage)| damage.path.clone()).collect();
    assert_eq!((places, report.streams[0].outbox.batches), (vec![path.join("log")], 1));
    let ((outbox, found), (mut ledger, mut state)) = open();
    assert!(matches!(&found[..], [Found::Whole { .. }]));
    assert_eq!(Recovery::new(&state, found).owed, [header.clone().into()]);
    let body = outbox.body(header.batch).unwrap().read(0, usize::MAX).unwrap();
    assert_eq!(body, crate::outbox::testing::body(1, 700_000).concat());
    let settled = Entry::Settled { batch: header.batch };
    ledger.append(std::slice::from_ref(&settled)).unwrap();
    state.apply(&settled).unwrap();
    outbox.remove(header.batch).unwrap();
    outbox.sync().unwrap();
    state.unlinked(header.batch);
    ledger.checkpoint(&state).unwrap();
    drop((outbox, ledger));
    let ((_, found), (_, state)) = open();
    assert!(found.is_empty() && state.batches.is_empty());
}
