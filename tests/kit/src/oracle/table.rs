//! A table as a place: what each transaction brought is an object, named by the transaction.
//!
//! Read by `psql`, at `HYDRANT_TEST_PSQL`, which shares no code with the server's client. The table is in the database of
//! `HYDRANT_TEST_POSTGRES_*`; its `tx` and `seq` are made by the database for each row that comes. A server that is not
//! there, as it crashed and recovers, is asked again for a while.

#![expect(clippy::disallowed_methods, reason = "a server is waited for on the real clock")]

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::places::Listed;

/// How long a server may take to come back.
const BACK_WITHIN: Duration = Duration::from_mins(1);

/// Time between two questions to a server that is not there.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Most transactions that one statement reads.
const TOGETHER_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct Table {
    psql: String,
    name: String,
    known: HashSet<String>,
    /// What was read of new transactions and not yet asked for.
    fresh: HashMap<String, Vec<u8>>,
}

impl Table {
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        ensure!(plain, "{name:?} is no name of a table here");
        let (known, fresh) = (HashSet::new(), HashMap::new());
        Ok(Self { psql: variable("HYDRANT_TEST_PSQL")?, name: name.to_owned(), known, fresh })
    }

    /// For people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All transactions with rows here. The bytes of those that are new are read with them: a statement for each would take
    /// longer than it takes to write them.
    pub(super) fn list(&mut self) -> anyhow::Result<Vec<Listed>> {
        let lines = self.copy(&format!(
            "SELECT tx, count(*), sum(octet_length(record::text)) FROM {} GROUP BY tx ORDER BY tx",
            self.name
        ))?;
        let mut listed = Vec::new();
        for line in lines.lines() {
            let (key, mark) = line.split_once('\t').context("a transaction and what it brought")?;
            listed.push(Listed { key: key.to_owned(), mark: mark.to_owned() });
        }
        let new: Vec<String> =
            listed.iter().map(|listed| listed.key.clone()).filter(|key| !self.known.contains(key)).collect();
        for keys in new.chunks(TOGETHER_MAX) {
            let rows = self.rows(keys)?;
            self.fresh.extend(rows);
            self.known.extend(keys.iter().cloned());
        }
        Ok(listed)
    }

    /// The records that a transaction brought, each ended by a line feed.
    pub(super) fn read(&mut self, key: &str) -> anyhow::Result<Vec<u8>> {
        match self.fresh.remove(key) {
            Some(records) => Ok(records),
            None => self.rows(&[key.to_owned()])?.remove(key).context("a transaction that brought rows"),
        }
    }

    fn rows(&self, keys: &[String]) -> anyhow::Result<HashMap<String, Vec<u8>>> {
        let keys: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
        let rows = self.copy(&format!(
            "SELECT tx, record FROM {} WHERE tx IN ({}) ORDER BY tx, seq",
            self.name,
            keys.join(",")
        ))?;
        let mut objects: HashMap<String, Vec<u8>> = HashMap::new();
        for row in rows.lines() {
            let (tx, record) = row.split_once('\t').context("a transaction and a record")?;
            let object = objects.entry(tx.to_owned()).or_default();
            object.extend_from_slice(record.replace(r"\\", r"\").as_bytes()); // the only escape in text without control characters
            object.push(b'\n');
        }
        Ok(objects)
    }

    /// The rows of a query as lines of a text COPY.
    fn copy(&self, query: &str) -> anyhow::Result<String> {
        let statement = format!("COPY ({query}) TO STDOUT;\n");
        let start = Instant::now();
        loop {
            match self.ask(&statement) {
                Err(_) if start.elapsed() < BACK_WITHIN => thread::sleep(ASK_AGAIN_AFTER),
                answered => return answered.with_context(|| self.name.clone()),
            }
        }
    }

    fn ask(&self, statement: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.psql);
        command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", "-"]);
        for (name, ours) in [("PGHOST", "HOST"), ("PGPORT", "PORT"), ("PGUSER", "USER"), ("PGDATABASE", "DATABASE")] {
            command.env(name, variable(&format!("HYDRANT_TEST_POSTGRES_{ours}"))?);
        }
        command.env("PGPASSWORD", variable("HYDRANT_TEST_POSTGRES_PASSWORD")?).env("PGCLIENTENCODING", "UTF8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.psql.clone())?;
        child.stdin.take().context("stdin of psql")?.write_all(statement.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("psql: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
