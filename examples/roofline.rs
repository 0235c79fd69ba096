//! The least that a server of this kind can do: takes the bodies of puts over HTTP/1.1, hashes each as a signature
//! asks for, compresses as many bytes as the records have, and places the objects. It parses nothing, keeps nothing
//! and promises nothing, so what the real server does beside it is the price of the promises.
//!
//! `roofline COMPRESSION RECORD_BYTES BATCH`, the compression in JSON (`"zstd"`, `{"gzip":"fast"}`); the store is the one of
//! the `HYDRANT_TEST_S3_*` variables. Prints its address, serves until stdin ends, then prints what one core does of
//! each job alone. `cargo xtask bench` puts its figures beside the server's.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::disallowed_methods, reason = "a bench lives on the real clock")]

use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hydrant::blocks::Blocks;
use hydrant::encode::compress::{Workspace, whole};
use hydrant_core::compression::Compression;
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{BatchId, ByteSize, Object, ObjectSink, Verdict};
use hydrant_kit::conformance::MemoryBlob;
use hydrant_kit::lines::Lines;
use hydrant_sinks::{Encryption, StoreConfig};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

/// Raw bytes of an object: the size hint that a stream has unless told otherwise.
const OBJECT_BYTES: usize = 5 << 20;

/// Objects that may wait for a core. More would be memory and no throughput.
const WAITING_MAX: usize = 2;

/// Objects on their way to the store at once.
const PLACING_MAX: usize = 4;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [compression, record_bytes, batch] = words.as_slice() else {
        bail!("usage: roofline COMPRESSION RECORD_BYTES BATCH");
    };
    let compression: Compression = serde_json::from_str(compression).context("COMPRESSION")?;
    let (record_bytes, batch): (usize, usize) = (record_bytes.parse()?, batch.parse()?);
    let raw = records(record_bytes);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("http://{}", listener.local_addr()?);
    let (due, objects) = mpsc::channel(WAITING_MAX);
    let taken = Arc::new(Taken { bytes: AtomicU64::new(0), of_request: (record_bytes * batch) as u64, due });
    let answer = answer(batch);
    let placing = tokio::spawn(place_all(objects, raw.clone(), compression, store()?));
    let serving = tokio::spawn(serve(listener, Arc::clone(&taken), answer));
    spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    serving.abort();
    drop(taken);
    placing.abort();
    println!("{}", alone(&raw, compression));
    Ok(())
}

/// What was taken in, and who is told when it is enough for an object.
struct Taken {
    bytes: AtomicU64,
    of_request: u64,
    due: mpsc::Sender<()>,
}

impl Taken {
    /// Counts a request; waits while objects are not compressed as fast as records come.
    async fn add(&self) {
        let before = self.bytes.fetch_add(self.of_request, Ordering::Relaxed);
        let objects = |bytes: u64| bytes / OBJECT_BYTES as u64;
        for _ in objects(before)..objects(before + self.of_request) {
            self.due.send(()).await.ok(); // nobody compresses any more: the bench is over
        }
    }
}

async fn serve(listener: TcpListener, taken: Arc<Taken>, answer: Bytes) {
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).ok();
        let (taken, answer) = (Arc::clone(&taken), answer.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (taken, answer) = (Arc::clone(&taken), answer.clone());
            async move {
                let mut body = request.into_body();
                let mut hash = digest::Context::new(&digest::SHA256);
                while let Some(frame) = body.frame().await {
                    if let Ok(data) = frame?.into_data() {
                        hash.update(&data);
                    }
                }
                std::hint::black_box(hash.finish());
                taken.add().await;
                Ok::<_, hyper::Error>(Response::new(Full::new(answer)))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move { connection.await.ok() });
    }
}

async fn place_all(
    mut due: mpsc::Receiver<()>,
    raw: Bytes,
    compression: Compression,
    store: Arc<dyn ObjectSink>,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut work = JoinSet::new();
    let workspaces = Arc::new(Workspaces::default());
    for number in 0_u128.. {
        if due.recv().await.is_none() {
            break;
        }
        if work.len() >= cores.max(PLACING_MAX)
            && let Some(done) = work.join_next().await
        {
            done??;
        }
        let (raw, store, workspaces) = (raw.clone(), Arc::clone(&store), Arc::clone(&workspaces));
        work.spawn(async move {
            let bytes = spawn_blocking(move || workspaces.compress(raw, compression).concat()).await?;
            let object = Object {
                batch: BatchId::from_bytes(number.to_be_bytes()),
                key: format!("roofline/{}/{number}", std::process::id()),
                content_type: "application/octet-stream".to_owned(),
                content_encoding: None,
                metadata: Vec::new(),
                body: Arc::new(MemoryBlob(bytes.into())),
            };
            match store.place(&object).await {
                Verdict::Delivered => Ok(()),
                Verdict::Retry(fault) | Verdict::Refused(fault) | Verdict::Discarded(fault) => bail!("{fault}"),
            }
        });
    }
    Ok(())
}

/// What compressors keep between objects, for each that runs at once, as the server has it.
#[derive(Default)]
struct Workspaces(Mutex<Vec<Workspace>>);

impl Workspaces {
    fn compress(&self, raw: Bytes, compression: Compression) -> Vec<Bytes> {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = free().pop();
        let mut workspace = kept.unwrap_or_else(|| Workspace::new(Blocks::new(ByteSize::mib(16))));
        let object = whole(vec![raw], compression, &mut workspace);
        free().push(workspace);
        object
    }
}

/// What one core does of each job, in 10^6 bytes a second; the hash counts bytes of bodies, a third more than records.
fn alone(raw: &Bytes, compression: Compression) -> serde_json::Value {
    let workspaces = Workspaces::default();
    let speed = |run: &dyn Fn() -> usize| {
        let (start, mut rounds) = (Instant::now(), 0_u32);
        while start.elapsed() < Duration::from_millis(500) {
            std::hint::black_box(run());
            rounds += 1;
        }
        raw.len() as f64 * f64::from(rounds) / 1e6 / start.elapsed().as_secs_f64()
    };
    serde_json::json!({
        "codec_mb_per_second": speed(&|| workspaces.compress(raw.clone(), compression).len()),
        "sha256_mb_per_second": speed(&|| digest::digest(&digest::SHA256, raw).as_ref().len()),
    })
}

/// An object's worth of the records that the load generator sends.
fn records(record_bytes: usize) -> Bytes {
    let (mut lines, mut raw) = (Lines::new(1, record_bytes), Vec::with_capacity(OBJECT_BYTES));
    while raw.len() + record_bytes <= OBJECT_BYTES {
        lines.write(&mut raw);
    }
    raw.into()
}

fn answer(batch: usize) -> Bytes {
    const ENTRY: &str = r#"{"RecordId":"49546986683135544286507457936321625675700192471156785154"}"#;
    if batch == 1 {
        return ENTRY.into();
    }
    let entries = vec![ENTRY; batch].join(",");
    format!(r#"{{"FailedPutCount":0,"RequestResponses":[{entries}]}}"#).into()
}

fn store() -> anyhow::Result<Arc<dyn ObjectSink>> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let config: StoreConfig = serde_json::from_value(serde_json::json!({ "s3": {
        "bucket": variable("HYDRANT_TEST_S3_BUCKET")?,
        "endpoint": variable("HYDRANT_TEST_S3_ENDPOINT")?,
        "region": "us-east-1",
        "path_style": true,
        "access_key_id": { "env": "HYDRANT_TEST_S3_ACCESS_KEY" },
        "secret_access_key": { "env": "HYDRANT_TEST_S3_SECRET_KEY" },
    }}))?;
    config.build(&Encryption::StoreDefault, &Environment).map_err(anyhow::Error::msg)
}

/// Secrets of the environment.
struct Environment;

impl Secrets for Environment {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        match reference {
            SecretRef::Env(name) => std::env::var(name).map(Secret::new).map_err(|error| format!("{name}: {error}")),
            SecretRef::File(_) => Err("only variables are read".to_owned()),
        }
    }
}
