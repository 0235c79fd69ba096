//! The server under torture and bench: the real binary on a free loopback port, with a data directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Ended, Life, Process, ProcessId, free_port, http_get, http_status, wait_until};
use crate::services::Addresses;

/// How long a start may take: recovery reads what is left, the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a stop may take beyond the server's own period of grace.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// The access key of the server's only caller.
pub(crate) const ACCESS_KEY_ID: &str = "torture";

/// Its secret. It guards nothing: the server listens on loopback and holds test data.
pub(crate) const SECRET: &str = "torture-secret";

/// Where a server runs and with what.
pub(crate) struct Node {
    program: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    port: u16,
    addresses: Addresses,
    syncs: Syncs,
    process: Option<Process>,
}

/// Whether a server's fsyncs reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// As they do for everybody.
    Real,
    /// They succeed and do nothing.
    Skipped,
}

impl Node {
    /// Prepares a server in a folder; `streams` is the rest of its YAML: more lines of `server:` if there are any, then
    /// `stores:` and `streams:`. Starts nothing.
    ///
    /// # Errors
    /// When the configuration cannot be written or no port is free.
    pub(crate) fn new(programs: &Path, folder: &Path, streams: &str, addresses: &Addresses) -> Result<Self> {
        let port = free_port()?;
        let node = Self {
            program: programs.join("hydrant"),
            folder: folder.to_owned(),
            data: folder.join("data"),
            port,
            addresses: addresses.clone(),
            syncs: Syncs::Real,
            process: None,
        };
        let server = format!(
            "server:\n  listen: 127.0.0.1:{port}\n  credentials:\n    - access_key_id: {ACCESS_KEY_ID}\n      \
             secret_access_key: {{ env: HYDRANT_SECRET }}\n"
        );
        fs::write(node.config(), server + streams).context("write the server's configuration")?;
        Ok(node)
    }

    /// The same server with or without real fsyncs.
    pub(crate) fn with(self, syncs: Syncs) -> Self {
        Self { syncs, ..self }
    }

    /// The same server with its data directory elsewhere.
    pub(crate) fn with_data(self, data: PathBuf) -> Self {
        Self { data, ..self }
    }

    /// Starts it and waits until it takes records. Its output is appended to `server.log`.
    ///
    /// # Errors
    /// When it ends instead or takes too long; the end of its log stands in the error.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same with more environment variables.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`has_killed_itself`](Self::has_killed_itself) tells one that was meant.
    pub(crate) fn start_with(&mut self, variables: &[(&str, String)]) -> Result<()> {
        let mut command = match self.syncs {
            Syncs::Real => self.command(&self.program),
            Syncs::Skipped => {
                // Not the file that we were started from: a build may have replaced it.
                let mut command = self.command(&self.program.with_file_name("xtask"));
                command.arg("without-fsync").arg(&self.program);
                command
            }
        };
        command.arg("run").arg(self.config()).arg("--data").arg(&self.data);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn("hydrant", command, &self.folder.join("server.log"), Life::WithUs)?;
        let process = self.process.insert(process);
        process.wait_ready(READY_WITHIN, || http_status(self.port, "/ready") == Some(200))
    }

    /// Waits until it kills itself at a crash point; whether it did so in time.
    ///
    /// # Errors
    /// When it ended in any other way.
    pub(crate) fn has_killed_itself(&mut self, within: Duration) -> Result<bool> {
        let Some(process) = &mut self.process else { return Ok(false) };
        match process.ended(within)? {
            None => Ok(false),
            Some(Ended::Killed) => {
                self.process = None;
                Ok(true)
            }
            Some(Ended::Otherwise(how)) => bail!("hydrant was to kill itself and ended with {how}"),
        }
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or not with success.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.id().signal(rustix::process::Signal::TERM);
        if !wait_until(STOPPED_WITHIN, || !process.id().is_running()) {
            bail!("hydrant does not follow SIGTERM");
        }
        match process.wait()? {
            status if status.success() => Ok(()),
            status => bail!("hydrant was asked to stop and ended with {status}"),
        }
    }

    /// Has it deliver all it holds; returns when nothing is owed any more.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn drain(&self) -> Result<()> {
        self.call(&["drain", "--data"])
    }

    /// Reads all it left on disk; it must not be running.
    ///
    /// # Errors
    /// When something is damaged.
    pub(crate) fn verify(&self) -> Result<()> {
        self.call(&["log", "verify"])
    }

    fn call(&self, words: &[&str]) -> Result<()> {
        let output = self.command(&self.program).args(words).arg(&self.data).output().context("start hydrant")?;
        if !output.status.success() {
            let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("hydrant {}: {}\n{out}{error}", words.join(" "), output.status);
        }
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).envs(&self.addresses).env("HYDRANT_SECRET", SECRET);
        command
    }

    /// Its process, while it runs.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        self.process.as_ref().map(Process::id)
    }

    /// Where its API listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The text of its `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn metrics(&self) -> Result<String> {
        http_get(self.port, "/metrics").map(|(_, text)| text).context("the server does not answer")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("hydrant.yaml")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}

/// A bucket of MinIO that exists for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    /// We may write to it.
    Main,
    /// We may read it.
    Denied,
}

impl Bucket {
    /// The variable with its name.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Main => "HYDRANT_TEST_S3_BUCKET",
            Self::Denied => "HYDRANT_TEST_S3_BUCKET_DENIED",
        }
    }

    /// What the variables with the keys of a user start with, who has just these rights.
    fn user(self) -> &'static str {
        match self {
            Self::Main => "HYDRANT_TEST_S3",
            Self::Denied => "HYDRANT_TEST_S3_FENCED",
        }
    }
}

/// The `stores:` that both torture and bench write to: a bucket of MinIO and folders.
pub(crate) fn bucket(name: &str, addresses: &Addresses) -> Result<String> {
    bucket_as(name, Bucket::Main, None, addresses)
}

/// A bucket of MinIO, perhaps through another address.
pub(crate) fn bucket_as(name: &str, bucket: Bucket, through: Option<String>, addresses: &Addresses) -> Result<String> {
    let address = |name: &str| addresses.get(name).cloned().with_context(|| format!("{name} is not known"));
    let endpoint = through.map_or_else(|| address("HYDRANT_TEST_S3_ENDPOINT"), Ok)?;
    let (user, bucket) = (bucket.user(), address(bucket.variable())?);
    Ok(format!(
        "  {name}:\n    s3:\n      bucket: {bucket}\n      endpoint: \"{endpoint}\"\n      region: us-east-1\n      \
         path_style: true\n      access_key_id: {{ env: {user}_ACCESS_KEY }}\n      \
         secret_access_key: {{ env: {user}_SECRET_KEY }}\n"
    ))
}

/// A store that is a folder.
pub(crate) fn folder(name: &str, path: &Path) -> String {
    format!("  {name}:\n    file: {{ path: {:?} }}\n", path.display().to_string())
}
