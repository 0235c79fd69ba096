//! An OpenSearch server in this process that follows a script: `_bulk`, and what can go wrong with it.
//!
//! In: requests on a port of the loopback interface. Out: what OpenSearch would answer, or what the script says, before or
//! after documents were stored. It checks what OpenSearch checks of a bulk request: who sends it, its type, that each action
//! has its document on one line, that a document fits the index and that none of its id is there; and it keeps them.

mod documents;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use crate::http::Answer;
use crate::http::{Head, quote, read_body, read_head};
use crate::signature::{Signer, is_signed_by, sha256_hex};
pub use documents::NUMBER_FIELD;
use documents::{Documents, Strike};

/// The user that is known, where one is asked for.
pub const USERNAME: &str = "conformance-user";

/// Its password.
pub const PASSWORD: &str = "conformance-password";

/// An API key that is known, as it is sent.
pub const API_KEY: &str = "Y29uZm9ybWFuY2UtaWQ6Y29uZm9ybWFuY2Uta2V5";

/// The access key that is known, where credentials are asked for.
pub const ACCESS_KEY_ID: &str = "conformance-access-key-id";

/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "conformance-secret-access-key";

/// The region that signatures must name.
pub const REGION: &str = "eu-central-1";

/// What the server does with the bulk requests that come from now on.
#[derive(Clone, Debug, Default)]
pub enum Script {
    /// What OpenSearch does.
    #[default]
    Serve,
    /// The same, but every so many items fail, beginning with the second, with this error instead of being stored.
    FailEach {
        /// One in how many.
        one_in: usize,
        /// The status of such an item.
        status: u16,
        /// The error of such an item, which may quote the document: `DOCUMENT` stands for it.
        error: Value,
    },
    /// Reads the request, stores nothing, answers this.
    Answer(Answer),
    /// Answers this as soon as the head of the request is there, and takes in what still comes.
    AnswerEarly(Answer),
    /// Stores the documents, then answers this instead of its success.
    StoreThenAnswer(Answer),
    /// Stores the documents, then answers its success, changed.
    StoreThenEdit(fn(&mut Value)),
    /// Reads the request, stores nothing, resets the connection.
    Reset,
    /// Stores the documents, then resets the connection.
    StoreThenReset,
    /// Reads the head of the request and does nothing more.
    Stall,
    /// Stores the documents and answers, a byte in each interval.
    StoreThenTrickle(Duration),
    /// Answers 403 with what it was sent in its reason, as a careless server would.
    Echo,
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct ScriptedOpenSearch {
    address: SocketAddr,
    state: Arc<State>,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    /// What `Authorization` may say. Anything where there is nothing.
    admitted: Vec<String>,
    script: Mutex<Script>,
    documents: Mutex<Documents>,
    last_body: Mutex<Option<Bytes>>,
    requests: AtomicU64,
}

impl ScriptedOpenSearch {
    /// Starts a server on a free port that asks for no credentials.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start() -> io::Result<Self> {
        Self::with(Vec::new()).await
    }

    /// Starts a server that asks for [`USERNAME`] and [`PASSWORD`], for [`API_KEY`], or for a signature by
    /// [`ACCESS_KEY_ID`] for the service `es`.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start_guarded() -> io::Result<Self> {
        let pair = base64_simd::STANDARD.encode_to_string(format!("{USERNAME}:{PASSWORD}"));
        Self::with(vec![format!("Basic {pair}"), format!("ApiKey {API_KEY}")]).await
    }

    async fn with(admitted: Vec<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { admitted, ..State::default() });
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

    /// The body of the last request that was read whole, as it came.
    pub fn last_body(&self) -> Option<Bytes> {
        lock(&self.state.last_body).clone()
    }

    /// The document of this id in this index, as it came.
    pub fn document(&self, index: &str, id: &str) -> Option<Bytes> {
        lock(&self.state.documents).get(index, id).cloned()
    }

    /// All documents as they came, by index and id.
    pub fn documents(&self) -> Vec<((String, String), Bytes)> {
        lock(&self.state.documents).all()
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
        connection.write_all(&answer.to_bytes(false)).await?;
        tokio::io::copy(connection, &mut tokio::io::sink()).await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = read_body(connection, &head).await?;
    *lock(&state.last_body) = Some(body.clone());
    let serve = |strike: Option<&Strike<'_>>| state.bulk(&head, &body, strike).map_or_else(|no| no, |yes| ok(&yes));
    let answer = match &script {
        Script::Answer(answer) => answer.clone(),
        Script::FailEach { one_in, status, error } => serve(Some(&Strike { one_in: *one_in, status: *status, error })),
        Script::StoreThenAnswer(answer) => {
            serve(None);
            answer.clone()
        }
        Script::StoreThenEdit(edit) => match state.bulk(&head, &body, None) {
            Ok(mut value) => {
                edit(&mut value);
                ok(&value)
            }
            Err(refusal) => refusal,
        },
        Script::Reset => return reset(connection),
        Script::StoreThenReset => {
            serve(None);
            return reset(connection);
        }
        Script::StoreThenTrickle(interval) => {
            for byte in serve(None).to_bytes(false) {
                tokio::time::sleep(*interval).await;
                connection.write_all(&[byte]).await?;
            }
            return Ok(());
        }
        Script::Echo => error(403, "security_exception", &quote(&head, &body)),
        Script::Serve | Script::Stall | Script::AnswerEarly(_) => serve(None),
    };
    connection.write_all(&answer.to_bytes(false)).await
}

impl State {
    /// What OpenSearch answers to a request, after it was done.
    ///
    /// # Errors
    /// What it answers instead to one that it does not take.
    fn bulk(&self, head: &Head, body: &Bytes, strike: Option<&Strike<'_>>) -> Result<Value, Answer> {
        let is_known = |says: &str| self.admitted.iter().any(|known| known == says);
        let is_admitted = || head.header("authorization").is_some_and(is_known) || is_signed(head, body);
        if !self.admitted.is_empty() && !is_admitted() {
            return Err(error(401, "security_exception", "missing authentication credentials for REST request"));
        }
        if (head.method.as_str(), head.path.as_str()) != ("POST", "/_bulk") {
            return Err(error(405, "method_not_allowed_exception", "incorrect method or path"));
        }
        if head.header("content-type") != Some("application/x-ndjson") {
            return Err(error(406, "media_type_header_exception", "content type is not supported"));
        }
        let items = lock(&self.documents).bulk(head, body, strike);
        items.map_err(|broken| error(400, "illegal_argument_exception", &broken))
    }
}

/// Whether the known key has signed the request, with the hash of its body.
fn is_signed(head: &Head, body: &[u8]) -> bool {
    let mut caller = Signer::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION, "es");
    head.header("x-amz-content-sha256") == Some(&sha256_hex(body)) && is_signed_by(&mut caller, head)
}

fn ok(answer: &Value) -> Answer {
    Answer::status(200).header("content-type", "application/json").body(answer.to_string())
}

/// The answer of OpenSearch to a request that it does not take.
pub fn error(status: u16, kind: &str, reason: &str) -> Answer {
    let cause = json!({ "type": kind, "reason": reason });
    let body = json!({ "error": { "root_cause": [cause], "type": kind, "reason": reason }, "status": status });
    Answer::status(status).header("content-type", "application/json").body(body.to_string())
}

/// The connection is reset when it is dropped, which the error makes happen.
fn reset(connection: &BufReader<TcpStream>) -> io::Result<()> {
    connection.get_ref().set_zero_linger()?;
    Err(io::ErrorKind::ConnectionReset.into())
}
