//! `hydrant drain`: has a running server seal and send everything.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::{Failure, Format, Output, block_on};
use crate::control::{self, Reply, Request, Waiting};

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
  hydrant drain --data ./hydrant-data --stop --timeout 10m

While it waits, standard error shows what each stream still owes, and what ails it. When the time is over, exit code 1
and the error say the same; with --output json it has the code `timeout` and a list `waiting`.")]
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

/// How often whoever waits without a terminal hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Does it.
///
/// # Errors
/// When no server runs on the directory, it ends early, or the time is over.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let mut progress = Progress::new(out);
    let ask = control::ask(&args.data, Request::Drain { stop: args.stop }, |reply| {
        if let Reply::Progress { waiting } = reply {
            progress.tell(waiting);
        }
    });
    let limit = args.timeout.map_or(Duration::MAX, |limit| limit.0);
    let ended = block_on(async { tokio::time::timeout(limit, ask).await })?;
    let waiting = progress.end();
    let place = args.data.display();
    match ended {
        Ok(Ok(Reply::Done)) => {
            out.say("everything is delivered")?;
            out.answer(&json!({ "drained": true, "stopped": args.stop }))
        }
        Ok(Ok(Reply::Failed { message })) => Err(Failure::failed(message).at(place)),
        Ok(Ok(_)) => Err(Failure::failed("the server gave an answer to something else").at(place)),
        Ok(Err(error)) => Err(no_answer(&error).at(place)),
        Err(_elapsed) => Err(timed_out(&waiting).at(place)),
    }
}

fn no_answer(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::failed("no server runs on this data directory; name that of a running one with --data")
                .with_code("no_server")
        }
        io::ErrorKind::UnexpectedEof => {
            Failure::failed("the server ended before everything was delivered; the rest waits on its disk")
                .with_code("server_ended")
        }
        _ => Failure::caused("ask the server", error),
    }
}

fn timed_out(waiting: &[Waiting]) -> Failure {
    let streams: Vec<String> = waiting.iter().map(|stream| format!("\n  {stream}")).collect();
    let message = format!("the time is over and not everything is delivered; the server goes on{}", streams.concat());
    Failure::failed(message).with_code("timeout").with_value("waiting", json!(waiting))
}

/// Shows on standard error what is still to be delivered: at once on a terminal, now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    told_at: Instant,
    /// Whether people read.
    is_text: bool,
    last: Vec<Waiting>,
}

impl Progress {
    fn new(out: &Output) -> Self {
        let is_text = out.format() == Format::Text;
        let bar = (is_text && io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, told_at: Instant::now(), is_text, last: Vec::new() }
    }

    fn tell(&mut self, waiting: &[Waiting]) {
        waiting.clone_into(&mut self.last);
        if let Some(bar) = &self.bar {
            bar.set_message(waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        } else if self.is_text && self.told_at.elapsed() >= TELL_EVERY {
            self.told_at = Instant::now();
            for stream in waiting {
                // Nobody is left to tell when standard error is gone.
                writeln!(io::stderr(), "{stream}").unwrap_or_default();
            }
        }
    }

    /// Takes the display away; gives back what was waiting last.
    fn end(self) -> Vec<Waiting> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.last
    }
}
