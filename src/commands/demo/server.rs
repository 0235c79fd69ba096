//! The server of the demo: this very program, told to `run`. Dropping it stops it.

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::client::Connection;
use super::folder::Folder;
use crate::commands::Failure;

/// A second is usual; a slow disk or a busy machine takes longer.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// The settings' grace period and a little more.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How often a process is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A running server.
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits until it takes records.
    ///
    /// # Errors
    /// When it does not start or is not ready in time; what it said lies in the folder.
    pub(super) async fn start(folder: &Folder) -> Result<Self, Failure> {
        let failed = |error: &std::io::Error| Failure::caused("start the server", error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let log = File::create(folder.server_log()).map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.arg("run").arg(folder.settings());
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Self { child: command.spawn().map_err(|error| failed(&error))? };
        let told = |message: String| Failure::failed(message).at(folder.server_log().display());
        let ready = timeout(READY_WITHIN, async {
            while !is_ready(folder).await {
                if let Some(status) = server.child.try_wait().map_err(|error| failed(&error))? {
                    return Err(told(format!("the server did not start: {status}")));
                }
                sleep(POLL).await;
            }
            Ok(())
        });
        match ready.await {
            Ok(outcome) => outcome.map(|()| server),
            Err(_) => Err(told(format!("the server was not ready within {} s", READY_WITHIN.as_secs()))),
        }
    }

    /// Asks it to stop, as SIGTERM does, and waits.
    ///
    /// # Errors
    /// When it does not stop in time or ends badly.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        let ended: Result<std::io::Result<ExitStatus>, _> = timeout(STOP_WITHIN, async {
            loop {
                match self.child.try_wait() {
                    Ok(None) => sleep(POLL).await,
                    Ok(Some(status)) => return Ok(status),
                    Err(error) => return Err(error),
                }
            }
        })
        .await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::failed(format!("the server ended badly: {status}"))),
            Ok(Err(error)) => Err(Failure::caused("wait for the server", &error)),
            Err(_) => Err(Failure::failed(format!("the server did not stop within {} s", STOP_WITHIN.as_secs()))),
        }
    }

    fn signal(&mut self, signal: Signal) {
        // Not after it was waited for: its id may be somebody else's by then.
        if let (Ok(None), Ok(id)) = (self.child.try_wait(), i32::try_from(self.child.id()))
            && let Some(pid) = Pid::from_raw(id)
        {
            kill_process(pid, signal).ok();
        }
    }
}

impl Drop for Server {
    /// Ends it at once. That is no less safe than a stop: what it acknowledged lies on disk.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().ok();
    }
}

async fn is_ready(folder: &Folder) -> bool {
    let Ok(mut connection) = Connection::open(folder.address()).await else { return false };
    let request = hyper::Request::get("/ready").header("host", folder.address().to_string());
    let Ok(request) = request.body(Empty::<Bytes>::new()) else { return false };
    connection.status(request).await.is_ok_and(|status| status.is_success())
}
