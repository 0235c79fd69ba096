//! Progress on stderr, results on stdout. Each line tells the seconds since the start, so a log shows where time went.

use std::io::{Write, stderr, stdout};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Prints a line for people on stderr.
pub(crate) fn say(line: &str) {
    // A closed stderr is no reason to stop what is under way.
    drop(writeln!(stderr().lock(), "[{:>6.1}s] {line}", elapsed().as_secs_f64()));
}

/// Prints a result on stdout.
///
/// # Errors
/// When stdout is closed or full.
pub(crate) fn print(result: &str) -> std::io::Result<()> {
    writeln!(stdout().lock(), "{result}")
}

/// Time since the first line was printed.
pub(crate) fn elapsed() -> Duration {
    START.elapsed()
}
