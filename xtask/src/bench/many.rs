//! Many streams in one server: 500 with a record each, 20 busy ones, one of these with a store that is not there.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Args, Stand, number, status_mib};
use crate::kit::put;
use crate::machine::load;
use crate::node::{Node, bucket};
use crate::process::{Scratch, free_port};
use crate::progress::{print, say};

/// Streams that get one record each.
const IDLE: usize = 500;

/// Streams under load. The last one's store is not there.
const BUSY: usize = 20;

/// Measures and prints.
pub(super) fn run(args: &Args, stand: &Stand) -> Result<Value> {
    let scratch = Scratch::new("many")?;
    let mut node = Node::new(&stand.programs, scratch.path(), &streams(stand)?, &stand.fleet.addresses)?;
    say(&format!("bench: {IDLE} idle streams and {BUSY} busy ones"));
    let first_start = seconds(|| node.start())?;
    let idle: Vec<String> = (0..IDLE).map(|number| format!("idle-{number}")).collect();
    let words =
        ["bench", "--batch", "1", "--requests", "1", "--connections", &IDLE.to_string(), "--stream"].map(str::to_owned);
    put(&stand.programs, &node.endpoint(), &refs(&[&words[..], &[idle.join(",")]].concat()))?;
    node.stop()?;
    let second_start = seconds(|| node.start())?;
    let process = node.process().context("the server runs")?;
    let (idle_rss, idle_disk) = (status_mib(process, "VmRSS")?, disk_mib(node.data())?);
    let busy: Vec<String> = (0..BUSY).map(|number| format!("busy-{number}")).collect();
    let words = [
        "bench",
        "--connections",
        &BUSY.to_string(),
        "--seconds",
        &args.seconds.to_string(),
        "--batch",
        "100",
        "--stream",
    ]
    .map(str::to_owned);
    let report = put(&stand.programs, &node.endpoint(), &refs(&[&words[..], &[busy.join(",")]].concat()))?;
    let (peak, files) = (status_mib(process, "VmHWM")?, fs::read_dir(format!("/proc/{}/fd", process.pid))?.count());
    let disk = disk_mib(node.data())?;
    let (acked, delivered) = (acked(&report)?, delivered(&node.metrics()?, &busy)?);
    let healthy = BUSY - 1;
    let fairness = [jain(acked.iter().take(healthy)), jain(delivered.iter().take(healthy))];
    node.stop()?;
    let (p50, p99) = (number(&report["ack_ms"], "p50")?, number(&report["ack_ms"], "p99")?);
    print(&format!(
        "{IDLE} streams with a record each and {BUSY} busy ones, one with a dead store; machine load {}\n\n\
         | start-up s, new / again | RSS MiB idle / peak | disk MiB idle / busy | open files | busy MB/s | ack p50 / p99 ms | Jain's index of {healthy}, acked / delivered |\n\
         |---|---|---|---|---|---|---|\n\
         | {first_start:.2} / {second_start:.2} | {idle_rss:.0} / {peak:.0} | {idle_disk:.0} / {disk:.0} | {files} | {:.0} | {p50:.1} / {p99:.1} | {:.3} / {:.3} |\n",
        load(),
        number(&report, "mb_per_second")?,
        fairness[0],
        fairness[1],
    ))?;
    Ok(json!({
        "start_seconds": [first_start, second_start], "idle_rss_mib": idle_rss, "peak_rss_mib": peak, "idle_disk_mib": idle_disk,
        "busy_disk_mib": disk, "open_files": files, "load": report, "delivered": delivered, "fairness": fairness,
    }))
}

/// Stores and streams, in YAML.
fn streams(stand: &Stand) -> Result<String> {
    let mut yaml = format!(
        "stores:\n{}  dead:\n    s3: {{ bucket: dead, endpoint: \"http://127.0.0.1:{}\", region: us-east-1, path_style: true, \
         access_key_id: {{ env: HYDRANT_TEST_S3_ACCESS_KEY }}, secret_access_key: {{ env: HYDRANT_TEST_S3_SECRET_KEY }} }}\nstreams:\n",
        bucket("minio", &stand.fleet.addresses)?,
        free_port()?,
    );
    let names =
        (0..IDLE).map(|number| format!("idle-{number}")).chain((0..BUSY).map(|number| format!("busy-{number}")));
    for name in names {
        let store = if name == format!("busy-{}", BUSY - 1) { "dead" } else { "minio" };
        writeln!(
            yaml,
            "  {name}:\n    hints: {{ size: 5MiB, interval: 60s }}\n    sink:\n      s3: {{ store: {store}, prefix: \"many-{}/{name}/\", compression: zstd }}",
            std::process::id(),
        )?;
    }
    Ok(yaml)
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn seconds(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Records that each stream acknowledged.
fn acked(report: &Value) -> Result<Vec<f64>> {
    let counts = report["records_by_stream"].as_array().context("the report has no records_by_stream")?;
    Ok(counts.iter().filter_map(Value::as_f64).collect())
}

/// Records of each of these streams that were delivered, by the server's own count.
fn delivered(metrics: &str, streams: &[String]) -> Result<Vec<f64>> {
    let of = |stream: &String| {
        let start = format!("hydrant_stream_records_out_total{{stream=\"{stream}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).with_context(|| start.clone())
    };
    streams.iter().map(of).collect()
}

/// Jain's fairness index: 1 when all are equal, 1/n when one has everything.
fn jain<'a>(shares: impl Iterator<Item = &'a f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for share in shares {
        count += 1.0;
        sum += share;
        squares += share * share;
    }
    if squares == 0.0 { 0.0 } else { sum * sum / (count * squares) }
}

/// What the files below a folder take up on disk, MiB.
fn disk_mib(folder: &Path) -> io::Result<f64> {
    let mut blocks = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let (entry, mut is_folder) = (entry?, false);
            // Files come and go while we look.
            if let Ok(facts) = entry.metadata() {
                blocks += facts.blocks();
                is_folder = facts.is_dir();
            }
            if is_folder {
                folders.push(entry.path());
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let mib = blocks as f64 / 2048.0;
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::jain;

    #[test]
    fn fairness_is_one_among_equals_and_its_least_when_one_has_all() {
        let index = |shares: &[f64]| jain(shares.iter());
        assert!((index(&[3.0, 3.0, 3.0]) - 1.0).abs() < 1e-9);
        assert!((index(&[9.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-9);
        assert!((index(&[0.0, 0.0]) - 0.0).abs() < 1e-9);
    }
}
