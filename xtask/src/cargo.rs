//! Calls of cargo. Everything is built once, by [`build`], with the features that tests need: tests, torture and bench
//! all use what it left.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, str};

use anyhow::{Context, Result, bail};

use crate::machine::workspace;
use crate::progress::say;

/// A call of the cargo that started us, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace()).stdin(Stdio::null());
    command
}

/// Builds all programs and tests in the release profile. One call for both, so that features are the same for both
/// and nothing compiles twice. Returns the folder of the programs.
///
/// # Errors
/// When something does not compile.
pub(crate) fn build() -> Result<PathBuf> {
    say("build: programs and tests, release profile");
    run("build", cargo(&["build", "--release", "--locked", "--workspace", "--bins", "--tests", "--examples"]))?;
    Ok(target()?.join("release"))
}

/// Runs a command to its end, its output on ours.
///
/// # Errors
/// When it cannot start or does not succeed.
pub(crate) fn run(name: &str, mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{name}: start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// The target folder, as cargo sees it.
///
/// # Errors
/// When cargo does not tell.
pub(crate) fn target() -> Result<PathBuf> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let target = metadata.get("target_directory").and_then(|target| target.as_str());
    Ok(PathBuf::from(target.context("cargo metadata names no target_directory")?))
}
