//! `cargo xtask bench`: what the server does into MinIO, with every fsync on, and what that costs.
//!
//! The load comes from another process, signed, over a few connections; each case has a new server with a new data
//! directory. Clock and CPU run from the first request until everything is delivered, so a backlog counts. MinIO, the
//! load generator and the server share the machine: its load and what the load generator used stand beside the figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cargo::build;
use crate::kit::put;
use crate::machine::{Facts, load};
use crate::node::{Node, bucket};
use crate::process::{ProcessId, Scratch};
use crate::progress::{print, say};
use crate::services::{Addresses, Fleet};
use crate::tools::Cache;

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of load in each case.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Also writes the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A case: its name, bytes of a record, records of a request, the compression as YAML has it.
const CASES: &[(&str, u32, u32, &str)] = &[
    ("1 KiB gzip", 1024, 500, "gzip"),
    ("1 KiB gzip fast", 1024, 500, "{ gzip: fast }"),
    ("1 KiB zstd", 1024, 500, "zstd"),
    ("190 B gzip", 190, 500, "gzip"),
    ("10 KiB gzip", 10_240, 400, "gzip"),
];

/// What a case gave.
#[derive(Debug, Serialize)]
struct Figures {
    case: &'static str,
    /// Record bytes (10^6) a second until all was delivered.
    mb_per_second: f64,
    records_per_second: f64,
    /// CPU seconds of the server for 10^9 record bytes.
    cpu_seconds_per_gb: f64,
    /// The most memory the server ever held, MiB.
    peak_rss_mib: f64,
    /// The load generator's report: acknowledged rates and latencies, and its own CPU.
    load: Value,
    /// Seconds until the last acknowledgement, and until all was delivered.
    acked_seconds: f64,
    delivered_seconds: f64,
    /// Load averages of the machine before and after.
    machine_load: [String; 2],
}

/// Runs the cases and prints a table.
///
/// # Errors
/// When anything cannot be started, or the server does not take or deliver records.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cache = Cache::open()?;
    let programs = build()?;
    let fleet = Fleet::start(&cache)?;
    let facts = Facts::read();
    say(&format!("bench: {facts}"));
    let mut all = Vec::new();
    for case in CASES.iter().filter(|case| args.case.as_deref().is_none_or(|wanted| case.0.contains(wanted))) {
        say(&format!("bench: {}", case.0));
        all.push(measure(args, *case, &programs, &fleet.addresses).with_context(|| case.0.to_owned())?);
    }
    table(args, &facts, &all)?;
    if let Some(file) = &args.json {
        let document = json!({ "what": "bench", "facts": facts, "cases": all });
        fs::write(file, serde_json::to_string_pretty(&document)?).context("write the results")?;
    }
    Ok(())
}

fn measure(
    args: &Args,
    (case, record_bytes, batch, compression): (&'static str, u32, u32, &str),
    programs: &Path,
    addresses: &Addresses,
) -> Result<Figures> {
    let scratch = Scratch::new("bench")?;
    let streams = format!(
        "stores:\n{}streams:\n  web:\n    sink:\n      s3: {{ store: minio, prefix: \"bench-{}/{}/\", compression: {compression} }}\n",
        bucket("minio", addresses)?,
        std::process::id(),
        case.replace(' ', "-"),
    );
    let mut node = Node::new(programs, scratch.path(), &streams, addresses)?;
    node.start()?;
    let process = node.process().context("the server runs")?;
    let before = load();
    let (cpu, start) = (cpu_seconds(process)?, Instant::now());
    let (connections, record_bytes, batch, seconds) =
        (args.connections.to_string(), record_bytes.to_string(), batch.to_string(), args.seconds.to_string());
    let words = ["bench", "--stream", "web", "--connections", &connections, "--record-bytes", &record_bytes];
    let report = put(programs, &node.endpoint(), &[&words[..], &["--batch", &batch, "--seconds", &seconds]].concat())?;
    let acked_seconds = number(&report, "seconds")?;
    // The load generator prepares its bodies before it sends: that time is not the server's.
    let prepared = start.elapsed().as_secs_f64() - acked_seconds;
    node.drain()?;
    let delivered_seconds = start.elapsed().as_secs_f64() - prepared;
    let (bytes, records) = (number(&report, "bytes")?, number(&report, "records")?);
    let figures = Figures {
        case,
        mb_per_second: bytes / 1e6 / delivered_seconds,
        records_per_second: records / delivered_seconds,
        cpu_seconds_per_gb: (cpu_seconds(process)? - cpu) / (bytes / 1e9),
        peak_rss_mib: peak_rss_mib(process)?,
        load: report,
        acked_seconds,
        delivered_seconds,
        machine_load: [before, load()],
    };
    node.stop()?;
    Ok(figures)
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("the report has no {name}"))
}

/// CPU time a process used, user and system.
fn cpu_seconds(process: ProcessId) -> Result<f64> {
    /// Ticks a second of `/proc`, fixed by the kernel's interface.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).context("the server has ended")?;
    // Counted behind the name, which may hold anything: fields 14 and 15 of all.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// The most memory a process ever held.
fn peak_rss_mib(process: ProcessId) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).context("the server has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kibibytes / 1024.0)
}

fn table(args: &Args, facts: &Facts, all: &[Figures]) -> Result<()> {
    let Args { seconds, connections, .. } = args;
    print(&format!(
        "{facts}\ninto MinIO, {connections} connections, signed, every fsync on, {seconds} s of load a case\n"
    ))?;
    print(
        "| case | delivered MB/s | records/s | acked MB/s | CPU s/GB | peak RSS MiB | ack p50 ms | p99 ms | load CPU s | machine load |",
    )?;
    print("|---|---|---|---|---|---|---|---|---|---|")?;
    for figures in all {
        let load = &figures.load;
        let (acked, own, p50, p99) = (
            number(load, "mb_per_second")?,
            number(load, "cpu_seconds")?,
            number(&load["ack_ms"], "p50")?,
            number(&load["ack_ms"], "p99")?,
        );
        print(&format!(
            "| {} | {:.0} | {:.0} | {acked:.0} | {:.2} | {:.0} | {p50:.1} | {p99:.1} | {own:.1} | {} |",
            figures.case,
            figures.mb_per_second,
            figures.records_per_second,
            figures.cpu_seconds_per_gb,
            figures.peak_rss_mib,
            figures.machine_load.join(" → "),
        ))?;
    }
    Ok(())
}
