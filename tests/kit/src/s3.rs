//! An S3 server in this process that follows a script: what a destination does on its best day, and on its worst.
//!
//! In: requests on a port of the loopback interface. Out: what S3 would answer, or what the script says, before or
//! after the object was stored. It checks what S3 checks of an upload: the signature, by the kit's own code, and the
//! hash of the body; and it remembers each object with the headers it came with and how often it was written.
//!
//! Speaks path style and the requests that Hydrant makes: put, head and get of an object, list of a bucket, and an
//! upload in parts from its beginning to its completion or abort. Never keeps a body that its script does not store.

mod objects;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use crate::http::Answer;
use crate::http::{Head, quote, read_body, read_head};
pub use objects::StoredObject;
use objects::{Objects, Verifier};

/// The bucket that exists.
pub const BUCKET: &str = "events";

/// Most bytes of an object. S3's own limit is 5 GiB, which no test should have to send.
pub const OBJECT_BYTES_MAX: usize = 6 << 20;

/// The region that signatures must name.
pub const REGION: &str = "us-east-1";

/// The access key that is known.
pub const ACCESS_KEY_ID: &str = "conformance-access-key-id";

/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "conformance-secret-access-key";

/// What the server does with the uploads that come from now on.
#[derive(Clone, Debug, Default)]
pub enum Script {
    /// What S3 does.
    #[default]
    Serve,
    /// Reads the request, stores nothing, answers this.
    Answer(Answer),
    /// Answers this as soon as the head of the request is there, and takes in what still comes, as S3 does with a
    /// request that it refuses.
    AnswerEarly(Answer),
    /// Stores the object, then answers this instead of its success.
    StoreThenAnswer(Answer),
    /// Reads the request, stores nothing, resets the connection.
    Reset,
    /// Stores the object, then resets the connection.
    StoreThenReset,
    /// Reads the head of the request and does nothing more.
    Stall,
    /// Stores the object and answers, a byte in each interval.
    StoreThenTrickle(Duration),
    /// Does not know `If-None-Match` on an upload: 501 where it is asked for, else as S3.
    Unconditional,
    /// Answers with the request's own headers and the beginning of its body in an error document, as a careless store
    /// would.
    Echo,
}

/// A request that a script can be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// An object in one request.
    #[default]
    Put,
    /// The beginning of an upload in parts.
    Begin,
    /// A part of one.
    Part,
    /// Its completion: where the object is stored.
    Complete,
    /// Everything else, which no script is for.
    Other,
}

impl Step {
    fn of(head: &Head) -> Self {
        match (head.method.as_str(), head.has("uploadId")) {
            ("PUT", true) => Self::Part,
            ("PUT", false) => Self::Put,
            ("POST", true) => Self::Complete,
            ("POST", false) if head.has("uploads") => Self::Begin,
            _ => Self::Other,
        }
    }
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct ScriptedS3 {
    address: SocketAddr,
    state: Arc<State>,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<(Step, Script)>,
    objects: Mutex<Objects>,
    uploads: AtomicU64,
}

impl ScriptedS3 {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Chooses what happens to uploads whose head arrives from now on.
    pub fn follow(&self, script: Script) {
        self.follow_at(Step::Put, script);
    }

    /// Chooses what happens at one step of uploads from now on; the others are served.
    pub fn follow_at(&self, step: Step, script: Script) {
        *lock(&self.state.script) = (step, script);
    }

    /// Uploads in parts that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        lock(&self.state.objects).open_uploads()
    }

    /// Leaves an upload in parts under `key`, as a process does that dies on the way.
    pub fn leave_upload(&self, key: &str) {
        lock(&self.state.objects).leave_upload(key);
    }

    /// How many uploads were begun, whatever became of them.
    pub fn uploads(&self) -> u64 {
        self.state.uploads.load(Ordering::Relaxed)
    }

    /// The object under `key`.
    pub fn object(&self, key: &str) -> Option<StoredObject> {
        lock(&self.state.objects).get(key).cloned()
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.state.objects).keys()
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
    let step = Step::of(&head);
    if step == Step::Other {
        let answer = lock(&state.objects).other(&head);
        return send(connection, &head, &answer, Duration::ZERO).await;
    }
    if matches!(step, Step::Put | Step::Begin) {
        state.uploads.fetch_add(1, Ordering::Relaxed);
    }
    let (at, script) = lock(&state.script).clone();
    let script = if at == step { script } else { Script::Serve };
    if matches!(script, Script::Stall) {
        return std::future::pending().await;
    }
    if let Script::AnswerEarly(answer) = &script {
        send(connection, &head, answer, Duration::ZERO).await?;
        tokio::io::copy(connection, &mut tokio::io::sink()).await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let body = read_body(connection, &head).await?;
    let store = || {
        let verified = Verifier::check(&head, &body);
        verified.map_or_else(|refusal| refusal, |()| lock(&state.objects).take(step, &head, &body))
    };
    let (answer, interval) = match script {
        Script::Answer(answer) => (answer, Duration::ZERO),
        Script::StoreThenAnswer(answer) => {
            store();
            (answer, Duration::ZERO)
        }
        Script::StoreThenReset => {
            store();
            return reset(connection);
        }
        Script::Reset => return reset(connection),
        Script::StoreThenTrickle(interval) => (store(), interval),
        Script::Unconditional if head.header("if-none-match").is_some() => {
            (Answer::error(501, "NotImplemented"), Duration::ZERO)
        }
        Script::Echo => {
            let quoted = quote(&head, &body);
            let document = format!("<Error><Code>AccessDenied</Code><Message>{quoted}</Message></Error>");
            (Answer::status(403).body(document), Duration::ZERO)
        }
        Script::Serve | Script::Unconditional | Script::Stall | Script::AnswerEarly(_) => (store(), Duration::ZERO),
    };
    send(connection, &head, &answer, interval).await
}

async fn send(
    connection: &mut BufReader<TcpStream>,
    head: &Head,
    answer: &Answer,
    interval: Duration,
) -> io::Result<()> {
    let bytes = answer.to_bytes(head.method == "HEAD");
    if interval.is_zero() {
        return connection.write_all(&bytes).await;
    }
    for byte in bytes {
        tokio::time::sleep(interval).await;
        connection.write_all(&[byte]).await?;
    }
    Ok(())
}

/// The connection is reset when it is dropped, which the error makes happen.
fn reset(connection: &BufReader<TcpStream>) -> io::Result<()> {
    connection.get_ref().set_zero_linger()?;
    Err(io::ErrorKind::ConnectionReset.into())
}
