//! The misbehaving proxy as a process: prints where it listens, takes an order a line on stdin and answers it with a line,
//! and ends with its stdin.
//!
//! | order | what happens to connections opened from then on |
//! |---|---|
//! | `none` | nothing |
//! | `refuse` | they are reset at once |
//! | `cut-request BYTES` | they are reset when so many bytes of requests have passed |
//! | `cut-answer BYTES` | they are reset when so many bytes of answers have passed |
//! | `slow MS` | a request passes 16 KiB at a time, each after so many milliseconds |

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use hydrant_kit::proxy::{Fault, Proxy};

#[derive(Parser)]
#[command(about = "Passes connections on, and misbehaves when it is told to")]
struct Cli {
    /// Where connections go, HOST:PORT.
    #[arg(long)]
    to: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let proxy = runtime.block_on(Proxy::start(cli.to))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", proxy.address())?;
    for line in std::io::stdin().lock().lines() {
        proxy.choose(fault(&line?)?);
        writeln!(out, "ok")?;
    }
    Ok(())
}

fn fault(order: &str) -> anyhow::Result<Fault> {
    Ok(match order.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["none"] => Fault::None,
        ["refuse"] => Fault::Refuse,
        ["cut-request", bytes] => Fault::ResetRequestAfter(bytes.parse().context("bytes")?),
        ["cut-answer", bytes] => Fault::ResetAnswerAfter(bytes.parse().context("bytes")?),
        ["slow", ms] => Fault::SlowRequest(Duration::from_millis(ms.parse().context("milliseconds")?)),
        _ => bail!("no such order: {order}"),
    })
}
