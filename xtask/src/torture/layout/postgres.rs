//! Streams of rows: each into a table of its own, which refuses a share of the records.
//!
//! | stream | is there for | its destination |
//! |---|---|---|
//! | `aged`, `prompt` | large batches and small ones | takes rows, and refuses those without a number |
//! | `cut` | commits whose answer is lost, and requests that break off | the same; connections end after some bytes |
//! | `late` | a backlog in the outbox | is dead, then alive, again and again |
//! | `turned` | every record becomes a dead letter | a table that is not there |
//!
//! Every few rounds the server itself crashes under load, and recovers. The tables have no key: a row that comes twice is there
//! twice. The database notes the transaction that brought it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::proxies::{Proxies, Reach};
use super::{Ground, Layout, Misfits, letters, spare};
use crate::kit::Proxy;
use crate::process::ProcessId;
use crate::random::Random;
use crate::services::{Addresses, Fleet};

/// Every so many rounds the server crashes.
const CRASH_EVERY: u64 = 5;

/// It crashes this long after the round has begun, or sooner.
const CRASH_WITHIN: Duration = Duration::from_secs(2);

/// Where connections are cut: the largest requests have more bytes, and the answer to a commit is among the first.
const REACH: Reach = Reach { request_bytes: 100_000, answer_bytes: 1_000 };

/// A kind of stream.
struct Kind {
    name: &'static str,
    hints: &'static str,
    role: Role,
    retry_for: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Good,
    Cut,
    Late,
    Missing,
}

const KINDS: &[Kind] = &[
    Kind { name: "aged", hints: "{ size: 5MiB, interval: 1s }", role: Role::Good, retry_for: "forever" },
    Kind { name: "prompt", hints: "{ size: 1MiB, interval: 0s }", role: Role::Good, retry_for: "forever" },
    Kind { name: "cut", hints: "{ size: 1MiB, interval: 0s }", role: Role::Cut, retry_for: "forever" },
    Kind { name: "late", hints: "{ size: 1MiB, interval: 1s }", role: Role::Late, retry_for: "forever" },
    Kind { name: "turned", hints: "{ size: 1MiB, interval: 1s }", role: Role::Missing, retry_for: "0s" },
];

impl Kind {
    fn yaml(&self, table: &str, address: (&str, &str), addresses: &Addresses) -> Result<String> {
        let Self { name, hints, retry_for, .. } = self;
        let (host, port) = address;
        let (database, user) = (server(addresses, "DATABASE")?, server(addresses, "USER")?);
        Ok(format!(
            "  {name}:
    hints: {hints}
    retry_for: {retry_for}
    sink:
      postgres:
        host: {host}
        port: {port}
        database: {database}
        user: {user}
        password: {{ env: HYDRANT_TEST_POSTGRES_PASSWORD }}
        table: {table}
        connections: 2
        row:
          columns:
            - {{ name: n, type: bigint, required: true }}
            - {{ name: record, type: json, from: $ }}
"
        ))
    }
}

/// Each kind of stream, into tables that are made for it.
pub(super) fn layout(ground: Ground<'_>, fleet: &Fleet) -> Result<Layout> {
    let addresses = &fleet.addresses;
    let misfits = Server::start(ground, fleet)?;
    let (mut streams, mut plans) = (String::new(), Vec::new());
    for kind in KINDS {
        let (name, table) = (kind.name, format!("torture_{}", kind.name));
        let is_there = kind.role != Role::Missing;
        if is_there {
            make_table(&table, addresses)?;
        }
        let (dead_letter, letters) = letters(ground, name);
        streams.push_str(&(kind.yaml(&table, misfits.address(kind.role, addresses)?, addresses)? + &dead_letter));
        let places = is_there.then(|| json!({ "table": table }));
        plans.push(json!({
            "name": name,
            "records": "documents",
            "delimiter": "newline",
            "places": places.into_iter().collect::<Vec<_>>(),
            "letters": letters,
        }));
    }
    let plan = json!({ "seed": ground.seed, "streams": plans });
    Ok(Layout { yaml: format!("stores:\n{}streams:\n{streams}", spare(ground)), plan, misfits: Box::new(misfits) })
}

fn server<'a>(addresses: &'a Addresses, what: &str) -> Result<&'a str> {
    let name = format!("HYDRANT_TEST_POSTGRES_{what}");
    addresses.get(&name).map(String::as_str).with_context(|| format!("{name} is not known"))
}

fn make_table(table: &str, addresses: &Addresses) -> Result<()> {
    let mut command = Command::new(addresses.get("HYDRANT_TEST_PSQL").context("psql is not known")?);
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", "-"]).stdin(Stdio::piped());
    for (name, ours) in [("PGHOST", "HOST"), ("PGPORT", "PORT"), ("PGUSER", "USER"), ("PGPASSWORD", "PASSWORD")] {
        command.env(name, server(addresses, ours)?);
    }
    let mut psql = command.env("PGDATABASE", server(addresses, "DATABASE")?).spawn().context("start psql")?;
    let statement = format!(
        "CREATE TABLE {table} (n bigint NOT NULL, record json NOT NULL, \
         tx xid8 NOT NULL DEFAULT pg_current_xact_id(), seq bigint GENERATED ALWAYS AS IDENTITY);\n"
    );
    psql.stdin.take().context("stdin of psql")?.write_all(statement.as_bytes())?;
    let status = psql.wait()?;
    if !status.success() {
        bail!("make table {table}: {status}");
    }
    Ok(())
}

/// The server, and two proxies in front of it.
struct Server {
    proxies: Proxies,
    process: ProcessId,
    random: Random,
    crash: Option<JoinHandle<()>>,
}

impl Server {
    fn start(ground: Ground<'_>, fleet: &Fleet) -> Result<Self> {
        let endpoint = format!("http://{}:{}", server(&fleet.addresses, "HOST")?, server(&fleet.addresses, "PORT")?);
        let process = fleet.process("postgres").context("the process of PostgreSQL")?;
        let (proxies, random) = (Proxies::start(ground, &endpoint, REACH)?, Random::new(ground.seed));
        Ok(Self { proxies, process, random, crash: None })
    }

    /// Where a server that plays this role listens.
    fn address<'a>(&'a self, role: Role, addresses: &'a Addresses) -> Result<(&'a str, &'a str)> {
        let of = |proxy: &'a Proxy| proxy.address().rsplit_once(':').context("the address of a proxy");
        match role {
            Role::Good | Role::Missing => Ok((server(addresses, "HOST")?, server(addresses, "PORT")?)),
            Role::Cut => of(&self.proxies.cut),
            Role::Late => of(&self.proxies.late),
        }
    }

    /// Waits for the crash that was begun.
    fn end_crash(&mut self) {
        if let Some(crash) = self.crash.take() {
            drop(crash.join()); // it does nothing that could panic
        }
    }
}

impl Misfits for Server {
    fn turn(&mut self, round: u64, _rounds: u64) -> Result<()> {
        self.end_crash();
        if round.is_multiple_of(CRASH_EVERY) {
            let (process, within) = (self.process, self.random.moment(CRASH_WITHIN));
            self.crash = Some(thread::spawn(move || {
                thread::sleep(within);
                crash(process);
            }));
        }
        self.proxies.turn(round)
    }

    fn heal(&mut self) -> Result<()> {
        self.end_crash();
        self.proxies.heal()
    }
}

/// Kills one of the server's processes. It ends the others, for it trusts nothing in their common memory then, and recovers
/// from its log.
fn crash(server: ProcessId) {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid)).unwrap_or_default();
    let child = children.split_whitespace().next().and_then(|pid| ProcessId::of(pid.parse().ok()?));
    if let Some(child) = child {
        child.signal(Signal::KILL);
    }
}
