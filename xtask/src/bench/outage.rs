//! MinIO stands still under full load and goes on: what that does to memory and producers, and how fast the backlog
//! drains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use super::{Args, Stand, number, status_mib};
use crate::kit::put;
use crate::machine::load;
use crate::node::{Node, bucket};
use crate::process::{ProcessId, Scratch};
use crate::progress::{print, say};

/// Seconds of load before MinIO stands still, to compare with.
const BEFORE: u32 = 10;

/// Most record bytes that come in while MinIO stands still, 10^6. They lie on this disk twice, compressed to an eighth:
/// in the outbox, and later in MinIO. A long outage is at a lower rate.
const BACKLOG_MB_MAX: f64 = 40_000.0;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Room for what comes in meanwhile: this measures memory, not the limits of the disk.
const SERVER: &str = "  disk: 40GiB\n  disk_per_stream: 30GiB\n";

#[derive(Debug, Serialize)]
struct Phase {
    seconds: f64,
    mb_per_second: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    /// Records that were asked to come later.
    throttled: f64,
    /// The most memory of the server in this phase.
    rss_mib: f64,
}

/// Measures and prints a table.
pub(super) fn run(args: &Args, stand: &Stand) -> Result<Value> {
    let scratch = Scratch::new("outage")?;
    let streams = format!(
        "{SERVER}stores:\n{}streams:\n  web:\n    sink:\n      s3: {{ store: minio, prefix: \"outage-{}/\", compression: zstd }}\n",
        bucket("minio", &stand.fleet.addresses)?,
        std::process::id(),
    );
    let mut node = Node::new(&stand.programs, scratch.path(), &streams, &stand.fleet.addresses)?;
    node.start()?;
    let minio = stand.fleet.process("minio").context("MinIO runs")?;
    say("bench: outage, before it");
    let before = phase(args, stand, &node, BEFORE, None)?;
    node.drain()?;
    say(&format!("bench: outage, {} s", args.outage));
    let during = {
        let _still = Still::of(minio);
        phase(args, stand, &node, args.outage, Some(BACKLOG_MB_MAX / f64::from(args.outage)))?
    };
    let backlog_mb = during.mb_per_second * during.seconds;
    say(&format!("bench: outage, over; {backlog_mb:.0} MB wait"));
    let start = Instant::now();
    let (drained, after_rss) = watched(node.process().context("the server runs")?, || node.drain())?;
    drained?;
    let drain_seconds = start.elapsed().as_secs_f64();
    node.stop()?;
    let rate = backlog_mb / drain_seconds;
    let [times, of_full_rate] = [during.mb_per_second, before.mb_per_second].map(|came| rate / came);
    print(&format!(
        "MinIO stands still for {} s under load (1 KiB records, zstd, {} connections); machine load {}\n\n\
         | phase | MB/s | ack p50 ms | p99 ms | told to slow down | most RSS MiB |\n|---|---|---|---|---|---|",
        args.outage,
        args.connections,
        load(),
    ))?;
    for (name, phase) in [("before", &before), ("meanwhile", &during)] {
        print(&format!(
            "| {name} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
            phase.mb_per_second, phase.ack_p50_ms, phase.ack_p99_ms, phase.throttled, phase.rss_mib
        ))?;
    }
    print(&format!(
        "| draining {backlog_mb:.0} MB | {rate:.0}: {times:.1} × as fast as it came, {of_full_rate:.1} × the rate before | | | | {after_rss:.0} |\n"
    ))?;
    Ok(serde_json::json!({
        "before": before, "during": during, "backlog_mb": backlog_mb, "drain_seconds": drain_seconds,
        "times_faster": times, "times_full_rate": of_full_rate, "drain_rss_mib": after_rss,
    }))
}

/// Load for some seconds, at most this many 10^6 bytes in each.
fn phase(args: &Args, stand: &Stand, node: &Node, seconds: u32, mb_per_second: Option<f64>) -> Result<Phase> {
    let (connections, seconds) = (args.connections.to_string(), seconds.to_string());
    let pace = mb_per_second.map(|rate| rate.to_string());
    let mut words = vec!["bench", "--stream", "web", "--connections", &connections, "--seconds", &seconds];
    words.extend(pace.iter().flat_map(|pace| ["--mb-per-second", pace]));
    let process = node.process().context("the server runs")?;
    let (report, rss_mib) = watched(process, || put(&stand.programs, &node.endpoint(), &words))?;
    let report = report?;
    Ok(Phase {
        seconds: number(&report, "seconds")?,
        mb_per_second: number(&report, "mb_per_second")?,
        ack_p50_ms: number(&report["ack_ms"], "p50")?,
        ack_p99_ms: number(&report["ack_ms"], "p99")?,
        throttled: number(&report, "throttled")?,
        rss_mib,
    })
}

/// Does something; also the most memory that the process held meanwhile, MiB.
fn watched<T>(process: ProcessId, act: impl FnOnce() -> T) -> Result<(T, f64)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most: f64 = 0.0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(status_mib(process, "VmRSS")?);
                thread::sleep(LOOK_EVERY);
            }
            anyhow::Ok(most)
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        let most = watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((result, most))
    })
}

/// A process that stands still. Dropping this lets it go on.
struct Still(ProcessId);

impl Still {
    fn of(process: ProcessId) -> Self {
        process.signal(Signal::STOP);
        Self(process)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}
