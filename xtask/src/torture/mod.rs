//! `cargo xtask torture`: kills the server again and again under load, and asks the oracle what became of the records.
//!
//! ```text
//!   load ───────────────────────────────────────────────┐ stop      probe
//!   server  ── kill ─ start ── kill ─ … ─ start ────────┴───────────┴──────── SIGTERM, log verify
//!   oracle     claims, answers …                          drained?    fresh?   verdict
//! ```
//!
//! Three of four kills are aimed: the server is started with a crash point at which it kills itself, and every point has
//! its turn ([`aims`]). The others come at a moment drawn from 0 to 2 s after it was ready. Kills prove order and
//! recovery, not the fsync: the page cache outlives a killed process, and `cargo xtask powercut` is there for the rest.
//! Which streams there are, and which of their destinations misbehave, stands in [`layout`]: `--sink` chooses between streams
//! of whole objects and those whose records are delivered one by one.
//!
//! With `--control` the server makes a mistake on purpose, and the run is red unless the oracle reports it.

mod aims;
pub(crate) mod layout;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use self::aims::{Aim, Aims, Control};
use self::layout::{Ground, Layout, Misfits, Store};
use crate::cargo::build;
use crate::kit::{LOOK, Load, Oracle, put};
use crate::machine::{Facts, load, seed};
use crate::node::Node;
use crate::process::Scratch;
use crate::progress::{print, say};
use crate::random::Random;
use crate::services::{Fleet, versions};
use crate::tools::Cache;

/// A kill that is left to chance comes this long after the server was ready, or sooner.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// A server comes to its crash point within this time; under load it takes a second. Else it is killed where it is.
const STRIKE_WITHIN: Duration = Duration::from_secs(15);

/// The longest buffer interval of the streams.
const INTERVAL: Duration = Duration::from_secs(10);

/// A fresh record is there this long after the longest interval, when all is well again. Source: the liveness promise.
const FRESH_WITHIN: Duration = Duration::from_secs(10);

/// The backlog of the kills is delivered within this time.
const DRAINED_WITHIN: Duration = Duration::from_mins(5);

/// So many looks without anything new are an end.
const PLATEAU: u32 = 5;

/// Kills of a control. One is enough to show the mistake; the others are for bad luck.
const CONTROL_ROUNDS: u64 = 5;

/// Rounds that are added while there are points that no server came to in time: a busy machine may miss one.
const SECOND_TRIES: u64 = 24;

/// Points that may be missed for all that, and are named. More, and something is wrong with the points.
const MISSES_MAX: usize = 4;

/// Options of `torture`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the server is killed. As often as it takes to aim at every point once when not given.
    #[arg(long)]
    rounds: Option<u64>,
    /// Decides payloads, aims and moments. Drawn when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// What streams deliver to.
    #[arg(long, value_enum, default_value_t)]
    sink: Sink,
    /// The stores that streams of objects deliver to.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Store::Minio, Store::File])]
    stores: Vec<Store>,
    /// Connections to each stream.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Milliseconds between the requests of a connection. None for stores; enough for others that they keep up.
    #[arg(long)]
    pause_ms: Option<u64>,
    /// Has the server make this mistake, into folders only, and fails unless the oracle reports it.
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// Appends the result to this file, a line of JSON.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Leaves the folder of the run behind, for a look. It stays anyhow when something is wrong.
    #[arg(long)]
    keep: bool,
}

/// What the streams of a run deliver to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sink {
    /// Stores of whole objects.
    #[default]
    Objects,
    /// Tables of PostgreSQL.
    Postgres,
    /// Receivers of HTTP requests.
    Http,
}

impl Sink {
    /// Its name, as it is chosen.
    const fn name(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Postgres => "postgres",
            Self::Http => "http",
        }
    }

    /// Milliseconds between the requests of a connection. PostgreSQL takes some ten thousand rows a second while it shares two
    /// cores with us, and looks for a refused one as long as it takes a thousand.
    const fn pause_ms(self) -> u64 {
        match self {
            Self::Objects => 0,
            Self::Postgres => 40,
            Self::Http => 20,
        }
    }

    /// The servers that it needs.
    fn services(self, stores: &[Store]) -> &'static [&'static str] {
        match self {
            Self::Objects if stores.contains(&Store::Minio) => &["minio"],
            Self::Objects | Self::Http => &[],
            Self::Postgres => &["postgres"],
        }
    }
}

/// Runs it.
///
/// # Errors
/// When anything cannot be started, when the server does not come back after a kill, when a crash point is never reached,
/// and when the oracle finds anything wrong; or, of a control, when it does not.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = build()?;
    let seed = args.seed.unwrap_or_else(seed);
    let facts = Facts::read();
    let scratch = Scratch::new("torture")?;
    let sink = args.control.map_or(args.sink, Control::sink);
    let stores = if args.control.is_some() { &[Store::File] } else { args.stores.as_slice() };
    let aims = Aims::new(sink, args.control);
    let fleet = Fleet::start_only(&Cache::open()?, sink.services(stores))?;
    let ground = Ground { seed, programs: &programs, scratch: scratch.path() };
    let mut result = if let Some(control) = args.control {
        say(&format!("torture: control {}, seed {seed}, {facts}", control.name()));
        let orders = Orders { args, rounds: args.rounds.unwrap_or(CONTROL_ROUNDS), sink, stores };
        let outcome = Run::prepare(orders, aims, ground, &fleet).and_then(Run::control);
        outcome.with_context(|| format!("seed {seed}"))?
    } else {
        let orders = Orders { args, rounds: args.rounds.unwrap_or_else(|| aims.rounds_for_all()), sink, stores };
        say(&format!("torture: {}, seed {seed}, {} rounds, {facts}", sink.name(), orders.rounds));
        let outcome = Run::prepare(orders, aims, ground, &fleet).and_then(Run::all);
        if args.keep || !outcome.as_ref().is_ok_and(|result| result["verdict"]["ok"] == json!(true)) {
            say(&format!("torture: the run is kept in {}", scratch.keep()?.display()));
        }
        outcome.with_context(|| format!("seed {seed}"))?
    };
    result["facts"] = serde_json::to_value(&facts)?;
    result["versions"] = versions();
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
    let wrong = ["lost", "invented", "torn", "duplicated", "misordered", "unstable", "misplaced"];
    let wrong = wrong.map(|fault| format!("{} {fault}", total[fault]));
    print(&format!("torture: {} dead letters; {}", total["letters"], wrong.join(", ")))?;
    print(&result.to_string())?;
    if let Some(control) = args.control {
        let caught: Vec<&str> =
            control.faults().iter().copied().filter(|fault| total[fault].as_u64() > Some(0)).collect();
        if caught.is_empty() {
            bail!("control {}: the oracle does not see it, so it proves nothing", control.name());
        }
        return Ok(print(&format!("torture: control {}: caught as {}", control.name(), caught.join(" and ")))?);
    }
    if result["verdict"]["ok"] != json!(true) {
        bail!("the oracle found wrong: {:#}", result["verdict"]["examples"]);
    }
    Ok(())
}

/// What is to be done.
struct Orders<'a> {
    args: &'a Args,
    rounds: u64,
    sink: Sink,
    stores: &'a [Store],
}

struct Run<'a> {
    orders: Orders<'a>,
    programs: &'a Path,
    node: Node,
    oracle: Oracle,
    misfits: Box<dyn Misfits>,
    load: Option<Load>,
    random: Random,
    aims: Aims,
    start: Instant,
    /// What came of the load, of the drain and of the probe.
    result: Value,
}

impl<'a> Run<'a> {
    fn prepare(orders: Orders<'a>, aims: Aims, ground: Ground<'a>, fleet: &Fleet) -> Result<Self> {
        let (Ground { seed, programs, scratch }, addresses) = (ground, &fleet.addresses);
        let layout = match orders.sink {
            Sink::Objects => Layout::of_stores(ground, orders.stores, addresses)?,
            Sink::Postgres => Layout::of_tables(ground, fleet)?,
            Sink::Http => Layout::of_requests(ground)?,
        };
        let plan = scratch.join("plan.json");
        fs::write(&plan, layout.plan.to_string()).context("write the plan")?;
        let node = Node::new(programs, scratch, &layout.yaml, addresses)?;
        let oracle = Oracle::start(programs, &plan, addresses)?;
        let sink = orders.sink.name();
        let result = json!({ "what": "torture", "sink": sink, "seed": seed, "rounds": orders.rounds, "kills": 0 });
        Ok(Self {
            programs,
            node,
            oracle,
            misfits: layout.misfits,
            load: None,
            random: Random::new(seed),
            aims,
            start: Instant::now(),
            result,
            orders,
        })
    }

    /// The whole of it.
    fn all(mut self) -> Result<Value> {
        self.kills()?;
        self.quiet()?;
        self.close()
    }

    /// A mistake is made, the server is killed, and then, without the mistake, delivers what it still has.
    fn control(mut self) -> Result<Value> {
        self.kills()?;
        self.end_load()?;
        self.misfits.heal()?;
        self.node.drain()?;
        self.oracle.poll()?;
        self.result["control"] = json!(self.orders.args.control.map(Control::name));
        self.verdict()
    }

    /// Starts the load and kills the server, once a round.
    fn kills(&mut self) -> Result<()> {
        let mut slowest_start = Duration::ZERO;
        let rounds = self.orders.rounds;
        for round in 1..=rounds + SECOND_TRIES {
            if round > rounds && self.aims.never_struck(rounds).is_empty() {
                break;
            }
            self.misfits.turn(round.min(rounds), rounds)?;
            let aim = self.aims.of_round(round, &mut self.random);
            let begun = Instant::now();
            if self.start(aim.as_ref()).with_context(|| format!("start of round {round}, {aim:?}"))? {
                slowest_start = slowest_start.max(begun.elapsed());
                self.begin_load()?;
                self.strike(aim.as_ref()).with_context(|| format!("kill of round {round}, {aim:?}"))?;
            }
            self.result["kills"] = json!(round);
            if round % 10 == 0 {
                // Read on the way, so that the end is not one long reading.
                self.oracle.poll()?;
                say(&format!("torture: round {round} of {rounds}, load {}", load()));
            }
        }
        self.node.start().context("start after the last kill")?;
        self.result["slowest_start_ms"] = json!(slowest_start.as_millis());
        self.result["struck"] = self.aims.counts();
        for line in self.aims.lines() {
            print(&format!("torture: kills at {line}"))?;
        }
        let missed = self.aims.never_struck(rounds);
        if missed.len() > MISSES_MAX {
            bail!("no server came to {} in time: is it built with crash points?", missed.join(", "));
        }
        if !missed.is_empty() {
            print(&format!("torture: no server came to {} in time", missed.join(", ")))?;
        }
        Ok(())
    }

    /// Starts the server with its aim; false when it died there before it was ready.
    fn start(&mut self, aim: Option<&Aim>) -> Result<bool> {
        let variables: Vec<(&str, String)> =
            aim.map(Aim::variable).into_iter().chain(self.orders.args.control.map(Control::variable)).collect();
        let Err(error) = self.node.start_with(&variables) else { return Ok(true) };
        match aim {
            Some(aim) if self.node.has_killed_itself(Duration::ZERO)? => {
                self.aims.struck(aim);
                Ok(false)
            }
            _ => Err(error),
        }
    }

    /// Waits for the end that was aimed at, or kills.
    fn strike(&mut self, aim: Option<&Aim>) -> Result<()> {
        match aim {
            Some(aim) if self.node.has_killed_itself(STRIKE_WITHIN)? => self.aims.struck(aim),
            Some(aim) => {
                say(&format!("torture: the server did not come to {aim:?}"));
                self.node.kill();
                self.aims.missed(aim);
            }
            None => {
                sleep(self.random.moment(KILL_WITHIN));
                self.node.kill();
                self.aims.by_chance();
            }
        }
        Ok(())
    }

    fn begin_load(&mut self) -> Result<()> {
        if self.load.is_none() {
            let Args { connections, pause_ms, .. } = *self.orders.args;
            let pause_ms = pause_ms.unwrap_or_else(|| self.orders.sink.pause_ms());
            let load = Load::start(self.programs, &self.node.endpoint(), &self.oracle.address, connections, pause_ms)?;
            self.load = Some(load);
        }
        Ok(())
    }

    fn end_load(&mut self) -> Result<()> {
        let Some(load) = self.load.take() else { return Ok(()) };
        let load = load.finish()?;
        say(&format!("torture: load has ended: {load}"));
        self.result["load"] = load;
        Ok(())
    }

    /// Ends the load, waits for what is owed, and then for a fresh record.
    fn quiet(&mut self) -> Result<()> {
        self.begin_load()?;
        self.end_load()?;
        self.misfits.heal()?;
        say("torture: every destination takes objects again");
        let drained = self.oracle.all_there(DRAINED_WITHIN)?;
        self.result["drained_ms"] = json!(drained.map(|time| time.as_millis()));
        if drained.is_some() {
            put(self.programs, &self.node.endpoint(), &["probe", "--oracle", &self.oracle.address])?;
            let fresh = self.oracle.all_there(INTERVAL + FRESH_WITHIN)?;
            self.result["fresh_ms"] = json!(fresh.map(|time| time.as_millis()));
        }
        self.settle()
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
        self.result["destinations"] = self.misfits.report()?;
        self.verdict()
    }

    fn verdict(mut self) -> Result<Value> {
        self.result["verdict"] = self.oracle.verdict()?;
        self.result["seconds"] = json!(self.start.elapsed().as_secs());
        Ok(self.result)
    }
}
