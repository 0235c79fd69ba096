//! A lane whose destination takes separate pieces: each is confirmed once or lies once in the dead letters, with the reason.
//! Method: a scripted service that judges each piece, and keeps what it stores by batch and ordinal, as one that knows
//! duplicates does.

mod redriven;

use std::collections::BTreeSet;

use hydrant_core::batch::Batch;
use hydrant_core::sink::{Encoded, Sent};
use hydrant_core::{BatchId, Report};
use hydrant_storage::files::sim::{Op, SimFiles, Times};
use serde_json::Value;

use super::*;

/// What the service says of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Store,
    /// Stores it, and says that it does not know.
    StoreAndForget,
    Retry(FaultCode),
    Refuse,
    Discard,
    /// Says nothing of it.
    Silence,
    /// Says twice that it is stored, and has not stored it.
    Stammer,
    Panic,
}

type Judge = dyn Fn(usize, &str) -> Word + Send + Sync;

/// A service that judges each piece, by the number of the attempt and its bytes.
struct Service {
    judge: Box<Judge>,
    /// Pieces that cannot be sent.
    is_unfit: fn(&str) -> bool,
    limits: Limits,
    attempts: AtomicUsize,
    stored: Mutex<BTreeMap<(BatchId, u32), String>>,
    /// Said to be stored, in this life.
    confirmed: Mutex<BTreeSet<(BatchId, u32)>>,
    requests: Mutex<Vec<Vec<String>>>,
}

impl Service {
    fn new(judge: impl Fn(usize, &str) -> Word + Send + Sync + 'static) -> Self {
        Self {
            judge: Box::new(judge),
            is_unfit: |_| false,
            limits: Limits { body_bytes_max: ByteSize::mib(1), pieces_max: 1000, attempts_in_flight_max: 4 },
            attempts: AtomicUsize::new(0),
            stored: Mutex::default(),
            confirmed: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    fn good() -> Self {
        Self::new(|_, _| Word::Store)
    }

    fn lines(&self) -> Vec<String> {
        self.stored.lock().unwrap().values().cloned().collect()
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().clone()
    }
}

fn text(data: &Bytes) -> &str {
    std::str::from_utf8(data).unwrap()
}

#[async_trait]
impl PieceSink for Service {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn destination(&self) -> String {
        "test://service".to_owned()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        assert!(!batch.pieces.is_empty(), "a request without pieces");
        let unfit = batch.pieces.iter().filter(|(_, piece)| (self.is_unfit)(text(&piece.data)));
        let refused = unfit.map(|(ordinal, _)| (*ordinal, Fault::new(FaultCode::TooLarge, "too large"))).collect();
        Encoded { body: batch.pieces.iter().map(|(_, piece)| piece.data.clone()).collect(), refused }
    }

    async fn deliver(&self, batch: &Batch, encoded: &Encoded) -> Report {
        assert!(encoded.refused.is_empty(), "what cannot be sent was not taken out");
        assert!(batch.pieces.iter().zip(&encoded.body).all(|((_, piece), body)| piece.data == *body));
        assert!(batch.pieces.len() <= 1000 && batch.pieces.is_sorted_by_key(|(ordinal, _)| *ordinal));
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        self.requests
            .lock()
            .unwrap()
            .push(batch.pieces.iter().map(|(_, piece)| text(&piece.data).to_owned()).collect());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (mut verdicts, mut confirmed) = (Vec::new(), Vec::new());
        for (ordinal, piece) in &batch.pieces {
            let (id, line) = ((batch.id, *ordinal), text(&piece.data));
            assert!(!self.confirmed.lock().unwrap().contains(&id), "{line} is sent again after it was confirmed");
            let word = (self.judge)(attempt, line);
            if matches!(word, Word::Store | Word::StoreAndForget) {
                let before = self.stored.lock().unwrap().insert(id, line.to_owned());
                assert!(before.is_none_or(|before| before == line), "another piece has the same name");
            }
            match word {
                Word::Store => {
                    confirmed.push(id);
                    verdicts.push((*ordinal, Verdict::Delivered));
                }
                Word::StoreAndForget => {
                    verdicts.push((*ordinal, Verdict::Retry(Fault::new(FaultCode::Interrupted, "lost"))));
                }
                Word::Retry(code) => verdicts.push((*ordinal, Verdict::Retry(Fault::new(code, "scripted")))),
                Word::Refuse => verdicts.push((*ordinal, Verdict::Refused(Fault::new(FaultCode::Invalid, "scripted")))),
                Word::Discard => {
                    verdicts.push((*ordinal, Verdict::Discarded(Fault::new(FaultCode::TooLarge, "scripted"))));
                }
                Word::Silence => verdicts.push((ordinal + 100_000, Verdict::Delivered)),
                Word::Stammer => verdicts.extend([(*ordinal, Verdict::Delivered), (*ordinal, Verdict::Delivered)]),
                Word::Panic => panic!("scripted"),
            }
        }
        self.confirmed.lock().unwrap().extend(confirmed); // only now: an attempt that panics has confirmed nothing
        Report::Each(verdicts)
    }

    fn error_type(&self) -> &'static str {
        "test-failed"
    }

    fn known_as(&self, sent: Sent<'_>) -> Vec<(&'static str, String)> {
        vec![("documentId", format!("{}-{}", sent.batch, sent.ordinal))]
    }
}

fn setup(service: Service) -> (Setup, Arc<Service>) {
    let service = Arc::new(service);
    let mut setup = Setup::with(Store::good());
    setup.service = Some(Arc::clone(&service) as _);
    setup.letter_hints = Hints { size: ByteSize::mib(1), interval: Duration::from_mins(1) };
    (setup, service)
}

impl Setup {
    fn letters(&self) -> Vec<Value> {
        self.dead_letter.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The records of all dead letters.
    fn dead(&self) -> Vec<String> {
        let raw = |letter: &Value| base64_simd::STANDARD.decode_to_vec(letter["rawData"].as_str().unwrap()).unwrap();
        self.letters().iter().map(|letter| String::from_utf8(raw(letter)).unwrap()).collect()
    }
}

/// Every tenth record is poison.
fn is_poison(line: &str) -> bool {
    line.ends_with('7')
}

/// Asserts that what is not poison was stored once, and what is lies once in the dead letters.
#[track_caller]
fn assert_sorted_out(setup: &Setup, service: &Service, range: std::ops::Range<u32>) {
    let (stored, dead) = (service.lines(), setup.dead());
    assert!(!stored.iter().any(|line| is_poison(line)) && dead.iter().all(|line| is_poison(line)));
    assert_once(&[stored, dead].concat(), range, "stored and dead");
}

#[tokio::test(start_paused = true)]
async fn pieces_arrive_once_and_leave_nothing_behind() {
    let (setup, service) = setup(Service::good());
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    for batch in 0..10 {
        running.put(lines(batch * 300..(batch + 1) * 300)).await;
    }
    running.drain().await;
    assert_once(&service.lines(), 0..3000, "delivered");
    assert!(
        service.requests().iter().all(|request| request.len() <= 1000),
        "a request has no more than the sink takes"
    );
    let counters = running.stream.counters();
    let bytes: usize = lines(0..3000).iter().map(String::len).sum();
    assert_eq!((counters.records_out.get(), counters.bytes_out.get()), (3000, bytes as u64));
    assert_eq!((running.stream.waiting(), counters.records_refused.get()), (0, 0));
    running.stop().await;
    let left = std::fs::read_dir(dir.path().join("outbox")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().ends_with(".batch")));
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_only_the_pieces_that_are_left_are_sent_again() {
    let (setup, service) = setup(Service::new(|attempt, line| match (attempt, line.ends_with('3')) {
        (0 | 1, true) => Word::Retry(FaultCode::Throttled),
        _ => Word::Store,
    }));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 2);
    running.put(lines(0..10)).await;
    running.drain().await;
    let again = vec!["record 3".to_owned()];
    assert_eq!(service.requests(), [lines(0..10), again.clone(), again]);
    assert_once(&service.lines(), 0..10, "delivered");
    assert!(matches!(running.stream.health().state(), State::Healthy));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_missing_or_given_twice_is_no_success() {
    let (setup, service) = setup(Service::new(|attempt, line| match (attempt, line) {
        (0, "record 1") => Word::Silence,
        (0, "record 2") => Word::Stammer,
        (1, "record 1") => Word::StoreAndForget,
        (2, _) => Word::Panic,
        _ => Word::Store,
    }));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 3);
    running.put(lines(0..5)).await;
    running.drain().await;
    assert_once(&service.lines(), 0..5, "delivered");
    let sent: Vec<usize> = service.requests().iter().map(Vec::len).collect();
    assert_eq!(sent, [5, 2, 1, 1]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_poisonous_record_in_each_of_many_batches_makes_one_object_with_the_reasons() {
    // All are put before one is judged: while a put waits for its disk, paused time runs on to whatever is due.
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let judge = move |_: usize, line: &str| {
        if !gate.load(Ordering::SeqCst) {
            Word::Retry(FaultCode::Unavailable)
        } else if is_poison(line) {
            Word::Refuse
        } else {
            Word::Store
        }
    };
    let limits = Limits { body_bytes_max: ByteSize::mib(1), pieces_max: 10, attempts_in_flight_max: 4 };
    let (mut setup, service) = setup(Service { limits, ..Service::new(judge) });
    setup.letter_hints.interval = Duration::from_mins(15);
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 4);
    running.put(lines(0..300)).await;
    open.store(true, Ordering::SeqCst);
    running.until("all are judged", |it| it.stream.counters().letters_waiting.get() == 30).await;
    assert!(setup.dead_letter.objects().is_empty() && running.stream.waiting() > 0, "they wait for each other");
    running.until("they are sealed", |it| it.stream.counters().letters_waiting.get() == 0).await;
    running.drain().await;
    assert_sorted_out(&setup, &service, 0..300);
    let keys: Vec<String> = setup.dead_letter.objects().into_keys().collect();
    assert!(keys.len() == 1 && keys[0].starts_with("errors/test-failed/"), "{keys:?}");
    let letter = &setup.letters()[0];
    assert_eq!((&letter["errorCode"], &letter["errorMessage"]), (&"invalid".into(), &"scripted".into()));
    assert!(letter["attemptsMade"].as_u64() >= Some(1) && letter["stage"] == "deliver", "{letter}");
    assert_eq!(letter["outcomeUnknown"], false);
    assert_eq!(letter["documentId"], format!("{}-{}", letter["batchId"].as_str().unwrap(), letter["ordinal"]));
    let number: u64 = setup.dead()[0].trim_start_matches("record ").parse().unwrap();
    assert_eq!(letter["pieceId"], (number + 1).to_string(), "records are numbered from 1");
    assert!(letter["arrivalTimestamp"].as_u64() <= letter["attemptEndingTimestamp"].as_u64());
    let counters = running.stream.counters();
    assert_eq!((counters.records_out.get(), counters.records_refused.get()), (270, 30));
    assert!(matches!(running.stream.health().state(), State::Healthy), "poison is nobody's to mend");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_thrown_away_is_counted_and_nothing_else() {
    let (setup, service) = setup(Service::new(|attempt, line| match (attempt, is_poison(line)) {
        (_, true) => Word::Discard,
        (0, false) if line.ends_with('3') => Word::Retry(FaultCode::Throttled),
        _ => Word::Store,
    }));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..300)).await;
    running.drain().await;
    let stored = service.lines();
    assert_eq!(stored.len(), 270);
    assert!(!stored.iter().any(|line| is_poison(line)) && setup.dead().is_empty());
    let counters = running.stream.counters();
    let counted = (counters.records_out.get(), counters.records_discarded.get(), counters.records_refused.get());
    assert_eq!(counted, (270, 30, 0));
    assert_eq!(running.stream.waiting(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_thrown_away_whole_is_none_that_was_confirmed() {
    let (setup, _service) = setup(Service::new(|_, _| Word::Discard));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..30)).await;
    running.drain().await;
    let counters = running.stream.counters();
    assert_eq!((counters.records_discarded.get(), counters.batches_out.get(), counters.records_out.get()), (30, 0, 0));
    assert_eq!((running.stream.waiting(), setup.dead().len()), (0, 0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_encoded_is_refused_before_anything_is_sent() {
    let (mut setup, service) = setup(Service { is_unfit: is_poison, ..Service::good() });
    setup.letter_hints.interval = Duration::ZERO;
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 5);
    running.put(lines(0..20)).await;
    running.drain().await;
    assert_sorted_out(&setup, &service, 0..20);
    assert_eq!(service.requests().len(), 1, "one request, without them");
    let letters = setup.letters();
    assert!(letters.iter().all(|letter| letter["stage"] == "encode" && letter["attemptsMade"] == 0), "{letters:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pieces_whose_time_is_over_are_dead_letters_with_the_last_fault() {
    let (mut setup, service) = setup(Service::new(|attempt, line| match (attempt, line) {
        (0, "record 0") => Word::Store,
        (0, _) => Word::Retry(FaultCode::TimedOut),
        _ => Word::Retry(FaultCode::Unreachable),
    }));
    setup.retry_for = RetryFor::AtMost(Duration::from_mins(5));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 6);
    running.put(lines(0..4)).await;
    running.drain().await;
    assert_eq!((service.lines(), setup.dead()), (lines(0..1), lines(1..4)));
    for letter in setup.letters() {
        assert_eq!(letter["errorCode"], "unreachable");
        assert_eq!(letter["outcomeUnknown"], true, "the first attempt may have stored it");
        assert!(letter["attemptsMade"].as_u64().unwrap() > 2, "{letter}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_what_an_earlier_process_may_have_sent_the_outcome_is_not_known() {
    let (mut setup, service) = setup(Service::new(|_, _| Word::Retry(FaultCode::Unreachable)));
    setup.retry_for = RetryFor::AtMost(Duration::from_mins(5));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 6);
    running.put(lines(0..2)).await;
    running.until("it is sent", |_| !service.requests().is_empty()).await;
    running.crash().await;
    let running = setup.start(dir.path(), 7);
    running.put(lines(2..4)).await;
    running.drain().await;
    let mut told: Vec<_> =
        setup.dead().into_iter().zip(setup.letters().iter().map(|letter| letter["outcomeUnknown"] == true)).collect();
    told.sort();
    assert_eq!(told, lines(0..4).into_iter().zip([true, true, false, false]).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_must_mend_degrades_the_stream_and_refuses_nothing() {
    let (setup, service) =
        setup(Service::new(
            |attempt, _| {
                if attempt < 5 { Word::Retry(FaultCode::Unauthenticated) } else { Word::Store }
            },
        ));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 7);
    running.put(lines(0..10)).await;
    running.until("it is degraded", |it| matches!(it.stream.health().state(), State::Degraded(_))).await;
    running.put(lines(10..20)).await;
    running.drain().await;
    assert_eq!(running.stream.health().state(), State::Healthy);
    assert_once(&service.lines(), 0..20, "delivered");
    assert!(setup.dead_letter.objects().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_service_is_not_asked_in_a_hot_loop_even_if_it_takes_a_piece_now_and_then() {
    let (setup, service) = setup(Service::new(|attempt, line| {
        if attempt % 3 == 0 && line.ends_with('1') { Word::Store } else { Word::Retry(FaultCode::Throttled) }
    }));
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 8);
    running.put(lines(0..100)).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let attempts = service.attempts.load(Ordering::SeqCst);
    assert!((20..400).contains(&attempts), "{attempts} attempts in an hour");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whenever_the_process_ends_each_piece_is_stored_once_or_dead_once() {
    for seed in 0..12 {
        let random = Arc::new(Seeded::new(seed));
        let dice = Arc::clone(&random);
        let judge = move |_: usize, line: &str| match dice.next() % 12 {
            _ if is_poison(line) => Word::Refuse,
            0 => Word::StoreAndForget,
            1 => Word::Retry(FaultCode::Throttled),
            2 => Word::Silence,
            3 if dice.next().is_multiple_of(20) => Word::Panic,
            _ => Word::Store,
        };
        let (mut setup, service) = setup(Service::new(judge));
        setup.letter_hints = Hints { size: ByteSize::kib(1), interval: Duration::from_secs(2) };
        setup.dead_letter = Store::new(|attempt, _| match attempt % 4 {
            0 => Act::Fail(FaultCode::Unavailable),
            1 => Act::StoreAndForget,
            _ => Act::Store,
        });
        let dir = tempfile::tempdir().unwrap();
        for life in 0..6 {
            let running = setup.start(dir.path(), seed * 100 + u64::from(life));
            for batch in 0..4 {
                running.put(lines(life * 100 + batch * 25..life * 100 + (batch + 1) * 25)).await;
                tokio::time::sleep(Duration::from_millis(random.next() % 3000)).await;
            }
            running.crash().await;
            service.confirmed.lock().unwrap().clear();
        }
        let running = setup.start(dir.path(), 99);
        running.drain().await;
        running.stop().await;
        let (mut stored, dead) = (service.lines(), setup.dead());
        stored.sort();
        assert!(!stored.iter().any(|line| is_poison(line)) && dead.iter().all(|line| is_poison(line)), "seed {seed}");
        assert_once(&[stored, dead].concat(), 0..600, &format!("seed {seed}"));
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_damaged_batch_what_was_confirmed_is_not_sent_again_and_what_was_refused_is_not_lost() {
    let files = SimFiles::new(7);
    let (mut setup, service) = setup(Service::new(|_, line| if is_poison(line) { Word::Refuse } else { Word::Store }));
    setup.files = Arc::new(files.clone());
    let running = setup.start(Path::new("/data/streams/web"), 9);
    running.put(lines(0..100)).await;
    running.until("all are judged", |it| it.stream.counters().letters_waiting.get() == 10).await;
    let is_batch = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "batch");
    let path = files.paths().into_iter().find(is_batch).unwrap();
    files.damage(&path, |bytes| bytes[50] ^= 1);
    running.drain().await;
    assert_sorted_out(&setup, &service, 0..100);
    assert_eq!(running.stream.counters().records_lost.get(), 0);
    assert_eq!(running.stream.health().state(), State::Healthy);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_holds_dead_letters_back_until_it_does() {
    let files = SimFiles::new(8);
    let (mut setup, service) = setup(Service::new(|_, line| if is_poison(line) { Word::Refuse } else { Word::Store }));
    setup.files = Arc::new(files.clone());
    let running = setup.start(Path::new("/data/streams/web"), 10);
    running.put(lines(0..100)).await;
    running.until("all are judged", |it| it.stream.counters().letters_waiting.get() == 10).await;
    files.fail(Op::Read, 1, Times::FromThenOn, std::io::ErrorKind::Other);
    running.until("it says so", |it| matches!(it.stream.health().state(), State::Degraded(_))).await;
    files.heal();
    running.drain().await;
    assert_sorted_out(&setup, &service, 0..100);
    assert_eq!(running.stream.health().state(), State::Healthy);
    running.stop().await;
}
