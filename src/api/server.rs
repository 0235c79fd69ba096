//! The listener: connections in, one [`Api`] behind all of them.
//!
//! HTTP/1.1 and HTTP/2 on one port, told apart by their first bytes or, with TLS, by ALPN. Each connection is one task
//! that owns it; the streams of an HTTP/2 connection are tasks of the same tracker, so that a stop can wait for all of them.
//!
//! A connection first needs one of the `places`, of which each address has a share. When all are taken, idle
//! connections are closed early to make room; a client that still finds none is told to come back. Then it lives by the
//! clock of `activity`: it may be idle for a while, a head must be complete soon after its first byte, and while a
//! request is being answered the limits of its body rule. `framing` sees to it that nobody can take the end of a
//! request for anything else than we do.
//!
//! Never waits for anything without a bound, and not for one client before it turns to the next. After [`serve`] has
//! returned nothing of it is left.

mod places;

mod activity;
mod guard;

mod framing;
mod linger;
mod watched;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::activity::{Activity, Serving};
use self::places::{Places, Share};
use self::watched::Watched;
use super::error::ServiceError;
use super::{Api, Audience, Phase, Unread};
use crate::tls::Tls;

/// How long to leave the listener alone after it failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client that was too slow may take to hear so and to end its side. Longer than [`linger`] gives it, so
/// this holds only where it does not even take our words.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(15);

/// Most HTTP/1 bytes that are read at once. Bounds what a connection holds outside the budget for bodies.
const READ_BYTES: usize = 64 << 10;

/// Said to a connection for which there is no room.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/x-amz-json-1.1\r\nx-amzn-errortype: ServiceUnavailableException\r\n\
connection: close\r\ncontent-length: 63\r\n\r\n\
{\"__type\":\"ServiceUnavailableException\",\"message\":\"Slow down.\"}";

/// Most connections of operators at once: a scraper, a health check, a person.
const OPERATORS_MAX: usize = 64;

/// A listener, and what is to be had there.
#[derive(Debug)]
pub struct Entrance {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Who is served.
    pub audience: Audience,
    /// The certificate, if it speaks HTTPS.
    pub tls: Option<Arc<Tls>>,
}

/// Serves clients until stopped. Then takes no more connections, finishes the requests that are open, and after `grace`
/// drops what is left.
///
/// Cancel safe: no; dropped, it leaves connections running that nobody waits for.
pub async fn serve(entrance: Entrance, api: Arc<Api>, stop: CancellationToken, grace: Duration) {
    let server = Arc::new(Server::new(api, entrance.audience, entrance.tls, stop));
    // Whether records are taken is told by the door they come in.
    let tells = entrance.audience != Audience::Operators;
    if tells {
        server.api.enter(Phase::Serving);
    }
    server.accept_until_stopped(entrance.listener).await;
    if tells {
        server.api.enter(Phase::Stopping);
    }
    server.finish_within(grace).await;
}

struct Server {
    api: Arc<Api>,
    audience: Audience,
    tls: Option<Arc<Tls>>,
    builder: auto::Builder<Tracked>,
    places: Places,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Drops what did not finish in time.
    abort: CancellationToken,
}

impl Server {
    fn new(api: Arc<Api>, audience: Audience, tls: Option<Arc<Tls>>, stop: CancellationToken) -> Self {
        let tracker = TaskTracker::new();
        let abort = CancellationToken::new();
        let connections = match audience {
            Audience::Everybody | Audience::Clients => connections_that_fit(&api),
            Audience::Operators => OPERATORS_MAX,
        };
        Self {
            places: Places::new(connections, &api.limits),
            builder: builder(Tracked { tracker: tracker.clone(), abort: abort.clone() }, api.limits.header_bytes_max),
            audience,
            tls,
            tracker,
            stop,
            abort,
            api,
        }
    }

    async fn accept_until_stopped(self: &Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => match self.places.enter(peer.ip()) {
                    Some(share) => drop(self.tracker.spawn(Arc::clone(self).attend(socket, share))),
                    None => refuse(&socket),
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection was accepted");
                    self.places.ask_for_room();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One connection, from its first byte to its last.
    async fn attend(self: Arc<Self>, socket: TcpStream, share: Share) {
        let attended = async {
            let Some(_place) = self.places.take(share).await else { return refuse(&socket) };
            // Answers are small and awaited. Failing to say so costs speed only.
            socket.set_nodelay(true).ok();
            match &self.tls {
                None => self.speak(socket).await,
                // Apart, because what a handshake needs is much more than what a connection without one does.
                Some(tls) => Box::pin(self.speak_tls(tls, socket)).await,
            }
        };
        tokio::select! {
            biased;
            () = self.abort.cancelled() => {}
            () = attended => {}
        }
    }

    /// Makes the handshake, which has as long as a head, and goes on as without.
    async fn speak_tls(&self, tls: &Tls, socket: TcpStream) {
        match timeout(self.api.limits.header_within, tls.acceptor().accept(socket)).await {
            Ok(Ok(stream)) => self.speak(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no handshake"),
            Err(_elapsed) => tracing::debug!("no handshake in time"),
        }
    }

    /// Answers requests until the client or a limit ends the connection.
    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, socket: S) {
        let activity = Arc::new(Activity::new());
        let service = service_fn(|request: Request<Incoming>| {
            let (api, audience, serving) = (Arc::clone(&self.api), self.audience, activity.serving(request.version()));
            async move { Ok::<_, Infallible>(answer(&api, audience, request, serving).await) }
        });
        let io = TokioIo::new(Watched::new(socket, Arc::clone(&activity)));
        let mut connection = std::pin::pin!(self.builder.serve_connection(io, service));
        let mut stopping = std::pin::pin!(self.stop.cancelled());
        let expired = guard::expired(Arc::clone(&activity), self.api.limits, self.places.is_full());
        let mut expired = std::pin::pin!(expired);
        let mut is_stopping = false;
        let mut is_over = false;
        let mut last = std::pin::pin!(sleep(LAST_WORDS_WITHIN));
        loop {
            tokio::select! {
                biased;
                done = connection.as_mut() => {
                    if let Err(error) = done {
                        tracing::debug!(%error, "connection ended early");
                    }
                    break;
                }
                // Who is in the middle of a head is told; the socket then ends the connection.
                () = expired.as_mut(), if !is_over => {
                    is_over = activity.give_up_head();
                    if !is_over {
                        break;
                    }
                    last.as_mut().reset(Instant::now() + LAST_WORDS_WITHIN);
                }
                () = last.as_mut(), if is_over => break,
                () = stopping.as_mut(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
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

/// Answers one request. A connection ends with a request whose end somebody else may see elsewhere, and with one in
/// chunks: what `framing` says of requests behind it would not be true, and no SDK sends any. It ends, too, with one
/// that was answered before all of its body was read.
async fn answer(api: &Api, audience: Audience, request: Request<Incoming>, serving: Serving) -> Response<Full<Bytes>> {
    let is_last = !serving.is_plain || request.headers().contains_key(TRANSFER_ENCODING);
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut answer = if serving.is_plain {
        api.answer(audience, request).await
    } else {
        let why = "The request must say once, and in one way, how long its body is.";
        api.refuse(ServiceError::MalformedHttpRequest(why))
    };
    let is_cut = is_http1 && (answer.extensions_mut().remove::<Unread>().is_some() || !serving.is_plain);
    if is_cut {
        serving.cut();
    }
    if is_last || is_cut {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(serving);
    answer
}

/// Tells a client that there is no room. A best effort: whoever cannot take these few bytes at once sees a closed
/// connection.
fn refuse(socket: &TcpStream) {
    if let Err(error) = socket.try_write(NO_ROOM) {
        tracing::debug!(%error, "a connection without room was closed");
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
