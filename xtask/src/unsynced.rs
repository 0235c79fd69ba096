//! `cargo xtask without-fsync PROGRAM …`: runs a program that asks the disk for nothing. Its fsyncs succeed and do
//! nothing, by a filter of the kernel, so the program itself needs no switch for it that somebody could leave on.
//!
//! For two things: how much an fsync costs, and that a power cut without any is noticed.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// `fsync`, `fdatasync`, `sync_file_range`, `syncfs` and `sync` by their numbers on x86-64.
#[cfg(target_arch = "x86_64")]
const SYNCS: [i64; 5] = [74, 75, 277, 306, 162];

/// The same on 64-bit ARM.
#[cfg(target_arch = "aarch64")]
const SYNCS: [i64; 5] = [82, 83, 84, 267, 81];

/// Options of `without-fsync`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<PathBuf>,
}

/// Becomes the program. Returns only when it cannot.
///
/// # Errors
/// When the kernel takes no filter, or the program cannot start.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (program, words) = args.command.split_first().context("a program")?;
    apply_filter(&filter()?).context("have the kernel answer fsync itself")?;
    Err(Command::new(program).args(words).exec()).with_context(|| format!("start {}", program.display()))
}

fn filter() -> Result<BpfProgram> {
    let rules: BTreeMap<_, _> = SYNCS.into_iter().map(|number| (number, Vec::new())).collect();
    // "Errno 0" is an answer of success without the call.
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
