//! A whole lane over a real folder and a scripted store: what goes in by the log comes out once, whatever happens.

mod disk;
mod large;
mod pieces;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::compression::Compression;
use hydrant_core::{
    ByteSize, Clock, Entropy, Fault, FaultCode, Limits, Object, ObjectSink, PieceSink, Sink, Timestamp, Verdict,
};
use hydrant_storage::buffers::Buffers;
use hydrant_storage::files::Files;
use hydrant_storage::files::real::RealFiles;
use hydrant_storage::log::{Committers, Log, Options, Payloads};
use hydrant_storage::space::Space;
use tokio_util::sync::CancellationToken;

use super::Edges;
use super::budget::Budget;
use super::lane::{Lane, OpenLane};
use super::pool::Pool;
use crate::blocks::Blocks;
use crate::config::spec::{
    DeadLetterSpec, Delimiter, Hints, ObjectsSpec, PiecesSpec, RetryFor, SinkSpec, StoreSpec, StreamSpec,
};
use crate::encode::name::{ErrorPrefix, ErrorType, Prefix};
use crate::streams::{Identity, LiveStream, State};

/// Time as the paused runtime has it.
#[derive(Debug)]
struct RuntimeClock(tokio::time::Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// `SplitMix64`, and a trap: the next batch id is not drawn.
#[derive(Debug)]
struct Seeded {
    state: AtomicU64,
    trap: Arc<AtomicBool>,
}

impl Seeded {
    fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed), trap: Arc::default() }
    }

    fn next(&self) -> u64 {
        let mut z = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Entropy for Seeded {
    fn bytes(&self) -> [u8; 16] {
        assert!(!self.trap.swap(false, Ordering::SeqCst), "trapped");
        let (a, b) = (self.next().to_le_bytes(), self.next().to_le_bytes());
        std::array::from_fn(|at| if at < 8 { a[at] } else { b[at - 8] })
    }
}

/// What a store does with an attempt.
#[derive(Clone, Copy, Debug)]
enum Act {
    Store,
    /// Stores, and the answer is lost.
    StoreAndForget,
    Fail(FaultCode),
    Refuse,
    Panic,
}

/// What to do with the n-th attempt, for an object of this key.
type Script = dyn Fn(usize, &str) -> Act + Send + Sync;

/// A store that does what the script says.
struct Store {
    script: Box<Script>,
    attempts: AtomicUsize,
    objects: Mutex<BTreeMap<String, Placed>>,
}

#[derive(Clone, Debug)]
struct Placed {
    body: Bytes,
    metadata: HashMap<String, String>,
}

impl Store {
    fn new(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: Box::new(script), attempts: AtomicUsize::new(0), objects: Mutex::default() })
    }

    fn good() -> Arc<Self> {
        Self::new(|_, _| Act::Store)
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn objects(&self) -> BTreeMap<String, Placed> {
        self.objects.lock().unwrap().clone()
    }

    /// The lines of all objects, in the order of their keys.
    fn lines(&self) -> Vec<String> {
        let objects = self.objects();
        objects
            .values()
            .flat_map(|object| {
                String::from_utf8(object.body.to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn keep(&self, object: &Object, body: Bytes) {
        let placed = Placed { body, metadata: object.metadata.iter().cloned().collect() };
        let mut objects = self.objects.lock().unwrap();
        if let Some(before) = objects.insert(object.key.clone(), placed.clone()) {
            assert_eq!(before.body, placed.body, "a key was used again with other bytes");
        }
    }
}

#[async_trait]
impl ObjectSink for Store {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: ByteSize::gib(1), pieces_max: u32::MAX, attempts_in_flight_max: 4 }
    }

    fn destination(&self) -> String {
        "test://store".to_owned()
    }

    async fn place(&self, object: &Object) -> Verdict {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        let body = object.body.read_at(0, usize::try_from(object.body.len()).unwrap()).await.unwrap();
        tokio::task::yield_now().await;
        match (self.script)(attempt, &object.key) {
            Act::Store => {
                self.keep(object, body);
                Verdict::Delivered
            }
            Act::StoreAndForget => {
                self.keep(object, body);
                Verdict::Retry(Fault::new(FaultCode::Interrupted, "the answer was lost"))
            }
            Act::Fail(code) => Verdict::Retry(Fault::new(code, "scripted")),
            Act::Refuse => Verdict::Refused(Fault::new(FaultCode::TooLarge, "scripted")),
            Act::Panic => panic!("scripted"),
        }
    }
}

struct Setup {
    hints: Hints,
    retry_for: RetryFor,
    primary: Arc<Store>,
    /// Takes separate pieces, instead of the store.
    service: Option<Arc<dyn PieceSink>>,
    dead_letter: Arc<Store>,
    letter_hints: Hints,
    compression: Compression,
    memory: ByteSize,
    disk: ByteSize,
    files: Arc<dyn Files>,
    segment_bytes: ByteSize,
    /// Makes the next seal panic.
    trap: Arc<AtomicBool>,
}

impl Setup {
    fn with(primary: Arc<Store>) -> Self {
        let hints = Hints { size: ByteSize::mib(1), interval: Duration::from_secs(1) };
        Self {
            hints,
            retry_for: RetryFor::Forever,
            primary,
            service: None,
            dead_letter: Store::good(),
            letter_hints: hints,
            compression: Compression::None,
            memory: ByteSize::mib(64),
            disk: ByteSize::gib(1),
            files: Arc::new(RealFiles),
            segment_bytes: ByteSize::mib(1),
            trap: Arc::default(),
        }
    }

    fn spec(&self) -> StreamSpec {
        let store = StoreSpec {
            name: "store".to_owned(),
            config: serde_json::from_str(r#"{"file":{"path":"unused"}}"#).unwrap(),
        };
        let objects = SinkSpec::Objects(ObjectsSpec {
            kind: "file",
            store: store.clone(),
            prefix: Prefix::parse("").unwrap(),
            compression: self.compression,
            delimiter: Delimiter::Newline,
            encryption: hydrant_sinks::Encryption::StoreDefault,
        });
        let service = self.service.as_ref().map(|service| {
            SinkSpec::Pieces(PiecesSpec {
                kind: "test",
                config: serde_json::from_str(r#"{"file":{"store":"unused"}}"#).unwrap(),
                error_type: ErrorType::Refused(service.error_type()),
            })
        });
        StreamSpec {
            name: "web".to_owned(),
            hints: self.hints,
            retry_for: self.retry_for,
            sink: service.unwrap_or(objects),
            dead_letter: DeadLetterSpec {
                store,
                error_prefix: ErrorPrefix::parse("errors/").unwrap(),
                hints: self.letter_hints,
            },
            definition: String::new(),
        }
    }

    /// Opens the lane in `dir` and runs it, as a new process would.
    fn start(&self, dir: &Path, seed: u64) -> Running {
        if std::env::var_os("HYDRANT_LOG").is_some() {
            crate::telemetry::log_to_stderr(crate::telemetry::LogFormat::Text);
        }
        let clock = Arc::new(RuntimeClock(tokio::time::Instant::now()));
        let edges = Edges {
            clock,
            entropy: Arc::new(Seeded { state: AtomicU64::new(seed), trap: Arc::clone(&self.trap) }),
            files: Arc::clone(&self.files),
            pool: Pool::new(2, Blocks::new(ByteSize::mib(64)), Buffers::default()),
        };
        let share = Space::new(self.disk).share(self.disk);
        let open = OpenLane::open("web", dir, &share, &edges).unwrap();
        let committers = Committers::start(1).unwrap();
        let options = Options {
            floor: open.floor(),
            forgotten: open.forgotten(),
            segment_bytes_first: self.segment_bytes,
            segment_bytes_max: self.segment_bytes,
            ..Options::new(7)
        };
        let log = Log::open(
            &dir.join("log"),
            &options,
            Arc::clone(&edges.files),
            Arc::clone(&edges.clock),
            Arc::clone(&share),
            &committers,
        )
        .unwrap()
        .log;
        let identity = Identity { incarnation: 7, version: 1, created_at: Timestamp::default(), updated_at: None };
        let stream = Arc::new(LiveStream::new(self.spec(), identity, log.clone(), Arc::clone(&share)));
        let lane = Lane {
            spec: Arc::clone(stream.spec()),
            version: 1,
            dir: dir.to_owned(),
            primary: match &self.service {
                Some(service) => Sink::Pieces(Arc::clone(service)),
                None => Sink::Objects(Arc::clone(&self.primary) as _),
            },
            dead_letter: Arc::clone(&self.dead_letter) as _,
            share,
            account: Arc::new(Budget::new(self.memory).account()),
            health: Arc::clone(stream.health()),
            counters: Arc::clone(stream.counters()),
            log_full: Arc::clone(stream.log_full()),
            drain: stream.drain_below(),
            seals: Lane::seals(),
            settled: stream.settled_below().clone(),
            redriven: Arc::clone(stream.redriven()),
            grace: Duration::from_secs(5),
            edges,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(lane.run(open, log, stop.clone()));
        Running { stream, stop, task, _committers: committers }
    }
}

struct Running {
    stream: Arc<LiveStream>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _committers: Committers,
}

impl Running {
    async fn put(&self, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = lines.into_iter().collect();
        let lengths = lines.iter().map(|line| u32::try_from(line.len()).unwrap()).collect();
        self.stream.append(Payloads { data: lines.concat().into(), lengths }).await.unwrap();
    }

    async fn drain(&self) {
        // Paused time runs ahead while threads work, so this many simulated seconds are a second or two.
        tokio::time::timeout(Duration::from_hours(100), self.stream.drain())
            .await
            .expect("everything is settled")
            .unwrap();
    }

    /// Waits until `condition` holds, and says what it was if it never does.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        tokio::time::timeout(Duration::from_hours(100), async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.stream.log().close();
    }

    /// The end of a process that nobody warned: tasks stop where they are.
    async fn crash(self) {
        self.task.abort();
        let _ended = self.task.await;
        self.stop.cancel(); // its loops are detached from it; they must not go on beside the next process
        settle_down().await;
    }
}

/// Lets everything that is ready to run do so.
async fn settle_down() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("record {number}")).collect()
}

/// Whether `arrived` holds each record of `range` once and nothing else. Says which are not so, a few of them.
#[track_caller]
fn assert_once(arrived: &[String], range: std::ops::Range<u32>, context: &str) {
    let mut counts: BTreeMap<&str, i32> = arrived.iter().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line.as_str()).or_default() += 1;
        counts
    });
    let expected = lines(range);
    for line in &expected {
        *counts.entry(line).or_default() -= 1;
    }
    let wrong: Vec<_> = counts.into_iter().filter(|(_, count)| *count != 0).collect();
    assert!(
        wrong.is_empty(),
        "{context}: {} records are not there once: {:?}",
        wrong.len(),
        wrong.iter().take(10).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn records_become_objects_in_order_and_leave_nothing_behind() {
    let (dir, setup) = (tempfile::tempdir().unwrap(), Setup::with(Store::good()));
    let running = setup.start(dir.path(), 1);
    for batch in 0..10 {
        running.put(lines(batch * 100..(batch + 1) * 100)).await;
    }
    running.drain().await;
    assert_once(&setup.primary.lines(), 0..1000, "delivered");
    for object in setup.primary.objects().values() {
        let text = String::from_utf8(object.body.to_vec()).unwrap();
        let numbers: Vec<u32> = text.lines().map(|line| line.trim_start_matches("record ").parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "order inside an object is the order of the puts");
    }
    assert_eq!(running.stream.waiting(), 0);
    assert_eq!(running.stream.counters().records_out.get(), 1000);
    running.stop().await;
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("outbox")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".batch")), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_buffer_is_sealed_when_its_oldest_record_is_as_old_as_the_interval() {
    let (dir, setup) = (tempfile::tempdir().unwrap(), Setup::with(Store::good()));
    let running = setup.start(dir.path(), 2);
    running.put(lines(0..3)).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        while setup.primary.objects().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("sealed by age and delivered");
    assert_eq!(setup.primary.lines(), lines(0..3));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_an_operator_must_mend_degrades_the_stream_and_loses_nothing() {
    let store = Store::new(|attempt, _| if attempt < 5 { Act::Fail(FaultCode::Forbidden) } else { Act::Store });
    let (dir, setup) = (tempfile::tempdir().unwrap(), Setup::with(store));
    let running = setup.start(dir.path(), 3);
    running.put(lines(0..10)).await;
    tokio::time::timeout(Duration::from_mins(1), async {
        while !matches!(running.stream.health().state(), State::Degraded(_)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("degraded");
    let State::Degraded(ailment) = running.stream.health().state() else { panic!("healthy again") };
    let place = format!("store `store` ({}): ", setup.primary.destination());
    assert!(ailment.message.starts_with(&place), "{} does not begin with {place}", ailment.message);
    running.put(lines(10..20)).await;
    running.drain().await;
    assert_eq!(running.stream.health().state(), State::Healthy);
    assert_once(&setup.primary.lines(), 0..20, "delivered");
    assert!(setup.dead_letter.objects().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_is_not_asked_in_a_hot_loop() {
    let (dir, setup) =
        (tempfile::tempdir().unwrap(), Setup::with(Store::new(|_, _| Act::Fail(FaultCode::Unavailable))));
    let running = setup.start(dir.path(), 4);
    let started = tokio::time::Instant::now();
    for second in 0..20 {
        running.put(lines(second..second + 1)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tokio::time::sleep(Duration::from_hours(1)).await;
    // Waits are drawn from 0 to 60 s, so half a minute on average, however many batches there are.
    let minutes = started.elapsed().as_secs() / 60;
    let attempts = setup.primary.attempts() as u64;
    assert!(attempts < 50 + 3 * minutes, "{attempts} attempts in {minutes} minutes");
    assert!(running.stream.counters().batches_waiting.get() > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_may_not_be_retried_goes_whole_to_the_other_store() {
    let mut setup = Setup::with(Store::new(|_, _| Act::Fail(FaultCode::Forbidden)));
    setup.retry_for = RetryFor::AtMost(Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 5);
    running.put(lines(0..100)).await;
    running.drain().await;
    assert_eq!(setup.dead_letter.lines(), lines(0..100));
    let (key, placed) = setup.dead_letter.objects().into_iter().next().unwrap();
    assert!(key.starts_with("errors/delivery-failed/"), "{key}");
    assert_eq!(placed.metadata["hydrant-intended-store"], "test://store");
    assert!(
        key.ends_with(placed.metadata["hydrant-intended-key"].rsplit('/').next().unwrap()),
        "the last part of the name is kept"
    );
    assert_eq!((setup.primary.attempts(), running.stream.counters().records_refused.get()), (1, 100));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_is_redirected_and_the_dead_letter_store_is_asked_for_ever() {
    let mut setup = Setup::with(Store::new(|_, _| Act::Refuse));
    setup.dead_letter = Store::new(|attempt, _| if attempt < 7 { Act::Refuse } else { Act::Store });
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 6);
    running.put(lines(0..5)).await;
    running.drain().await;
    assert_eq!((setup.primary.attempts(), setup.dead_letter.attempts()), (1, 8));
    assert_eq!(setup.dead_letter.lines(), lines(0..5));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_leaves_its_batch_owed() {
    let (dir, setup) = (
        tempfile::tempdir().unwrap(),
        Setup::with(Store::new(|attempt, _| if attempt == 0 { Act::Panic } else { Act::Store })),
    );
    let running = setup.start(dir.path(), 7);
    running.put(lines(0..5)).await;
    running.drain().await;
    assert_eq!((setup.primary.lines(), setup.primary.attempts()), (lines(0..5), 2));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_no_second_object() {
    let (dir, setup) = (
        tempfile::tempdir().unwrap(),
        Setup::with(Store::new(|attempt, _| if attempt < 3 { Act::StoreAndForget } else { Act::Store })),
    );
    let running = setup.start(dir.path(), 8);
    running.put(lines(0..5)).await;
    running.drain().await;
    assert_eq!((setup.primary.lines(), setup.primary.attempts()), (lines(0..5), 4));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_zero_interval_seals_whenever_an_attempt_may_start() {
    let mut setup = Setup::with(Store::good());
    setup.hints.interval = Duration::ZERO;
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 9);
    for number in 0..5 {
        running.put(lines(number..number + 1)).await;
        tokio::time::timeout(Duration::from_secs(5), async {
            while setup.primary.lines().len() <= number as usize {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("delivered without waiting for more");
    }
    assert_eq!(setup.primary.objects().len(), 5);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_redirected_stays_so_after_a_crash() {
    let mut setup = Setup::with(Store::new(|_, _| Act::Refuse));
    setup.dead_letter =
        Store::new(|attempt, _| if attempt < 2 { Act::Fail(FaultCode::Unreachable) } else { Act::Store });
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 10);
    running.put(lines(0..5)).await;
    tokio::time::timeout(Duration::from_mins(1), async {
        while setup.dead_letter.attempts() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the other store is asked");
    running.crash().await;
    let asked = setup.primary.attempts();
    let running = setup.start(dir.path(), 11);
    running.drain().await;
    assert_eq!(setup.primary.attempts(), asked, "never again to where it was meant to go");
    assert_eq!(setup.dead_letter.lines(), lines(0..5));
    running.stop().await;
}

/// Puts, crashes and starts again many times over, into a store that fails in every way; then asks the one question.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_whatever_happens() {
    for seed in 0..12_u64 {
        let chance = Seeded::new(seed * 7919);
        // Which objects are refused hangs on their name: one that was stored and then refused would rightly be in both.
        let store = Store::new(move |_, key| match chance.next() % 10 {
            _ if key.ends_with('7') => Act::Refuse,
            0 => Act::Fail(FaultCode::Unavailable),
            1 => Act::Fail(FaultCode::Forbidden),
            2 => Act::StoreAndForget,
            3 => Act::Panic,
            _ => Act::Store,
        });
        let mut setup = Setup::with(store);
        setup.hints.size = ByteSize::kib(4);
        let dir = tempfile::tempdir().unwrap();
        let steps = Seeded::new(seed);
        let mut running = setup.start(dir.path(), seed);
        let mut issued = 0;
        for round in 0..40 {
            let count = u32::try_from(steps.next() % 300).unwrap() + 1;
            running.put(lines(issued..issued + count)).await;
            issued += count;
            tokio::time::sleep(Duration::from_millis(steps.next() % 3_000)).await;
            if steps.next().is_multiple_of(4) {
                running.crash().await;
                running = setup.start(dir.path(), seed * 1_000 + round);
            }
        }
        running.drain().await;
        running.stop().await;
        let (stored, dead) = (setup.primary.lines(), setup.dead_letter.lines());
        let arrived: Vec<String> = stored.into_iter().chain(dead).collect();
        assert_once(&arrived, 0..issued, &format!("seed {seed}"));
    }
}
