//! `hydrant run FILE`: the server.

use clap::Args as ClapArgs;

use super::{Failure, Output};

/// Runs the server until it is told to stop.
///
/// Opens the data directory (and recovers what a crash left), starts delivery of what is still owed, then listens.
/// SIGTERM and Ctrl-C stop it: open requests are answered, what is under way is finished within `server.grace`, and
/// what is only buffered stays on disk for the next start.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant run hydrant.yaml
  hydrant run hydrant.yaml --data /var/lib/hydrant
  aws firehose --endpoint-url http://127.0.0.1:4573 list-delivery-streams")]
pub(super) struct Args {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: std::path::PathBuf,
    /// The data directory, instead of `server.data`.
    #[arg(long, value_name = "DIR")]
    data: Option<std::path::PathBuf>,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(super) fn run(args: &Args, _out: &mut Output) -> Result<(), Failure> {
    Err(Failure::failed(format!("not written yet: {args:?}")))
}
