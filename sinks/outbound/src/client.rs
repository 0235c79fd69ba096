//! The client: one request out, its whole answer back, inside bounds.
//!
//! ```text
//!   request ──> connect (at most `connect`) ──> send body ──> answer head ──> answer body ──> answer
//!               └──────────── no progress for `stall`: given up; `whole` over: given up ────────┘
//! ```

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use reqwest::{Certificate, Url, redirect, retry};

use crate::address::{AddressPolicy, Refused, Resolver};
use crate::body::{Body, Unreadable, causes};

/// How long an unused connection is kept. Below the 20 s after which S3 closes it, so that a request seldom meets a
/// connection that the other side has just given up.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// What a client is built with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait for a connection: name, TCP and TLS together.
    pub connect: Duration,
    /// A PEM file of certificate authorities to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
}

impl Default for Options {
    /// 5 s for a connection, which covers a lost SYN and its two repetitions; the system's authorities; any address.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), ca_file: None, addresses: AddressPolicy::Anything }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file of authorities cannot be read.
    #[error("read certificate authorities from {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file holds no certificate.
    #[error("{0} holds no PEM certificate")]
    NoCertificate(PathBuf),
    /// TLS cannot be set up, for one because the system has no certificate authorities.
    #[error("set up TLS: {0}")]
    Tls(String),
}

/// How long an exchange may take and how much it may bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest time without any progress; measured coarsely, so it may be twice as long.
    pub stall: Duration,
    /// Longest time from the first step to the last byte of the answer.
    pub whole: Duration,
    /// Most bytes of an answer's body.
    pub answer_bytes_max: usize,
}

/// Why there is no answer. Messages name no credentials and no bytes of the body.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection, so nothing was sent: the name does not resolve, nothing listens, TLS was not agreed on, or
    /// all that took too long.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The bounds were reached. What became of the request is not known.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection ended early. What became of the request is not known.
    #[error("the connection ended before the answer was complete")]
    Interrupted,
    /// What came back is no HTTP. What became of the request is not known.
    #[error("the answer is not HTTP")]
    Malformed,
    /// The answer is longer than allowed. What became of the request is not known.
    #[error("the answer is longer than {0} bytes")]
    AnswerTooLong(usize),
    /// The request's own body could not be read. The other side saw a request that broke off.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
    /// The request cannot be put on the wire; nothing was sent.
    #[error("the request is not valid: {0}")]
    Invalid(String),
}

/// A pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Client {
    pool: reqwest::Client,
    addresses: AddressPolicy,
}

impl Client {
    /// Builds a client. Reads the file of authorities, connects to nothing.
    ///
    /// # Errors
    /// [`BuildError`], by cause.
    pub fn new(options: &Options) -> Result<Self, BuildError> {
        let extra = options.ca_file.as_deref().map_or_else(|| Ok(Vec::new()), read_authorities)?;
        reqwest::Client::builder()
            .user_agent(concat!("hydrant/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect)
            .pool_idle_timeout(IDLE_MAX)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            // One connection for each request under way: bodies do not share the flow control of one HTTP/2 connection.
            .http1_only()
            .tls_certs_merge(extra)
            .dns_resolver(Resolver(options.addresses))
            .build()
            .map(|pool| Self { pool, addresses: options.addresses })
            .map_err(|error| BuildError::Tls(innermost(&error)))
    }

    /// Sends `request` once and reads the whole answer, whatever its status. The body's length is announced.
    ///
    /// # Errors
    /// [`SendError`], by what is known about the request's fate. Cancel safe: a dropped call closes its connection.
    pub async fn send(&self, request: Request<Body>, bounds: Bounds) -> Result<Response<Bytes>, SendError> {
        let progress = Arc::new(AtomicU64::new(0));
        let exchange = self.exchange(request, bounds.answer_bytes_max, Arc::clone(&progress));
        tokio::time::timeout(bounds.whole, unless_stalled(exchange, &progress, bounds.stall))
            .await
            .unwrap_or(Err(SendError::TimedOut(bounds.whole)))
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        answer_bytes_max: usize,
        progress: Arc<AtomicU64>,
    ) -> Result<Response<Bytes>, SendError> {
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        let request = Request::from_parts(parts, body.into_client_body(Arc::clone(&progress)));
        let request = reqwest::Request::try_from(request).map_err(|error| SendError::Invalid(innermost(&error)))?;
        self.check_host(request.url())?;
        let mut answer = self.pool.execute(request).await.map_err(|error| classify(&error))?;
        let body = read_body(&mut answer, answer_bytes_max, &progress).await?;
        let mut whole = Response::new(body);
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(whole)
    }

    /// A host that is an address is dialled without being resolved, so it is judged here. The URL has been parsed, which
    /// makes one spelling of all that an address has (`0x7f.1`, `2130706433`).
    fn check_host(&self, url: &Url) -> Result<(), SendError> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) if !self.addresses.allows(address) => Err(SendError::Unreachable(Refused.to_string())),
            _ => Ok(()),
        }
    }
}

/// Runs `exchange` to its end unless `progress` stands still from one look to the next.
async fn unless_stalled<T>(
    exchange: impl Future<Output = Result<T, SendError>>,
    progress: &AtomicU64,
    stall: Duration,
) -> Result<T, SendError> {
    let mut exchange = std::pin::pin!(exchange);
    let mut seen = progress.load(Ordering::Relaxed);
    loop {
        if let Ok(result) = tokio::time::timeout(stall, &mut exchange).await {
            return result;
        }
        let now = progress.load(Ordering::Relaxed);
        if now == seen {
            return Err(SendError::TimedOut(stall));
        }
        seen = now;
    }
}

async fn read_body(answer: &mut reqwest::Response, bytes_max: usize, progress: &AtomicU64) -> Result<Bytes, SendError> {
    let mut whole = BytesMut::new();
    while let Some(part) = answer.chunk().await.map_err(|error| classify(&error))? {
        progress.fetch_add(1, Ordering::Relaxed);
        if whole.len() + part.len() > bytes_max {
            return Err(SendError::AnswerTooLong(bytes_max));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// What went wrong, by what is known about the request's fate.
fn classify(error: &reqwest::Error) -> SendError {
    if let Some(reason) = Unreadable::find(error) {
        return SendError::Unreadable(reason);
    }
    if error.is_connect() {
        return SendError::Unreachable(innermost(error));
    }
    if error.is_builder() {
        return SendError::Invalid(innermost(error));
    }
    let is_malformed =
        causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse);
    if is_malformed { SendError::Malformed } else { SendError::Interrupted }
}

/// The text of the innermost cause, where the reason is; the outer ones only repeat the URL.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn read_authorities(path: &Path) -> Result<Vec<Certificate>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::CaFile { path: path.to_owned(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(BuildError::NoCertificate(path.to_owned())),
    }
}
