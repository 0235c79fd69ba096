//! The bench: log records of one length, as fast as the connections go, for a time or for a number of records.
//!
//! In: a plan. Out: a report of what was acknowledged, how soon, and what it cost this process. Never waits for
//! delivery: who wants to know that asks the server or the store.

#![expect(clippy::disallowed_methods, reason = "a producer lives on the real clock")]

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::line::Line;
use super::put::{ANSWER_WITHIN, Entry, Outcome, Producer, Put, Target, outcome};
use crate::histogram::Histogram;
use crate::lines::Lines;

/// Bytes of payload in the bodies that are made beforehand: far more than any window of a compressor looks back.
const PREPARED_BYTES: usize = 32 << 20;

/// How long a producer waits when it was told to slow down.
const SLOW_DOWN: Duration = Duration::from_millis(50);

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// The streams. Connections are dealt out to them in turn.
    pub streams: Vec<String>,
    /// Connections. Those of a core share a thread.
    pub connections: usize,
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Records of a request, 1 to 500. One is sent as `PutRecord`.
    pub batch: usize,
    /// When to stop.
    pub until: Until,
    /// Most record bytes a second, in 10^6, all connections together; as fast as it goes if `None`.
    pub mb_per_second_max: Option<f64>,
    /// Decides the records.
    pub seed: u64,
}

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// When this time has passed.
    Elapsed(Duration),
    /// When so many records were acknowledged, up to one request more per connection.
    Records(u64),
    /// When each connection has sent so many requests.
    Requests(u64),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Records acknowledged.
    pub records: u64,
    /// Their bytes, before base64.
    pub bytes: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Records that were asked to come later.
    pub throttled: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// The first such failure.
    pub failure: Option<String>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Acknowledged megabytes (10^6) a second.
    pub mb_per_second: f64,
    /// Acknowledged records a second.
    pub records_per_second: f64,
    /// Time from sending a request to its answer, in milliseconds.
    pub ack_ms: Latency,
    /// CPU this process used while sending, in seconds.
    pub cpu_seconds: f64,
    /// Connections.
    pub connections: usize,
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Records of a request.
    pub batch: usize,
    /// Records acknowledged of each stream, in the order of the plan.
    pub records_by_stream: Vec<u64>,
}

/// Quantiles of a latency, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half of them were not above.
    pub p50: f64,
    /// 99 of 100 were not above.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Of what was counted.
    pub fn of(histogram: &Histogram) -> Self {
        Self { p50: histogram.quantile_ms(500), p99: histogram.quantile_ms(990), max: histogram.max_ms() }
    }
}

#[derive(Default)]
struct Tally {
    records: u64,
    requests: u64,
    throttled: u64,
    failed: u64,
    failure: Option<String>,
    latency: Histogram,
}

/// Sends until the plan says so.
///
/// # Errors
/// When the plan cannot be, or when nothing at all was acknowledged.
///
/// # Panics
/// When one of its own threads does.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    ensure!((1..=500).contains(&plan.batch), "a request holds 1 to 500 records");
    ensure!(plan.record_bytes >= 150, "a log record has 150 bytes or more");
    ensure!(plan.connections > 0, "there must be a connection");
    ensure!(!plan.streams.is_empty(), "there must be a stream");
    let puts = plan.streams.iter().map(|stream| prepare(plan, stream)).collect();
    let cpu = cpu_seconds();
    let start = Instant::now();
    let load = Arc::new(Load { plan: plan.clone(), puts, start, acknowledged: AtomicU64::new(0) });
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(plan.connections);
    let tallies = thread::scope(|scope| {
        let load = &load;
        let run = |thread| scope.spawn(move || Arc::clone(load).on_thread(thread, threads));
        let all: Vec<_> = (0..threads).map(run).collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut all = Tally::default();
    let mut by_stream = vec![0; plan.streams.len()];
    for (worker, tally) in tallies.into_iter().flatten() {
        let stream = worker % plan.streams.len();
        all.records += tally.records;
        by_stream.iter_mut().skip(stream).take(1).for_each(|records| *records += tally.records);
        all.requests += tally.requests;
        all.throttled += tally.throttled;
        all.failed += tally.failed;
        all.failure = all.failure.or(tally.failure);
        all.latency.merge(&tally.latency);
    }
    ensure!(all.records > 0, "nothing was acknowledged: {}", all.failure.as_deref().unwrap_or("all was throttled"));
    Ok(Report { records_by_stream: by_stream, ..report(plan, all, seconds, cpu_seconds() - cpu) })
}

fn report(plan: &Plan, all: Tally, seconds: f64, cpu_seconds: f64) -> Report {
    let bytes = all.records * plan.record_bytes as u64;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let per_second = |count: u64| count as f64 / seconds;
    Report {
        records: all.records,
        bytes,
        requests: all.requests,
        throttled: all.throttled,
        failed: all.failed,
        failure: all.failure,
        seconds,
        mb_per_second: per_second(bytes) / 1e6,
        records_per_second: per_second(all.records),
        ack_ms: Latency::of(&all.latency),
        cpu_seconds,
        connections: plan.connections,
        record_bytes: plan.record_bytes,
        batch: plan.batch,
        records_by_stream: Vec::new(),
    }
}

fn prepare(plan: &Plan, stream: &str) -> Vec<Put> {
    let mut lines = Lines::new(plan.seed, plan.record_bytes);
    let of_request = plan.batch * plan.record_bytes;
    let count = (PREPARED_BYTES / of_request / plan.streams.len()).clamp(plan.connections.min(4), 4096);
    let mut payload = Vec::new();
    (0..count)
        .map(|_| {
            payload.clear();
            (0..plan.batch).for_each(|_| lines.write(&mut payload));
            if plan.batch == 1 {
                Put::single(stream, &payload)
            } else {
                Put::batch(stream, payload.chunks(plan.record_bytes.max(1)))
            }
        })
        .collect()
}

/// What all connections share.
struct Load {
    plan: Plan,
    /// Of each stream.
    puts: Vec<Vec<Put>>,
    start: Instant,
    acknowledged: AtomicU64,
}

impl Load {
    /// Sends on every connection of one thread. Gives back what each did.
    fn on_thread(self: Arc<Self>, thread: usize, threads: usize) -> anyhow::Result<Vec<(usize, Tally)>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut workers = JoinSet::new();
            for worker in (thread..self.plan.connections).step_by(threads) {
                let load = Arc::clone(&self);
                workers.spawn(async move { anyhow::Ok((worker, load.send_until_done(worker).await?)) });
            }
            workers.join_all().await.into_iter().collect()
        })
    }

    /// Waits until a connection that has sent so many requests may send the next.
    async fn keep_pace(&self, requests: u64) {
        let Some(rate) = self.plan.mb_per_second_max else { return };
        let each = self.plan.batch * self.plan.record_bytes * self.plan.connections;
        #[expect(clippy::cast_precision_loss, reason = "a pace need not be exact")]
        let due = requests as f64 * each as f64 / (rate * 1e6);
        sleep(Duration::from_secs_f64(due).saturating_sub(self.start.elapsed())).await;
    }

    async fn send_until_done(&self, worker: usize) -> anyhow::Result<Tally> {
        let plan = &self.plan;
        let mut producer = Producer::new(&plan.target).context("where to")?;
        let mut line = Line::new(producer.address(), ANSWER_WITHIN);
        let mut tally = Tally::default();
        let of_stream = self.puts.iter().cycle().nth(worker).context("there is a stream")?;
        let mine = of_stream.iter().cycle().skip(worker * of_stream.len() / plan.connections);
        for put in mine {
            let done = match plan.until {
                Until::Elapsed(time) => self.start.elapsed() >= time,
                Until::Records(records) => self.acknowledged.load(Ordering::Relaxed) >= records,
                Until::Requests(requests) => tally.requests >= requests,
            };
            if done {
                break;
            }
            self.keep_pace(tally.requests).await;
            let sent = Instant::now();
            let answer = line.send(producer.head(put).as_bytes(), put.body()).await?;
            tally.latency.add(sent.elapsed());
            tally.requests += 1;
            let stored = count(&mut tally, outcome(put, plan.batch, &answer));
            tally.records += stored;
            self.acknowledged.fetch_add(stored, Ordering::Relaxed);
            if stored == 0 {
                sleep(SLOW_DOWN).await;
            }
        }
        Ok(tally)
    }
}

/// Counts what did not succeed; gives back how many records were stored.
fn count(tally: &mut Tally, outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Answered(entries) => {
            let stored = entries.iter().filter(|entry| **entry == Entry::Stored).count() as u64;
            tally.throttled += entries.len() as u64 - stored;
            stored
        }
        Outcome::Refused(why) | Outcome::Unknown(why) => {
            tally.failed += 1;
            tally.failure.get_or_insert(why);
            0
        }
    }
}

/// CPU time of this process in seconds, from the kernel's count; 0 where there is none.
fn cpu_seconds() -> f64 {
    /// Ticks a second of `/proc`: fixed by the kernel's interface on all Linux architectures we run on.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold spaces; fields 14 and 15 are user and system time.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}
