//! `cargo xtask`: what developers and CI run. Starts processes and looks at them; speaks no protocol of the product and
//! depends on none of its crates, so it compiles first and fast.
//!
//! | command | does |
//! |---|---|
//! | `services` | starts, stops and lists the real servers that tests need |
//! | `test` | starts those servers, runs every test against them, stops them |
//! | `check` | the gates: format, lints, docs, supply chain, Compose file |
//! | `torture` | kills the server under load, and has the oracle judge what became of the records |
//! | `hostile` | measures what clients that mean harm cost the others |
//! | `powercut` | records what a disk is told, and starts the server on what it may hold after a power cut |
//! | `faults` | fills a real disk, and makes one fail, while the server works on it |
//! | `bench` | measures the server into MinIO |
//! | `without-fsync` | runs a program whose fsyncs succeed and do nothing |
//! | `mutations` | takes each fsync out of storage and asks whether a test notices |

// This program waits for other processes and tells people how long it took: there is no seam to go through.
#![expect(clippy::disallowed_methods, reason = "polls foreign processes on the real clock")]

mod bench;
mod cargo;
mod check;
mod faults;
mod hostile;
mod kit;
mod machine;
mod mutations;
mod node;
mod powercut;
mod process;
mod progress;
mod random;
mod services;
mod test;
mod tools;
mod torture;
mod unsynced;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What developers and CI run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts, stops and lists the real servers that tests need.
    Services(services::Args),
    /// Runs every test, those against real servers included. Red when a server cannot start.
    Test(test::Args),
    /// Runs the gates: format, lints, docs, supply chain, unused dependencies, Compose file.
    Check(check::Args),
    /// Kills the server again and again under load; red unless every record is where it belongs, once.
    Torture(torture::Args),
    /// Holds idle connections by the thousand; red when healthy clients wait too long for it.
    Hostile(hostile::Args),
    /// Cuts the power under load; red unless every acknowledged record is still on the disk.
    Powercut(powercut::Args),
    /// Fills a disk and makes it fail under load; red unless the server goes on and nothing is lost.
    Faults(faults::Args),
    /// Measures throughput, latency, CPU and memory of the server into MinIO.
    Bench(bench::Args),
    /// Runs a program whose fsyncs succeed and do nothing.
    WithoutFsync(unsynced::Args),
    /// Takes each fsync out of storage, one at a time; red when no test notices.
    Mutations(mutations::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Services(args) => services::run(args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Torture(args) => torture::run(&args),
        Command::Hostile(args) => hostile::run(&args),
        Command::Powercut(args) => powercut::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::WithoutFsync(args) => unsynced::run(&args),
        Command::Mutations(args) => mutations::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
