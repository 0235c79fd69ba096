//! `hydrant dlq redrive`: has a running server put dead letters back.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::Filter;
use crate::commands::{Failure, Format, Output, block_on};
use crate::control::{self, Early, Reply, Request, counted};
use crate::dead_letters::{Order, Tally};

/// Has a running server put dead letters of a stream back where they were meant to go.
///
/// Mend what they were refused for first. Records go into the stream's log, as if they had been put now, and are delivered
/// from there; objects that went to the dead-letter store whole are placed where they were meant to go. Nothing is put back
/// twice: not by a second call, nor after a crash of this command, of the server, or of the machine. Nothing is deleted in
/// the dead-letter store.
///
/// Records of which the destination may have got hold all the same are left, unless --even-if-stored is given.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant dlq redrive web --data ./hydrant-data --dry-run
  hydrant dlq redrive web --data ./hydrant-data
  hydrant dlq redrive web --data ./hydrant-data --kind invalid --since 24h --limit 1000

It ends when all of it is stored in the log; `hydrant drain` waits until it is delivered. Ctrl-C stops it: what was put
back until then is remembered. With --output json the answer holds the numbers, an error has them as `tally`.")]
pub(in crate::commands) struct Args {
    /// The stream.
    #[arg(value_name = "STREAM")]
    stream: String,
    /// The data directory of the running server.
    #[arg(long, value_name = "DIR", default_value = "./hydrant-data")]
    data: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Most records and objects to put back.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Also records that the destination may have: an attempt ended without an answer. They may be there twice then.
    #[arg(long)]
    even_if_stored: bool,
    /// Only say what would be put back.
    #[arg(long)]
    dry_run: bool,
}

/// How often whoever waits without a terminal hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Does it.
///
/// # Errors
/// When no server runs on the directory, or the redrive ends early.
pub(in crate::commands) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let order = Order {
        choice: args.filter.choice(),
        limit: args.limit,
        even_if_stored: args.even_if_stored,
        dry_run: args.dry_run,
    };
    let request = Request::Redrive { stream: args.stream.clone(), order };
    let mut progress = Progress::new(out);
    let ask = control::ask(&args.data, request, |reply| {
        if let Reply::Redriving(tally) = reply {
            progress.tell(tally);
        }
    });
    let ended = block_on(ask)?;
    progress.end();
    let place = args.data.display();
    match ended {
        Ok(Reply::Redriven { tally, early: None }) => tell(&tally, args.dry_run, out),
        Ok(Reply::Redriven { tally, early: Some(early) }) => Err(ended_early(&early, &tally).at(place)),
        Ok(Reply::Failed { message }) => Err(Failure::failed(message).at(place)),
        Ok(_) => Err(Failure::failed("the server gave an answer to something else").at(place)),
        Err(error) => Err(no_answer(&error).at(place)),
    }
}

fn tell(tally: &Tally, is_dry_run: bool, out: &mut Output) -> Result<(), Failure> {
    out.say(format_args!("{} {}", summary(tally), if is_dry_run { "would be put back" } else { "put back" }))?;
    for line in remarks(tally) {
        out.say(line)?;
    }
    let mut answer = json!(tally);
    if let Some(members) = answer.as_object_mut() {
        members.insert("dry_run".to_owned(), is_dry_run.into());
    }
    out.answer(&answer)
}

/// `3 records (120 bytes) and 1 whole object`.
fn summary(tally: &Tally) -> String {
    let records = format!("{} ({})", counted(tally.records, "record"), counted(tally.bytes, "byte"));
    match tally.placed {
        0 => records,
        placed => format!("{records} and {}", counted(placed, "whole object")),
    }
}

/// What was left, and why.
fn remarks(tally: &Tally) -> Vec<String> {
    let &Tally { earlier, perhaps_stored, elsewhere, refused, broken, .. } = tally;
    let remark = |count: u64, text: String| (count > 0).then_some(text);
    [
        remark(earlier, format!("{} put back earlier", counted(earlier, "dead letter"))),
        remark(
            perhaps_stored,
            format!(
                "{} left: the destination may have them; --even-if-stored takes them",
                counted(perhaps_stored, "record")
            ),
        ),
        remark(
            elsewhere,
            format!("{} left: meant for another place than the stream has now", counted(elsewhere, "whole object")),
        ),
        remark(refused, format!("{} left: refused by the store again", counted(refused, "whole object"))),
        remark(broken, format!("{} left: no dead letters, or damaged", counted(broken, "place"))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ended_early(Early { code, message }: &Early, tally: &Tally) -> Failure {
    let code = match code.as_str() {
        "log" => "log",
        "busy" => "busy",
        "stream_failed" => "stream_failed",
        "unreadable" => "unreadable",
        "not_placed" => "not_placed",
        "too_many" => "too_many",
        "stopped" => "stopped",
        _ => "failed",
    };
    let message = format!("{message}; until then {} put back, which is remembered", summary(tally));
    Failure::failed(message).with_code(code).with_value("tally", json!(tally))
}

fn no_answer(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::failed("no server runs on this data directory; name that of a running one with --data")
                .with_code("no_server")
        }
        io::ErrorKind::UnexpectedEof => Failure::failed(
            "the server ended, or knows no redrives; what it put back is remembered, so the same call goes on",
        )
        .with_code("server_ended"),
        _ => Failure::caused("ask the server", error),
    }
}

/// Shows on standard error how far it is: at once on a terminal, now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    told_at: Instant,
    /// Whether people read.
    is_text: bool,
}

impl Progress {
    fn new(out: &Output) -> Self {
        let is_text = out.format() == Format::Text;
        let bar = (is_text && io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, told_at: Instant::now(), is_text }
    }

    fn tell(&mut self, tally: &Tally) {
        let waits = tally.waits_for.as_ref().map(|what| format!("; it waits for {what}")).unwrap_or_default();
        let objects = counted(tally.objects, "object");
        let text = format!("{} put back, {objects} looked at{waits}", summary(tally));
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        } else if self.is_text && self.told_at.elapsed() >= TELL_EVERY {
            self.told_at = Instant::now();
            // Nobody is left to tell when standard error is gone.
            writeln!(io::stderr(), "{text}").unwrap_or_default();
        }
    }

    /// Takes the display away.
    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
