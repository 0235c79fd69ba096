//! The server of the demo: this very program, told to `run`. Dropping it stops it.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

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
    address: SocketAddr,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// It cannot be started or looked at.
    #[error("start the server")]
    System(#[from] io::Error),
    /// It ended by itself, as it does when its address is taken.
    #[error("the server did not start: {0}")]
    Ended(ExitStatus),
    /// It takes too long.
    #[error("the server was not ready within {} s", READY_WITHIN.as_secs())]
    TimedOut,
}

impl Server {
    /// Starts it and waits until it says that it takes records. Whether somebody else answers at its address does not
    /// count.
    ///
    /// # Errors
    /// See [`StartError`]; what it said lies in the folder.
    pub(super) async fn start(folder: &Folder) -> Result<Self, StartError> {
        let log = File::create(folder.server_log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg(folder.settings()).env_remove("HYDRANT_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Self { child: command.spawn()?, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let ready = timeout(READY_WITHIN, async {
            loop {
                if let Some(address) = address_in(&fs::read_to_string(folder.server_log())?) {
                    return Ok(address);
                }
                if let Some(status) = server.child.try_wait()? {
                    return Err(StartError::Ended(status));
                }
                sleep(POLL).await;
            }
        });
        server.address = ready.await.unwrap_or(Err(StartError::TimedOut))?;
        Ok(server)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to stop, as SIGTERM does, and waits.
    ///
    /// # Errors
    /// When it does not stop in time or ends badly.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        let ended: Result<io::Result<ExitStatus>, _> = timeout(STOP_WITHIN, async {
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

/// The address that a ready server names in its log.
fn address_in(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains(": ready "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("address=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_once_the_server_is_ready() {
        let opening = "2026-11-21T13:38:59Z  INFO hydrant::assemble: streams are open streams=1\n";
        let ready = "2026-11-21T13:38:59Z  INFO hydrant::commands::run: ready address=127.0.0.1:4573 streams=1\n";
        assert_eq!(address_in(opening), None);
        assert_eq!(address_in(&[opening, ready].concat()), Some(SocketAddr::from(([127, 0, 0, 1], 4573))));
    }
}
