//! The wire: the service's API on one port, and what operators ask for beside it.
//!
//! In: connections. Out: records in the logs of their streams, and answers as the service gives them.
//!
//! ```text
//!   server ── head ──> auth: examine ── body ──> body: limits, hash ──> auth: verify ──> operation
//!                                                                          ├──> put ── wire ──> log
//!                                                                          └──> manage
//! ```
//!
//! Wire names appear in this module only. Bad input of any kind ends in a typed error, never in a panic and never in
//! a part of a request being stored. Nothing here knows a log, a loop or a sink: it sees [`Streams`].

#![warn(clippy::indexing_slicing, clippy::string_slice)]

pub mod server;

mod operation;

mod auth;
mod sigv4;

mod body;

mod put;
mod wire;

mod manage;

mod admin;

mod error;
mod record_id;
mod violations;

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hydrant_core::Clock;
use hydrant_storage::buffers::Buffers;
use hydrant_storage::log::Payloads;
use hyper::body::Body;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::operation::Operation;
pub use self::record_id::RecordId;

use self::auth::Gate;
use self::body::{Received, Wanted};
use self::error::ServiceError;
use self::wire::PutKind;
use crate::config::spec::Credential;
use crate::streams::{LiveStream, Streams};

/// Most header fields of a request. Source: HTTP/1 heads are parsed with this limit; an SDK sends about ten.
const HEADER_FIELDS_MAX: usize = 100;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Reads the body of a put, `PutRecordBatch` or `PutRecord`, as the API does. `None` if it is refused. For fuzzing.
#[doc(hidden)]
pub fn read_put(is_batch: bool, body: Vec<u8>) -> Option<Payloads> {
    let kind = if is_batch { PutKind::Batch } else { PutKind::One };
    wire::Put::read(kind, body).ok().map(|put| put.payloads)
}

/// What the API is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The region of ARNs and signatures.
    pub region: String,
    /// The account of ARNs, twelve digits.
    pub account: String,
    /// Who may call. Empty: everybody.
    pub credentials: Vec<Credential>,
    /// How much it takes at once.
    pub limits: Limits,
}

/// How much the API takes at once, from one client and from all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections, if the process may open twice as many files, else fewer. Source: our own choice; enough for
    /// a fleet whose agents keep one or two each, ten thousand idle ones among them. An idle one takes some 4 KiB.
    pub connections_max: usize,
    /// Most connections of one address, or of one /64 network of IPv6. Source: our own choice; far more than an agent
    /// opens, and room for a proxy or a network behind one address.
    pub connections_per_address: usize,
    /// The same for each loopback address. Source: all of them; agents on this machine and a proxy in front of the
    /// server come from there, and whoever may run programs here has other ways to stop it.
    pub connections_per_loopback: usize,
    /// Most header bytes of a request, names and values. Source: an SDK sends about 1 KiB.
    pub header_bytes_max: usize,
    /// Longest time from the first byte of a request to the end of its headers.
    pub header_within: Duration,
    /// Most bytes of a body. Source: 4 MiB of records are 5.6 MiB of base64, and escapes may double that.
    pub body_bytes_max: usize,
    /// Most bytes of all bodies that are held at once. At least `body_bytes_max`.
    pub body_bytes_total: usize,
    /// How long a body may be behind `body_rate_min`.
    pub body_patience: Duration,
    /// Fewest bytes a second of a body, on the whole.
    pub body_rate_min: u32,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// The same while all connections are taken, so that idle ones make room.
    pub idle_when_full: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 12_288,
            connections_per_address: 1024,
            connections_per_loopback: 12_288,
            header_bytes_max: 32 << 10,
            header_within: Duration::from_secs(5),
            body_bytes_max: 16 << 20,
            body_bytes_total: 64 << 20,
            body_patience: Duration::from_secs(10),
            body_rate_min: 64 << 10,
            idle: Duration::from_mins(1),
            idle_when_full: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Until when the next bytes of a body must be there, if `received` came since `started`.
    fn body_deadline(&self, started: Instant, received: usize) -> Instant {
        let rate = u64::from(self.body_rate_min.max(1));
        let earned = u64::try_from(received).unwrap_or(u64::MAX).saturating_mul(1000) / rate;
        started + self.body_patience + Duration::from_millis(earned)
    }
}

/// What the API needs from the world.
#[derive(Clone)]
pub struct Edges {
    /// Tells the time of a signature.
    pub clock: Arc<dyn Clock>,
    /// Draws the id of a request.
    pub request_ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// Writes all metrics down, in the `OpenMetrics` text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Memory for bodies.
    pub buffers: Buffers,
}

impl fmt::Debug for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edges").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Who is served at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Clients and operators.
    Everybody,
    /// Clients; of what operators ask, only `/health`.
    Clients,
    /// Operators only.
    Operators,
}

/// Where the server is in its life, as `/ready` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Starting,
    Serving,
    Stopping,
}

/// Beside an answer that was given before the end of the body was seen.
#[derive(Clone, Copy, Debug)]
struct Unread;

/// The API: one value for all connections.
pub struct Api {
    account: String,
    region: String,
    limits: Limits,
    gate: Gate,
    streams: Arc<Streams>,
    edges: Edges,
    phase: AtomicU8,
    /// Bytes of bodies that may still be taken in.
    budget: Arc<Semaphore>,
    /// Big bodies that may still be read at once: one per core.
    readers: Semaphore,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("region", &self.region).field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Api {
    /// The API of these streams. Serves nothing before [`server::serve`].
    pub fn new(settings: Settings, streams: Arc<Streams>, edges: Edges) -> Arc<Self> {
        let Settings { region, account, credentials, limits } = settings;
        let decoy = (edges.request_ids)().to_string();
        Arc::new(Self {
            gate: Gate::new(&region, &credentials, &decoy),
            budget: Arc::new(Semaphore::new(limits.body_bytes_total.max(limits.body_bytes_max))),
            readers: Semaphore::new(available_parallelism().map_or(1, NonZero::get)),
            phase: AtomicU8::new(Phase::Starting as u8),
            account,
            region,
            limits,
            streams,
            edges,
        })
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Answers a request.
    ///
    /// Cancel safe: a request that is dropped may or may not have stored its records, as one whose answer was lost.
    pub async fn answer<B>(&self, audience: Audience, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, mut body) = request.into_parts();
        let mut response = self.answer_parts(audience, parts, &mut body).await;
        if !body.is_end_stream() {
            response.extensions_mut().insert(Unread);
        }
        response
    }

    async fn answer_parts<B>(&self, audience: Audience, parts: Parts, body: &mut B) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if let Err(error) = self.gate.check_host(&parts) {
            return error.into_response(self.edges.clock.now());
        }
        if let Some(answer) = self.admin(audience, &parts.method, parts.uri.path()) {
            return answer;
        }
        if audience == Audience::Operators {
            let why = "Here are /health, /ready and /metrics; records go to the server's other address.";
            return self.refuse(ServiceError::UnknownOperation(why.to_owned()));
        }
        let served = self.serve(parts, body).await;
        self.respond(served)
    }

    /// The answer to a request of which no more than this is known.
    fn refuse(&self, error: ServiceError) -> Response<Full<Bytes>> {
        self.respond(Err(error))
    }

    fn respond(&self, served: Result<Vec<u8>, ServiceError>) -> Response<Full<Bytes>> {
        let id = (self.edges.request_ids)();
        let mut response = match served {
            Ok(answer) => success(answer),
            Err(error) => {
                let (status, code) = error.shape();
                tracing::debug!(request = %id, %status, code, message = %error, "request refused");
                error.into_response(self.edges.clock.now())
            }
        };
        let mut text = Uuid::encode_buffer();
        if let Ok(id) = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    async fn serve<B>(&self, parts: Parts, body: &mut B) -> Result<Vec<u8>, ServiceError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let received = match self.admit(&parts, body).await {
            Ok(received) => received,
            Err(error) => {
                // Who asked first has sent nothing yet, and must not be told to.
                let is_sending = !parts.headers.contains_key(http::header::EXPECT);
                drop(parts); // a head may take far more memory than it took to send
                if is_sending && error.is_worth_reading_on() {
                    body::discard(body, &self.limits).await;
                }
                return Err(error);
            }
        };
        check_encoding(&parts)?;
        self.perform(operation_of(&parts)?, received).await
    }

    /// Takes the body in and makes sure that it, and the head, come from somebody who may call.
    async fn admit<B>(&self, parts: &Parts, body: &mut B) -> Result<Received, ServiceError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        check_header_bytes(parts, self.limits.header_bytes_max)?;
        body::check_announced(body, &self.limits)?;
        let claim = self.gate.examine(parts, self.edges.clock.now())?;
        let wanted = match &claim {
            None => Wanted::Bytes,
            Some(claim) if self.gate.knows(claim) => Wanted::BytesAndHash,
            Some(_) => Wanted::Hash,
        };
        let received = body::receive(body, wanted, &self.limits, &self.budget, &self.edges.buffers).await?;
        match (claim, received.sha256) {
            (None, _) => Ok(received),
            (Some(claim), Some(sha256)) => self.gate.verify(&claim, parts, &sha256).map(|()| received),
            (Some(_), None) => Err(ServiceError::InternalFailure),
        }
    }

    async fn perform(&self, operation: Operation, received: Received) -> Result<Vec<u8>, ServiceError> {
        match operation {
            Operation::PutRecord => self.put(PutKind::One, received).await,
            Operation::PutRecordBatch => self.put(PutKind::Batch, received).await,
            Operation::DescribeDeliveryStream => self.describe(&received.bytes),
            Operation::ListDeliveryStreams => self.list(&received.bytes),
            Operation::CreateDeliveryStream
            | Operation::DeleteDeliveryStream
            | Operation::UpdateDestination
            | Operation::TagDeliveryStream
            | Operation::UntagDeliveryStream
            | Operation::ListTagsForDeliveryStream
            | Operation::StartDeliveryStreamEncryption
            | Operation::StopDeliveryStreamEncryption => Err(manage::not_through_the_api(operation)),
        }
    }

    /// The stream of this name.
    fn stream(&self, name: &str) -> Result<&Arc<LiveStream>, ServiceError> {
        self.streams
            .get(name)
            .ok_or_else(|| ServiceError::ResourceNotFound { stream: name.to_owned(), account: self.account.clone() })
    }
}

/// Operations are sent to the root by POST; anything else is none.
fn operation_of(parts: &Parts) -> Result<Operation, ServiceError> {
    if parts.method != Method::POST || parts.uri.path() != "/" {
        return Err(ServiceError::UnknownOperation("Operations are sent with POST to /.".to_owned()));
    }
    Operation::of(&parts.headers)
}

/// Bodies are read as they are. `amz-1.0` is how older clients of AWS JSON say just that.
fn check_encoding(parts: &Parts) -> Result<(), ServiceError> {
    let is_plain = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        ["", "identity", "amz-1.0"].iter().any(|plain| value.eq_ignore_ascii_case(plain.as_bytes()))
    };
    if parts.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    let why = "The request body must be JSON that is not compressed: send it without Content-Encoding. \
               The data of a record may be compressed.";
    Err(ServiceError::Serialization(why.to_owned()))
}

/// Counts a field as HTTP/2 does, with 32 bytes on top: there a byte on the wire can stand for a whole field.
fn check_header_bytes(parts: &Parts, limit: usize) -> Result<(), ServiceError> {
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if headers + target > limit || parts.headers.len() > HEADER_FIELDS_MAX {
        return Err(ServiceError::RequestHeadersTooLarge { limit });
    }
    Ok(())
}

fn success(body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, error::AWS_JSON);
    response
}
