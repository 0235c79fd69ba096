//! The listener: connections in, one [`Api`] behind all of them.
//!
//! HTTP/1.1 and HTTP/2 without TLS on one port, told apart by their first bytes. Each connection is one task that owns
//! it; the streams of an HTTP/2 connection are tasks of the same tracker, so that a stop can wait for all of them.
//!
//! A connection lives by the clock of `activity`: it may be idle for a while, a head must be complete soon after its
//! first byte, and while a request is being answered the limits of its body rule. When all connections are taken,
//! idle ones are closed early to make room; a client that still finds none is told to come back.
//!
//! Never waits for anything without a bound, and after [`serve`] has returned nothing of it is left.

mod activity;
mod guard;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::activity::{Activity, Watched};
use super::{Api, Phase};

/// How long to leave the listener alone after it failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a new connection waits for an idle one to be closed. One tick more than idle ones get when all are taken.
const ROOM_WAIT: Duration = Duration::from_millis(1500);

/// Most HTTP/1 bytes that are read at once. Bounds what a connection holds outside the budget for bodies.
const READ_BYTES: usize = 64 << 10;

/// Said to a connection for which there is no room.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/x-amz-json-1.1\r\nx-amzn-errortype: ServiceUnavailableException\r\n\
connection: close\r\ncontent-length: 63\r\n\r\n\
{\"__type\":\"ServiceUnavailableException\",\"message\":\"Slow down.\"}";

/// Serves until stopped. Then takes no more connections, finishes the requests that are open, and after `grace` drops
/// what is left.
///
/// Cancel safe: no; dropped, it leaves connections running that nobody waits for.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: CancellationToken, grace: Duration) {
    let server = Server::new(api, stop);
    server.api.enter(Phase::Serving);
    server.accept_until_stopped(listener).await;
    server.api.enter(Phase::Stopping);
    server.finish_within(grace).await;
}

struct Server {
    api: Arc<Api>,
    builder: Arc<auto::Builder<Tracked>>,
    connections: Arc<Semaphore>,
    /// True while all connections are taken.
    full: watch::Sender<bool>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Drops what did not finish in time.
    abort: CancellationToken,
}

impl Server {
    fn new(api: Arc<Api>, stop: CancellationToken) -> Self {
        let tracker = TaskTracker::new();
        let abort = CancellationToken::new();
        let builder = builder(Tracked { tracker: tracker.clone(), abort: abort.clone() }, api.limits.header_bytes_max);
        Self {
            connections: Arc::new(Semaphore::new(connections_that_fit(&api))),
            full: watch::Sender::new(false),
            builder: Arc::new(builder),
            tracker,
            stop,
            abort,
            api,
        }
    }

    async fn accept_until_stopped(&self, listener: TcpListener) {
        loop {
            let connection = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                accepted = self.accept(&listener) => accepted,
            };
            if let Some((socket, permit)) = connection {
                self.tracker.spawn(self.connection(socket, permit));
            }
        }
    }

    /// The next connection that there is room for.
    ///
    /// Cancel safe in the sense that matters: a connection that was accepted and not returned is closed.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!(%error, "no connection was accepted");
                    self.full.send_replace(true);
                    sleep(ACCEPT_PAUSE).await;
                }
                return None;
            }
        };
        self.tell_if_full();
        let permit = timeout(ROOM_WAIT, Arc::clone(&self.connections).acquire_owned()).await;
        self.tell_if_full();
        if let Ok(Ok(permit)) = permit {
            return Some((socket, permit));
        }
        // A best effort: whoever cannot take these few bytes at once sees a closed connection.
        if let Err(error) = socket.try_write(NO_ROOM) {
            tracing::debug!(%error, "a connection without room was closed");
        }
        None
    }

    fn tell_if_full(&self) {
        let full = self.connections.available_permits() == 0;
        self.full.send_if_modified(|was| std::mem::replace(was, full) != full);
    }

    /// One connection, from its first byte to its last.
    fn connection(&self, socket: TcpStream, permit: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<> {
        let (api, builder) = (Arc::clone(&self.api), Arc::clone(&self.builder));
        let (stop, abort, full) = (self.stop.clone(), self.abort.clone(), self.full.subscribe());
        async move {
            // Answers are small and awaited. Failing to say so costs speed only.
            socket.set_nodelay(true).ok();
            let activity = Arc::new(Activity::new());
            let guard = guard::expired(Arc::clone(&activity), api.limits, full);
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                let (api, serving) = (Arc::clone(&api), activity.serving(request.version()));
                async move {
                    let answer = api.answer(request).await;
                    drop(serving);
                    Ok::<_, Infallible>(answer)
                }
            });
            let io = TokioIo::new(Watched::new(socket, Arc::clone(&activity)));
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            let mut stopping = std::pin::pin!(stop.cancelled());
            let mut guard = std::pin::pin!(guard);
            let mut is_stopping = false;
            loop {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => break,
                    done = connection.as_mut() => {
                        if let Err(error) = done {
                            tracing::debug!(%error, "connection ended early");
                        }
                        break;
                    }
                    () = guard.as_mut() => break,
                    () = stopping.as_mut(), if !is_stopping => {
                        is_stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
            drop(permit);
        }
    }

    async fn finish_within(&self, grace: Duration) {
        self.tracker.close();
        if timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "requests were dropped at the end of the grace period");
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }
}

/// At most half of the files that this process may open: logs and destinations need some as well, and a listener that
/// leaves them none would stop what it feeds.
fn connections_that_fit(api: &Api) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = usize::try_from(files / 2).unwrap_or(usize::MAX).max(1);
    let wished = api.limits.connections_max;
    if fit < wished {
        tracing::info!(connections = fit, files, "fewer connections than wished: the limit of open files is low");
    }
    wished.min(fit)
}

/// Errors of `accept` that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How connections are spoken on. hyper's own time-out for heads would count idle time as well, so it is off and the
/// guard does that work.
fn builder(executor: Tracked, header_bytes_max: usize) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(READ_BYTES).half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        // Enough for any SDK; what one client can have us do at once stays small.
        .max_concurrent_streams(128)
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        // A stream may have a megabyte on its way, a connection twice that: what waits unread is bounded by it.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .max_frame_size(1 << 16)
        .max_send_buf_size(1 << 20)
        // Streams that are reset as fast as they are opened end the connection. hyper's own default, kept on purpose.
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Runs the streams of HTTP/2 connections as tasks of the server.
#[derive(Clone, Debug)]
struct Tracked {
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let abort = self.abort.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                _ = task => {}
            }
        });
    }
}
