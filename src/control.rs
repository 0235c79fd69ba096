//! The control socket: how a command on the same machine talks to a running server.
//!
//! In: one JSON request per connection, on a Unix socket in the data directory that only its owner can open. Out:
//! JSON lines; progress while the work goes on, and one last line that says how it ended. Nothing here is reachable
//! from the network.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::dead_letters::{Order, Tally};

/// The socket's name in the data directory.
const NAME: &str = "control.sock";
/// Only the server's own user, and root, may connect.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Callers that may wait to be talked to; there is rarely more than one.
const BACKLOG: u32 = 16;
/// Longest request; the commands are a few words.
const REQUEST_BYTES_MAX: u64 = 4 << 10;
/// How long a client may take to say what it wants.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a client may take to read a line. One that does not is taken for gone.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a server can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Seal and send everything that is acknowledged now.
    Drain {
        /// Take no more records, and stop when everything is sent.
        stop: bool,
    },
    /// Put dead letters of a stream back.
    Redrive {
        /// The stream.
        stream: String,
        /// Which.
        order: Order,
    },
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It goes on.
    Progress {
        /// The streams that still owe something, by name.
        waiting: Vec<Waiting>,
    },
    /// A redrive goes on.
    Redriving(Tally),
    /// It is done. The last line.
    Done,
    /// A redrive has ended. The last line.
    Redriven {
        /// What was done.
        tally: Tally,
        /// Why not all of it, if not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        early: Option<Early>,
    },
    /// It cannot be done. The last line.
    Failed {
        /// A sentence.
        message: String,
    },
}

/// Why a redrive ended before all was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// For programs.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// What a stream still owes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its name.
    pub stream: String,
    /// Records that are acknowledged and not settled.
    pub records: u64,
    /// Batches of them that are sealed already.
    pub batches: u64,
    /// Why its destination does not take them, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl fmt::Display for Waiting {
    /// `web: 1204 records, 3 batches sealed of them`, and what ails it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, records, batches, why } = self;
        write!(f, "{stream}: {} waiting, {} sealed", counted(*records, "record"), counted(*batches, "batch"))?;
        why.as_ref().map_or(Ok(()), |why| write!(f, "; {why}"))
    }
}

/// A number with its noun: `1 record`, `3 batches`.
pub fn counted(number: u64, noun: &str) -> String {
    let ending = match number {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// The server's end.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    // Keeps the address in force, which goes through this open folder.
    _dir: File,
    path: PathBuf,
}

/// A request with the way back to whoever made it.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub request: Request,
    stream: UnixStream,
}

impl Listener {
    /// Opens the socket in a data directory that this process has locked. A leftover of a dead process is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let path = data.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (dir, address) = short_address(data)?;
        // Set before there is a name: Linux makes the file with the mode of the socket, so nobody else could ever
        // connect. Set afterwards, there would be a moment in which they could.
        let socket = UnixSocket::new_stream()?;
        fchmod(&socket, MODE)?;
        socket.bind(address)?;
        Ok(Self { socket: socket.listen(BACKLOG)?, _dir: dir, path })
    }

    /// The next request. Cancel safe: a dropped call loses at most a client that was still talking.
    pub async fn next(&self) -> Call {
        loop {
            // A client that is slow, gone or makes no sense is no concern of the server's.
            let Ok((mut stream, _)) = self.socket.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await; // out of file descriptors: let some go
                continue;
            };
            if let Ok(Ok(request)) = tokio::time::timeout(REQUEST_WAIT_MAX, read_request(&mut stream)).await {
                return Call { request, stream };
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap_or_default(); // the next start removes what is left
    }
}

impl Call {
    /// Tells the caller. Says whether there still is one.
    pub async fn reply(&mut self, reply: &Reply) -> bool {
        let Ok(mut line) = serde_json::to_vec(reply) else { return false };
        line.push(b'\n');
        let written = tokio::time::timeout(REPLY_WAIT_MAX, self.stream.write_all(&line)).await;
        matches!(written, Ok(Ok(())))
    }
}

/// Asks the server that runs on `data`, and passes each line of its answer to `each` until the last.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] when no server runs there;
/// [`io::ErrorKind::UnexpectedEof`] when it ends before it has answered.
pub async fn ask(data: &Path, request: Request, mut each: impl FnMut(&Reply)) -> io::Result<Reply> {
    let (_dir, address) = short_address(data)?;
    let mut stream = UnixStream::connect(address).await?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    if line.len() as u64 > REQUEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the call is longer than a server takes"));
    }
    stream.write_all(&line).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        let reply: Reply = serde_json::from_str(&line)?;
        each(&reply);
        if !matches!(reply, Reply::Progress { .. } | Reply::Redriving(_)) {
            return Ok(reply);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn read_request(stream: &mut UnixStream) -> io::Result<Request> {
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// The socket's address by way of an open folder: a socket address holds only about a hundred bytes, and data
/// directories lie deeper than that.
fn short_address(data: &Path) -> io::Result<(File, PathBuf)> {
    let dir = File::open(data)?;
    let address = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()));
    Ok((dir, address))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_request_gets_its_progress_and_its_end() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("a".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = Listener::bind(&deep).unwrap();
        let why = Some("access denied".to_owned());
        let progress =
            Reply::Progress { waiting: vec![Waiting { stream: "web".to_owned(), records: 7, batches: 1, why }] };
        let server = async {
            let mut call = listener.next().await;
            assert_eq!(call.request, Request::Drain { stop: true });
            assert!(call.reply(&progress).await);
            assert!(call.reply(&Reply::Done).await);
        };
        let mut seen = Vec::new();
        let client = ask(&deep, Request::Drain { stop: true }, |reply| seen.push(reply.clone()));
        let (end, ()) = tokio::join!(client, server);
        assert_eq!(end.unwrap(), Reply::Done);
        assert_eq!(seen, [progress.clone(), Reply::Done]);
        let mode = std::fs::metadata(deep.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_waits_is_told_in_words() {
        let waiting = |records, batches, why: Option<&str>| {
            Waiting { stream: "web".to_owned(), records, batches, why: why.map(str::to_owned) }.to_string()
        };
        assert_eq!(waiting(1204, 3, None), "web: 1204 records waiting, 3 batches sealed");
        assert_eq!(waiting(1, 1, Some("denied")), "web: 1 record waiting, 1 batch sealed; denied");
        assert_eq!(waiting(7, 0, None), "web: 7 records waiting, 0 batches sealed");
    }

    #[tokio::test]
    async fn without_a_server_the_caller_is_told() {
        let data = tempfile::tempdir().unwrap();
        let error = ask(data.path(), Request::Drain { stop: false }, |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        drop(Listener::bind(data.path()).unwrap());
        assert_eq!(std::fs::metadata(data.path().join(NAME)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_client_that_makes_no_sense_does_not_stop_the_next() {
        let data = tempfile::tempdir().unwrap();
        let listener = Listener::bind(data.path()).unwrap();
        let (_dir, address) = short_address(data.path()).unwrap();
        let mut odd = UnixStream::connect(address).await.unwrap();
        odd.write_all(b"hello\n").await.unwrap();
        let (call, asked) = tokio::join!(listener.next(), async {
            tokio::time::timeout(Duration::from_millis(200), ask(data.path(), Request::Drain { stop: false }, |_| {}))
                .await
        });
        assert_eq!(call.request, Request::Drain { stop: false });
        assert!(asked.is_err(), "nobody answered it");
    }
}
