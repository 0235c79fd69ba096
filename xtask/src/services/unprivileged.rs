//! Servers that refuse to run as root run as `nobody` when we are root.

use std::fs;
use std::os::unix::fs::lchown;
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

/// Gives a folder with all it holds to whom such commands run as.
///
/// # Errors
/// When it cannot be read or its owner cannot be changed.
pub(super) fn give(path: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    lchown(path, Some(NOBODY), Some(NOBODY)).with_context(|| format!("give {} to nobody", path.display()))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}
