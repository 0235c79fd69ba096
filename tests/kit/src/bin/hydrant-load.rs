//! The load generator as a process. Reports are one line of JSON on stdout.
//!
//! `bench` and `probe` end by themselves; `witnessed` ends when its stdin does, so that it never outlives who started it.
//! The secret key comes from the environment variable `HYDRANT_SECRET`.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hydrant_kit::load::put::Target;
use hydrant_kit::load::{bench, idle, witnessed};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Puts records, signed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    to: To,
}

#[derive(Args)]
struct To {
    /// Where the API listens.
    #[arg(long, global = true, default_value = "http://127.0.0.1:4573")]
    endpoint: String,
    #[arg(long, global = true, default_value = "us-east-1")]
    region: String,
    #[arg(long, global = true, default_value = "dev")]
    access_key_id: String,
    /// The secret key.
    #[arg(long, global = true, env = "HYDRANT_SECRET", hide_env_values = true, default_value = "dev")]
    secret: String,
}

#[derive(Subcommand)]
enum Command {
    /// Log records as fast as the connections go
    Bench {
        /// The stream, or several with commas between: connections are dealt out to them in turn.
        #[arg(long, value_delimiter = ',', required = true)]
        stream: Vec<String>,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Bytes of a record, at least 150.
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
        /// Records of a request, 1 to 500.
        #[arg(long, default_value_t = 500)]
        batch: usize,
        /// Stop after this many seconds.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Stop after this many acknowledged records instead.
        #[arg(long)]
        records: Option<u64>,
        /// Stop when each connection has sent this many requests instead.
        #[arg(long, conflicts_with = "records")]
        requests: Option<u64>,
        /// Send no more than this, in 10^6 record bytes a second.
        #[arg(long, value_name = "MB")]
        mb_per_second: Option<f64>,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What a crowd of idle connections costs healthy clients
    Idle {
        #[arg(long)]
        stream: String,
        /// Healthy clients.
        #[arg(long, default_value_t = 4)]
        clients: usize,
        /// Idle connections.
        #[arg(long, default_value_t = 10_000)]
        crowd: usize,
        /// Seconds without the crowd, and again with it.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// The server's process, to look at its memory.
        #[arg(long)]
        server: Option<u32>,
    },
    /// Records that the oracle gives names to, until stdin ends
    Witnessed {
        /// The oracle, HOST:PORT.
        #[arg(long)]
        oracle: String,
        #[arg(long, default_value_t = 2)]
        connections_per_stream: usize,
        /// Milliseconds between the requests of a connection.
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
    },
    /// One fresh record into each stream of the oracle's plan
    Probe {
        /// The oracle, HOST:PORT.
        #[arg(long)]
        oracle: String,
    },
}

fn main() -> anyhow::Result<()> {
    let Cli { command, to } = Cli::parse();
    let target = Target {
        endpoint: to.endpoint,
        region: to.region,
        access_key_id: to.access_key_id,
        secret_access_key: to.secret,
    };
    match command {
        Command::Bench {
            stream,
            connections,
            record_bytes,
            batch,
            seconds,
            records,
            requests,
            mb_per_second,
            seed,
        } => {
            let until = match (records, requests) {
                (Some(records), _) => bench::Until::Records(records),
                (None, Some(requests)) => bench::Until::Requests(requests),
                (None, None) => bench::Until::Elapsed(Duration::try_from_secs_f64(seconds)?),
            };
            print(&bench::run(&bench::Plan {
                target,
                streams: stream,
                connections,
                record_bytes,
                batch,
                until,
                mb_per_second_max: mb_per_second,
                seed,
            })?)
        }
        Command::Idle { stream, clients, crowd, seconds, server } => {
            let time = Duration::try_from_secs_f64(seconds)?;
            print(&idle::run(&idle::Plan { target, stream, clients, crowd, time, server })?)
        }
        Command::Witnessed { oracle, connections_per_stream, pause_ms } => {
            let orders =
                witnessed::Orders { target, oracle, connections_per_stream, pause: Duration::from_millis(pause_ms) };
            print(&witnessed::run(&orders, &stop_with_stdin())?)
        }
        Command::Probe { oracle } => {
            let orders = witnessed::Orders { target, oracle, connections_per_stream: 1, pause: Duration::ZERO };
            print(&witnessed::probe(&orders)?)
        }
    }
}

/// A flag that is set when stdin ends.
fn stop_with_stdin() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    thread::spawn(move || {
        // Whatever is typed is of no interest, and an error is an end too.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        flag.store(true, Ordering::Relaxed);
    });
    stop
}

fn print(report: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    std::io::stdout().write_all(&line)?;
    Ok(())
}
