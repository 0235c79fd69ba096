//! `hydrant demo`: one minute's tour.

use clap::Args as ClapArgs;

use super::{Failure, Output};

/// Starts a server on loopback, puts 100,000 log records, and shows the objects they became.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant demo
  hydrant demo --keep")]
pub(super) struct Args {
    /// Keep the server running afterwards, to try it with your own client.
    #[arg(long)]
    keep: bool,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(super) fn run(args: &Args, _out: &mut Output) -> Result<(), Failure> {
    Err(Failure::failed(format!("not written yet: {args:?}")))
}
