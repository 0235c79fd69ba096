//! `hydrant drain`: has a running server seal and send everything.

use clap::Args as ClapArgs;

use super::{Failure, Output};

/// Has a running server seal and send everything it holds.
///
/// New records are refused meanwhile. Ends when nothing is owed any more, so the data directory can be thrown away.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant drain --data ./hydrant-data")]
pub(super) struct Args {
    /// The data directory of the running server.
    #[arg(long, value_name = "DIR", default_value = "./hydrant-data")]
    data: std::path::PathBuf,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(super) fn run(args: &Args, _out: &mut Output) -> Result<(), Failure> {
    Err(Failure::failed(format!("not written yet: {args:?}")))
}
