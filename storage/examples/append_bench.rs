//! How fast the log acknowledges, on this disk: `cargo run --release -p hydrant-storage --example append_bench`.
//!
//! Two loads, each with the disk's own fdatasync and again with none, so that the difference is the disk:
//! 8 writers of batches (500 records of 1 KiB), and 64 writers of single records (200 bytes). Each writer waits for
//! its acknowledgement before it sends again. `HYDRANT_BENCH_DIR` chooses the folder, `HYDRANT_BENCH_SECONDS` the
//! length of each run (5), `HYDRANT_BENCH_FSYNC=off` the second half only.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a bench may fail, prints, and measures the time of this machine"
)]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hydrant_core::{ByteSize, Clock, Position, Timestamp};
use hydrant_storage::files::real::RealFiles;
use hydrant_storage::files::{File, Files};
use hydrant_storage::log::{Committers, Log, Options, Payloads};
use hydrant_storage::space::Space;

/// A load: so many writers, each with requests of so many records of so many bytes.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    writers: usize,
    records: u32,
    record_bytes: u32,
}

const LOADS: [Load; 2] = [
    Load { name: "8 writers x 500 records x 1 KiB", writers: 8, records: 500, record_bytes: 1024 },
    Load { name: "64 writers x 1 record x 200 B", writers: 64, records: 1, record_bytes: 200 },
];

fn main() -> io::Result<()> {
    let seconds = std::env::var("HYDRANT_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let parent = std::env::var("HYDRANT_BENCH_DIR").unwrap_or_else(|_| "target".to_owned());
    std::fs::create_dir_all(&parent)?;
    let kinds: [(&str, Arc<dyn Files>); 2] = [("fdatasync", Arc::new(RealFiles)), ("no sync", Arc::new(NoSync))];
    let skip = usize::from(std::env::var("HYDRANT_BENCH_FSYNC").is_ok_and(|value| value == "off"));
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    println!(
        "load                              sync        MB/s    acks/s   p50 ms   p99 ms   max ms   syncs/s  sync p50/p99"
    );
    for (kind, files) in kinds.into_iter().skip(skip) {
        for load in LOADS {
            let dir = tempfile::tempdir_in(&parent)?;
            runtime.block_on(run(kind, load, dir.path(), Arc::clone(&files), Duration::from_secs(seconds)));
        }
    }
    Ok(())
}

async fn run(kind: &str, load: Load, dir: &Path, files: Arc<dyn Files>, length: Duration) {
    let committers = Committers::start(2).unwrap();
    let share = Space::new(ByteSize::gib(64)).share(ByteSize::gib(64));
    let log =
        Log::open(&dir.join("log"), &Options::new(1), files, Arc::new(SystemClock(Instant::now())), share, &committers);
    let log = log.unwrap().log;
    let until = Instant::now() + length;
    let forgetting = std::thread::spawn({
        let log = log.clone();
        move || forget(&log, until)
    });
    let started = Instant::now();
    let writers: Vec<_> = (0..load.writers).map(|_| tokio::spawn(write(log.clone(), load, until))).collect();
    let mut waits = Vec::new();
    for writer in writers {
        waits.extend(writer.await.unwrap());
    }
    let took = started.elapsed().as_secs_f64();
    forgetting.join().unwrap();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let acks = waits.len() as f64 / took;
    let megabytes = acks * f64::from(load.records) * f64::from(load.record_bytes) / 1e6;
    let syncs = log.usage().syncs;
    println!(
        "{:<33} {kind:<10} {megabytes:>6.0} {acks:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>9.0}  {:?}/{:?}",
        load.name,
        at(0.5),
        at(0.99),
        at(1.0),
        syncs.count() as f64 / took,
        syncs.percentile(50).unwrap_or_default(),
        syncs.percentile(99).unwrap_or_default(),
    );
}

/// One producer: sends, waits until it is durable, sends again. Gives back how long each took.
async fn write(log: Log, load: Load, until: Instant) -> Vec<Duration> {
    let data: Bytes = (0..load.records * load.record_bytes).map(|n| (n % 251) as u8).collect();
    let lengths = vec![load.record_bytes; load.records as usize];
    let mut waits = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        log.append(Payloads { data: data.clone(), lengths: lengths.clone() }).await.unwrap();
        waits.push(started.elapsed());
    }
    waits
}

/// Stands for packing and delivery: every 100 ms all but the last of it is forgotten.
fn forget(log: &Log, until: Instant) {
    let mut seen = Position::ZERO;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        log.forget(seen).unwrap();
        seen = log.end();
    }
}

#[derive(Debug)]
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The disk of this machine, but nothing is ever synced.
#[derive(Debug)]
struct NoSync;

#[derive(Debug)]
struct NoSyncFile(Arc<dyn File>);

impl Files for NoSync {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(NoSyncFile(RealFiles.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(NoSyncFile(RealFiles.open(path)?)))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        RealFiles.open_read_only(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFiles.remove(path)
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        RealFiles.free(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for NoSyncFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, parts)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
