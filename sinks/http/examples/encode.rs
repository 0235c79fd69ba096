//! How fast bodies are made: MB of records for each second of one core's time, whatever else the machine does, and what
//! they shrink to, for each compression.
//!
//! `cargo run --release -p hydrant-sink-http --example encode [-- RECORD_BYTES]`: batches of 5 MiB of log lines (1 KB
//! each, unless said) in the service's format.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench prints, and its figures are round")]

use anyhow::Context;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{BatchId, PartitionKeys, Piece, PieceId, PieceSink, Position, Timestamp};
use hydrant_kit::lines::Lines;
use hydrant_sink_http::{HttpSink, SinkConfig};

/// Bytes of records in a batch.
const BATCH_BYTES: usize = 5 << 20;

/// How often each batch is encoded.
const ROUNDS: u32 = 20;

struct NoSecrets;

impl Secrets for NoSecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        Err(format!("{reference} is not there"))
    }
}

fn main() -> anyhow::Result<()> {
    let len = std::env::args().nth(1).map_or(Ok(1_000), |text| text.parse()).context("bytes of a record")?;
    let batch = batch(len);
    let levels = [GzipLevel::Fast].into_iter().chain((1..=9).map(GzipLevel::Class)).map(Compression::Gzip);
    for compression in [Compression::None].into_iter().chain(levels) {
        let config = SinkConfig { compression, ..SinkConfig::to("https://127.0.0.1/") };
        let sink = HttpSink::new(&config, "arn", &NoSecrets).map_err(anyhow::Error::msg)?;
        let body: usize = sink.encode(&batch).body.iter().map(Bytes::len).sum();
        let began = cpu_seconds()?;
        for _ in 0..ROUNDS {
            std::hint::black_box(sink.encode(&batch));
        }
        let rate = f64::from(ROUNDS) * BATCH_BYTES as f64 / (cpu_seconds()? - began) / 1e6;
        println!("{compression:?}: {rate:.0} MB/s, 1/{:.2} of the records", BATCH_BYTES as f64 / body as f64);
    }
    Ok(())
}

/// Time that this thread has had a core.
fn cpu_seconds() -> anyhow::Result<f64> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = times.split_whitespace().next().context("no time")?.parse()?;
    Ok(nanoseconds / 1e9)
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
