//! Connections: how one is opened, who keeps those that wait, and what goes wrong with them.
//!
//! ```text
//!   attempt ──take──> [ idle ] or open: TCP ─> TLS ─> log in ──> session ──(work done)──> give back
//!                                                               └──(anything else)─────> closed, and rolled back over there
//! ```
//!
//! A connection lives in the attempt that uses it and moves only while that attempt is polled: there is no task beside it.
//! So a dropped attempt closes its connection, and PostgreSQL rolls back what it had not committed.

use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hydrant_core::{Fault, FaultCode};
use hydrant_outbound::{AddressPolicy, Tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls};

use crate::wire::{Complaint, Judgement};

/// Asks the server to speak TLS: length and code. Source: PostgreSQL documentation, "Message Formats", `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How long an unused connection is kept. Firewalls forget silent ones after some minutes, and then a request meets a
/// connection that only seems to be there.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// What a session speaks through.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why an attempt ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// PostgreSQL complained.
    Complaint(Complaint),
    /// There is no answer.
    Unanswered(Fault),
}

impl Failure {
    /// A failure without an answer.
    pub(crate) fn unanswered(code: FaultCode, message: impl Into<String>) -> Self {
        Self::Unanswered(Fault::new(code, message))
    }

    /// What is told of it where no record is to blame.
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Unanswered(fault) => fault,
            Self::Complaint(complaint) => match complaint.judge() {
                Judgement::Again(fault) | Judgement::Row(fault) => fault,
            },
        }
    }

    /// Whether a table is missing.
    pub(crate) fn lacks_table(&self) -> bool {
        matches!(self, Self::Complaint(complaint) if complaint.code == "42P01")
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let source = std::error::Error::source(&error);
        if let Some(said) = error.as_db_error() {
            Self::Complaint(Complaint {
                code: said.code().code().to_owned(),
                message: said.message().to_owned(),
                context: said.where_().map(str::to_owned),
                constraint: said.constraint().map(str::to_owned),
                column: said.column().map(str::to_owned),
            })
        } else if error.is_closed() || source.is_some_and(<dyn std::error::Error>::is::<std::io::Error>) {
            Self::unanswered(FaultCode::Interrupted, "the connection ended before the answer")
        } else if error.to_string().starts_with("authentication") || error.to_string().starts_with("invalid conf") {
            // There is no other way to tell: the server wants what we cannot give, such as a password that is not configured.
            let reason = source.map_or_else(String::new, |source| format!(": {source}"));
            Self::unanswered(FaultCode::Unauthenticated, format!("log in{reason}"))
        } else {
            Self::unanswered(FaultCode::Protocol, "the answer is not one of PostgreSQL's")
        }
    }
}

/// Where connections go, and as whom.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Nothing where connections are not encrypted.
    pub(crate) tls: Option<Tls>,
    /// User, password, database.
    pub(crate) login: tokio_postgres::Config,
    /// Longest wait for a connection, logging in included.
    pub(crate) connect: Duration,
}

impl Server {
    async fn open(&self) -> Result<Session, Failure> {
        let unreachable = |reason: std::io::Error| Failure::unanswered(FaultCode::Unreachable, reason.to_string());
        let tcp = hydrant_outbound::connect(&self.host, self.port, AddressPolicy::Anything, self.connect)
            .await
            .map_err(unreachable)?;
        let log_in = async {
            let stream: Box<dyn Duplex> = match &self.tls {
                None => Box::new(tcp),
                Some(tls) => Box::new(encrypt(tls, &self.host, tcp).await?),
            };
            Ok(self.login.connect_raw(stream, NoTls).await?)
        };
        let (client, connection) = timeout(self.connect, log_in).await.unwrap_or_else(|_| {
            Err(Failure::unanswered(FaultCode::TimedOut, format!("not logged in within {:?}", self.connect)))
        })?;
        Ok(Session { client, connection })
    }
}

/// Agrees on TLS, as PostgreSQL wants to be asked for it.
async fn encrypt<S: Duplex>(tls: &Tls, host: &str, mut stream: S) -> Result<impl Duplex + use<S>, Failure> {
    let lost = |_| Failure::unanswered(FaultCode::Interrupted, "the connection ended before TLS was agreed on");
    stream.write_all(&SSL_REQUEST).await.map_err(lost)?;
    if stream.read_u8().await.map_err(lost)? != b'S' {
        return Err(Failure::unanswered(FaultCode::Unreachable, "the server does not speak TLS"));
    }
    let refused = |reason: std::io::Error| Failure::unanswered(FaultCode::Unreachable, format!("TLS: {reason}"));
    tls.wrap(host, stream).await.map_err(refused)
}

/// A connection that is logged in.
pub(crate) struct Session {
    client: Client,
    connection: Connection<Box<dyn Duplex>, NoTlsStream>,
}

impl Session {
    /// Does `work` and moves the connection meanwhile. Cancel safe: a dropped call leaves a session that must not be used
    /// again, since it may stand in a transaction.
    pub(crate) async fn run<T>(&mut self, work: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut work = pin!(work(&self.client));
        let end = tokio::select! {
            biased;
            done = &mut work => return done,
            end = &mut self.connection => end,
        };
        // The server's last words may have come just before the end.
        match std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            Poll::Ready(done) => done,
            Poll::Pending => Err(end.err().map_or_else(
                || Failure::unanswered(FaultCode::Interrupted, "the connection ended before the answer"),
                Failure::from,
            )),
        }
    }

    /// Whether the server has not closed it meanwhile.
    async fn is_open(&mut self) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut self.connection).poll(cx).is_pending())).await
    }
}

/// Connections that wait for work. There are never more than attempts under way at once.
pub(crate) struct Pool {
    server: Server,
    idle: Mutex<Vec<(Session, Instant)>>,
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(server: Server) -> Self {
        Self { server, idle: Mutex::default() }
    }

    /// A session outside any transaction: one that waits, or a new one.
    pub(crate) async fn take(&self) -> Result<Session, Failure> {
        loop {
            let last = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((mut session, since)) = last else { return self.server.open().await };
            if since.elapsed() < IDLE_MAX && session.is_open().await {
                return Ok(session);
            }
        }
    }

    /// Waits until the session that waits for work has ended.
    #[cfg(test)]
    pub(crate) async fn sees_an_end(&self) {
        let (mut session, since) = self.idle.lock().unwrap().pop().expect("one waits");
        while session.is_open().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.idle.lock().unwrap().push((session, since));
    }

    /// Keeps a session that is outside any transaction.
    pub(crate) fn give_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((session, Instant::now()));
    }
}
