//! `cargo xtask test`: every test, those against real servers included.
//!
//! A server that cannot start is an error, never a skip.

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::{build, cargo, run as finish};
use crate::machine::Facts;
use crate::progress::say;
use crate::services::{Fleet, environment, read_env_file};
use crate::tools::Cache;

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Takes servers that run already, as Compose publishes them, from a file of `HYDRANT_TEST_*` lines.
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
}

/// Installs and builds what is missing, starts the servers, runs the tests, stops the servers.
///
/// # Errors
/// When something does not compile, a server does not start, or a test fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cache = Cache::open()?;
    if args.env.is_none() {
        Fleet::install(&cache)?;
    }
    build()?;
    let mut test =
        cargo(&["test", "--release", "--locked", "--workspace", "--no-fail-fast", "--", "--include-ignored"]);
    test.args(&args.filter);
    let fleet;
    if let Some(file) = &args.env {
        test.envs(environment(&cache)?).envs(read_env_file(file)?);
    } else {
        fleet = Fleet::start(&cache, &[])?;
        test.envs(&fleet.addresses);
    }
    say(&format!("test: {}", Facts::read()));
    say("test: all, live ones included");
    finish("test", test)
}
