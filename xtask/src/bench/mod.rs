//! `cargo xtask bench`: what the server does into MinIO, with every fsync on, what that costs, and how far it is from
//! what the machine could do at best.
//!
//! | part | measures |
//! |---|---|
//! | `steady` | full rate for some seconds: throughput, CPU, memory, latency, beside the roofline of the same run and beside the same server without fsync |
//! | `outage` | MinIO stands still under full load, then goes on: memory meanwhile, and how fast the backlog drains |
//! | `many` | 500 idle streams and 20 busy ones, one of them with a dead store: what a stream costs, and fairness |
//!
//! The load comes from another process, signed; each case has a new server with a new data directory. MinIO, the load
//! generator and the server share the machine: its load stands beside the figures.

mod many;
mod outage;
mod steady;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cargo::build;
use crate::machine::Facts;
use crate::process::ProcessId;
use crate::progress::{print, say};
use crate::services::Fleet;
use crate::tools::Cache;

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure; all of it when nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Seconds of load in each case.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Seconds for which MinIO stands still.
    #[arg(long, default_value_t = 30)]
    outage: u32,
    /// Connections of the steady cases.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Only steady cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Also writes the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Full rate, the roofline, and the price of fsync.
    Steady,
    /// A store that stands still.
    Outage,
    /// Hundreds of streams.
    Many,
}

/// Where programs and servers are.
struct Stand {
    programs: PathBuf,
    fleet: Fleet,
}

/// Measures and prints.
///
/// # Errors
/// When anything cannot be started, or the server does not take or deliver records.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cache = Cache::open()?;
    let stand = Stand { programs: build()?, fleet: Fleet::start(&cache, &["minio"])? };
    let facts = Facts::read();
    print(&format!("{facts}\n"))?;
    let is_wanted = |part: Part| args.parts.is_empty() && args.case.is_none() || args.parts.contains(&part);
    let mut results = json!({ "what": "bench", "facts": facts });
    if is_wanted(Part::Steady) || args.case.is_some() {
        results["steady"] = steady::run(args, &stand)?;
    }
    if is_wanted(Part::Outage) {
        results["outage"] = outage::run(args, &stand)?;
    }
    if is_wanted(Part::Many) {
        results["many"] = many::run(args, &stand)?;
    }
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&results)?).context("write the results")?;
        say(&format!("bench: results written to {}", file.display()));
    }
    Ok(())
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("the report has no {name}"))
}

/// CPU time a process used, user and system.
fn cpu_seconds(process: ProcessId) -> Result<f64> {
    /// Ticks a second of `/proc`, fixed by the kernel's interface.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).context("the process has ended")?;
    // Counted behind the name, which may hold anything: fields 14 and 15 of all.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// A figure of `/proc/PID/status` in MiB: `VmRSS` for now, `VmHWM` for the most ever.
fn status_mib(process: ProcessId, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).context("the process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes: f64 = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}
