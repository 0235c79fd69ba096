//! The oracle as a process: reads its plan, prints where it listens, answers until its stdin ends.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use anyhow::Context;
use clap::Parser;
use hydrant_kit::oracle::{self, Plan};

#[derive(Parser)]
#[command(about = "Knows what was promised, reads what arrived, judges")]
struct Cli {
    /// The plan of the run, JSON.
    #[arg(long)]
    plan: PathBuf,
    /// Where to listen. The port is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let text = std::fs::read_to_string(&cli.plan).with_context(|| cli.plan.display().to_string())?;
    let plan: Plan = serde_json::from_str(&text).context("plan")?;
    let listener = TcpListener::bind(&cli.listen).with_context(|| cli.listen.clone())?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    thread::spawn(move || {
        oracle::serve(plan, &listener).map_err(|error| writeln!(std::io::stderr(), "oracle: {error:#}"))
    });
    // It ends with who started it, so a run that is broken off leaves nothing behind.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
