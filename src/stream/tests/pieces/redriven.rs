//! Dead letters that are put back: each arrives once, whoever asks how often, and whenever the process dies. Method: the same
//! lane; the store of its dead letters is read as a redrive reads it.

use hydrant_core::source::{Listed, Stored};
use hydrant_core::{Blob, ObjectSource};
use hydrant_kit::conformance::MemoryBlob;
use tokio::sync::watch;

use super::*;
use crate::dead_letters::{Choice, Order, Redrive, RedriveError, Shelf, Tally};

#[async_trait]
impl ObjectSource for Store {
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault> {
        let objects = self.objects();
        let wanted =
            objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        Ok(wanted.take(max).map(|(key, it)| Listed { key: key.clone(), len: it.body.len() as u64 }).collect())
    }

    async fn open(&self, key: &str) -> Result<Stored, Fault> {
        let object = self.objects().remove(key).ok_or_else(|| Fault::new(FaultCode::NotFound, "no such key"))?;
        let body: Arc<dyn Blob> = Arc::new(MemoryBlob(object.body));
        let metadata = object.metadata.into_iter().collect();
        Ok(Stored { content_type: None, content_encoding: None, metadata, body })
    }
}

/// A redrive of a stream that runs.
fn redrive(setup: &Setup, running: &Running, order: &Order) -> Redrive {
    let source = Arc::clone(&setup.dead_letter) as Arc<dyn ObjectSource>;
    Redrive {
        stream: Arc::clone(&running.stream),
        shelf: Shelf::new(&setup.spec(), source),
        primary: setup.service.is_none().then(|| Arc::clone(&setup.primary) as _),
        order: order.clone(),
        begun: Timestamp::from_millis(u64::MAX),
        progress: watch::Sender::new(Tally::default()),
        stop: CancellationToken::new(),
    }
}

async fn put_back(setup: &Setup, running: &Running, order: &Order) -> Tally {
    redrive(setup, running, order).run().await.unwrap()
}

fn all() -> Order {
    Order::default()
}

/// A service that refuses poison until it is mended.
fn mendable() -> (Setup, Arc<Service>, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_mended);
    let judge = move |_, line: &str| {
        if is_poison(line) && !seen.load(Ordering::SeqCst) { Word::Refuse } else { Word::Store }
    };
    let (setup, service) = setup(Service::new(judge));
    (setup, service, is_mended)
}

#[tokio::test(start_paused = true)]
async fn poison_arrives_once_when_its_destination_is_mended_and_never_again() {
    let (setup, service, is_mended) = mendable();
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    for part in 0..10 {
        running.put(lines(part * 700..(part + 1) * 700)).await;
        running.drain().await;
    }
    assert_sorted_out(&setup, &service, 0..7000);
    let only_told = put_back(&setup, &running, &Order { dry_run: true, ..all() }).await;
    assert_eq!((only_told.records, only_told.earlier, running.stream.waiting()), (700, 0, 0));

    is_mended.store(true, Ordering::SeqCst);
    let some = put_back(&setup, &running, &Order { limit: Some(150), ..all() }).await;
    assert_eq!((some.records, some.earlier), (150, 0));
    let rest = put_back(&setup, &running, &all()).await;
    assert_eq!((rest.records, rest.earlier, rest.objects), (550, 150, only_told.objects));
    running.drain().await;
    assert_once(&service.lines(), 0..7000, "mended");
    assert_eq!(running.stream.counters().records_redriven.get(), 700);

    let again = put_back(&setup, &running, &all()).await;
    assert_eq!((again.records, again.bytes, again.earlier), (0, 0, 700));
    running.stop().await;
    service.confirmed.lock().unwrap().clear();
    let running = setup.start(dir.path(), 2);
    let again = put_back(&setup, &running, &all()).await;
    assert_eq!((again.records, again.earlier), (0, 700));
    running.drain().await;
    assert_once(&service.lines(), 0..7000, "after a restart");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_put_back_and_refused_again_is_another_dead_letter() {
    let (setup, service, is_mended) = mendable();
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..100)).await;
    running.drain().await;
    assert_eq!(put_back(&setup, &running, &all()).await.records, 10);
    running.drain().await;
    assert_eq!(setup.dead().len(), 20, "ten, each twice");
    let own = Redrive { begun: Timestamp::default(), ..redrive(&setup, &running, &all()) };
    assert_eq!(own.run().await.unwrap().records, 0, "what arrived since it began is not its business");
    is_mended.store(true, Ordering::SeqCst);
    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.records, tally.earlier), (10, 10));
    running.drain().await;
    assert_once(&service.lines(), 0..100, "mended");
    running.stop().await;
}

/// Goal: no moment at which a process may die makes a letter come back twice, or not at all. Method: a redrive of many parts is
/// cut at another moment each time, with seals, checkpoints and deliveries under way; the next process does the rest.
#[tokio::test(start_paused = true)]
async fn a_process_may_die_at_any_moment_of_a_redrive() {
    let mut cut = 0;
    for seed in 0..24_u64 {
        let (mut setup, service, is_mended) = mendable();
        setup.hints.interval = if seed % 2 == 0 { Duration::ZERO } else { Duration::from_secs(1) };
        let dir = tempfile::tempdir().unwrap();
        let mut running = setup.start(dir.path(), seed);
        for part in 0..12 {
            running.put(lines(part * 1000..(part + 1) * 1000)).await;
            running.drain().await;
        }
        is_mended.store(true, Ordering::SeqCst);
        for life in 0..4 {
            let order = Order { limit: Some(1 + seed * 40), ..all() };
            let job = tokio::spawn(redrive(&setup, &running, &order).run());
            for _ in 0..seed * 7 + life {
                tokio::task::yield_now().await;
            }
            if seed % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(300 * (seed % 5))).await;
            }
            job.abort();
            cut += u32::from(job.await.is_err());
            if life == 1 {
                running.drain().await; // of what was cut off in the log's queue only packing tells
            }
            running.crash().await;
            service.confirmed.lock().unwrap().clear();
            running = setup.start(dir.path(), 100 * seed + life);
        }
        put_back(&setup, &running, &all()).await;
        running.drain().await;
        assert_once(&service.lines(), 0..12_000, &format!("seed {seed}"));
        running.stop().await;
    }
    assert!(cut > 0, "no redrive was cut");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_may_be_stored_already_is_left_unless_it_is_asked_for() {
    let (mut setup, _service) =
        setup(Service::new(|_, line| if is_poison(line) { Word::Retry(FaultCode::TimedOut) } else { Word::Store }));
    setup.retry_for = RetryFor::AtMost(Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..50)).await;
    running.drain().await;
    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.records, tally.perhaps_stored), (0, 5));
    let tally = put_back(&setup, &running, &Order { even_if_stored: true, ..all() }).await;
    assert_eq!((tally.records, tally.perhaps_stored), (5, 0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_redrive_of_a_stream_runs_at_a_time_and_one_that_is_told_to_stop_stops() {
    let (setup, _service, _) = mendable();
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..50)).await;
    running.drain().await;
    let turn = running.stream.redriven().turn();
    let busy = redrive(&setup, &running, &all()).run().await;
    assert!(matches!(busy, Err(RedriveError::Busy)), "{busy:?}");
    drop(turn);
    let stopped = redrive(&setup, &running, &all());
    stopped.stop.cancel();
    let ended = stopped.run().await;
    assert!(matches!(ended, Err(RedriveError::Stopped)), "{ended:?}");
    let choice = Choice { text: Some("record 17".to_owned()), ..Choice::default() };
    assert_eq!(put_back(&setup, &running, &Order { choice, ..all() }).await.records, 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_went_there_whole_is_placed_where_it_was_meant_to_go_and_once() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_mended);
    let mut setup =
        Setup::with(Store::new(move |_, _| if seen.load(Ordering::SeqCst) { Act::Store } else { Act::Refuse }));
    setup.retry_for = RetryFor::AtMost(Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    for part in 0..3 {
        running.put(lines(part * 10..(part + 1) * 10)).await;
        running.drain().await;
    }
    let turned = setup.dead_letter.objects();
    assert_eq!((turned.len(), setup.primary.objects().len()), (3, 0));

    is_mended.store(true, Ordering::SeqCst);
    let mut elsewhere = redrive(&setup, &running, &all());
    elsewhere.primary = None;
    let tally = elsewhere.run().await.unwrap();
    assert_eq!((tally.placed, tally.elsewhere), (0, 3));
    let tally = put_back(&setup, &running, &Order { limit: Some(1), ..all() }).await;
    assert_eq!((tally.placed, tally.records), (1, 0));
    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.placed, tally.earlier), (2, 1));
    assert_once(&setup.primary.lines(), 0..30, "placed");
    for (key, object) in setup.primary.objects() {
        assert!(
            turned.values().any(|turned| turned.metadata["hydrant-intended-key"] == key && turned.body == object.body)
        );
        assert!(object.metadata.is_empty(), "{:?}", object.metadata);
    }
    assert_eq!(running.stream.waiting(), 0, "none of it went through the log");

    let attempts = setup.primary.attempts();
    running.crash().await;
    let running = setup.start(dir.path(), 2);
    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.placed, tally.earlier, setup.primary.attempts()), (0, 3, attempts));
    running.stop().await;
}

/// Goal: whoever may only write to the dead-letter store gets nothing written elsewhere with our keys, and hides no letter of
/// others; an object that is refused again does not either.
#[tokio::test(start_paused = true)]
async fn strangers_objects_are_left_and_hide_nothing() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_mended);
    let mut setup =
        Setup::with(Store::new(move |_, _| if seen.load(Ordering::SeqCst) { Act::Store } else { Act::Refuse }));
    setup.retry_for = RetryFor::AtMost(Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    let running = setup.start(dir.path(), 1);
    running.put(lines(0..10)).await;
    running.drain().await;
    let (key, honest) = setup.dead_letter.objects().pop_first().unwrap();
    let batch = Shelf::new(&setup.spec(), Arc::clone(&setup.dead_letter) as _)
        .walk()
        .next()
        .await
        .unwrap()
        .unwrap()
        .named
        .batch;
    let strange = |number: u8| key.replace(&batch.to_string(), &BatchId::from_bytes([number; 16]).to_string());
    let forged = |intended: &str| {
        let mut forged = honest.clone();
        forged.metadata.insert("hydrant-intended-key".to_owned(), intended.to_owned());
        forged
    };
    let damaged = Placed { body: Bytes::from_static(b"\x1f\x8b\x08 and no more"), metadata: HashMap::new() };
    let own_place = honest.metadata["hydrant-intended-key"].clone();
    let strangers = [(strange(0), damaged), (strange(1), forged("elsewhere/x.gz")), (strange(2), forged(&own_place))];
    setup.dead_letter.objects.lock().unwrap().extend(strangers);

    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.placed, tally.refused, tally.elsewhere, tally.broken), (0, 1, 2, 1));
    is_mended.store(true, Ordering::SeqCst);
    let tally = put_back(&setup, &running, &all()).await;
    assert_eq!((tally.placed, tally.refused, tally.elsewhere, tally.broken), (1, 0, 2, 1));
    assert_eq!(setup.primary.objects().into_keys().collect::<Vec<_>>(), [own_place]);
    running.stop().await;
}
