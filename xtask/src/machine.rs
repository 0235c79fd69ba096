//! Facts of the machine and the tree that stand beside every figure: without them a figure says nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fmt, fs};

use serde::Serialize;

/// The machine and the tree at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// Abbreviated commit, with `+` when files differ from it; `unknown` outside a repository.
    pub(crate) commit: String,
    /// `rustc --version`.
    pub(crate) rustc: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Model name of the first processor.
    pub(crate) processor: String,
    /// Processors this process may use.
    pub(crate) cores: usize,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Load averages over 1, 5 and 15 minutes.
    pub(crate) load: String,
    /// Seconds since 1970-01-01 UTC.
    pub(crate) at: u64,
}

impl Facts {
    /// Reads them now. What cannot be read is `unknown` or zero.
    pub(crate) fn read() -> Self {
        let commit = answer("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        let dirty = answer("git", &["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
        Self {
            commit: if dirty { format!("{commit}+") } else { commit },
            rustc: answer("rustc", &["--version"]).unwrap_or_else(|| "unknown".to_owned()),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|total| kibibytes(&total)).unwrap_or(0) * 1024,
            load: load(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, rustc, kernel, processor, cores, memory_bytes, load, .. } = self;
        let gibibytes = memory_bytes >> 30;
        write!(f, "commit {commit}, {rustc}, Linux {kernel}, {cores} x {processor}, {gibibytes} GiB, load {load}")
    }
}

/// Load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    first_line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A seed from the clock, for runs that were not given one. Print it.
pub(crate) fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
}

/// The root of the workspace. Asked of the cargo that started us: what was true when this was compiled may be another
/// clone that shares its target folder.
pub(crate) fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into()));
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// What a program prints, trimmed; none when it cannot run or fails.
pub(crate) fn answer(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(workspace()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The first `name : value` line of a file under `/proc`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse().ok()
}
