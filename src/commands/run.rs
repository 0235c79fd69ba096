//! `hydrant run FILE`: the server. The life of the process on one page.

use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use hydrant_core::secret::Secrets;
use hydrant_storage::catalog::DataDir;
use hydrant_storage::files::real::RealFiles;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::failure::look;
use super::{Failure, Output, block_on};
use crate::api::{self, Api, Limits, Settings};
use crate::assemble::{Declared, Node, assemble};
use crate::config::spec::{ServerSpec, Spec};
use crate::config::{self, Loaded, LocalSecrets};
use crate::control::{self, Call, Reply, Request};
use crate::stream::Edges;
use crate::stream::pool::Pool;
use crate::system::{SystemClock, SystemEntropy};
use crate::telemetry::{self, LogFormat, Metrics};

/// How often a caller of `drain` hears how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Runs the server until it is told to stop.
///
/// Opens the data directory (and recovers what a crash left), starts delivery of what is still owed, then listens.
/// SIGTERM and Ctrl-C stop it: open requests are answered, what is under way is finished within `server.grace`, and
/// what is only buffered stays on disk for the next start. A second signal ends it at once, which loses nothing either.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant run hydrant.yaml
  hydrant run hydrant.yaml --data /var/lib/hydrant
  aws firehose --endpoint-url http://127.0.0.1:4573 list-delivery-streams

Environment:
  HYDRANT_LOG  what is logged: info (default), debug, hydrant=trace, …")]
pub(super) struct Args {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory, instead of `server.data`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

/// Does it.
///
/// # Errors
/// When the configuration is wrong, the data directory cannot be used, or the address is taken.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    telemetry::log_to_stderr(args.log_format);
    let Loaded { spec, warnings } = config::load(&args.file, args.data.as_deref(), &LocalSecrets)?;
    out.note(warnings.render(look()));
    // The lock of the data directory outlives the runtime and so every thread that may still write there.
    block_on(serve(&spec, &LocalSecrets))?.map(drop)
}

async fn serve(spec: &Spec, secrets: &dyn Secrets) -> Result<DataDir, Failure> {
    let server = &spec.server;
    let edges = edges();
    let signals = Signals::listen().map_err(|error| Failure::caused("listen for signals", &error))?;
    let data = DataDir::open(&server.data, Arc::clone(&edges.files))
        .map_err(|error| Failure::caused("open the data directory", &error))?;
    let node = assemble(spec, data, &edges, &Declared(secrets)).map_err(|error| Failure::caused("start", &error))?;
    let control =
        control::Listener::bind(&server.data).map_err(|error| Failure::caused("open the control socket", &error))?;
    let listener = TcpListener::bind(server.listen)
        .await
        .map_err(|error| Failure::caused(format!("listen on {}", server.listen), &error))?;
    let address = listener.local_addr().map_err(|error| Failure::caused("listen", &error))?;
    if server.credentials.is_empty() {
        warn!("no credentials are configured: any signature passes, so only this machine may call");
    }
    let api = api(server, &node, &edges);
    let stop = CancellationToken::new();
    info!(%address, streams = spec.streams.len(), "ready");
    let mut waiting = tokio::join!(
        api::server::serve(listener, api, stop.clone(), server.grace),
        until_told(signals, control, &node, &stop),
    )
    .1;
    let mut outcome = Reply::Done;
    if server.drain_on_stop || !waiting.is_empty() {
        outcome = drain(&node, &mut waiting, WhenUnheard::GoOn).await;
    }
    let data = node.stop().await;
    for call in &mut waiting {
        call.reply(&outcome).await;
    }
    info!("stopped");
    Ok(data)
}

fn edges() -> Edges {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Edges {
        clock: Arc::new(SystemClock::start()),
        entropy: Arc::new(SystemEntropy),
        files: Arc::new(RealFiles),
        pool: Pool::new(cores),
    }
}

fn api(server: &ServerSpec, node: &Node, edges: &Edges) -> Arc<Api> {
    let settings = Settings {
        region: server.region.clone(),
        account: server.account.clone(),
        credentials: server.credentials.clone(),
        limits: Limits::default(),
    };
    let metrics = Metrics::new(Arc::clone(&node.streams), Arc::clone(&node.budget), Arc::clone(&edges.clock));
    let entropy = Arc::clone(&edges.entropy);
    let edges = api::Edges {
        clock: Arc::clone(&edges.clock),
        request_ids: Arc::new(move || uuid::Builder::from_random_bytes(entropy.bytes()).into_uuid()),
        metrics: Arc::new(move || metrics.render()),
    };
    Api::new(settings, Arc::clone(&node.streams), edges)
}

/// Answers commands until a signal, or a command, says stop. Gives back who waits for the end.
async fn until_told(
    mut signals: Signals,
    control: control::Listener,
    node: &Node,
    stop: &CancellationToken,
) -> Vec<Call> {
    let told = loop {
        let call = tokio::select! {
            () = signals.next() => break Vec::new(),
            call = control.next() => call,
        };
        match call.request {
            Request::Drain { stop: true } => break vec![call],
            Request::Drain { stop: false } => {
                let mut calls = vec![call];
                let outcome = tokio::select! {
                    () = signals.next() => break Vec::new(), // the caller sees the connection end
                    outcome = drain(node, &mut calls, WhenUnheard::GiveUp) => outcome,
                };
                for call in &mut calls {
                    call.reply(&outcome).await;
                }
            }
        }
    };
    info!("stopping");
    stop.cancel();
    tokio::spawn(end_at_second(signals));
    told
}

/// Ends the process at a second signal. Crash safety makes that as good as any other end.
#[expect(clippy::exit, reason = "an operator who asks twice means now")]
async fn end_at_second(mut signals: Signals) {
    signals.next().await;
    warn!("told to stop again: ending at once; nothing that was acknowledged is lost");
    std::process::exit(1);
}

/// What to do with a drain when nobody waits for it any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenUnheard {
    /// Wait no longer; what is to be sealed is sealed all the same.
    GiveUp,
    /// Wait on: the server stops behind it.
    GoOn,
}

/// Seals and sends everything that is acknowledged now, and tells those who wait how far it is. Gives back how it ended.
async fn drain(node: &Node, calls: &mut Vec<Call>, when_unheard: WhenUnheard) -> Reply {
    let drained = node.drain();
    tokio::pin!(drained);
    loop {
        match tokio::time::timeout(PROGRESS_EVERY, &mut drained).await {
            Ok(Ok(())) => return Reply::Done,
            Ok(Err(message)) => return Reply::Failed { message },
            Err(_elapsed) => {}
        }
        let records_waiting = node.streams.list(None).map(|stream| stream.waiting()).sum();
        let mut listening = Vec::new();
        for mut call in calls.drain(..) {
            if call.reply(&Reply::Progress { records_waiting }).await {
                listening.push(call);
            }
        }
        *calls = listening;
        if calls.is_empty() && when_unheard == WhenUnheard::GiveUp {
            return Reply::Done;
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
