//! `cargo xtask torture`: kills the server again and again under load, and asks the oracle what became of the records.
//!
//! ```text
//!   load ───────────────────────────────────────────────┐ stop      probe
//!   server  ── kill ─ start ── kill ─ … ─ start ────────┴───────────┴──────── SIGTERM, log verify
//!   oracle     claims, answers …                          drained?    fresh?   verdict
//! ```
//!
//! A kill comes at a moment drawn from 0 to 2 s after the server was ready. It proves order and recovery, not the fsync:
//! the page cache outlives a killed process. Three streams per store: sealed by age, by size, and at once.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cargo::build;
use crate::kit::{Load, Oracle, put};
use crate::machine::{Facts, load, seed};
use crate::node::{Node, bucket, folder};
use crate::process::Scratch;
use crate::progress::{print, say};
use crate::services::{Addresses, Fleet};
use crate::tools::Cache;

/// A kill comes this long after the server was ready, or sooner.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// The longest buffer interval of the streams below.
const INTERVAL: Duration = Duration::from_secs(10);

/// A fresh record is there this long after the longest interval, when all is well again. Source: the liveness promise.
const FRESH_WITHIN: Duration = Duration::from_secs(10);

/// The backlog of the kills is delivered within this time.
const DRAINED_WITHIN: Duration = Duration::from_mins(2);

/// So many looks without anything new are an end.
const PLATEAU: u32 = 5;

/// Time between looks.
const LOOK: Duration = Duration::from_millis(300);

/// Options of `torture`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the server is killed.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Decides payloads and moments. Drawn when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The stores that streams deliver to.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Store::Minio, Store::File])]
    stores: Vec<Store>,
    /// Connections to each stream.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Appends the result to this file, a line of JSON.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Leaves the folder of the run behind, for a look. It stays anyhow when something is wrong.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Minio,
    File,
}

/// A kind of stream, declared once for each store.
struct Kind {
    name: &'static str,
    hints: &'static str,
    compression: &'static str,
    delimiter: &'static str,
}

/// Sealed by age, by size, and at once.
const KINDS: &[Kind] = &[
    Kind { name: "aged", hints: "{ size: 5MiB, interval: 1s }", compression: "gzip", delimiter: "none" },
    Kind { name: "sized", hints: "{ size: 1MiB, interval: 10s }", compression: "zstd", delimiter: "newline" },
    Kind { name: "prompt", hints: "{ size: 5MiB, interval: 0s }", compression: "{ gzip: fast }", delimiter: "none" },
];

/// Runs it.
///
/// # Errors
/// When anything cannot be started, when the server does not come back after a kill, and when the oracle finds anything
/// wrong.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cache = Cache::open()?;
    let programs = build()?;
    let fleet = Fleet::start(&cache)?;
    let seed = args.seed.unwrap_or_else(seed);
    let facts = Facts::read();
    say(&format!("torture: seed {seed}, {} rounds, {facts}", args.rounds));
    let scratch = Scratch::new("torture")?;
    let outcome = Run::prepare(args, seed, &programs, scratch.path(), &fleet.addresses).and_then(|mut run| {
        run.kills()?;
        run.quiet()?;
        run.close()
    });
    let is_right = outcome.as_ref().is_ok_and(|result| result["verdict"]["ok"] == json!(true));
    if args.keep || !is_right {
        say(&format!("torture: the run is kept in {}", scratch.keep()?.display()));
    }
    let mut result = outcome.with_context(|| format!("seed {seed}"))?;
    result["facts"] = serde_json::to_value(&facts)?;
    result["load_after"] = json!(load());
    report(args, &result)
}

fn report(args: &Args, result: &Value) -> Result<()> {
    if let Some(file) = &args.evidence {
        let mut file = File::options().create(true).append(true).open(file).context("open the evidence file")?;
        writeln!(file, "{result}")?;
    }
    let total = &result["verdict"]["total"];
    print(&format!(
        "torture: {} kills, {} records acknowledged, {} indeterminate, {} refused, {} objects, {} bytes stored, seed {}",
        result["kills"],
        total["obliged"],
        total["indeterminate"],
        total["refused"],
        total["objects"],
        total["stored_bytes"],
        result["seed"],
    ))?;
    print(&format!(
        "torture: {} lost, {} invented, {} torn, {} duplicated, {} misordered, {} unstable",
        total["lost"], total["invented"], total["torn"], total["duplicated"], total["misordered"], total["unstable"],
    ))?;
    print(&result.to_string())?;
    if result["verdict"]["ok"] != json!(true) {
        bail!("the oracle found wrong: {:#}", result["verdict"]["examples"]);
    }
    Ok(())
}

struct Run<'a> {
    args: &'a Args,
    seed: u64,
    programs: &'a Path,
    node: Node,
    oracle: Oracle,
    load: Option<Load>,
    start: Instant,
    /// What came of the load, of the drain and of the probe.
    result: Value,
}

/// What streams there are, as the server and as the oracle are told.
struct Layout {
    /// The server's YAML from `stores:` on.
    yaml: String,
    /// The oracle's plan.
    plan: Value,
}

impl Layout {
    /// Each kind of stream for each store. One bucket serves many runs: each has a prefix of its own.
    fn new(args: &Args, seed: u64, scratch: &Path, addresses: &Addresses) -> Result<Self> {
        let run = format!("torture-{seed}-{}", std::process::id());
        let mut stores = format!("stores:\n{}", folder("spare", &scratch.join("spare")));
        let (mut streams, mut plans) = (String::new(), Vec::new());
        for store in &args.stores {
            stores.push_str(&match store {
                Store::Minio => bucket(store.name(), addresses)?,
                Store::File => folder(store.name(), &scratch.join("objects")),
            });
            for kind in KINDS {
                let name = format!("{}-{}", kind.name, store.name());
                let prefix = format!("{run}/{name}/");
                streams.push_str(&kind.yaml(&name, *store, &prefix));
                let place = match store {
                    Store::Minio => json!({ "s3": {
                        "endpoint": addresses.get("HYDRANT_TEST_S3_ENDPOINT"),
                        "bucket": addresses.get("HYDRANT_TEST_S3_BUCKET"),
                        "prefix": prefix,
                    } }),
                    Store::File => json!({ "folder": scratch.join("objects").join(&prefix) }),
                };
                let spare = json!({ "folder": scratch.join("spare").join(&name) });
                plans.push(json!({ "name": name, "delimiter": kind.delimiter, "places": [place, spare] }));
            }
        }
        Ok(Self { yaml: format!("{stores}streams:\n{streams}"), plan: json!({ "seed": seed, "streams": plans }) })
    }
}

impl Kind {
    fn yaml(&self, name: &str, store: Store, prefix: &str) -> String {
        let Self { hints, compression, delimiter, .. } = self;
        let (sink, store) = (store.sink(), store.name());
        format!(
            "  {name}:
    hints: {hints}
    sink:
      {sink}: {{ store: {store}, prefix: \"{prefix}\", compression: {compression}, delimiter: {delimiter} }}
    dead_letter: {{ store: spare, error_prefix: \"{name}/\", hints: {{ size: 5MiB, interval: 1s }} }}
"
        )
    }
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Minio => "minio",
            Self::File => "folder",
        }
    }

    fn sink(self) -> &'static str {
        match self {
            Self::Minio => "s3",
            Self::File => "file",
        }
    }
}

impl<'a> Run<'a> {
    fn prepare(args: &'a Args, seed: u64, programs: &'a Path, scratch: &Path, addresses: &Addresses) -> Result<Self> {
        let layout = Layout::new(args, seed, scratch, addresses)?;
        let plan = scratch.join("plan.json");
        fs::write(&plan, layout.plan.to_string()).context("write the plan")?;
        let node = Node::new(programs, scratch, &layout.yaml, addresses)?;
        let oracle = Oracle::start(programs, &plan, addresses)?;
        let result = json!({ "what": "torture", "seed": seed, "rounds": args.rounds, "kills": 0 });
        Ok(Self { args, seed, programs, node, oracle, load: None, start: Instant::now(), result })
    }

    /// Starts the load and kills the server, once a round.
    fn kills(&mut self) -> Result<()> {
        self.node.start()?;
        self.load =
            Some(Load::start(self.programs, &self.node.endpoint(), &self.oracle.address, self.args.connections)?);
        let mut moments = Moments(self.seed);
        let mut slowest_start = Duration::ZERO;
        for round in 1..=self.args.rounds {
            sleep(moments.next(KILL_WITHIN));
            self.node.kill();
            let killed = Instant::now();
            self.node.start().with_context(|| format!("start after kill {round}"))?;
            slowest_start = slowest_start.max(killed.elapsed());
            self.result["kills"] = json!(round);
            if round % 10 == 0 {
                // Read on the way, so that the end is not one long reading.
                self.oracle.poll()?;
                say(&format!("torture: round {round} of {}, load {}", self.args.rounds, load()));
            }
        }
        self.result["slowest_start_ms"] = json!(slowest_start.as_millis());
        Ok(())
    }

    /// Ends the load, waits for what is owed, and then for a fresh record.
    fn quiet(&mut self) -> Result<()> {
        let load = self.load.take().context("the load runs")?.finish()?;
        say(&format!("torture: load has ended: {load}"));
        self.result["load"] = load;
        let drained = self.drained(DRAINED_WITHIN)?;
        self.result["drained_ms"] = json!(drained.map(|time| time.as_millis()));
        if drained.is_some() {
            put(self.programs, &self.node.endpoint(), &["probe", "--oracle", &self.oracle.address])?;
            let fresh = self.drained(INTERVAL + FRESH_WITHIN)?;
            self.result["fresh_ms"] = json!(fresh.map(|time| time.as_millis()));
        }
        self.settle()
    }

    /// Waits until nothing that was promised is missing: how long that took, or none when it did not happen.
    fn drained(&mut self, within: Duration) -> Result<Option<Duration>> {
        let start = Instant::now();
        loop {
            self.oracle.poll()?;
            if self.oracle.verdict()?["total"]["lost"] == json!(0) {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > within {
                return Ok(None);
            }
            sleep(LOOK);
        }
    }

    /// Waits until nothing new comes: what nobody asked for, and what came twice, would come now.
    fn settle(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut still = 0;
        while still < PLATEAU && start.elapsed() < DRAINED_WITHIN {
            sleep(LOOK);
            still = if self.oracle.poll()? == 0 { still + 1 } else { 0 };
        }
        Ok(())
    }

    /// Stops the server in good order, looks at what it left, and reads once more.
    fn close(mut self) -> Result<Value> {
        self.node.stop()?;
        self.node.verify()?;
        self.oracle.poll()?;
        self.result["verdict"] = self.oracle.verdict()?;
        self.result["seconds"] = json!(self.start.elapsed().as_secs());
        Ok(self.result)
    }
}

/// Moments of a seed: `SplitMix64`.
struct Moments(u64);

impl Moments {
    /// The next one, evenly from 0 to `within`.
    fn next(&mut self, within: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Duration::from_micros(z % u64::try_from(within.as_micros()).unwrap_or(u64::MAX).max(1))
    }
}
