//! `cargo xtask faults`: real disks that fail under load. Root and loop devices are needed.
//!
//! | fault | what must hold |
//! |---|---|
//! | the disk is full while records are acknowledged and sealed, and, with a backlog, settled | producers are told to slow down; when there is room again the same process goes on by itself |
//! | writes fail, so that the kernel makes the file system read-only | nothing is acknowledged any more; on a mended disk a new process delivers all that was |
//!
//! The data directory lies on a small ext4 of its own, the objects elsewhere. The oracle judges at the end, as everywhere.
//! An operator cannot make the file system read-only under a running server: the kernel refuses while files are open for
//! writing. So the read-only disk is the one that the kernel makes of a failing one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Value, json};

use crate::cargo::build;
use crate::kit::{Load, Oracle, takes_records};
use crate::machine::{Facts, load, seed};
use crate::node::Node;
use crate::powercut::rig::{self, FileSystem, Fuse, Mount};
use crate::process::Scratch;
use crate::progress::{print, say};
use crate::services::{Addresses, versions};
use crate::torture::layout::{Ground, Layout, Misfits, Store};

/// Bytes of the disk: some segments of each stream and not many.
const DISK_BYTES: u64 = 160 << 20;

/// Load between two faults.
const BETWEEN: Duration = Duration::from_secs(2);

/// A fault is felt, and after its end everything goes on, within this time: lanes look for room every 16 s at the latest.
const FELT_WITHIN: Duration = Duration::from_mins(1);

/// How long a fault stays after it was felt.
const HELD: Duration = Duration::from_secs(2);

/// Everything is delivered within this time.
const DRAINED_WITHIN: Duration = Duration::from_mins(3);

/// Milliseconds between the requests of a connection.
const PAUSE_MS: u64 = 10;

/// Options of `faults`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each fault comes.
    #[arg(long, default_value_t = 3)]
    cycles: u64,
    /// Decides payloads. Drawn when not given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Says why and succeeds where this cannot be done.
    #[arg(long)]
    if_possible: bool,
    /// Appends the results to this file, a line of JSON for each fault.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When a fault is not felt, when the server does not go on after it, and when the oracle finds anything wrong.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Err(reason) = rig::is_possible() {
        if args.if_possible {
            return Ok(print(&format!("faults: not on this machine: {reason:#}"))?);
        }
        return Err(reason);
    }
    let programs = build()?;
    let seed = args.seed.unwrap_or_else(seed);
    let facts = Facts::read();
    say(&format!("faults: seed {seed}, {facts}"));
    for (name, fault) in [("full", full as fn(&mut Run<'_>, u64) -> Result<()>), ("failing", failing)] {
        let scratch = Scratch::in_memory("faults")?;
        let outcome = Run::prepare(name, seed, &programs, scratch.path()).and_then(|mut run| {
            fault(&mut run, args.cycles)?;
            run.close()
        });
        if outcome.as_ref().map_or(true, |result| result["verdict"]["ok"] != json!(true)) {
            say(&format!("faults: the run is kept in {}", scratch.keep()?.display()));
        }
        let mut result = outcome.with_context(|| format!("{name}, seed {seed}"))?;
        result["facts"] = serde_json::to_value(&facts)?;
        result["versions"] = versions();
        result["load_after"] = json!(load());
        report(args, name, &result)?;
    }
    Ok(())
}

fn report(args: &Args, name: &str, result: &Value) -> Result<()> {
    if let Some(file) = &args.evidence {
        let mut file = File::options().create(true).append(true).open(file).context("open the evidence file")?;
        writeln!(file, "{result}")?;
    }
    let total = &result["verdict"]["total"];
    let faults = result["faults"].as_array().map_or(&[][..], Vec::as_slice);
    let longest = |what: &str| faults.iter().filter_map(|fault| fault[what].as_u64()).max().unwrap_or_default();
    print(&format!(
        "faults: disk {name} {} times, felt after {} ms at most, over {} ms at most after its end; {} records acknowledged, {} \
         not taken; {} lost, {} invented, {} torn, {} duplicated",
        faults.len(),
        longest("felt_ms"),
        longest("over_ms"),
        total["obliged"],
        total["refused"],
        total["lost"],
        total["invented"],
        total["torn"],
        total["duplicated"],
    ))?;
    print(&result.to_string())?;
    if result["verdict"]["ok"] != json!(true) {
        bail!("the oracle found wrong: {:#}", result["verdict"]["examples"]);
    }
    Ok(())
}

/// A disk that fails while a file exists.
struct Disk {
    // In the order of dropping.
    mount: Option<Mount>,
    fuse: Fuse,
    at: PathBuf,
    trigger: PathBuf,
}

impl Disk {
    fn start(folder: &Path) -> Result<Self> {
        let (trigger, at) = (folder.join("fails"), folder.join("disk"));
        let words = [
            "--filter=error".to_owned(),
            "memory".to_owned(),
            DISK_BYTES.to_string(),
            "error=EIO".to_owned(),
            "error-pwrite-rate=100%".to_owned(),
            format!("error-file={}", trigger.display()),
        ];
        let fuse = Fuse::start(folder, DISK_BYTES, &words)?;
        FileSystem::Ext4.make(&fuse.disk())?;
        let mut disk = Self { mount: None, fuse, at, trigger };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<()> {
        self.mount = None;
        self.mount = Some(Mount::with(&self.fuse.disk(), &self.at, "loop,errors=remount-ro")?);
        Ok(())
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Takes all the room there is.
    fn fill(&self) -> Result<()> {
        let ballast = File::options().create(true).append(true).open(self.ballast()).context("open the ballast")?;
        let (mut taken, mut step) = (ballast.metadata()?.len(), 64 << 20);
        while step >= 4096 {
            match fallocate(&ballast, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }
}

/// A server on such a disk, under load.
struct Run<'a> {
    programs: &'a Path,
    node: Node,
    oracle: Oracle,
    misfits: Box<dyn Misfits>,
    load: Option<Load>,
    // Last, so that nothing uses it any more when it goes.
    disk: Disk,
    result: Value,
}

impl<'a> Run<'a> {
    fn prepare(name: &str, seed: u64, programs: &'a Path, folder: &Path) -> Result<Self> {
        let disk = Disk::start(folder)?;
        let ground = Ground { seed, programs, scratch: folder };
        let layout = Layout::of_stores(ground, &[Store::File], &Addresses::new())?;
        let plan = folder.join("plan.json");
        fs::write(&plan, layout.plan.to_string()).context("write the plan")?;
        // It believes that the disk is as large as the default of `server.disk`.
        let mut node = Node::new(programs, folder, &layout.yaml, &Addresses::new())?.with_data(disk.at.join("data"));
        let oracle = Oracle::start(programs, &plan, &Addresses::new())?;
        node.start()?;
        let load = Some(Load::start(programs, &node.endpoint(), &oracle.address, 1, PAUSE_MS)?);
        let result = json!({ "what": "faults", "fault": name, "seed": seed, "faults": [] });
        Ok(Self { programs, node, oracle, misfits: layout.misfits, load, disk, result })
    }

    /// Waits until every stream takes records, or one does not; how long that took.
    fn until(&self, wanted: bool, what: &str) -> Result<u128> {
        let start = Instant::now();
        while takes_records(self.programs, &self.node.endpoint(), &self.oracle.address)? != wanted {
            if start.elapsed() > FELT_WITHIN {
                bail!("{what}: not within {} s", FELT_WITHIN.as_secs());
            }
            sleep(Duration::from_millis(200));
        }
        Ok(start.elapsed().as_millis())
    }

    fn note(&mut self, felt: u128, over: u128) {
        if let Some(faults) = self.result["faults"].as_array_mut() {
            faults.push(json!({ "felt_ms": felt, "over_ms": over }));
        }
    }

    /// Ends the load, has everything delivered, stops in good order, and asks.
    fn close(mut self) -> Result<Value> {
        self.result["load"] = self.load.take().context("the load runs")?.finish()?;
        self.misfits.heal()?;
        let drained = self.oracle.all_there(DRAINED_WITHIN)?;
        self.result["drained_ms"] = json!(drained.map(|time| time.as_millis()));
        self.node.stop()?;
        self.node.verify()?;
        self.oracle.poll()?;
        self.result["verdict"] = self.oracle.verdict()?;
        Ok(self.result)
    }
}

/// The disk is full, and then not. From the second time on batches are settled meanwhile that have waited for their
/// destination.
fn full(run: &mut Run<'_>, cycles: u64) -> Result<()> {
    let process = run.node.process();
    for cycle in 1..=cycles {
        sleep(BETWEEN);
        run.disk.fill()?;
        let felt = run.until(false, "a full disk is felt")?;
        if cycle == 2 {
            run.misfits.heal()?;
        }
        sleep(HELD);
        fs::remove_file(run.disk.ballast()).context("remove the ballast")?;
        let over = run.until(true, "with room again every stream takes records")?;
        say(&format!("faults: full {cycle} of {cycles}: felt after {felt} ms, over after {over} ms"));
        run.note(felt, over);
    }
    if run.node.process() != process || !process.is_some_and(crate::process::ProcessId::is_running) {
        bail!("the server did not outlive a full disk");
    }
    Ok(())
}

/// Writes fail and the kernel makes the file system read-only; then the disk is mended and mounted again.
fn failing(run: &mut Run<'_>, cycles: u64) -> Result<()> {
    for cycle in 1..=cycles {
        sleep(BETWEEN);
        File::create(&run.disk.trigger).context("make the disk fail")?;
        let felt = run.until(false, "a failing disk is felt")?;
        sleep(HELD);
        fs::remove_file(&run.disk.trigger).context("mend the disk")?;
        run.node.kill();
        run.disk.mount()?;
        run.node.start().context("start on the mended disk")?;
        let over = run.until(true, "on a mended disk every stream takes records")?;
        say(&format!("faults: failing {cycle} of {cycles}: felt after {felt} ms, over after {over} ms"));
        run.note(felt, over);
    }
    Ok(())
}
