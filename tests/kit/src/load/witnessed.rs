//! Witnessed load: records with names from the oracle, and the oracle told what was answered.
//!
//! A request whose answer is lost is never sent again: its records stay indeterminate, and the next request has new
//! ones. So what arrives twice was duplicated by the service, not by the producer.

#![expect(clippy::disallowed_methods, reason = "a producer lives on the real clock")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::bench::Latency;
use super::put::{Entry, Outcome, Producer, Put, Target, outcome};
use crate::document;
use crate::frame::{Name, write};
use crate::histogram::Histogram;
use crate::oracle::{Plan, Records, StreamPlan, Witness};
use crate::random::Random;

/// Largest request in payload bytes; the service takes 4 MiB.
const REQUEST_BYTES_MAX: usize = 3 << 20;

/// How long a producer waits after it got no answer, and after it was told to slow down.
const PAUSE: Duration = Duration::from_millis(20);

/// Whom to ask, where to send.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Where records are put.
    pub target: Target,
    /// The oracle, `host:port`.
    pub oracle: String,
    /// Connections to each stream of the oracle's plan, a thread each.
    pub connections_per_stream: usize,
    /// A pause between the requests of a connection.
    pub pause: Duration,
}

/// What was answered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Records acknowledged.
    pub acked: u64,
    /// Their bytes.
    pub acked_bytes: u64,
    /// Records that were not taken.
    pub refused: u64,
    /// Records whose answer was lost, or said nothing of them.
    pub unknown: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that found nobody to answer them.
    pub unanswered: u64,
    /// The first refusal and the first unreadable or untyped answer.
    pub oddities: Vec<String>,
    /// Time from sending to the answer.
    pub ack_ms: Option<Latency>,
    /// How long it went on.
    pub seconds: f64,
}

/// Sends to all streams until `stop`.
///
/// # Errors
/// When the oracle does not answer: without it nothing that is sent has a meaning.
///
/// # Panics
/// When one of its own threads does.
pub fn run(orders: &Orders, stop: &AtomicBool) -> anyhow::Result<Report> {
    let plan = Witness::connect(&orders.oracle)?.plan()?;
    let start = Instant::now();
    let parts: Vec<anyhow::Result<(Report, Histogram)>> = thread::scope(|scope| {
        let mut workers = Vec::new();
        for stream in 0..plan.streams.len() {
            for worker in 0..orders.connections_per_stream {
                let plan = &plan;
                workers.push(scope.spawn(move || -> anyhow::Result<_> {
                    let mut sender = Sender::new(orders, plan, stream, worker)?;
                    while !stop.load(Ordering::Relaxed) {
                        sender.send_some()?;
                        thread::sleep(orders.pause);
                    }
                    Ok((sender.report, sender.latency))
                }));
            }
        }
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    sum(parts, start)
}

/// Puts one record into each stream: the fresh records of the liveness promise. All must be acknowledged.
///
/// # Errors
/// When the oracle does not answer, or when a record is not acknowledged.
pub fn probe(orders: &Orders) -> anyhow::Result<Report> {
    let plan = Witness::connect(&orders.oracle)?.plan()?;
    let start = Instant::now();
    let probe = |stream| -> anyhow::Result<_> {
        let mut sender = Sender::new(orders, &plan, stream, usize::MAX)?;
        sender.send(1)?;
        anyhow::ensure!(sender.report.acked == 1, "a fresh record was not taken: {:?}", sender.report);
        Ok((sender.report, sender.latency))
    };
    sum((0..plan.streams.len()).map(probe).collect(), start)
}

fn sum(parts: Vec<anyhow::Result<(Report, Histogram)>>, start: Instant) -> anyhow::Result<Report> {
    let mut all = Report { seconds: start.elapsed().as_secs_f64(), ..Report::default() };
    let mut latency = Histogram::default();
    for part in parts {
        let (report, of) = part?;
        all.acked += report.acked;
        all.acked_bytes += report.acked_bytes;
        all.refused += report.refused;
        all.unknown += report.unknown;
        all.requests += report.requests;
        all.unanswered += report.unanswered;
        for oddity in report.oddities {
            if !all.oddities.contains(&oddity) {
                all.oddities.push(oddity);
            }
        }
        latency.merge(&of);
    }
    all.ack_ms = (latency.count() > 0).then(|| Latency::of(&latency));
    Ok(all)
}

struct Sender<'a> {
    plan: &'a Plan,
    stream: usize,
    witness: Witness,
    producer: Producer,
    random: Random,
    report: Report,
    latency: Histogram,
}

impl<'a> Sender<'a> {
    fn new(orders: &Orders, plan: &'a Plan, stream: usize, worker: usize) -> anyhow::Result<Self> {
        Ok(Self {
            plan,
            stream,
            witness: Witness::connect(&orders.oracle)?,
            producer: Producer::new(&orders.target)?,
            random: Random::of(&[plan.seed, stream as u64, worker as u64]),
            report: Report::default(),
            latency: Histogram::default(),
        })
    }

    /// A quarter of the requests holds one record, some hold 500, most something between.
    fn send_some(&mut self) -> anyhow::Result<()> {
        let count = match self.random.below(16) {
            0..4 => 1,
            4 => 500,
            _ => 1 + self.random.index(120),
        };
        self.send(count)
    }

    fn send(&mut self, count: usize) -> anyhow::Result<()> {
        // While nobody listens nothing is claimed: an indeterminate record is one that was truly sent.
        if self.producer.open().is_err() {
            thread::sleep(PAUSE);
            return Ok(());
        }
        let first = self.witness.claim(self.stream, count)?;
        let (payloads, bytes) = self.payloads(first, count)?;
        let name = &self.stream_plan()?.name;
        let put = match payloads.as_slice() {
            [one] => Put::single(name, one),
            // What would exceed the service's limit is never sent: its records stay indeterminate and absent.
            _ if bytes > REQUEST_BYTES_MAX => return Ok(()),
            many => Put::batch(name, many.iter().map(Vec::as_slice)),
        };
        let sent = Instant::now();
        let answer = self.producer.send(&put);
        self.report.requests += 1;
        let Ok(answer) = answer else {
            self.report.unanswered += 1;
            self.report.unknown += count as u64;
            thread::sleep(PAUSE);
            return Ok(());
        };
        self.latency.add(sent.elapsed());
        self.note(first, &payloads, outcome(&put, count, &answer))
    }

    fn payloads(&self, first: u64, count: usize) -> anyhow::Result<(Vec<Vec<u8>>, usize)> {
        let (stream, records) = (u32::try_from(self.stream)?, self.stream_plan()?.records);
        let payloads: Vec<Vec<u8>> = (first..first + count as u64)
            .map(|id| {
                let mut payload = Vec::new();
                match records {
                    Records::Frames => write(self.plan.seed, Name { stream, id }, id == first, &mut payload),
                    Records::Documents => document::write(self.plan.seed, Name { stream, id }, &mut payload),
                }
                payload
            })
            .collect();
        let bytes = payloads.iter().map(Vec::len).sum();
        Ok((payloads, bytes))
    }

    fn stream_plan(&self) -> anyhow::Result<&'a StreamPlan> {
        self.plan.streams.get(self.stream).context("a stream of the plan")
    }

    /// Tells the oracle what was answered, runs of equal answers in one word.
    fn note(&mut self, first: u64, payloads: &[Vec<u8>], outcome: Outcome) -> anyhow::Result<()> {
        let entries = match outcome {
            Outcome::Answered(entries) => entries,
            Outcome::Refused(why) => {
                self.odd(why);
                vec![Entry::Throttled; payloads.len()]
            }
            Outcome::Unknown(why) => vec![Entry::Unknown(why); payloads.len()],
        };
        let mut at = 0;
        for run in entries.chunk_by(|one, other| one == other) {
            let (id, count) = (first + at as u64, run.len());
            match run.first() {
                Some(Entry::Stored) => {
                    self.witness.acked(self.stream, id, count)?;
                    self.report.acked += count as u64;
                    self.report.acked_bytes +=
                        payloads.iter().skip(at).take(count).map(|one| one.len() as u64).sum::<u64>();
                }
                Some(Entry::Throttled) => {
                    self.witness.refused(self.stream, id, count)?;
                    self.report.refused += count as u64;
                    thread::sleep(PAUSE);
                }
                Some(Entry::Unknown(why)) => {
                    self.report.unknown += count as u64;
                    self.odd(why.clone());
                    thread::sleep(PAUSE);
                }
                None => {}
            }
            at += count;
        }
        Ok(())
    }

    fn odd(&mut self, what: String) {
        if self.report.oddities.len() < 4 && !self.report.oddities.contains(&what) {
            self.report.oddities.push(what);
        }
    }
}
