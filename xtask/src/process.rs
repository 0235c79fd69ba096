//! Processes that we start, watch and end, each known by its id and its start time, so that an id that was given to
//! somebody else in the meantime is never signalled.
//!
//! Linux only: start times come from `/proc`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::progress::say;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How often a wait says that it still waits.
const REMIND: Duration = Duration::from_secs(5);

/// How long a process may take to follow SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether a process ends with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is killed when we end, however we end.
    WithUs,
    /// It goes on when we end.
    Beyond,
}

/// A process by its id and its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
}

impl ProcessId {
    /// The process that has this id now, if any.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }

    /// Whether it still runs. A process that ended and was not waited for does not.
    pub(crate) fn is_running(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Asks it to end, waits, kills it when it does not. Nothing happens when it has ended already.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        if wait_until(PATIENCE, || !self.is_running()) {
            return;
        }
        say(&format!("process {} does not follow SIGTERM, kill it", self.pid));
        self.signal(Signal::KILL);
        wait_until(PATIENCE, || !self.is_running());
    }

    /// Sends a signal, if it still runs.
    pub(crate) fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_running()) {
            // It may end between the look and the signal, which is what we want of it.
            kill_process(pid, signal).ok();
        }
    }
}

/// Start time in clock ticks since boot; none when there is no such process or it is a zombie.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count fields from its end: the state is the first, the start time
    // the twentieth behind it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By SIGKILL, its own or another's.
    Killed,
    /// In another way.
    Otherwise(ExitStatus),
}

/// A process that we started. Dropping it stops it.
pub(crate) struct Process {
    name: String,
    child: Child,
    id: ProcessId,
    log: PathBuf,
    stop_on_drop: bool,
}

impl Process {
    /// Starts a command with an empty stdin, its output appended to `log`.
    ///
    /// # Errors
    /// When the program cannot start.
    pub(crate) fn spawn(name: &str, command: Command, log: &Path, life: Life) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let mut command = match life {
            Life::WithUs => dies_with_us(&command),
            Life::Beyond => command,
        };
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        if life == Life::Beyond {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id()).context("process id")?;
        let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
        Ok(Self { name: name.to_owned(), child, id, log: log.to_owned(), stop_on_drop: true })
    }

    /// Its identity.
    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits until `ready` is true.
    ///
    /// # Errors
    /// When the process ends first or the deadline passes; the end of its log stands in the error.
    pub(crate) fn wait_ready(&mut self, within: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        let mut remind = REMIND;
        while !ready() {
            if let Some(status) = self.child.try_wait().context("look at the process")? {
                bail!("{} ended before it was ready: {status}\n{}", self.name, self.log_tail());
            }
            if start.elapsed() > within {
                bail!("{} was not ready within {} s\n{}", self.name, within.as_secs(), self.log_tail());
            }
            if start.elapsed() > remind {
                say(&format!("{}: waiting, {} s of at most {} s", self.name, remind.as_secs(), within.as_secs()));
                remind += REMIND;
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits for its end; how it ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("wait for {}", self.name))
    }

    /// How it ended, if it does within this time.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn ended(&mut self, within: Duration) -> Result<Option<Ended>> {
        let mut ended = Ok(None);
        wait_until(within, || {
            ended = self.child.try_wait();
            !matches!(ended, Ok(None))
        });
        let ended = ended.with_context(|| format!("wait for {}", self.name))?;
        Ok(ended.map(|status| match status.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() => Ended::Killed,
            _ => Ended::Otherwise(status),
        }))
    }

    /// Kills it without a warning and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.id.signal(Signal::KILL);
        drop(self.child.wait());
    }

    /// Lets it go on when this value is dropped.
    pub(crate) fn leave_running(mut self) {
        self.stop_on_drop = false;
    }

    /// The end of its log.
    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!("-- end of {}\n{}", self.log.display(), lines.get(from..).unwrap_or_default().join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop_on_drop {
            self.id.stop();
            drop(self.child.wait());
        }
    }
}

/// The same command through `setpriv`, which asks the kernel to kill it when our main thread ends. So nothing is left
/// behind even when we are killed ourselves.
fn dies_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL"]);
    // A change of user forgets the wish, so it and the wish are one call.
    if command.get_program() != "setpriv" {
        wrapped.arg("--").arg(command.get_program());
    }
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Waits until a condition holds; false when it does not within the time.
pub(crate) fn wait_until(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > within {
            return false;
        }
        sleep(POLL);
    }
    true
}

/// A port of the loopback interface that nobody listens on. Somebody may take it before its user does.
///
/// # Errors
/// When no port is free.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The status of `GET path` on a loopback port; none when nobody answers within a second.
pub(crate) fn http_status(port: u16, path: &str) -> Option<u16> {
    http_get(port, path).map(|(status, _)| status)
}

/// Status and text of `GET path` on a loopback port; none when nobody answers within a second.
pub(crate) fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[allow(dead_code, reason = "for torture and bench")]
/// Whether somebody listens on a loopback port.
pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(1)).is_ok()
}

/// A folder for the data of what we start, removed when dropped.
///
/// Its name holds our process id, so that one left behind by a killed run is found and removed by the next.
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

const SCRATCH_PREFIX: &str = "hydrant-xtask-";

impl Scratch {
    /// Makes a folder in the system's temporary folder, and removes those of runs that have ended.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        Self::below(&std::env::temp_dir(), purpose)
    }

    /// The same in memory, where the machine has such a place.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn in_memory(purpose: &str) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory, purpose) } else { Self::new(purpose) }
    }

    fn below(temporary: &Path, purpose: &str) -> Result<Self> {
        sweep(temporary);
        let path = temporary.join(format!("{SCRATCH_PREFIX}{}-{purpose}-{}", std::process::id(), nonce()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, keep: false })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder, and marks it so that no later run removes it.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub(crate) fn keep(mut self) -> Result<PathBuf> {
        fs::write(self.path.join(KEPT), "").context("mark the folder as kept")?;
        self.keep = true;
        Ok(self.path.clone())
    }
}

/// The file that says that a folder outlives the run that made it.
const KEPT: &str = "kept";

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// Tells folders of one process apart.
fn nonce() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)?.split('-').next()?.parse().ok());
        let kept = entry.path().join(KEPT).try_exists().unwrap_or(true);
        if owner.is_some_and(|owner: i32| ProcessId::of(owner).is_none()) && !kept {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests;
