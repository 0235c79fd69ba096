//! `cargo xtask powercut`: cuts the power under load, again and again, and asks the oracle what the disk still has.
//!
//! ```text
//!   load ──> server ──> ext4 or xfs ──> a disk that writes down what it is told ([`rig`])
//!                                              │ cut at any operation, replay what may lie there ([`replay`])
//!   oracle <── objects <── drain <── server <──┘ mounted
//! ```
//!
//! One run is recorded, with a kill in its middle, so that recovery is recorded too. Log, outbox, ledger and the folders
//! of the objects lie on the recorded disk. Each image is mounted, the real server starts on it and drains, and the oracle
//! compares what is there with what was acknowledged before the cut.
//!
//! Then the same with a server that acknowledges without a sync of its log: at least one of its images must lose records, or the rig sees
//! nothing. What the rig cannot see: ext4 and xfs write the name of a new file with its fsync, so a missing sync of a
//! folder is found by the simulated disk of the storage tests only.

mod replay;
pub(crate) mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::replay::{Record, Replay, Tail};
use self::rig::{DISK_BYTES, FileSystem, Mount, Recorder};
use crate::cargo::build;
use crate::kit::{Load, Oracle};
use crate::machine::{Facts, load, seed};
use crate::node::Node;
use crate::process::Scratch;
use crate::progress::{elapsed, print, say};
use crate::random::Random;
use crate::services::{Addresses, versions};
use crate::torture::layout::{Ground, Layout, Misfits, Store};

/// Milliseconds between the requests of a connection, so that a run fits its disk.
const PAUSE_MS: u64 = 60;

/// Images of the run without syncs, for as many images of the other.
const CONTROL_OF: u64 = 6;

/// Options of `powercut`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many images are made of each file system.
    #[arg(long, default_value_t = 30)]
    images: u64,
    /// The file systems.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [FileSystem::Ext4, FileSystem::Xfs])]
    fs: Vec<FileSystem>,
    /// Seconds of load that are recorded.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Decides payloads, cuts and what is torn. Drawn when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Says why and succeeds where a disk cannot be recorded.
    #[arg(long)]
    if_possible: bool,
    /// Appends the results to this file, a line of JSON for each file system.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the rig does not work here, when a server does not start on an image, when the oracle finds anything wrong, and
/// when it finds nothing wrong without syncs.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Err(reason) = rig::is_possible() {
        if args.if_possible {
            return Ok(print(&format!("powercut: not on this machine: {reason:#}"))?);
        }
        return Err(reason);
    }
    let programs = build()?;
    let seed = args.seed.unwrap_or_else(seed);
    let facts = Facts::read();
    say(&format!("powercut: seed {seed}, {facts}"));
    for &fs in &args.fs {
        let begun = elapsed();
        let orders = Orders { fs, seed, programs: &programs, seconds: args.seconds };
        let judged = orders.run(Frames::Synced, args.images).with_context(|| format!("{}, seed {seed}", fs.name()))?;
        let control = orders.run(Frames::Unsynced, args.images.div_ceil(CONTROL_OF))?;
        let result = json!({
            "what": "powercut", "fs": fs.name(), "seed": seed, "images": judged.to_json(), "without_syncs": control.to_json(),
            "seconds": elapsed().saturating_sub(begun).as_secs(), "facts": facts, "versions": versions(), "load_after": load(),
        });
        report(args, fs, &judged, &control, &result)?;
    }
    Ok(())
}

fn report(args: &Args, fs: FileSystem, judged: &Judged, control: &Judged, result: &Value) -> Result<()> {
    if let Some(file) = &args.evidence {
        let mut file = File::options().create(true).append(true).open(file).context("open the evidence file")?;
        writeln!(file, "{result}")?;
    }
    print(&format!("powercut: {}: {judged}", fs.name()))?;
    print(&format!("powercut: {} without syncs: {control}", fs.name()))?;
    print(&result.to_string())?;
    if judged.wrong > 0 {
        bail!("{}: {} images are wrong: {:#?}", fs.name(), judged.wrong, judged.examples);
    }
    if control.lost == 0 {
        bail!("{}: without syncs nothing was lost, so this proves nothing", fs.name());
    }
    Ok(())
}

/// Whether the server that is recorded syncs the frames of its logs. Here the server itself leaves that out, and nothing
/// else: one that syncs nothing leaves disks on which no server starts, and nobody can tell what those lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    Synced,
    Unsynced,
}

struct Orders<'a> {
    fs: FileSystem,
    seed: u64,
    programs: &'a Path,
    seconds: u64,
}

/// What came of the images of one run.
#[derive(Debug, Default)]
struct Judged {
    images: u64,
    /// Operations of the disk while the load ran.
    ops: usize,
    /// Records acknowledged before the first and the last cut.
    acked: (u64, u64),
    tail: Tail,
    lost: u64,
    /// Images on which no server starts and drains.
    unusable: u64,
    /// Images that are wrong in any way.
    wrong: u64,
    examples: Vec<Value>,
}

impl Judged {
    fn to_json(&self) -> Value {
        json!({
            "images": self.images, "ops": self.ops, "acked_before_first_cut": self.acked.0,
            "acked_before_last_cut": self.acked.1, "lost": self.lost,
            "unusable": self.unusable, "wrong": self.wrong,
            "unsynced_writes": { "kept": self.tail.kept, "torn": self.tail.torn, "dropped": self.tail.dropped },
        })
    }
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, ops, acked, tail, lost, wrong, .. } = self;
        let Tail { kept, torn, dropped } = tail;
        write!(
            f,
            "{images} images cut at one of {ops} operations, {} to {} records acknowledged before; of unsynced writes {kept} \
             kept, {torn} torn, {dropped} dropped; {lost} lost, {wrong} images wrong",
            acked.0, acked.1
        )
    }
}

/// A run that is over, and what is needed to judge images of its disk.
struct Recorded {
    record: Record,
    /// From the first record to the last, in nanoseconds since 1970.
    load: (u64, u64),
    recovery: Recovery,
}

/// Who looks at an image.
struct Recovery {
    node: Node,
    oracle: Oracle,
    misfits: Box<dyn Misfits>,
}

impl Orders<'_> {
    /// Records a run and judges images of it.
    fn run(&self, frames: Frames, images: u64) -> Result<Judged> {
        let scratch = Scratch::in_memory("powercut")?;
        let recorded = self.record(frames, scratch.path())?;
        let judged = recorded.judge(images, self.seed, frames, scratch.path());
        match &judged {
            Ok(judged) if judged.wrong == 0 || frames == Frames::Unsynced => {}
            _ => say(&format!("powercut: the run is kept in {}", scratch.keep()?.display())),
        }
        judged
    }

    fn record(&self, frames: Frames, folder: &Path) -> Result<Recorded> {
        let recorder = Recorder::start(folder)?;
        self.fs.make(&recorder.disk())?;
        let disk = folder.join("disk");
        let mount = Mount::new(&recorder.disk(), &disk)?;
        let ground = Ground { seed: self.seed, programs: self.programs, scratch: &disk };
        let layout = Layout::of_stores(ground, &[Store::File], &Addresses::new())?;
        let plan = folder.join("plan.json");
        fs::write(&plan, layout.plan.to_string()).context("write the plan")?;
        let mut node = Node::new(self.programs, folder, &layout.yaml, &Addresses::new())?.with_data(disk.join("data"));
        let oracle = Oracle::start(self.programs, &plan, &Addresses::new())?;
        mount.sync()?;
        let slip: &[(&str, String)] = match frames {
            Frames::Synced => &[],
            Frames::Unsynced => &[("HYDRANT_SLIP", "skip-syncs".to_owned())],
        };
        node.start_with(slip)?;
        let clocks = (now(), elapsed());
        let load = Load::start(self.programs, &node.endpoint(), &oracle.address, 1, PAUSE_MS)?;
        let half = Duration::from_secs(self.seconds) / 2;
        sleep(half);
        node.kill();
        node.start_with(slip)?;
        sleep(half);
        let end = now();
        say(&format!("powercut: {} recorded: {}", self.fs.name(), load.finish()?));
        let drift = Duration::from_nanos(now() - clocks.0).abs_diff(elapsed().saturating_sub(clocks.1));
        if drift > Duration::from_millis(2) {
            bail!("the wall clock was set meanwhile ({drift:?}), so moments say nothing");
        }
        node.kill();
        drop(mount);
        let record = Record::open(&recorder.finish())?;
        Ok(Recorded { record, load: (clocks.0, end), recovery: Recovery { node, oracle, misfits: layout.misfits } })
    }
}

impl Recorded {
    /// Makes images, later and later, and judges each.
    fn judge(self, images: u64, seed: u64, frames: Frames, folder: &Path) -> Result<Judged> {
        let Self { record, load: (begin, end), mut recovery } = self;
        let is_loaded = |at: u64| (begin..end).contains(&at);
        let first = record.ops.iter().position(|op| is_loaded(op.at)).context("operations under load")?;
        let ops = record.ops.iter().filter(|op| is_loaded(op.at)).count();
        let mut random = Random::new(seed);
        let mut cuts: Vec<usize> =
            (0..images).map(|_| Ok(first + usize::try_from(random.below(ops as u64))?)).collect::<Result<_>>()?;
        cuts.sort_unstable();
        let mut replay = Replay::new(&record, &folder.join("durable"), DISK_BYTES)?;
        let mut judged = Judged { ops, ..Judged::default() };
        for cut in cuts {
            let image = folder.join("image");
            replay.advance(cut)?;
            rig::copy(&folder.join("durable"), &image)?;
            let tail = replay.tear(&image, cut, &mut random)?;
            let moment = record.ops.get(cut).map_or(0, |op| op.at);
            let verdict = match recovery.judge(&image, moment, folder) {
                Err(_) if frames == Frames::Unsynced => {
                    judged.unusable += 1; // a disk without syncs may hold anything, and saying so is no loss yet
                    continue;
                }
                verdict => verdict.with_context(|| format!("image cut at operation {cut}"))?,
            };
            judged.add(&verdict, tail);
            if judged.images.is_multiple_of(10) {
                say(&format!("powercut: {} of {images} images, load {}", judged.images, load()));
            }
        }
        Ok(judged)
    }
}

impl Recovery {
    /// Starts the server on an image, has it deliver what it finds, and asks the oracle.
    fn judge(&mut self, image: &Path, moment: u64, folder: &Path) -> Result<Value> {
        let mount = Mount::new(image, &folder.join("disk"))?;
        self.misfits.heal()?;
        let recovered = self.node.start().and_then(|()| self.node.drain()).and_then(|()| self.node.stop());
        self.node.kill();
        recovered?;
        self.node.verify()?;
        let verdict = self.oracle.image(moment)?;
        drop(mount);
        Ok(verdict)
    }
}

impl Judged {
    fn add(&mut self, verdict: &Value, tail: Tail) {
        let total = &verdict["total"];
        let acked = total["obliged"].as_u64().unwrap_or_default();
        self.acked = if self.images == 0 { (acked, acked) } else { (self.acked.0.min(acked), self.acked.1.max(acked)) };
        self.images += 1;
        self.tail.kept += tail.kept;
        self.tail.torn += tail.torn;
        self.tail.dropped += tail.dropped;
        self.lost += total["lost"].as_u64().unwrap_or_default();
        if verdict["ok"] != json!(true) {
            self.wrong += 1;
            self.examples.push(verdict["examples"].clone());
        }
    }
}

/// Nanoseconds since 1970, as the recorder and the oracle note them.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
