//! `hydrant drain`: has a running server seal and send everything.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use serde_json::json;

use super::{Failure, Output, block_on};
use crate::control::{self, Reply, Request};

/// Has a running server seal and send everything that it has acknowledged.
///
/// Buffers are sealed without waiting for their size or age. Ends when everything that was acknowledged at the call is
/// settled: at its destination, or in dead letters. The server goes on taking records, unless --stop is given: then it
/// takes no more, and ends when everything is sent, so that its data directory holds nothing that is owed. Do that
/// before the kind of a stream's sink is changed, or before a disk is thrown away.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant drain --data ./hydrant-data
  hydrant drain --data ./hydrant-data --stop --timeout 10m")]
pub(super) struct Args {
    /// The data directory of the running server.
    #[arg(long, value_name = "DIR", default_value = "./hydrant-data")]
    data: PathBuf,
    /// Take no more records, and stop the server when everything is sent.
    #[arg(long)]
    stop: bool,
    /// Give up waiting after this long; the server goes on draining.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<hydrant_core::duration::TimeSpan>,
}

/// Does it.
///
/// # Errors
/// When no server runs on the directory, it ends early, or the time is over.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(100));
    let ask = control::ask(&args.data, Request::Drain { stop: args.stop }, |reply| {
        if let Reply::Progress { records_waiting } = reply {
            bar.set_message(format!("{records_waiting} records are waiting"));
        }
    });
    let limit = args.timeout.map_or(Duration::MAX, |limit| limit.0);
    let ended = block_on(async { tokio::time::timeout(limit, ask).await })?;
    bar.finish_and_clear();
    let place = args.data.display();
    match ended {
        Ok(Ok(Reply::Done | Reply::Progress { .. })) => {
            out.say("everything is delivered")?;
            out.answer(&json!({ "drained": true, "stopped": args.stop }))
        }
        Ok(Ok(Reply::Failed { message })) => Err(Failure::failed(message).at(place)),
        Ok(Err(error)) => Err(Failure::caused("no server answers on this data directory", &error).at(place)),
        Err(_elapsed) => Err(Failure::failed("records are still waiting; the server goes on draining")
            .with_code("timeout")
            .at(place)),
    }
}
