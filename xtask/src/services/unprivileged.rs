//! Servers that refuse to run as root run as `nobody` when we are root.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::geteuid;

/// The user and group `nobody`, `nogroup` of Debian.
const NOBODY: u32 = 65_534;

/// A command that runs without privileges.
pub(super) fn command(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .args(["--clear-groups", "--"])
        .arg(program);
    command.env("HOME", "/tmp");
    command
}

/// Gives files and folders to whom such commands run as.
///
/// # Errors
/// When the owner cannot be changed.
pub(super) fn give(paths: &[&Path]) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    for path in paths {
        chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| format!("give {} to nobody", path.display()))?;
    }
    Ok(())
}
