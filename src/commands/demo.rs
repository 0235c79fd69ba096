//! `hydrant demo`: one minute's tour.
//!
//! ```text
//!   folder ./hydrant-demo ─> server (this program, `run`) ─> put 100,000 records ─> wait for the objects ─> report
//! ```
//!
//! Everything is the real thing: the server is a process of its own, records go through its API signed and over
//! several connections, and what the report says was read back from the objects. Nothing is left running, whether the
//! tour ends well, badly, or by a signal.

mod arrivals;
mod client;
mod folder;
mod lines;
mod load;
mod records;
mod server;
mod sign;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::arrivals::Arrivals;
use self::folder::Folder;
use self::load::Puts;
use self::server::{Server, StartError};
use super::{Failure, Output, block_on};

/// How many records are put: enough for a throughput figure, few enough that nobody has to wait.
const RECORDS: u32 = 100_000;

/// Where the server listens, its own default, so that the printed lines are those of the documentation.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4573);

/// How long all records may take to arrive once they are acknowledged: the stream seals every second.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);

/// Starts a server on loopback, puts 100,000 log records, and shows the objects they became.
///
/// Writes to ./hydrant-demo only and leaves nothing running. Keys are random and stay in a file that only you can
/// read; the objects stay, too.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant demo
  hydrant demo --keep")]
pub(super) struct Args {
    /// Keep the server running afterwards, until Ctrl-C, to try it with your own client.
    #[arg(long)]
    keep: bool,
}

/// What came of the tour.
struct Tour {
    puts: Puts,
    arrivals: Arrivals,
    server: Server,
    folder: Folder,
}

/// Goes on the tour, shows what came of it, stops the server.
///
/// # Errors
/// When the folder cannot be written, the server does not start, a put is refused for good, or records are missing.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    block_on(async {
        let mut signals = Signals::listen().map_err(|error| Failure::caused("listen for signals", &error))?;
        let tour = tokio::select! {
            tour = tour(out) => tour?,
            // Drops the tour where it stands, and its server with it.
            () = signals.next() => return Ok(()),
        };
        report(&tour, args.keep, out)?;
        if args.keep {
            out.say("\nThe server runs until you press Ctrl-C.")?;
            signals.next().await;
        }
        tour.server.stop().await
    })?
}

/// What ends the demo: Ctrl-C, SIGTERM, and the end of its terminal.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Cancel safe: a signal that came is not forgotten.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

async fn tour(out: &mut Output) -> Result<Tour, Failure> {
    let folder = Folder::claim(Path::new("hydrant-demo"))?;
    let address = free_address(out)?;
    let folder = folder.prepare(address)?;
    let server = Server::start(&folder).await.map_err(|error| not_started(&folder, &error))?;
    out.say(format_args!("server   {} on http://{}", folder.settings().display(), server.address()))?;

    let bar = bar("put    ");
    let mut watch = arrivals::Watch::start(&folder.objects(), RECORDS)?;
    let puts = load::put_all(&folder, server.address(), RECORDS, &bar).await?;
    bar.finish_and_clear();
    out.say(format_args!("puts     {puts}"))?;

    let bar = self::bar("deliver");
    let arrivals = watch.until_all_are_there(ARRIVE_WITHIN, &bar).await;
    bar.finish_and_clear();
    let arrivals = arrivals.map_err(|missing| {
        Failure::failed(missing.to_string()).with_code("records_missing").at(folder.server_log().display())
    })?;
    Ok(Tour { puts, arrivals, server, folder })
}

/// The usual address, or another port where somebody else listens on that one.
fn free_address(out: &mut Output) -> Result<SocketAddr, Failure> {
    match TcpListener::bind(LISTEN) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            out.say(format_args!(
                "port     {} is taken by another program, so the demo takes a free one",
                LISTEN.port()
            ))?;
            Ok(SocketAddr::new(LISTEN.ip(), 0))
        }
        Err(error) => Err(Failure::caused(format!("listen on {LISTEN}"), &error)),
        Ok(_) => Ok(LISTEN),
    }
}

/// With the last words of the server, which say why.
fn not_started(folder: &Folder, error: &StartError) -> Failure {
    let log = std::fs::read_to_string(folder.server_log()).unwrap_or_default();
    let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Failure::caused("start", error).at(folder.server_log().display()).because(last)
}

/// A bar on standard error; nothing where that is not a terminal.
fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}  [{bar:40}] {human_pos} of {human_len} records");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(RECORDS.into()).with_style(style.progress_chars("=> ")).with_prefix(what)
}

fn report(tour: &Tour, keep: bool, out: &mut Output) -> Result<(), Failure> {
    let Tour { puts, arrivals, folder, server } = tour;
    out.say(format_args!("arrived  {arrivals}"))?;
    out.say(format_args!("\nObjects in {}:", folder.objects().display()))?;
    for object in arrivals.largest() {
        out.say(format_args!("  {object}"))?;
    }
    out.say("\nSome of their lines:")?;
    for line in &arrivals.lines {
        out.say(format_args!("  {line}"))?;
    }
    let lines = lines::lines(folder, server.address(), keep);
    out.say(format_args!("\n{lines}"))?;
    out.answer(&json!({
        "records": puts.records,
        "bytes": puts.bytes,
        "put_seconds": puts.took.as_secs_f64(),
        "megabytes_per_second": puts.megabytes_per_second(),
        "ack_p50_ms": puts.ack(50).as_secs_f64() * 1000.0,
        "ack_p99_ms": puts.ack(99).as_secs_f64() * 1000.0,
        "objects": arrivals.objects.len(),
        "object_bytes": arrivals.stored_bytes(),
        "duplicates": arrivals.duplicates,
        "endpoint": format!("http://{}", server.address()),
        "credentials": folder.aws_credentials(),
    }))
}
