//! The two processes of the test kit as we drive them: the load generator and the oracle. Both end when their stdin
//! does, so neither outlives us, however we end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::node::{ACCESS_KEY_ID, SECRET};
use crate::services::Addresses;

/// Time between two looks of the oracle.
pub(crate) const LOOK: Duration = Duration::from_millis(300);

/// A process that runs until its stdin ends.
struct Fed {
    name: &'static str,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Fed {
    fn spawn(name: &'static str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { name, child, out })
    }

    /// The next line that it prints, without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line).with_context(|| format!("read from {}", self.name))?;
        Ok(line.trim().to_owned())
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().with_context(|| format!("{} has ended", self.name))?;
        stdin.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("write to {}", self.name))
    }

    /// Has it follow an order.
    fn obey(&mut self, order: &str) -> Result<()> {
        self.say(order)?;
        match self.line()?.as_str() {
            "ok" => Ok(()),
            other => bail!("{} does not follow {order:?}: {other:?}", self.name),
        }
    }

    /// Lets it end and gives back what it printed.
    fn finish(mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let mut printed = String::new();
        self.out.read_to_string(&mut printed)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}: {printed}", self.name);
        }
        Ok(printed)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Whoever finished it has waited already; else it ends now.
        drop(self.child.wait());
    }
}

/// The oracle, and our connection to it.
pub(crate) struct Oracle {
    _process: Fed,
    /// Where it listens.
    pub(crate) address: String,
    connection: BufReader<TcpStream>,
}

impl Oracle {
    /// Starts it with this plan.
    ///
    /// # Errors
    /// When it does not start or does not like the plan.
    pub(crate) fn start(programs: &Path, plan: &Path, addresses: &Addresses) -> Result<Self> {
        let mut command = Command::new(programs.join("hydrant-oracle"));
        command.arg("--plan").arg(plan).envs(addresses);
        let mut process = Fed::spawn("oracle", command)?;
        let address = process.line()?;
        let connection = TcpStream::connect(&address).with_context(|| format!("oracle at {address:?}"))?;
        Ok(Self { _process: process, address, connection: BufReader::new(connection) })
    }

    /// Has it read what is new; how many objects that were.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub(crate) fn poll(&mut self) -> Result<u64> {
        let answer = self.ask("poll")?;
        answer.strip_prefix("ok ").and_then(|count| count.parse().ok()).with_context(|| format!("oracle: {answer}"))
    }

    /// Its verdict by what it read so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn verdict(&mut self) -> Result<Value> {
        let answer = self.ask("verdict")?;
        serde_json::from_str(&answer).with_context(|| format!("oracle: {answer}"))
    }

    /// Its verdict on what lies in the places now, by what was promised at a moment, in nanoseconds since 1970.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub(crate) fn image(&mut self, moment: u64) -> Result<Value> {
        let answer = self.ask(&format!("image {moment}"))?;
        serde_json::from_str(&answer).with_context(|| format!("oracle: {answer}"))
    }

    /// Waits until nothing that was promised is missing: how long that took, or none when it did not happen.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub(crate) fn all_there(&mut self, within: Duration) -> Result<Option<Duration>> {
        let start = Instant::now();
        loop {
            self.poll()?;
            if self.verdict()?["total"]["lost"] == json!(0) {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > within {
                return Ok(None);
            }
            sleep(LOOK);
        }
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        self.connection.get_mut().write_all(format!("{question}\n").as_bytes())?;
        let mut answer = String::new();
        self.connection.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

/// The proxy that misbehaves when it is told to.
pub(crate) struct Proxy {
    process: Fed,
    address: String,
}

impl Proxy {
    /// Starts one in front of `http://HOST:PORT`; it passes everything on.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(programs: &Path, endpoint: &str) -> Result<Self> {
        let mut command = Command::new(programs.join("hydrant-proxy"));
        command.args(["--to", endpoint.trim_start_matches("http://").trim_end_matches('/')]);
        let mut process = Fed::spawn("proxy", command)?;
        let address = process.line()?;
        Ok(Self { process, address })
    }

    /// Chooses what happens to connections from now on.
    ///
    /// # Errors
    /// When it does not know the order, or is gone.
    pub(crate) fn order(&mut self, order: &str) -> Result<()> {
        self.process.obey(order)
    }

    /// Where it listens, as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens, `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

/// The load generator at work.
pub(crate) struct Load(Fed);

impl Load {
    /// Starts to put records that the oracle names, until [`finish`](Self::finish).
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(
        programs: &Path,
        endpoint: &str,
        oracle: &str,
        connections: usize,
        pause_ms: u64,
    ) -> Result<Self> {
        let mut command = load(programs, endpoint);
        command.args(["witnessed", "--oracle", oracle, "--connections-per-stream", &connections.to_string()]);
        command.args(["--pause-ms", &pause_ms.to_string()]);
        Fed::spawn("load", command).map(Self)
    }

    /// Stops it; its report.
    ///
    /// # Errors
    /// When it failed, or its report cannot be read.
    pub(crate) fn finish(self) -> Result<Value> {
        let printed = self.0.finish()?;
        serde_json::from_str(&printed).with_context(|| format!("load: {printed}"))
    }
}

/// Runs the load generator to its end with these words; its report.
///
/// # Errors
/// When it fails.
pub(crate) fn put(programs: &Path, endpoint: &str, words: &[&str]) -> Result<Value> {
    let output = load(programs, endpoint).args(words).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("load {}: {}", words.join(" "), output.status);
    }
    serde_json::from_slice(&output.stdout).context("report of the load generator")
}

/// Whether every stream takes a record now.
///
/// # Errors
/// When the load generator cannot start.
pub(crate) fn takes_records(programs: &Path, endpoint: &str, oracle: &str) -> Result<bool> {
    let mut probe = load(programs, endpoint);
    probe.args(["probe", "--oracle", oracle]).stdin(Stdio::null());
    Ok(probe.output().context("start the load generator")?.status.success())
}

fn load(programs: &Path, endpoint: &str) -> Command {
    let mut command = Command::new(programs.join("hydrant-load"));
    command.args(["--endpoint", endpoint, "--access-key-id", ACCESS_KEY_ID]).env("HYDRANT_SECRET", SECRET);
    command
}

/// What a receiver has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// How many requests came.
    pub(crate) requests: u64,
    /// How many different ids were taken.
    pub(crate) ids: u64,
    /// How many requests broke a rule of the protocol.
    pub(crate) violations: u64,
}

/// A strict receiver of the HTTP endpoint protocol, which misbehaves when it is told to.
pub(crate) struct Receiver {
    process: Fed,
    address: String,
}

impl Receiver {
    /// Starts one that takes everything and keeps the records of each request below `folder`.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(programs.join("hydrant-receiver"));
        command.arg("--folder").arg(folder);
        let mut process = Fed::spawn("receiver", command)?;
        let address = process.line()?;
        Ok(Self { process, address })
    }

    /// Chooses what happens to requests from now on.
    ///
    /// # Errors
    /// When it does not know the order, or is gone.
    pub(crate) fn order(&mut self, order: &str) -> Result<()> {
        self.process.obey(order)
    }

    /// What it has seen so far.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn seen(&mut self) -> Result<Seen> {
        self.process.say("count")?;
        let line = self.process.line()?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        match numbers.as_slice() {
            &[requests, ids, violations] => Ok(Seen { requests, ids, violations }),
            _ => bail!("the receiver has counted {line:?}"),
        }
    }

    /// Where it listens, as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}
