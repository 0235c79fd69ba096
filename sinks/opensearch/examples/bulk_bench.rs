//! How fast documents are encoded, and how much of a bare bulk loop a sink reaches, on this machine:
//! `HYDRANT_TEST_OPENSEARCH_URL=http://127.0.0.1:9200 cargo run --release -p hydrant-sink-opensearch --example bulk_bench`.
//!
//! Without a server only the encoder is measured. With one, rounds of three alternate: request bodies that were made
//! before, sent by a loop that looks at the status alone, without ids and with ids; and batches that the sink encodes,
//! sends and judges. Each sends the same records, as many requests at once as the sink allows. `HYDRANT_BENCH_ROUNDS` is
//! how often (5), `HYDRANT_BENCH_BATCHES` how many batches of 5 MiB each sends in a round (12).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench may fail, prints, and measures the time of this machine"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use hydrant_core::batch::Batch;
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{BatchId, PartitionKeys, Piece, PieceId, PieceSink, Position, Report, Timestamp, Verdict};
use hydrant_kit::lines::Lines;
use hydrant_kit::random::Random;
use hydrant_outbound::{Body, Bounds, Client, Options};
use hydrant_sink_opensearch::{Compression, OpenSearchSink, SinkConfig};
use tokio::task::JoinSet;

/// Record bytes of a batch: the service's own default.
const BATCH_BYTES: usize = 5 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for len in [190, 1024, 10_240] {
        encode(len);
    }
    let Ok(url) = std::env::var("HYDRANT_TEST_OPENSEARCH_URL") else { return };
    for (len, compression) in [(1024, Compression::None), (1024, Compression::Gzip), (190, Compression::None)] {
        runtime.block_on(compare(&url, len, compression));
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The encoder alone, on one core.
fn encode(len: usize) {
    for compression in [Compression::None, Compression::Gzip] {
        let sink = sink("http://127.0.0.1:1", "bench", compression);
        let batch = batch(1, len);
        let (start, mut rounds, mut sent) = (Instant::now(), 0_usize, 0);
        while start.elapsed() < Duration::from_secs(2) {
            sent = sink.encode(&batch).body.iter().map(Bytes::len).sum();
            rounds += 1;
        }
        let speed = mb(rounds * record_bytes(&batch), start.elapsed());
        println!(
            "encode {len} B {compression:?}: {speed:.0} MB/s of records, {sent} bytes of {}",
            record_bytes(&batch)
        );
    }
}

async fn compare(url: &str, len: usize, compression: Compression) {
    let (rounds, batches) = (number("HYDRANT_BENCH_ROUNDS", 5), number("HYDRANT_BENCH_BATCHES", 12));
    let client = Client::new(&Options::default()).unwrap();
    let mut speeds = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (way, speeds) in speeds.iter_mut().enumerate() {
            let index = format!("bench-{way}");
            let sink = sink(url, &index, compression);
            let seed = (round * 10 + way) as u64 * 1000;
            let work: Vec<Batch> = (0..batches as u64).map(|number| batch(seed + number, len)).collect();
            let reached = match way {
                0 => bare(&client, url, &work, |batch| without_ids(&index, batch)).await,
                1 => bare(&client, url, &work, |batch| sink.encode(batch).body.concat().into()).await,
                _ => through(sink, work).await,
            };
            if round > 0 {
                speeds.push(reached); // the first round warms the server up
            }
            call(&client, "DELETE", &format!("{url}/{index}"), Bytes::new()).await;
        }
    }
    let [without, with, through] = speeds.map(median);
    println!(
        "{len} B {compression:?}: bare without ids {without:.1} MB/s, bare with ids {with:.1} MB/s, sink {through:.1} MB/s: \
         {:.0} % and {:.0} %",
        through / without * 100.0,
        through / with * 100.0,
    );
}

fn sink(url: &str, index: &str, compression: Compression) -> OpenSearchSink {
    let config = serde_json::json!({ "endpoint": url, "index": index, "rotation": "none" }).to_string();
    let config = SinkConfig { compression, ..serde_json::from_str(&config).unwrap() };
    OpenSearchSink::new(&config, &Nothing).unwrap()
}

/// Sends bodies that are there when the clock starts.
async fn bare(client: &Client, url: &str, work: &[Batch], body: impl Fn(&Batch) -> Bytes) -> f64 {
    let bodies: Vec<Bytes> = work.iter().map(body).collect();
    let bytes: usize = work.iter().map(record_bytes).sum();
    let start = Instant::now();
    let mut flights = JoinSet::new();
    for body in bodies {
        while flights.len() >= 4 {
            flights.join_next().await.unwrap().unwrap();
        }
        let (client, url) = (client.clone(), format!("{url}/_bulk"));
        flights.spawn(async move { assert_eq!(call(&client, "POST", &url, body).await, 200) });
    }
    while let Some(done) = flights.join_next().await {
        done.unwrap();
    }
    mb(bytes, start.elapsed())
}

/// Sends batches through the sink.
async fn through(sink: OpenSearchSink, work: Vec<Batch>) -> f64 {
    let sink = Arc::new(sink);
    let bytes: usize = work.iter().map(record_bytes).sum();
    let start = Instant::now();
    let mut flights = JoinSet::new();
    for batch in work {
        while flights.len() >= sink.limits().attempts_in_flight_max as usize {
            flights.join_next().await.unwrap().unwrap();
        }
        let sink = Arc::clone(&sink);
        flights.spawn(async move {
            let (maker, batch) = (Arc::clone(&sink), Arc::new(batch));
            let of = Arc::clone(&batch);
            let encoded = tokio::task::spawn_blocking(move || maker.encode(&of)).await.unwrap();
            let Report::Each(verdicts) = sink.deliver(&batch, &encoded).await else { unreachable!() };
            assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Delivered));
        });
    }
    while let Some(done) = flights.join_next().await {
        done.unwrap();
    }
    mb(bytes, start.elapsed())
}

async fn call(client: &Client, method: &str, url: &str, body: Bytes) -> u16 {
    let mut request = Request::builder().method(method).uri(url).header("content-type", "application/x-ndjson");
    if body.starts_with(&[0x1f, 0x8b]) {
        request = request.header("content-encoding", "gzip");
    }
    let minutes = Duration::from_mins(5);
    let bounds = Bounds { stall: minutes, whole: minutes, answer_bytes_max: 64 << 20 };
    client.send(request.body(Body::Bytes(body)).unwrap(), bounds).await.unwrap().status().as_u16()
}

fn batch(seed: u64, len: usize) -> Batch {
    let (mut lines, mut random) = (Lines::new(seed, len), Random::new(seed));
    let mut id = [0; 16];
    id.fill_with(|| random.next_u64().to_le_bytes()[0]);
    let count = u32::try_from(BATCH_BYTES / len).unwrap().min(10_000);
    let piece = |ordinal| {
        let mut data = Vec::new();
        lines.write(&mut data);
        let id = PieceId::whole(Position::new(u64::from(ordinal) + 1));
        let arrived_at = Timestamp::from_millis(1_790_000_000_000);
        (ordinal, Piece { id, arrived_at, keys: PartitionKeys::default(), data: data.into() })
    };
    let pieces = (0..count).map(piece).collect();
    Batch { id: BatchId::from_random(id), sealed_at: Timestamp::from_millis(1_790_000_000_000), pieces }
}

fn without_ids(index: &str, batch: &Batch) -> Bytes {
    let action = format!("{{\"create\":{{\"_index\":\"{index}\"}}}}\n");
    let mut body = Vec::new();
    for (_, piece) in &batch.pieces {
        body.extend_from_slice(action.as_bytes());
        body.extend_from_slice(&piece.data);
        body.push(b'\n');
    }
    body.into()
}

fn record_bytes(batch: &Batch) -> usize {
    batch.pieces.iter().map(|(_, piece)| piece.data.len()).sum()
}

fn mb(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// No secrets are needed.
struct Nothing;

impl Secrets for Nothing {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        Err(format!("{reference} is not set"))
    }
}
