//! Mutations: takes each fsync out of storage, one at a time, and asks whether a test notices.
//!
//! In: the tree as it stands. Out: a table of the sites and the tests that turned red; an error when an fsync can go
//! and no test cares. Works in a copy of the tree under the target folder, so nothing that anybody edits is touched.
//!
//! All sites are changed at once, each to ask an environment variable whether it is the one that does nothing. So the
//! tests are built once. For each site those of its own part run first, and all the others only when none of them noticed.
//! A site is found by its text; one that is not there exactly once is an error, so that the list cannot grow old.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{self, cargo};
use crate::machine::{Facts, workspace};
use crate::progress::{print, say};

mod sites;

use sites::{SITES, Site};

/// Longest that the tests may take with one fsync missing. They take a minute; one that hangs has noticed too.
const TESTS_MAX: Duration = Duration::from_mins(10);

/// What `cargo xtask mutations` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only sites whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Runs the tests of storage once as they are and once for each site.
///
/// # Errors
/// When the tests fail as they are, when a site is not found, and when no test notices that one is gone.
pub(crate) fn run(args: &Args) -> Result<()> {
    let place = cargo::target()?.join("mutations");
    let tree = copy_tree(&place.join("tree"))?;
    change(&tree)?;
    say("mutations: the tests with nothing missing");
    let red = tests(&tree, &place, "nothing", "")?;
    ensure!(red.is_empty(), "tests are red although nothing is missing: {}", red.join(", "));
    print(&format!("{}\n", Facts::read()))?;
    print("| fsync | what its absence would break | tests that turn red |\n|---|---|---|")?;
    let mut unnoticed = Vec::new();
    for site in SITES.iter().filter(|site| site.name.contains(&args.only)) {
        say(&format!("mutations: without {}", site.name));
        let mut red = tests(&tree, &place, site.name, site.part())?;
        if red.is_empty() {
            red = tests(&tree, &place, site.name, "")?;
        }
        if red.is_empty() {
            unnoticed.push(site.name);
        }
        print(&format!("| {} | {} | {} |", site.name, site.breaks, summary(&red)))?;
    }
    ensure!(unnoticed.is_empty(), "no test notices the absence of: {}", unnoticed.join(", "));
    Ok(())
}

/// Makes every site of the copy ask whether it is the one that is missing.
fn change(tree: &Path) -> Result<()> {
    for Site { name, file, place, call, .. } in SITES {
        let path = tree.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let times = text.matches(place).count();
        ensure!(times == 1, "{name}: its text is in {file} {times} times");
        let asking = format!("(if crate::is_missing(\"{name}\") {{ Ok(()) }} else {{ {call} }})");
        let changed = place.replacen(call, &asking, 1);
        fs::write(&path, text.replacen(place, &changed, 1))?;
    }
    let path = tree.join("storage/src/lib.rs");
    let text = fs::read_to_string(&path)? + IS_MISSING;
    fs::write(&path, text)?;
    Ok(())
}

/// Which site does nothing, by the environment of the tests.
const SITE: &str = "HYDRANT_MISSING_SYNC";

const IS_MISSING: &str = r#"
pub(crate) fn is_missing(site: &str) -> bool {
    static MISSING: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("HYDRANT_MISSING_SYNC").ok());
    MISSING.as_deref() == Some(site)
}
"#;

/// Runs the tests of storage with this in their names, in the copy and without this fsync; gives those that failed.
/// Left out are those that flip each byte of a file: they are long, and know nothing of fsyncs.
fn tests(tree: &Path, place: &Path, site: &str, part: &str) -> Result<Vec<String>> {
    let mut command = cargo(&["test", "--release", "--locked", "--lib", "-p", "hydrant-storage"]);
    command.args(["--", "--skip", "damage", part]);
    command.current_dir(tree).env(SITE, site).env("RUST_BACKTRACE", "0").env("CARGO_TARGET_DIR", cargo::target()?);
    let log = place.join("tests.log");
    command.stdout(fs::File::create(&log)?).stderr(Stdio::null());
    let mut child = command.spawn().context("start cargo test")?;
    let deadline = Instant::now() + TESTS_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(vec![format!("(no end within {} min)", TESTS_MAX.as_secs() / 60)]);
        }
        thread::sleep(Duration::from_millis(200));
    };
    let said = fs::read_to_string(&log)?;
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let red: Vec<String> = said.lines().filter_map(failed).collect();
    if !status.success() && red.is_empty() {
        bail!("the tests could not be built or run: {status}; run cargo test in {}", tree.display());
    }
    Ok(red)
}

/// A copy of every file of the tree that git knows or would take.
fn copy_tree(to: &Path) -> Result<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(workspace())
        .output()
        .context("start git ls-files")?;
    ensure!(listed.status.success(), "git ls-files: {}", listed.status);
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (source, target) = (workspace().join(name), to.join(name));
        let Ok(bytes) = fs::read(&source) else { continue }; // deleted, and git has not heard of it
        if fs::read(&target).is_ok_and(|there| there == bytes) {
            continue; // its time stays, so cargo does not build it again
        }
        fs::create_dir_all(target.parent().context("a file has a folder")?)?;
        fs::write(&target, bytes)?;
    }
    Ok(to.to_owned())
}

/// The first few names, and how many more.
fn summary(red: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = red.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = red.len().saturating_sub(SHOWN);
    match (shown.is_empty(), more) {
        (true, _) => "**none**".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
