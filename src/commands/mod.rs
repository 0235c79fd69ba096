//! What the program can be told to do, one file per command.
//!
//! In: the command line. Out: an answer on standard output, or a [`Failure`] on standard error, and an exit code:
//! 0 done, 1 failed, 2 usage, 3 configuration, 4 damage found.
//!
//! Every command is a file with its `Args` and a `run(args, out) -> Result<(), Failure>`. Commands are synchronous;
//! those that need a runtime make it by [`block_on`]. What people read goes through [`Output::say`], what programs
//! read (`--output json`) through [`Output::answer`]; a failure prints itself in whichever was asked for. Nothing
//! else in the program writes to standard output.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod failure;

mod output;

mod init;

mod check;

mod run;

mod drain;

mod cat;

mod dlq;

mod log_verify;

mod demo;

use failure::wants_colour;
pub use failure::{Failure, Kind};
pub use output::{Format, Output};

const EXAMPLES: &str = "\
Start here:
  hydrant demo                      one minute's tour: a server, 100,000 records, the objects they became
  hydrant init                      writes hydrant.yaml, a commented configuration to change
  hydrant check hydrant.yaml        all that is wrong with it, in one go
  hydrant run hydrant.yaml          the server, on http://127.0.0.1:4573

Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  wrong configuration
  4  damage found";

/// A self-hosted delivery service that speaks the Amazon Data Firehose API.
///
/// Producers put records with any AWS SDK; Hydrant stores them on disk before it answers, batches and compresses
/// them, and delivers the batches as objects to S3, its kin, or a folder.
#[derive(Debug, Parser)]
#[command(name = "hydrant", version, after_help = EXAMPLES, arg_required_else_help = true, verbatim_doc_comment)]
struct CommandLine {
    /// How answers and errors are written: for people, or as JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Check(check::Args),
    Run(run::Args),
    Drain(drain::Args),
    Cat(cat::Args),
    /// Dead letters: lists and shows what was refused, and puts it back.
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Looks at what lies on disk.
    #[command(subcommand)]
    Log(LogCommand),
    Demo(demo::Args),
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    Verify(log_verify::Args),
}

/// Does what the command line says. The life of the process: parse, do, report, exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let outcome = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => {
            let format = line.output;
            line.command.run(&mut Output::stdout(format)).map_err(|failure| (failure, format))
        }
        Err(error) if !error.use_stderr() => {
            Output::stdout(Format::Text).write(shown(&error).as_bytes()).map_err(|failure| (failure, Format::Text))
        }
        Err(error) => Err((Failure::from_clap(&error), Format::wanted_by(&arguments))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((failure, format)) => {
            failure.print(format);
            failure.exit_code()
        }
    }
}

/// A help or a version, with colours where they are welcome.
fn shown(text: &clap::Error) -> String {
    let rendered = text.render();
    if wants_colour(&std::io::stdout()) { rendered.ansi().to_string() } else { rendered.to_string() }
}

impl Command {
    fn run(&self, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Init(args) => init::run(args, out),
            Self::Check(args) => check::run(args, out),
            Self::Run(args) => run::run(args, out),
            Self::Drain(args) => drain::run(args, out),
            Self::Cat(args) => cat::run(args, out),
            Self::Dlq(command) => dlq::run(command, out),
            Self::Log(LogCommand::Verify(args)) => log_verify::run(args, out),
            Self::Demo(args) => demo::run(args, out),
        }
    }
}

/// How long threads that hang on a disk or a mount may keep the process from ending.
const SHUTDOWN_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs `future` to its end on a runtime with a worker per core.
///
/// # Errors
/// When the system refuses threads.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::caused("start the runtime", &error))?;
    let output = runtime.block_on(future);
    runtime.shutdown_timeout(SHUTDOWN_WITHIN);
    Ok(output)
}

#[cfg(test)]
mod tests;
