//! `hydrant dlq`: the dead letters of a stream as a queue.

use clap::{Args as ClapArgs, Subcommand};
use hydrant_core::Clock;
use hydrant_core::duration::TimeSpan;

mod list;

mod redrive;

use super::{Failure, Output};
use crate::dead_letters::Choice;
use crate::system::SystemClock;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Ls(list::LsArgs),
    Show(list::ShowArgs),
    Redrive(redrive::Args),
}

/// Does it.
///
/// # Errors
/// As the commands do.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Ls(args) => list::ls(args, out),
        Command::Show(args) => list::show(args, out),
        Command::Redrive(args) => redrive::run(args, out),
    }
}

/// Which dead letters; the same for all that is done with them.
#[derive(Debug, ClapArgs)]
struct Filter {
    /// Only those refused within this time up to now, such as 24h. Of a whole object its oldest record counts.
    #[arg(long, value_name = "TIME")]
    since: Option<TimeSpan>,
    /// Only those refused for this (invalid, too-large, …), in this stage (encode, deliver), or `object`: whole objects.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only records that hold this text, and no whole objects.
    #[arg(long = "match", value_name = "TEXT")]
    text: Option<String>,
}

impl Filter {
    fn choice(&self) -> Choice {
        let since = self.since.map_or(0, |since| {
            let since = u64::try_from(since.0.as_millis()).unwrap_or(u64::MAX);
            SystemClock::start().now().as_millis().saturating_sub(since)
        });
        Choice { since, kind: self.kind.clone(), text: self.text.clone() }
    }
}
