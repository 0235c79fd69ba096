//! `cargo xtask hostile`: what clients that mean harm cost those that do not. Prints figures; red when healthy clients
//! wait too long for it, or memory grows beyond its bound.

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde_json::Value;

use crate::cargo::build;
use crate::kit::put;
use crate::machine::{Facts, load};
use crate::node::{Node, folder};
use crate::process::Scratch;
use crate::progress::say;
use crate::services::Addresses;

/// Most memory that an idle connection may take of the server, in KiB.
const IDLE_KIB_MAX: f64 = 32.0;

/// How many times longer a healthy client may wait beside the crowd, by its 99th percentile.
const SLOWER_MAX: f64 = 2.0;

/// What to do.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    crowd: u32,
    /// Seconds without the crowd, and again with it.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Rounds, of which the median counts: neighbours on the machine make single figures worth little.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Measures and judges.
///
/// # Errors
/// When a bound is broken, or anything cannot be started.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = build()?;
    let scratch = Scratch::new("hostile")?;
    let store = folder("main", &scratch.path().join("objects"));
    let streams = format!("stores:\n{store}streams:\n  web:\n    sink:\n      file: {{ store: main }}\n");
    let mut node = Node::new(&programs, scratch.path(), &streams, &Addresses::default())?;
    node.start()?;
    let process = node.process().context("the server runs")?;
    say(&format!("hostile: {}", Facts::read()));
    let (crowd, seconds, server) = (args.crowd.to_string(), args.seconds.to_string(), process.pid.to_string());
    let mut ratios = Vec::new();
    for round in 1..=args.rounds.max(1) {
        let words = ["idle", "--stream", "web", "--crowd", &crowd, "--seconds", &seconds, "--server", &server];
        let report = put(&programs, &node.endpoint(), &words)?;
        let number = |at: &str| report.pointer(at).and_then(Value::as_f64).with_context(|| format!("no {at}"));
        let (alone, crowded) = (number("/ack_ms_alone/p99")?, number("/ack_ms_crowded/p99")?);
        let (before, with) = (number("/server_rss_mib/0")?, number("/server_rss_mib/1")?);
        say(&format!(
            "hostile: round {round}: {} idle connections held at most, {} opened; ack p99 {alone:.1} ms alone, {crowded:.1} ms \
             beside them ({:.2} x); {} puts, {} not acknowledged; RSS {before:.0} -> {with:.0} MiB; load {}",
            report["held_most"],
            report["opened"],
            crowded / alone,
            report["acknowledged"],
            report["failed"],
            load(),
        ));
        ensure!(
            with - before < IDLE_KIB_MAX * f64::from(args.crowd) / 1024.0,
            "memory grew by {:.0} MiB",
            with - before
        );
        ratios.push(crowded / alone);
    }
    node.stop()?;
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().context("a round")?;
    ensure!(median < SLOWER_MAX, "healthy clients waited {median:.2} x as long, by the median of the rounds");
    say(&format!("hostile: {median:.2} x by the median of the rounds, below {SLOWER_MAX} x"));
    Ok(())
}
