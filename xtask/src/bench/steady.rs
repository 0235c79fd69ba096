//! Full rate for some seconds. Clock and CPU run from the first request until everything is delivered, so a backlog
//! counts.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Args, Stand, cpu_seconds, number, status_mib};
use crate::kit::put;
use crate::machine::load;
use crate::node::{Node, Syncs, bucket};
use crate::process::{ProcessId, Scratch};
use crate::progress::{print, say};

/// What is put and how it is compressed.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    record_bytes: u32,
    batch: u32,
    /// As YAML and JSON both have it.
    compression: &'static str,
    /// Connections, when not those of the command line.
    connections: Option<u32>,
    /// Whether it is also measured without fsync.
    without_fsync: bool,
}

const CASES: &[Case] = &[
    Case::new("1 KiB gzip", 1024, 500, r#""gzip""#).also_without_fsync(),
    Case::new("1 KiB gzip fast", 1024, 500, r#"{"gzip":"fast"}"#),
    Case::new("1 KiB zstd", 1024, 500, r#""zstd""#).also_without_fsync(),
    Case::new("190 B gzip", 190, 500, r#""gzip""#),
    Case::new("190 B zstd", 190, 500, r#""zstd""#),
    Case::new("10 KiB gzip", 10_240, 400, r#""gzip""#),
    Case::new("1 KiB single", 1024, 1, r#""zstd""#).over(64),
];

impl Case {
    const fn new(name: &'static str, record_bytes: u32, batch: u32, compression: &'static str) -> Self {
        Self { name, record_bytes, batch, compression, connections: None, without_fsync: false }
    }

    const fn also_without_fsync(self) -> Self {
        Self { without_fsync: true, ..self }
    }

    const fn over(self, connections: u32) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// Runs the load generator against an endpoint.
    fn put(self, args: &Args, stand: &Stand, endpoint: &str) -> Result<Value> {
        let connections = self.connections.unwrap_or(args.connections).to_string();
        let (record_bytes, batch, seconds) =
            (self.record_bytes.to_string(), self.batch.to_string(), args.seconds.to_string());
        let words = ["bench", "--stream", "web", "--connections", &connections, "--record-bytes", &record_bytes];
        put(&stand.programs, endpoint, &[&words[..], &["--batch", &batch, "--seconds", &seconds]].concat())
    }
}

/// What a server did.
#[derive(Debug, Serialize)]
struct Figures {
    /// Record bytes (10^6) a second until all was delivered.
    mb_per_second: f64,
    records_per_second: f64,
    /// CPU seconds of the server for 10^9 record bytes.
    cpu_seconds_per_gb: f64,
    /// The most memory the server ever held, MiB.
    peak_rss_mib: f64,
    /// The load generator's report: acknowledged rates and latencies, and its own CPU.
    load: Value,
    /// Load averages of the machine before and after.
    machine_load: [String; 2],
}

/// Measures the cases that are wanted and prints a line for each.
pub(super) fn run(args: &Args, stand: &Stand) -> Result<Value> {
    print(&format!(
        "Full rate into MinIO, {} connections unless the case says otherwise, signed, {} s of load a case. The roofline receives,\n\
         hashes, compresses and places as much, and does nothing else; `fsync` is the rate with fsync to that without.\n",
        args.connections, args.seconds,
    ))?;
    print(
        "| case | delivered MB/s | records/s | CPU s/GB | peak RSS MiB | ack p50 ms | p99 ms | roofline MB/s | its CPU s/GB | reached | fsync | load CPU s | machine load |",
    )?;
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    let mut all = Vec::new();
    for case in CASES.iter().filter(|case| args.case.as_deref().is_none_or(|wanted| case.name.contains(wanted))) {
        say(&format!("bench: {}", case.name));
        all.push(measure(args, stand, *case).with_context(|| case.name.to_owned())?);
    }
    print("")?;
    Ok(all.into())
}

fn measure(args: &Args, stand: &Stand, case: Case) -> Result<Value> {
    let roofline = roofline(args, stand, case).context("roofline")?;
    let ours = server(args, stand, case, Syncs::Real)?;
    let unsynced = case.without_fsync.then(|| server(args, stand, case, Syncs::Skipped)).transpose()?;
    let fsync = unsynced.as_ref().map(|unsynced| ours.mb_per_second / unsynced.mb_per_second);
    let (acks, best) = (&ours.load["ack_ms"], number(&roofline, "mb_per_second")?);
    print(&format!(
        "| {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.1} | {:.1} | {best:.0} | {:.2} | {:.0} % | {} | {:.1} | {} |",
        case.name,
        ours.mb_per_second,
        ours.records_per_second,
        ours.cpu_seconds_per_gb,
        ours.peak_rss_mib,
        number(acks, "p50")?,
        number(acks, "p99")?,
        number(&roofline, "cpu_seconds_per_gb")?,
        100.0 * ours.mb_per_second / best,
        fsync.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        number(&ours.load, "cpu_seconds")?,
        ours.machine_load.join(" → "),
    ))?;
    Ok(json!({ "case": case.name, "server": ours, "roofline": roofline, "without_fsync": unsynced, "fsync": fsync }))
}

/// A new server, its load, and all of it delivered.
fn server(args: &Args, stand: &Stand, case: Case, syncs: Syncs) -> Result<Figures> {
    let scratch = Scratch::new("bench")?;
    let streams = format!(
        "stores:\n{}streams:\n  web:\n    sink:\n      s3: {{ store: minio, prefix: \"bench-{}/{}/{syncs:?}/\", compression: {} }}\n",
        bucket("minio", &stand.fleet.addresses)?,
        std::process::id(),
        case.name.replace(' ', "-"),
        case.compression.replace(':', ": "),
    );
    let mut node = Node::new(&stand.programs, scratch.path(), &streams, &stand.fleet.addresses)?.with(syncs);
    node.start()?;
    let process = node.process().context("the server runs")?;
    let before = load();
    let (cpu, start) = (cpu_seconds(process)?, Instant::now());
    let report = case.put(args, stand, &node.endpoint())?;
    // The load generator prepares its bodies before it sends: that time is not the server's.
    let prepared = start.elapsed().as_secs_f64() - number(&report, "seconds")?;
    node.drain()?;
    let delivered_seconds = start.elapsed().as_secs_f64() - prepared;
    let (bytes, records) = (number(&report, "bytes")?, number(&report, "records")?);
    let figures = Figures {
        mb_per_second: bytes / 1e6 / delivered_seconds,
        records_per_second: records / delivered_seconds,
        cpu_seconds_per_gb: (cpu_seconds(process)? - cpu) / (bytes / 1e9),
        peak_rss_mib: status_mib(process, "VmHWM")?,
        load: report,
        machine_load: [before, load()],
    };
    node.stop()?;
    Ok(figures)
}

/// The same load on the program that only does what nobody can do without.
fn roofline(args: &Args, stand: &Stand, case: Case) -> Result<Value> {
    let mut command = Command::new(stand.programs.join("examples").join("roofline"));
    command.args([case.compression, &case.record_bytes.to_string(), &case.batch.to_string()]);
    command.envs(&stand.fleet.addresses).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start it")?;
    let mut out = BufReader::new(child.stdout.take().context("its output")?);
    let mut endpoint = String::new();
    out.read_line(&mut endpoint)?;
    let process = ProcessId::of(i32::try_from(child.id())?).context("it runs")?;
    let cpu = cpu_seconds(process)?;
    let load = case.put(args, stand, endpoint.trim());
    let cpu = cpu_seconds(process)? - cpu;
    drop(child.stdin.take());
    let mut alone = String::new();
    out.read_to_string(&mut alone)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    let (load, alone): (Value, Value) = (load?, serde_json::from_str(&alone).context("its report")?);
    let cpu_seconds_per_gb = cpu / (number(&load, "bytes")? / 1e9);
    Ok(json!({
        "mb_per_second": load["mb_per_second"], "cpu_seconds_per_gb": cpu_seconds_per_gb, "one_core_alone": alone,
    }))
}
