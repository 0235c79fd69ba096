//! `hydrant check FILE`: all that is wrong with a configuration, in one go.

use clap::Args as ClapArgs;

use super::{Failure, Output};

/// Says all that is wrong with a configuration, in one go. Connects to nothing.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant check hydrant.yaml")]
pub(super) struct Args {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: std::path::PathBuf,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(super) fn run(args: &Args, _out: &mut Output) -> Result<(), Failure> {
    Err(Failure::failed(format!("not written yet: {args:?}")))
}
