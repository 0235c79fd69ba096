//! `hydrant run FILE`: the server. The life of the process on one page.

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use hydrant_core::ByteSize;
use hydrant_core::secret::Secrets;
use hydrant_storage::buffers::Buffers;
use hydrant_storage::catalog::DataDir;
use hydrant_storage::files::real::RealFiles;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::failure::look;
use super::{Failure, Output, block_on};
use crate::api::server::Entrance;
use crate::api::{self, Api, Audience, Limits, Settings};
use crate::assemble::{Declared, Node, assemble};
use crate::blocks::Blocks;
use crate::config::spec::{ServerSpec, Spec, TlsSpec};
use crate::config::{self, Loaded, LocalSecrets};
use crate::control::{self, Call, Reply, Request, Waiting};
use crate::stream::Edges;
use crate::stream::pool::Pool;
use crate::streams::{LiveStream, State};
use crate::system::{RequestIds, SystemClock, SystemEntropy};
use crate::telemetry::{self, LogFormat, Metrics};
use crate::tls::Tls;

/// Memory that request bodies, slices of logs and parts of batches leave to the next of their kind. What four connections with the
/// largest bodies need at once; more would only lie there.
const BUFFERS_KEPT: ByteSize = ByteSize::mib(32);

/// How often a caller of `drain` hears how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How often the files of the certificate are looked at. Whoever cannot wait sends SIGHUP.
const CERTIFICATE_EVERY: Duration = Duration::from_mins(1);

/// How long operators' open requests may take at the end. They wait for nothing.
const OPERATORS_GRACE: Duration = Duration::from_secs(1);

mod redrives;

use redrives::Redrives;

/// Runs the server until it is told to stop.
///
/// Opens the data directory (and recovers what a crash left), starts delivery of what is still owed, then listens.
/// SIGTERM and Ctrl-C stop it: open requests are answered, what is under way is finished within `server.grace`, and
/// what is only buffered stays on disk for the next start. A second signal ends it at once, which loses nothing either.
/// With `server.tls`, SIGHUP has it read certificate and key again.
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
    raise_file_limit();
    // The lock of the data directory is never given back: it ends with the last thread that may still write there.
    block_on(serve(&spec, &LocalSecrets))?.map(std::mem::forget)
}

/// The socket for commands and the listeners.
async fn open_to_callers(server: &ServerSpec) -> Result<(control::Listener, Doors), Failure> {
    let control =
        control::Listener::bind(&server.data).map_err(|error| Failure::caused("open the control socket", &error))?;
    Ok((control, Doors::open(server).await?))
}

async fn serve(spec: &Spec, secrets: &dyn Secrets) -> Result<DataDir, Failure> {
    let server = &spec.server;
    let edges = edges(server);
    let signals = Signals::listen().map_err(|error| Failure::caused("listen for signals", &error))?;
    let data = DataDir::open(&server.data, Arc::clone(&edges.files))
        .map_err(|error| Failure::caused("open the data directory", &error))?;
    let node =
        assemble(spec, data, &edges, &Declared::new(secrets)).map_err(|error| Failure::caused("start", &error))?;
    warn_of_open_folder(&server.data);
    let (control, doors) = match open_to_callers(server).await {
        Ok(opened) => opened,
        Err(failure) => {
            // Its lanes are at work already, and may not go on behind the lock's back.
            std::mem::forget(node.stop().await);
            return Err(failure);
        }
    };
    if server.credentials.is_empty() {
        warn!("no credentials are configured: any signature passes, so only this machine may call");
    }
    let api = api(server, &node, &edges);
    let stop = CancellationToken::new();
    info!(address = %doors.address, streams = spec.streams.len(), "ready");
    let redrives = Redrives::new(spec, secrets, &node, &*edges.clock, &stop);
    let told = until_told(signals, control, redrives, &node, &stop);
    let mut waiting = tokio::join!(doors.serve(api, &stop, server.grace), told).1;
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

/// Where clients and operators come in.
struct Doors {
    address: SocketAddr,
    clients: Entrance,
    operators: Option<Entrance>,
    certificate: Option<Certificate>,
}

/// The certificate in force, and the signal that says to read it again.
struct Certificate {
    tls: Arc<Tls>,
    hangup: Signal,
}

impl Doors {
    async fn open(server: &ServerSpec) -> Result<Self, Failure> {
        let certificate = server.tls.as_ref().map(Certificate::load).transpose()?;
        let tls = certificate.as_ref().map(|certificate| Arc::clone(&certificate.tls));
        let audience = if server.admin.is_some() { Audience::Clients } else { Audience::Everybody };
        let clients = Entrance { listener: listen(server.listen).await?, audience, tls };
        let operators = match server.admin {
            None => None,
            Some(address) => {
                let listener = listen(address).await?;
                info!(address = %local_address(&listener)?, "operators are answered here");
                Some(Entrance { listener, audience: Audience::Operators, tls: None })
            }
        };
        Ok(Self { address: local_address(&clients.listener)?, clients, operators, certificate })
    }

    /// Serves until `stop`. Operators are answered until the last client is.
    async fn serve(self, api: Arc<Api>, stop: &CancellationToken, grace: Duration) {
        let over = CancellationToken::new();
        let clients = async {
            api::server::serve(self.clients, Arc::clone(&api), stop.clone(), grace).await;
            over.cancel();
        };
        let operators = async {
            if let Some(entrance) = self.operators {
                api::server::serve(entrance, Arc::clone(&api), over.clone(), OPERATORS_GRACE).await;
            }
        };
        let certificate = async {
            if let Some(certificate) = self.certificate {
                over.run_until_cancelled(certificate.keep_current()).await;
            }
        };
        tokio::join!(clients, operators, certificate);
    }
}

impl Certificate {
    fn load(spec: &TlsSpec) -> Result<Self, Failure> {
        let tls = Tls::load(spec, &LocalSecrets).map_err(|error| Failure::caused("speak HTTPS", &error))?;
        let hangup = signal(SignalKind::hangup()).map_err(|error| Failure::caused("listen for signals", &error))?;
        Ok(Self { tls: Arc::new(tls), hangup })
    }

    /// Reads the files again every minute and whenever SIGHUP comes. Never ends.
    async fn keep_current(mut self) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {}
                () = tokio::time::sleep(CERTIFICATE_EVERY) => {}
            }
            let tls = Arc::clone(&self.tls);
            match tokio::task::spawn_blocking(move || tls.reload(&LocalSecrets)).await {
                Ok(Ok(true)) => info!("another certificate is in force"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => warn!(%error, "the certificate was not replaced; the last one stays in force"),
                Err(error) => warn!(%error, "reading the certificate ended without an answer"),
            }
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::caused(format!("listen on {address}"), &error))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::caused("listen", &error))
}

/// A data directory that is made here is for its owner only; one that was there may be open to others.
fn warn_of_open_folder(data: &Path) {
    let mode = std::fs::metadata(data).map(|data| data.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        warn!(
            data = %data.display(),
            mode = format!("{mode:04o}"),
            "others than the server's user may look into the data directory, where records lie: chmod 0700 it"
        );
    }
}

/// Takes as many open files as this process may have. What is set for a login is made for a person, and half of it
/// bounds the connections.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        warn!(%error, "the limit of open files stays as it is");
    }
}

fn edges(server: &ServerSpec) -> Edges {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Edges {
        clock: Arc::new(SystemClock::start()),
        entropy: Arc::new(SystemEntropy),
        files: Arc::new(RealFiles),
        pool: Pool::new(cores, Blocks::new(server.memory), Buffers::new(BUFFERS_KEPT)),
    }
}

fn api(server: &ServerSpec, node: &Node, edges: &Edges) -> Arc<Api> {
    let settings = Settings {
        region: server.region.clone(),
        account: server.account.clone(),
        credentials: server.credentials.clone(),
        limits: Limits { connections_per_address: server.connections_per_address, ..Limits::default() },
    };
    let (buffers, request_ids) = (edges.pool.buffers().clone(), RequestIds::new(&*edges.entropy));
    let metrics = Metrics::new(Arc::clone(&node.streams), Arc::clone(&node.budget), Arc::clone(&edges.clock));
    let edges = api::Edges {
        clock: Arc::clone(&edges.clock),
        request_ids: Arc::new(move || request_ids.next()),
        metrics: Arc::new(move || metrics.render()),
        buffers,
    };
    Api::new(settings, Arc::clone(&node.streams), edges)
}

/// Answers commands until a signal, or a command, says stop. Gives back who waits for the end.
async fn until_told(
    mut signals: Signals,
    control: control::Listener,
    mut redrives: Redrives<'_>,
    node: &Node,
    stop: &CancellationToken,
) -> Vec<Call> {
    let told = loop {
        let call = tokio::select! {
            () = signals.next() => break Vec::new(),
            call = control.next() => call,
            () = redrives.ended() => continue,
        };
        match call.request.clone() {
            Request::Redrive { stream, order } => redrives.begin(call, &stream, order),
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
        let waiting: Vec<Waiting> = node.streams.list(None).filter_map(|stream| waiting(stream)).collect();
        let mut listening = Vec::new();
        for mut call in calls.drain(..) {
            if call.reply(&Reply::Progress { waiting: waiting.clone() }).await {
                listening.push(call);
            }
        }
        *calls = listening;
        if calls.is_empty() && when_unheard == WhenUnheard::GiveUp {
            return Reply::Done;
        }
    }
}

/// What a stream still owes, and why; `None` when it is nothing.
fn waiting(stream: &LiveStream) -> Option<Waiting> {
    let records = stream.waiting();
    let why = match stream.health().state() {
        State::Healthy => None,
        State::Degraded(ailment) | State::Failed(ailment) => Some(ailment.message),
    };
    let batches = stream.counters().batches_waiting.get();
    (records > 0).then(|| Waiting { stream: stream.spec().name.clone(), records, batches, why })
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
