//! `hydrant cat OBJECT`: the records of an object that Hydrant wrote.

use clap::Args as ClapArgs;

use super::{Failure, Output};

/// Writes the content of an object that Hydrant wrote, uncompressed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant cat ./objects/2026/11/21/12/web-1-2026-11-21-12-00-00-046b6c7f-0b5a-4f82-9aa5-1d6ea8b4a2c3.gz")]
pub(super) struct Args {
    /// The object: a path, or `s3://bucket/key`.
    #[arg(value_name = "OBJECT")]
    object: String,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(super) fn run(args: &Args, _out: &mut Output) -> Result<(), Failure> {
    Err(Failure::failed(format!("not written yet: {args:?}")))
}
