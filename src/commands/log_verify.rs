//! `hydrant log verify DIR`: reads everything in a data directory and says what is damaged. Never writes.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use hydrant_storage::catalog::OpenError;
use hydrant_storage::files::real::RealFiles;
use hydrant_storage::verify::{StreamReport, verify};

use super::{Failure, Output};
use crate::control::counted;

/// Reads log, outbox and ledger of every stream and says what is damaged. Never writes.
///
/// Meant for the directory of a server that does not run; beside a running one it may report what it read while it was
/// being written.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant log verify ./hydrant-data
  hydrant log verify ./hydrant-data --output json

Exit code 4 says that damage was found. A torn end of a file is no damage: what lies there was never acknowledged.")]
pub(super) struct Args {
    /// The data directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Does it.
///
/// # Errors
/// When the directory cannot be read, or damage was found.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let report = verify(&args.dir, &RealFiles).map_err(|error| {
        let failure = match &error {
            OpenError::Damaged { .. } => Failure::damage(error.to_string()),
            OpenError::NoData { .. } | OpenError::Foreign { .. } => {
                return Failure::failed(error.to_string()).with_code("no_data_directory");
            }
            OpenError::OtherFormat { .. } => return Failure::failed(error.to_string()).with_code("other_format"),
            OpenError::InUse { .. } | OpenError::Io { .. } => Failure::failed(error.to_string()),
        };
        failure.at(args.dir.display())
    })?;
    for stream in &report.streams {
        tell(stream, out)?;
    }
    out.answer(&report)?;
    match report.damages().count() {
        0 => out.say(format_args!("{}, no damage", counted(len(report.streams.len()), "stream"))),
        1 => Err(Failure::damage("1 place is damaged").at(args.dir.display())),
        found => Err(Failure::damage(format!("{found} places are damaged")).at(args.dir.display())),
    }
}

fn len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn tell(stream: &StreamReport, out: &mut Output) -> Result<(), Failure> {
    let StreamReport { name, log, ledger, outbox, damages, .. } = stream;
    out.say(format_args!(
        "{name}: {} in {} whole, {} owed, {} of {} whole, records below {} forgotten, {} lost so far",
        counted(log.records, "record"),
        counted(log.segments, "segment"),
        counted(ledger.batches_owed, "batch"),
        counted(outbox.batches, "batch file"),
        counted(outbox.bytes, "byte"),
        ledger.forget,
        counted(ledger.lost_records, "record"),
    ))?;
    for damage in damages {
        let at = damage.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
        out.say(format_args!("  damaged: {}{at}: {}", damage.path.display(), damage.what))?;
    }
    Ok(())
}
