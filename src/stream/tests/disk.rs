//! A lane on a simulated disk that damages, refuses or does not answer.

use std::io::ErrorKind;
use std::path::PathBuf;

use hydrant_storage::buffers::Buffers;
use hydrant_storage::files::sim::{Op, SimFiles, Times};
use hydrant_storage::log::AppendError;

use super::*;
use crate::streams::Ailment;

const DIR: &str = "/data/streams/web";

/// A lane on this disk, with segments so small that the log forgets soon, and batches of a few requests.
fn on(files: &SimFiles, primary: Arc<Store>) -> Setup {
    let mut setup = Setup::with(primary);
    setup.files = Arc::new(files.clone());
    setup.segment_bytes = ByteSize::kib(8);
    setup.hints.size = ByteSize::kib(2);
    setup
}

/// A store that takes nothing before it is told to.
fn locked() -> (Arc<Store>, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let script = Arc::clone(&open);
    let store = Store::new(
        move |_, _| {
            if script.load(Ordering::SeqCst) { Act::Store } else { Act::Fail(FaultCode::Forbidden) }
        },
    );
    (store, open)
}

fn batch_files(files: &SimFiles) -> Vec<PathBuf> {
    files.paths().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "batch")).collect()
}

/// The records in a batch file, by a word that only they have.
fn count_records(files: &SimFiles, path: &Path) -> u32 {
    u32::try_from(String::from_utf8_lossy(&files.bytes(path)).matches("record ").count()).unwrap()
}

/// Flips a byte of the body: its last record's last one.
fn damage_body(files: &SimFiles, path: &Path) {
    files.damage(path, |bytes| {
        let at = bytes.windows(7).rposition(|window| window == b"record ").unwrap();
        bytes[at + 7] ^= 1;
    });
}

fn is_set_aside(files: &SimFiles, path: &Path) -> bool {
    let name = format!("{}.damaged", path.file_name().unwrap().to_str().unwrap());
    files.paths().contains(&path.with_file_name(name))
}

async fn seal(running: &Running, batches: u32) {
    for batch in 0..batches {
        running.put(lines(batch * 200..(batch + 1) * 200)).await;
    }
    running.stream.drain_soon();
    running.until("everything is sealed", |it| it.stream.counters().batches_waiting.get() >= u64::from(batches)).await;
    settle_down().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_whose_body_is_damaged_the_log_gives_what_it_has_and_nothing_is_sent_twice() {
    let (files, (store, open)) = (SimFiles::new(1), locked());
    let setup = on(&files, store);
    let running = setup.start(Path::new(DIR), 1);
    running.put(lines(0..200)).await;
    running.stream.drain_soon();
    running.until("a batch waits", |_| !batch_files(&files).is_empty()).await;
    settle_down().await;
    let damaged = batch_files(&files);
    for path in &damaged {
        damage_body(&files, path);
    }
    open.store(true, Ordering::SeqCst);
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..200, "delivered");
    assert_eq!(running.stream.counters().records_lost.get(), 0);
    assert_eq!(running.stream.health().state(), State::Healthy);
    assert!(damaged.iter().all(|path| is_set_aside(&files, path)), "{:?}", files.paths());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_forgotten_of_a_damaged_batch_is_lost_and_counted_once_also_over_a_restart() {
    for at_start in [false, true] {
        let (files, (store, open)) = (SimFiles::new(2), locked());
        let setup = on(&files, store);
        let mut running = setup.start(Path::new(DIR), 2);
        seal(&running, 20).await;
        let first = batch_files(&files).into_iter().min_by_key(|path| first_record(&files, path)).unwrap();
        let records = count_records(&files, &first);
        if at_start {
            running.stop().await;
            files.kill();
            files.damage(&first, |bytes| bytes[40] ^= 1); // its header: found by the start
            running = setup.start(Path::new(DIR), 3);
        } else {
            damage_body(&files, &first);
        }
        open.store(true, Ordering::SeqCst);
        running.drain().await;
        let arrived = setup.primary.lines();
        assert_once(&arrived, records..20 * 200, &format!("at start: {at_start}"));
        assert_eq!(running.stream.counters().records_lost.get(), u64::from(records), "at start: {at_start}");
        assert!(is_set_aside(&files, &first));
        running.stop().await;
        files.kill();
        let running = setup.start(Path::new(DIR), 4);
        running.drain().await;
        assert_eq!(running.stream.counters().records_lost.get(), 0, "not counted again");
        assert_eq!(setup.primary.lines().len(), arrived.len());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_is_no_damage_and_no_fault_of_the_destination() {
    let (files, (store, open)) = (SimFiles::new(3), locked());
    let mut setup = on(&files, store);
    setup.retry_for = RetryFor::AtMost(Duration::from_hours(1));
    let running = setup.start(Path::new(DIR), 5);
    seal(&running, 1).await;
    files.fail(Op::Read, 1, Times::FromThenOn, ErrorKind::Other);
    open.store(true, Ordering::SeqCst);
    running.until("it says so", |it| code(it) == Some("unreadable")).await;
    let counters = running.stream.counters();
    let (attempts, failed) = (setup.primary.attempts(), counters.attempts_failed.get());
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert_eq!(setup.primary.attempts(), attempts, "the destination is not bothered with what cannot be read");
    // Each batch waits for itself, half a minute on average.
    let (failed, batches) = (counters.attempts_failed.get() - failed, counters.batches_waiting.get());
    assert!(failed < batches * 3 * 60 * 4, "{failed} attempts at {batches} batches in three hours");
    files.heal();
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..200, "delivered");
    assert!(setup.dead_letter.objects().is_empty());
    assert_eq!(running.stream.health().state(), State::Healthy);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_opening_failed_in_an_fsync_is_not_opened_again_in_this_process() {
    let files = SimFiles::new(4);
    let setup = on(&files, Store::good());
    let running = setup.start(Path::new(DIR), 6);
    running.put(lines(0..10)).await;
    running.drain().await;
    // Once more for an error that is no poison: the lane is opened again and goes on.
    setup.trap.store(true, Ordering::SeqCst);
    running.put(lines(10..20)).await;
    running.drain().await;
    setup.trap.store(true, Ordering::SeqCst);
    files.fail(Op::SyncDir, 1, Times::Once, ErrorKind::Other);
    running.put(lines(20..30)).await;
    running
        .until("it has failed for good", |it| {
            matches!(it.stream.health().state(), State::Failed(Ailment { is_final: true, .. }))
        })
        .await;
    assert_eq!(code(&running), Some("poisoned"));
    let asked = files.count(Op::SyncDir);
    tokio::time::sleep(Duration::from_hours(10)).await;
    assert_eq!(files.count(Op::SyncDir), asked, "tried again");
    assert!(running.stream.drain().await.is_err(), "who waits for it is told");
    running.stop().await;
    files.crash();
    let running = setup.start(Path::new(DIR), 7);
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..30, "delivered by the next process");
    running.stop().await;
}

/// Opens a lane's files while the n-th operation of a kind fails: a failed write or fsync is poison, all else may pass.
#[test]
fn only_a_failed_write_or_fsync_of_an_opening_is_poison() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let base = SimFiles::new(5);
    runtime.block_on(async {
        let (store, _) = locked();
        let setup = on(&base, store);
        let running = setup.start(Path::new(DIR), 8);
        seal(&running, 3).await;
        running.stop().await;
    });
    base.kill();
    let mut cases = 0;
    for op in [Op::CreateDirAll, Op::List, Op::Open, Op::Len, Op::Read, Op::Remove, Op::Write, Op::Sync, Op::SyncDir] {
        for nth in 1.. {
            let files = base.fork(nth);
            let clock = Arc::new(RuntimeClock(runtime.block_on(async { tokio::time::Instant::now() })));
            let entropy = Arc::new(Seeded::new(nth));
            let edges = Edges {
                clock,
                entropy,
                files: Arc::new(files.clone()),
                pool: Pool::new(1, Blocks::new(ByteSize::mib(64)), Buffers::default()),
            };
            let before = files.count(op);
            files.fail(op, nth, Times::Once, ErrorKind::Other);
            let opened =
                OpenLane::open("web", Path::new(DIR), &Space::new(ByteSize::gib(1)).share(ByteSize::gib(1)), &edges);
            if files.count(op) - before < nth {
                assert!(opened.is_ok(), "{op:?} {nth}");
                break;
            }
            cases += 1;
            let is_poison = opened.err().map(|error| error.is_poison());
            match op {
                Op::CreateDirAll | Op::Write | Op::Sync | Op::SyncDir => {
                    assert_eq!(is_poison, Some(true), "{op:?} {nth}");
                }
                Op::Remove => assert_ne!(is_poison, Some(true), "{op:?} {nth}"),
                _ => assert_eq!(is_poison, Some(false), "{op:?} {nth}"),
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 10, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_the_disk_does_not_give_degrades_the_stream_and_is_asked_again_more_and_more_rarely() {
    let files = SimFiles::new(6);
    let setup = on(&files, Store::good());
    let running = setup.start(Path::new(DIR), 9);
    running.put(lines(0..10)).await;
    running.drain().await;
    files.fail(Op::Read, 1, Times::FromThenOn, ErrorKind::Other);
    running.put(lines(10..20)).await;
    running.until("it says so", |it| code(it) == Some("unreadable")).await;
    let State::Degraded(ailment) = running.stream.health().state() else { panic!("it goes on taking records") };
    assert!(ailment.message.starts_with("the log cannot be read") && !ailment.is_final, "{ailment:?}");
    let (read, opened) = (files.count(Op::Read), files.count(Op::List));
    tokio::time::sleep(Duration::from_hours(1)).await;
    let (read, opened) = (files.count(Op::Read) - read, files.count(Op::List) - opened);
    assert!((30..=70).contains(&read), "{read} reads in an hour");
    assert_eq!(opened, 0, "the lane is not opened again for it");
    assert_eq!(code(&running), Some("unreadable"), "all the time");
    running.put(lines(20..30)).await;
    files.heal();
    running.drain().await;
    assert_eq!(running.stream.health().state(), State::Healthy);
    assert_once(&setup.primary.lines(), 0..30, "delivered");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_log_shows_and_what_it_holds_is_still_delivered() {
    let files = SimFiles::new(7);
    let mut setup = on(&files, Store::good());
    // Nothing is sealed before the append: a write of the outbox or the ledger beside it could be the one that fails.
    setup.hints.interval = Duration::from_hours(1000);
    let running = setup.start(Path::new(DIR), 10);
    running.put(lines(0..20)).await;
    files.fail(Op::Write, 1, Times::Once, ErrorKind::StorageFull);
    let payloads = Payloads { data: Bytes::from_static(b"unsure"), lengths: vec![6] };
    // The log's own mark behind its last frame may be the write that fails; then it is poisoned already.
    let answer = running.stream.append(payloads).await;
    assert!(matches!(answer, Err(AppendError::Unknown(_) | AppendError::Poisoned(_))), "{answer:?}");
    running.until("it says so", |it| code(it) == Some("poisoned")).await;
    assert!(matches!(running.stream.health().state(), State::Degraded(Ailment { is_final: true, .. })));
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..20, "delivered");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_with_less_room_than_was_declared_empties_itself_while_producers_go_on() {
    let (files, (store, open)) = (SimFiles::new(8), locked());
    files.set_capacity(Some(1 << 20));
    let setup = on(&files, store);
    let running = setup.start(Path::new(DIR), 11);
    let (mut stored, mut refused) = (0, 0);
    // The store is down until the disk is full; then producers still take whatever they are given.
    while refused < 2_000 {
        let batch = lines(stored..stored + 100);
        let lengths = batch.iter().map(|line| u32::try_from(line.len()).unwrap()).collect();
        match running.stream.append(Payloads { data: batch.concat().into(), lengths }).await {
            Ok(_) => stored += 100,
            Err(AppendError::Full) => {
                refused += 1;
                if refused == 100 {
                    open.store(true, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
        if refused >= 100 && running.stream.counters().records_out.get() > 3 * (1 << 20) / 10 {
            break;
        }
    }
    let out = running.stream.counters().records_out.get();
    assert!(out > 3 * (1 << 20) / 10, "{stored} records stored, {out} delivered, {refused} times refused");
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..stored, "delivered");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_finds_no_room_gets_that_of_the_logs_spare_files() {
    let files = SimFiles::new(9);
    let setup = on(&files, Store::good());
    let running = setup.start(Path::new(DIR), 12);
    for batch in 0..10 {
        running.put(lines(batch * 300..(batch + 1) * 300)).await;
    }
    running.drain().await;
    // One for what comes next, and one to give.
    running.until("spare files are kept", |it| it.stream.log().usage().spare_bytes >= 2 * (8 << 10)).await;
    files.set_capacity(Some(files.used()));
    running.put(lines(3_000..3_300)).await;
    running.drain().await;
    assert_eq!(running.stream.log().usage().spare_bytes, 0);
    assert_once(&setup.primary.lines(), 0..3_300, "delivered");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_finds_no_room_for_long_says_so_until_it_does() {
    let files = SimFiles::new(10);
    let setup = on(&files, Store::good());
    let running = setup.start(Path::new(DIR), 13);
    running.put(lines(0..300)).await;
    files.set_capacity(Some(0));
    running.stream.drain_soon();
    running.until("it says so", |it| code(it) == Some("disk_full")).await;
    files.set_capacity(None);
    running.drain().await;
    assert_eq!(running.stream.health().state(), State::Healthy);
    assert_once(&setup.primary.lines(), 0..300, "delivered");
    running.stop().await;
}

/// The code of what ails the stream.
fn code(running: &Running) -> Option<&'static str> {
    match running.stream.health().state() {
        State::Healthy => None,
        State::Degraded(ailment) | State::Failed(ailment) => Some(ailment.code),
    }
}

/// The number in the first record of a batch file.
fn first_record(files: &SimFiles, path: &Path) -> u32 {
    let text = String::from_utf8_lossy(&files.bytes(path)).into_owned();
    let number = text.split("record ").nth(1).unwrap().lines().next().unwrap();
    number.parse().unwrap()
}
