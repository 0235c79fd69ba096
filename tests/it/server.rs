//! The real binary under test: a folder of its own, a free port, and an end to it when the test ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hydrant_kit::client::{Answer, Connection};
use hydrant_kit::load::put::{Outcome, Producer, Put, Target, outcome};

/// The only caller of the servers under test, unless a test says otherwise.
pub(crate) const ACCESS_KEY_ID: &str = "it";
/// The caller's secret.
pub(crate) const SECRET: &str = "it-secret";

/// How long anything may take that should take a second. The machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A server. Dropping it kills it and removes its folder.
pub(crate) struct Server {
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    /// Where operators ask, if not where clients do.
    admin: Option<u16>,
    /// What clients must trust, if it speaks HTTPS.
    certificate: Option<PathBuf>,
    variables: Vec<(String, String)>,
}

impl Server {
    /// A server with these `stores:` and `streams:`, ready. In the YAML `$FOLDER` stands for the server's own folder.
    #[track_caller]
    pub(crate) fn start(yaml: &str) -> Self {
        Self::start_with(yaml, &[])
    }

    /// The same with more environment variables.
    #[track_caller]
    pub(crate) fn start_with(yaml: &str, variables: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(yaml, variables);
        server.run();
        server
    }

    /// Writes the configuration and starts nothing.
    pub(crate) fn prepare(yaml: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let head = format!(
            "server:\n  listen: 127.0.0.1:{port}\n  grace: 5s\n  credentials:\n    - access_key_id: {ACCESS_KEY_ID}\n      \
             secret_access_key: {{ env: HYDRANT_IT_SECRET }}\n"
        );
        let yaml = head + &yaml.replace("$FOLDER", folder.path().to_str().unwrap());
        fs::write(folder.path().join("hydrant.yaml"), yaml).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { child: None, folder, port, admin: None, certificate: None, variables }
    }

    /// Has it speak HTTPS with a certificate and a key in its folder, and answer operators on a port of their own.
    pub(crate) fn use_https(&mut self, certificate: &str, key: &str) {
        let admin = free_port();
        let head = format!(
            "server:\n  admin: 127.0.0.1:{admin}\n  tls: {{ certificate: {certificate}, private_key: {{ file: {key} }} }}\n"
        );
        let yaml = fs::read_to_string(self.path("hydrant.yaml")).unwrap();
        fs::write(self.path("hydrant.yaml"), yaml.replacen("server:\n", &head, 1)).unwrap();
        self.admin = Some(admin);
        self.certificate = Some(self.path(certificate));
    }

    /// Starts it and waits until it takes records.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts it.
    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command(&["run"]);
        command.arg(self.path("hydrant.yaml")).arg("--data").arg(self.data());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until it takes records.
    #[track_caller]
    fn wait_ready(&mut self) {
        self.wait_for("/ready");
    }

    /// Starts it and waits until it answers; it need not have a stream that takes records.
    #[track_caller]
    pub(crate) fn run_until_healthy(&mut self) {
        self.spawn();
        self.wait_for("/health");
    }

    #[track_caller]
    fn wait_for(&mut self, path: &str) {
        wait_until(path, || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("hydrant ended with {status}\n{}", self.log());
            }
            self.get(path).is_some_and(|answer| answer.status == 200)
        });
    }

    /// Takes this configuration instead, except for the address it listens on.
    pub(crate) fn use_configuration(&self, yaml: &str) {
        let listen = format!("  listen: 127.0.0.1:{}\n", self.port);
        let mut own: String = yaml
            .lines()
            .filter(|line| !line.trim_start().starts_with("listen:"))
            .map(|line| [line, "\n"].concat())
            .collect();
        match own.find("server:\n") {
            Some(at) => own.insert_str(at + "server:\n".len(), &listen),
            None => own.push_str(&["server:\n", &listen].concat()),
        }
        fs::write(self.path("hydrant.yaml"), own).unwrap();
    }

    /// Has this environment variable from its next start on.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.forget_variable(name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Has no such environment variable from its next start on.
    pub(crate) fn forget_variable(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    /// A call of the program, in this server's folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hydrant"));
        command.args(words).current_dir(self.folder.path()).env("HYDRANT_IT_SECRET", SECRET);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Reads all it left on disk; it must not be running.
    pub(crate) fn verify(&self) -> Output {
        self.command(&["log", "verify"]).arg(self.data()).output().unwrap()
    }

    /// Has it deliver all it holds.
    #[track_caller]
    pub(crate) fn drain(&self) {
        let output = self.command(&["drain", "--data"]).arg(self.data()).output().unwrap();
        assert!(output.status.success(), "drain: {output:?}\n{}", self.log());
    }

    /// Asks it to stop and waits for its end; how it ended and how long that took.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.ask_to_stop();
        (self.wait_for_end(), start.elapsed())
    }

    /// Waits for its end; how it ended.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let mut ended = None;
        wait_until("the end after SIGTERM", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Where its API listens.
    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What its clients must trust, if it speaks HTTPS.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where its output goes.
    fn log_file(&self) -> PathBuf {
        self.path("server.log")
    }

    /// What it wrote to stdout and stderr so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The answer to an operator's GET, if there is one.
    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        let operators = format!("http://127.0.0.1:{}", self.admin.unwrap_or(self.port));
        let mut connection = Connection::to(&operators, PATIENCE).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", connection.host());
        connection.send(head.as_bytes(), b"").ok()
    }

    /// What `/ready` says of a stream.
    #[track_caller]
    pub(crate) fn state_of(&self, stream: &str) -> serde_json::Value {
        let ready = self.get("/ready").expect("an answer");
        let streams: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
        streams.as_array().unwrap().iter().find(|entry| entry["stream"] == stream).expect("the stream").clone()
    }

    /// Puts records as one request; all must be stored.
    #[track_caller]
    pub(crate) fn put(&self, stream: &str, records: &[&[u8]]) {
        let put = Put::batch(stream, records.iter().copied());
        let answer = self.producer().send(&put).unwrap();
        let said = outcome(&put, records.len(), &answer);
        let stored = matches!(&said, Outcome::Answered(entries)
            if entries.iter().all(|entry| *entry == hydrant_kit::load::put::Entry::Stored));
        assert!(stored, "{said:?}\n{}", self.log());
    }

    /// A connection for signed puts.
    pub(crate) fn producer(&self) -> Producer {
        Producer::new(&self.target()).unwrap()
    }

    /// Where records are put, and as whom.
    pub(crate) fn target(&self) -> Target {
        Target {
            endpoint: self.endpoint(),
            region: "us-east-1".to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET.to_owned(),
        }
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("-- the server's log\n{}", self.log());
        }
    }
}

/// A loopback port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// All objects below a folder: their paths in it, in order, and their bytes. What begins with a dot is
/// none.
pub(crate) fn objects_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let key = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push((key, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
