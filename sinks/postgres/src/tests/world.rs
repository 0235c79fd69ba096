//! A table of its own in a real PostgreSQL, a role of its own that writes, and a proxy on the way.
//!
//! All that is not the sink goes through `psql`, which shares no code with it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::duration::TimeSpan;
use hydrant_core::{BatchId, Fault, PartitionKeys, Piece, PieceId, PieceSink, Position, Timestamp, Verdict};
use hydrant_kit::proxy::Proxy;
use hydrant_kit::random::Random;

use super::password;
use crate::sink::Patience;
use crate::{PostgresSink, SinkConfig};

/// The password of the role that writes.
pub(super) const PASSWORD: &str = "a-password-that-nobody-may-see";

/// Short enough for tests, long enough for a busy machine to make progress.
pub(super) const PATIENCE: Patience = Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(1) };

pub(super) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by cargo xtask test"))
}

/// A schema and a role with the same name, which nobody else uses.
pub(super) struct Ground {
    pub(super) name: String,
    pub(super) proxy: Proxy,
    pub(super) salt: u64,
}

impl Ground {
    /// With a table `events` made by these columns.
    pub(super) async fn new(columns: &str) -> Self {
        let salt = RandomState::new().hash_one(0);
        let name = format!("w{salt:016x}");
        let address = format!("{}:{}", variable("HYDRANT_TEST_POSTGRES_HOST"), variable("HYDRANT_TEST_POSTGRES_PORT"));
        let address = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
        let ground = Self { proxy: Proxy::start(address).await.unwrap(), name, salt };
        let name = &ground.name;
        ground
            .psql(&format!(
                "CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; CREATE SCHEMA {name} AUTHORIZATION {name}; \
                 SET ROLE {name}; CREATE TABLE {name}.events ({columns});"
            ))
            .unwrap();
        ground
    }

    /// A configuration that writes raw records to `events`.
    pub(super) fn config(&self) -> SinkConfig {
        let address = self.proxy.address();
        let config = serde_json::json!({
            "host": address.ip(), "port": address.port(), "database": variable("HYDRANT_TEST_POSTGRES_DATABASE"),
            "user": self.name, "password": { "env": "PASSWORD" }, "table": format!("{}.events", self.name),
        });
        let config: SinkConfig = serde_json::from_value(config).unwrap();
        let seconds = |seconds| TimeSpan(Duration::from_secs(seconds));
        SinkConfig { statement_timeout: seconds(3), lock_timeout: seconds(1), ..config }
    }

    pub(super) fn config_with(&self, change: &serde_json::Value) -> SinkConfig {
        let mut config = serde_json::to_value(self.config()).unwrap();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    pub(super) fn sink(&self, config: &SinkConfig) -> PostgresSink {
        PostgresSink::with(config, &self.name, &password(PASSWORD), PATIENCE).unwrap()
    }

    /// What `psql` says to statements: one line for each row, columns parted by `|`.
    #[expect(clippy::unused_self, reason = "reads as what is asked: the ground of a test")]
    pub(super) fn psql(&self, statements: &str) -> Result<String> {
        let mut child = Self::spawn_psql()?;
        child.stdin.take().context("its input")?.write_all(statements.as_bytes())?;
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {complaint}");
        let said = String::from_utf8(output.stdout)?;
        Ok(said.strip_suffix('\n').unwrap_or(&said).to_owned())
    }

    /// One value that `psql` is told.
    pub(super) fn one(&self, query: &str) -> String {
        self.psql(&format!("SET search_path = {}; {query};", self.name)).unwrap()
    }

    /// A `psql` that reads statements from its input, without a limit of time.
    pub(super) fn spawn_psql() -> Result<Child> {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-"]);
        for (setting, name) in [
            ("PGHOST", "HOST"),
            ("PGPORT", "PORT"),
            ("PGUSER", "USER"),
            ("PGPASSWORD", "PASSWORD"),
            ("PGDATABASE", "DATABASE"),
        ] {
            command.env(setting, variable(&format!("HYDRANT_TEST_POSTGRES_{name}")));
        }
        command.env("PGCLIENTENCODING", "UTF8").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("start psql")
    }
}

impl Drop for Ground {
    /// What a test leaves is test data on a test server; so failing to remove it fails nothing.
    fn drop(&mut self) {
        let name = &self.name;
        let _removed = self.psql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'; \
             DROP SCHEMA {name} CASCADE; DROP OWNED BY {name}; DROP ROLE {name};"
        ));
    }
}

impl Ground {
    /// A batch of these records; the ground and `seed` decide its name.
    pub(super) fn batch(&self, seed: u64, records: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Batch {
        let mut random = Random::of(&[self.salt, seed]);
        let id = std::array::from_fn(|_| random.next_u64().to_le_bytes()[0]);
        let piece = |(ordinal, record): (u32, _)| {
            let id = PieceId::whole(Position::new(seed * 100_000 + u64::from(ordinal) + 1));
            let data = Bytes::copy_from_slice(AsRef::<[u8]>::as_ref(&record));
            (
                ordinal,
                Piece {
                    id,
                    arrived_at: Timestamp::from_millis(1_790_000_000_000),
                    keys: PartitionKeys::default(),
                    data,
                },
            )
        };
        Batch {
            id: BatchId::from_random(id),
            sealed_at: Timestamp::from_millis(1_790_000_001_234),
            pieces: (0..).zip(records).map(piece).collect(),
        }
    }
}

/// What one attempt said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Ordinals that were refused, with the words.
    pub(super) refused: Vec<(u32, String)>,
    /// Ordinals that are delivered.
    pub(super) delivered: Vec<u32>,
    /// Ordinals that are to be tried again, with the reasons.
    pub(super) again: Vec<(u32, Fault)>,
}

pub(super) async fn attempt(sink: &dyn PieceSink, batch: &Batch) -> Said {
    let mut said = Said::default();
    for (ordinal, verdict) in hydrant_kit::conformance::attempt(sink, batch).await.unwrap() {
        match verdict {
            Verdict::Discarded(fault) => panic!("nothing is thrown away: {fault}"),
            Verdict::Refused(fault) => said.refused.push((ordinal, fault.message)),
            Verdict::Delivered => said.delivered.push(ordinal),
            Verdict::Retry(fault) => said.again.push((ordinal, fault)),
        }
    }
    said
}

/// What is left of a batch.
pub(super) trait Owed {
    /// Keeps the pieces that are to be tried again.
    fn keep(&mut self, again: &[(u32, Fault)]);
}

impl Owed for Batch {
    fn keep(&mut self, again: &[(u32, Fault)]) {
        let again: BTreeSet<u32> = again.iter().map(|(ordinal, _)| *ordinal).collect();
        self.pieces.retain(|(ordinal, _)| again.contains(ordinal));
    }
}

/// Attempts until nothing is owed. What was refused on the way, in the order of the attempts.
pub(super) async fn deliver(sink: &dyn PieceSink, mut batch: Batch) -> Vec<(u32, String)> {
    let mut refused = Vec::new();
    for _ in 0..100 {
        let said = attempt(sink, &batch).await;
        batch.keep(&said.again);
        refused.extend(said.refused);
        if batch.pieces.is_empty() {
            return refused;
        }
    }
    panic!("still owed after 100 attempts: {:?}", batch.pieces.len());
}
