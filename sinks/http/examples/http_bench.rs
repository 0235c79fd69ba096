//! How fast records become requests, and how fast these reach an endpoint on the same machine, for each compression.
//!
//! `cargo run --release -p hydrant-sink-http --example http_bench [-- RECORD_BYTES]`: batches of 5 MiB of log lines (1 KB
//! each, unless said) in the service's format. *Encoded* is MB of records for each second of one core's time. *Delivered* is
//! MB of records for each second on the clock, four requests at once on two threads, with an endpoint on a third that
//! reads each request and looks at nothing; what all three cost stands beside it.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench prints, its figures are round, and it measures on the real clock"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{BatchId, PartitionKeys, Piece, PieceId, PieceSink, Position, Report, Timestamp, Verdict};
use hydrant_kit::lines::Lines;
use hydrant_kit::receiver::{Form, Receiver, Rules};
use hydrant_sink_http::{HttpSink, SinkConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Bytes of records in a batch.
const BATCH_BYTES: usize = 5 << 20;

/// How often a batch is encoded, and how many are delivered.
const ENCODED: u32 = 20;
const DELIVERED: u8 = 80;

/// Requests at once, as the sink does unless it is told otherwise.
const AT_ONCE: usize = 4;

struct NoSecrets;

impl Secrets for NoSecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        Err(format!("{reference} is not there"))
    }
}

fn main() -> Result<()> {
    let len = std::env::args().nth(1).map_or(Ok(1_000), |text| text.parse()).context("bytes of a record")?;
    let over_there = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rules = Rules { form: Form::Unread, ..Rules::default() };
    let receiver = over_there.block_on(Receiver::start(rules, None))?;
    let here = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_all().build()?;
    let batch = Arc::new(batch(len));
    let levels = [GzipLevel::Fast].into_iter().chain((1..=9).map(GzipLevel::Class)).map(Compression::Gzip);
    for compression in [Compression::None].into_iter().chain(levels) {
        let url = format!("http://{}/", receiver.address());
        let config = SinkConfig { compression, ..SinkConfig::to(url) };
        let sink = Arc::new(HttpSink::new(&config, "arn", &NoSecrets).map_err(anyhow::Error::msg)?);
        let body: usize = sink.encode(&batch).body.iter().map(Bytes::len).sum();
        let (encoded, ratio) = (encode(&sink, &batch)?, BATCH_BYTES as f64 / body as f64);
        let (delivered, cores) = deliver(&here, &sink, &batch)?;
        println!(
            "{compression:?}: encoded {encoded:.0} MB/s a core, 1/{ratio:.2}; delivered {delivered:.0} MB/s, {cores:.2} cores"
        );
    }
    Ok(())
}

/// MB of records for each second of this thread's time.
fn encode(sink: &HttpSink, batch: &Batch) -> Result<f64> {
    let began = cpu_time("thread-self")?;
    for _ in 0..ENCODED {
        std::hint::black_box(sink.encode(batch));
    }
    Ok(f64::from(ENCODED) * BATCH_BYTES as f64 / cpu_time("thread-self")?.saturating_sub(began).as_secs_f64() / 1e6)
}

/// MB of records for each second, and how many cores were busy.
fn deliver(here: &Runtime, sink: &Arc<HttpSink>, batch: &Arc<Batch>) -> Result<(f64, f64)> {
    let (began, busy) = (Instant::now(), cpu_time_of_process()?);
    let next = Arc::new(AtomicU8::new(0));
    here.block_on(async {
        let mut lanes = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (next, sink, batch) = (Arc::clone(&next), Arc::clone(sink), Arc::clone(batch));
            lanes.spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < DELIVERED {
                    let encoded = tokio::task::spawn_blocking({
                        let (sink, batch) = (Arc::clone(&sink), Arc::clone(&batch));
                        move || sink.encode(&batch)
                    });
                    let report = sink.deliver(&batch, &encoded.await?).await;
                    ensure!(report == Report::All(Verdict::Delivered), "{report:?}");
                }
                Ok(())
            });
        }
        while let Some(ended) = lanes.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    })?;
    let (took, busy) = (began.elapsed().as_secs_f64(), cpu_time_of_process()?.saturating_sub(busy));
    Ok((f64::from(DELIVERED) * BATCH_BYTES as f64 / took / 1e6, busy.as_secs_f64() / took))
}

/// Time that a thread has had a core.
fn cpu_time(thread: &str) -> Result<Duration> {
    let times = std::fs::read_to_string(format!("/proc/{thread}/schedstat"))?;
    let nanoseconds = times.split_whitespace().next().context("no time")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The same of all threads that live.
fn cpu_time_of_process() -> Result<Duration> {
    let threads = std::fs::read_dir("/proc/self/task")?;
    threads.map(|thread| cpu_time(&format!("self/task/{}", thread?.file_name().display()))).sum()
}

fn batch(len: usize) -> Batch {
    let mut lines = Lines::new(1, len);
    let record = |number| {
        let mut record = Vec::with_capacity(len);
        lines.write(&mut record);
        let (id, arrived_at) = (PieceId::whole(Position::new(number)), Timestamp::default());
        Piece { id, arrived_at, keys: PartitionKeys::default(), data: Bytes::from(record) }
    };
    let pieces = (0..).zip((1..).map(record).take(BATCH_BYTES / len)).collect();
    Batch { id: BatchId::from_random([1; 16]), sealed_at: Timestamp::default(), pieces }
}
