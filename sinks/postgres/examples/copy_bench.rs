//! How fast the sink fills a table, beside a bare COPY of the same rows: what encoding, guard and transaction cost.
//!
//! `cargo run --release -p hydrant-sink-postgres --example copy_bench`, with `HYDRANT_TEST_POSTGRES_*` set as
//! `cargo xtask services up postgres` prints them. Rounds of both kinds take turns; the median of five counts.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "measures on the real clock, and prints what it found"
)]

use std::collections::BTreeMap;
use std::env;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::SinkExt as _;
use hydrant_core::batch::Batch;
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{BatchId, PartitionKeys, Piece, PieceId, PieceSink, Position, Report, Timestamp, Verdict};
use hydrant_kit::random::Random;
use hydrant_sink_postgres::{PostgresSink, SinkConfig};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

/// Batches of a round, and records of each.
const BATCHES: u64 = 16;
const RECORDS: u32 = 5_000;
const ROUNDS: u64 = 5;

struct Environment;

impl Secrets for Environment {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let SecretRef::Env(name) = reference else { return Err("only variables".to_owned()) };
        env::var(name).map(Secret::new).map_err(|_| format!("{name} is not set"))
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(format!("HYDRANT_TEST_POSTGRES_{name}"))
        .with_context(|| format!("HYDRANT_TEST_POSTGRES_{name} is not set"))
}

/// A record of about a kilobyte, as JSON.
fn record(random: &mut Random) -> Bytes {
    let id = random.next_u64();
    let path = format!("/v1/objects/{:x}/parts?id={:x}", random.next_u64(), random.below(1000));
    let text = format!("{:016x} \"quoted\" and a path\\of\\backslashes ", random.next_u64()).repeat(16);
    json!({ "id": id, "method": "GET", "path": path, "status": 200, "ms": random.below(900), "user": { "id": id % 9973, "tags": ["a", "b"] }, "text": text })
        .to_string()
        .into()
}

fn batches(seed: u64) -> Vec<Batch> {
    let mut random = Random::new(seed);
    let mut batch = |_| {
        let id = std::array::from_fn(|_| random.next_u64().to_le_bytes()[0]);
        let pieces = (0..RECORDS).map(|ordinal| {
            let id = PieceId::whole(Position::new(u64::from(ordinal) + 1));
            let arrived_at = Timestamp::from_millis(1_790_000_000_000);
            (ordinal, Piece { id, arrived_at, keys: PartitionKeys::default(), data: record(&mut random) })
        });
        Batch {
            pieces: pieces.collect(),
            id: BatchId::from_random(id),
            sealed_at: Timestamp::from_millis(1_790_000_000_000),
        }
    };
    (0..BATCHES).map(&mut batch).collect()
}

fn bytes_of(batches: &[Batch]) -> usize {
    batches.iter().flat_map(|batch| &batch.pieces).map(|(_, piece)| piece.data.len()).sum()
}

/// The sink as a lane drives it: so many batches at once, encoded and delivered.
async fn through_the_sink(sink: &Arc<PostgresSink>, batches: Vec<Batch>, at_once: usize) -> Result<f64> {
    let (bytes, start) = (bytes_of(&batches), Instant::now());
    let queue = Arc::new(std::sync::Mutex::new(batches));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (sink, queue) = (Arc::clone(sink), Arc::clone(&queue));
        workers.spawn(async move {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.pop());
                let Some(batch) = next else { return anyhow::Ok(()) };
                let report = sink.deliver(&batch, &sink.encode(&batch)).await;
                ensure!(report == Report::All(Verdict::Delivered), "{report:?}");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(rate(bytes, start))
}

/// Rows that are ready, on connections that are open: one COPY and one commit for each batch, and nothing else.
async fn bare(clients: &[Arc<Client>], table: &str, sink: &PostgresSink, batches: &[Batch]) -> Result<f64> {
    let rows: Vec<Bytes> = batches.iter().map(|batch| sink.encode(batch).body.concat().into()).collect();
    let (bytes, start) = (bytes_of(batches), Instant::now());
    let queue = Arc::new(std::sync::Mutex::new(rows));
    let mut workers = tokio::task::JoinSet::new();
    for client in clients {
        let (client, queue, statement) =
            (Arc::clone(client), Arc::clone(&queue), format!("COPY {table} (data) FROM STDIN"));
        workers.spawn(async move {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.pop());
                let Some(rows) = next else { return anyhow::Ok(()) };
                let mut copy = pin!(client.copy_in::<_, Bytes>(&statement).await?);
                for start in (0..rows.len()).step_by(128 << 10) {
                    copy.feed(rows.slice(start..rows.len().min(start + (128 << 10)))).await?;
                }
                copy.finish().await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(rate(bytes, start))
}

async fn connect() -> Result<Client> {
    let text = format!(
        "host={} port={} user={} password={} dbname={}",
        variable("HOST")?,
        variable("PORT")?,
        variable("USER")?,
        variable("PASSWORD")?,
        variable("DATABASE")?
    );
    let config: tokio_postgres::Config = text.parse()?;
    let tcp = tokio::net::TcpStream::connect((variable("HOST")?, variable("PORT")?.parse()?)).await?;
    tcp.set_nodelay(true)?;
    let (client, connection) = config.connect_raw(tcp, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// In MB/s.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(bytes: usize, start: Instant) -> f64 {
    bytes as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

async fn measure(name: &str, row: &serde_json::Value, columns: &str, at_once: usize) -> Result<()> {
    let admin = connect().await?;
    let mut clients = Vec::new();
    for _ in 0..at_once {
        clients.push(Arc::new(connect().await?));
    }
    let make = |table: &str, columns: &str| format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})");
    let config: SinkConfig = serde_json::from_value(json!({
        "host": variable("HOST")?, "port": variable("PORT")?.parse::<u16>()?, "user": variable("USER")?, "database": variable("DATABASE")?,
        "password": { "env": "HYDRANT_TEST_POSTGRES_PASSWORD" }, "table": "bench_sink", "row": row, "connections": at_once,
    }))?;
    let raw: SinkConfig = SinkConfig { row: serde_json::from_value(json!({ "raw": {} }))?, ..config.clone() };
    let sink = Arc::new(PostgresSink::new(&config, "bench", &Environment).map_err(anyhow::Error::msg)?);
    let raw = PostgresSink::new(&raw, "bench", &Environment).map_err(anyhow::Error::msg)?;
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..ROUNDS {
        admin.batch_execute(&make("bench_bare", "data jsonb")).await?;
        figures.entry("bare").or_default().push(bare(&clients, "bench_bare", &raw, &batches(2 * round)).await?);
        admin.batch_execute(&make("bench_sink", columns)).await?;
        figures.entry("sink").or_default().push(through_the_sink(&sink, batches(2 * round + 1), at_once).await?);
    }
    let (bare, sink) =
        (median(figures.remove("bare").unwrap_or_default()), median(figures.remove("sink").unwrap_or_default()));
    println!(
        "{name}, {at_once} at once: sink {sink:.1} MB/s, bare COPY into jsonb {bare:.1} MB/s, {:.0} %",
        100.0 * sink / bare
    );
    admin.batch_execute("DROP TABLE bench_bare, bench_sink, hydrant_guards").await?;
    Ok(())
}

/// What encoding alone does, on one core.
fn measure_encoding(name: &str, row: &serde_json::Value) -> Result<()> {
    let config = json!({ "host": "localhost", "user": "u", "database": "d", "table": "t", "row": row });
    let sink =
        PostgresSink::new(&serde_json::from_value(config)?, "bench", &Environment).map_err(anyhow::Error::msg)?;
    let batches = batches(7);
    let mut figures = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for batch in &batches {
            ensure!(sink.encode(batch).refused.is_empty(), "a record is refused");
        }
        figures.push(rate(bytes_of(&batches), start));
    }
    println!("{name}: encoded at {:.0} MB/s", median(figures));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let jsonb = json!({ "raw": { "type": "jsonb" } });
    let columns = json!({ "columns": [
        { "name": "id", "type": "numeric" }, { "name": "path" }, { "name": "ms", "type": "integer" },
        { "name": "user_id", "type": "bigint", "from": "$.user.id" }, { "name": "text" },
    ] });
    measure_encoding("jsonb", &jsonb)?;
    measure_encoding("five columns", &columns)?;
    for at_once in [1, 2, 4] {
        measure("jsonb", &jsonb, "data jsonb", at_once).await?;
    }
    let typed = "id numeric, path text, ms integer, user_id bigint, text text";
    measure("five columns", &columns, typed, 2).await
}
