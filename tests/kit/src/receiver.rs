//! A receiver of the HTTP endpoint protocol: strict, scripted, and with a memory.
//!
//! In: requests on a port of the loopback interface. Out: what an endpoint answers, or what the script says, before or after
//! the request was taken. Each request is held to the letter of the protocol, and one that breaks a rule is answered
//! 400 and told to [`Receiver::violations`].
//!
//! It remembers the digest of each record by request id. The same id may come as often as it likes and counts once, as long
//! as it brings the same records in the same order under the same timestamp; with others it is a violation. With a
//! folder, the records of each request become a file under the request's id, durable before the answer, so that an
//! oracle in another process can read what arrived.

mod keep;
mod protocol;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use crate::http::Answer;
use crate::http::{Head, quote, read_body, read_head};
use keep::Keep;
pub use keep::{Digest, Kept, digest};
pub use protocol::{Form, Rules};

/// Stands for the request's own id in the body of an answer.
pub const REQUEST_ID: &str = "REQUEST-ID";

/// What the receiver does with the requests that come from now on.
#[derive(Clone, Debug, Default)]
pub enum Script {
    /// What an endpoint does.
    #[default]
    Serve,
    /// Reads the request, takes nothing, answers this.
    Answer(Answer),
    /// Answers this as soon as the head of the request is there, and takes in what still comes.
    AnswerEarly(Answer),
    /// Takes the request, then answers this instead of its success.
    TakeThenAnswer(Answer),
    /// Reads the request, takes nothing, resets the connection.
    Reset,
    /// Takes the request, then resets the connection.
    TakeThenReset,
    /// Reads the head of the request and does nothing more.
    Stall,
    /// Takes the request, answers with the first so many bytes of its success, and does nothing more.
    TakeThenStallAfter(usize),
    /// Takes the request, answers with the first so many bytes of its success, and resets the connection.
    TakeThenCutAfter(usize),
    /// Takes the request and answers, a byte in each interval.
    TakeThenTrickle(Duration),
    /// Answers 403 with what it was sent in its message, as a careless endpoint would.
    Echo,
}

/// A running receiver. Stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    script: Mutex<Script>,
    keep: Keep,
    requests: AtomicU64,
}

impl Receiver {
    /// Starts a receiver on a free port. With a folder it keeps what it takes there too.
    ///
    /// # Errors
    /// When the port cannot be opened or the folder not be made.
    pub async fn start(rules: Rules, folder: Option<PathBuf>) -> io::Result<Self> {
        Self::start_on(0, rules, folder).await
    }

    /// The same on this port.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_on(port: u16, rules: Rules, folder: Option<PathBuf>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let keep = Keep::open(folder)?;
        let state = Arc::new(State { rules, script: Mutex::default(), keep, requests: AtomicU64::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Chooses what happens to requests whose head arrives from now on.
    pub fn follow(&self, script: Script) {
        *lock(&self.state.script) = script;
    }

    /// How many requests have come, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// What was taken under this request id.
    pub fn kept(&self, id: &str) -> Option<Kept> {
        self.state.keep.get(id)
    }

    /// How many different request ids were taken.
    pub fn ids(&self) -> usize {
        self.state.keep.len()
    }

    /// The rules that were broken, by request, in the order of their arrival.
    pub fn violations(&self) -> Vec<String> {
        self.state.keep.violations()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(serve(connection, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection, request after request, until either side ends it.
async fn serve(connection: TcpStream, state: Arc<State>) {
    let mut connection = BufReader::new(connection);
    while let Ok(Some(head)) = read_head(&mut connection).await {
        if serve_one(&mut connection, &state, head).await.is_err() {
            return;
        }
    }
}

/// # Errors
/// When the connection is over, by fault or by script.
async fn serve_one(connection: &mut BufReader<TcpStream>, state: &State, head: Head) -> io::Result<()> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let script = lock(&state.script).clone();
    if matches!(script, Script::Stall) {
        return std::future::pending().await;
    }
    if let Script::AnswerEarly(answer) = &script {
        connection.write_all(&to_bytes(answer, &head)).await?;
        tokio::io::copy(connection, &mut tokio::io::sink()).await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = read_body(connection, &head).await?;
    let take = || state.take(&head, &body);
    match script {
        Script::Answer(answer) => connection.write_all(&to_bytes(&answer, &head)).await,
        Script::TakeThenAnswer(answer) => {
            take();
            connection.write_all(&to_bytes(&answer, &head)).await
        }
        Script::Reset => reset(connection),
        Script::TakeThenReset => {
            take();
            reset(connection)
        }
        Script::TakeThenStallAfter(bytes) => {
            connection.write_all(first(&to_bytes(&take(), &head), bytes)).await?;
            std::future::pending().await
        }
        Script::TakeThenCutAfter(bytes) => {
            connection.write_all(first(&to_bytes(&take(), &head), bytes)).await?;
            // What was written goes out before the end does: a reset could overtake it.
            connection.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Script::TakeThenTrickle(interval) => {
            for byte in to_bytes(&take(), &head) {
                tokio::time::sleep(interval).await;
                connection.write_all(&[byte]).await?;
            }
            Ok(())
        }
        Script::Echo => {
            let answer = refusal(403, &quote(&head, &body));
            connection.write_all(&to_bytes(&answer, &head)).await
        }
        Script::Serve | Script::Stall | Script::AnswerEarly(_) => connection.write_all(&to_bytes(&take(), &head)).await,
    }
}

impl State {
    /// Takes a request that breaks no rule, and says what an endpoint answers.
    fn take(&self, head: &Head, body: &Bytes) -> Answer {
        if !protocol::admits(&self.rules, head) {
            return refusal(401, "the access key is not the right one");
        }
        let taken = protocol::read(&self.rules, head, body).and_then(|request| self.keep.take(&request));
        match taken {
            Ok(()) => success(),
            Err(broken) => {
                let broken = format!("{broken:#}");
                self.keep.violation(&broken);
                refusal(400, &broken)
            }
        }
    }
}

/// What an endpoint answers to a request that it has taken.
pub fn success() -> Answer {
    let now = jiff::Timestamp::now().as_millisecond();
    let body = serde_json::json!({ "requestId": REQUEST_ID, "timestamp": now }).to_string();
    Answer::status(200).header("content-type", "application/json").body(body)
}

/// What an endpoint answers to a request that it does not take.
pub fn refusal(status: u16, message: &str) -> Answer {
    let now = jiff::Timestamp::now().as_millisecond();
    let body = serde_json::json!({ "requestId": REQUEST_ID, "timestamp": now, "errorMessage": message });
    Answer::status(status).header("content-type", "application/json").body(body.to_string())
}

/// The answer on the wire, with the request's own id where it stands for it.
fn to_bytes(answer: &Answer, head: &Head) -> Vec<u8> {
    let id = head.header("x-amz-firehose-request-id").unwrap_or_default();
    let mut answer = answer.clone();
    if let Ok(text) = std::str::from_utf8(answer.body_mut())
        && text.contains(REQUEST_ID)
    {
        *answer.body_mut() = text.replace(REQUEST_ID, id).into();
    }
    answer.to_bytes(false)
}

fn first(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

/// The connection is reset when it is dropped, which the error makes happen.
fn reset(connection: &BufReader<TcpStream>) -> io::Result<()> {
    connection.get_ref().set_zero_linger()?;
    Err(io::ErrorKind::ConnectionReset.into())
}

#[cfg(test)]
mod tests;
