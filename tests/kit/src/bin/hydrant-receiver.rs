//! The strict receiver as a process: prints where it listens, takes an order a line on stdin and answers it with a line, and
//! ends with its stdin.
//!
//! | order | what happens to requests from then on |
//! |---|---|
//! | `serve` | they are taken |
//! | `answer STATUS` | they are answered so, and not taken |
//! | `lose` | they are taken, and the connection is reset instead of an answer |
//! | `stall` | nothing |
//! | `count` | nothing changes; the answer is `REQUESTS IDS VIOLATIONS` |
//!
//! At its end it prints each violation on stderr, and fails if there was one.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hydrant_kit::receiver::{Form, Receiver, Rules, Script, refusal};

#[derive(Parser)]
#[command(about = "Takes requests of the HTTP endpoint protocol, and misbehaves when it is told to")]
struct Cli {
    /// The variable that holds the access key which requests must bring.
    #[arg(long)]
    access_key_env: Option<String>,
    /// How records lie in a request: firehose, ndjson, json-array, lines, or unread.
    #[arg(long, default_value = "firehose")]
    form: String,
    /// Where the records of each request are kept, in a file of its id.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let variable = |name: String| std::env::var(&name).with_context(|| format!("{name} is not set"));
    let rules =
        Rules { form: form(&cli.form)?, access_key: cli.access_key_env.map(variable).transpose()?, ..Rules::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let receiver = runtime.block_on(Receiver::start(rules, cli.folder))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", receiver.address())?;
    for line in std::io::stdin().lock().lines() {
        writeln!(out, "{}", obey(&receiver, &line?)?)?;
    }
    let violations = receiver.violations();
    for violation in &violations {
        writeln!(std::io::stderr(), "{violation}")?;
    }
    ensure!(violations.is_empty(), "{} requests broke the protocol", violations.len());
    Ok(())
}

fn obey(receiver: &Receiver, order: &str) -> anyhow::Result<String> {
    let script = match order.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["serve"] => Script::Serve,
        ["answer", status] => Script::Answer(refusal(status.parse().context("status")?, "by order")),
        ["lose"] => Script::TakeThenReset,
        ["stall"] => Script::Stall,
        ["count"] => {
            return Ok(format!("{} {} {}", receiver.requests(), receiver.ids(), receiver.violations().len()));
        }
        _ => bail!("no such order: {order}"),
    };
    receiver.follow(script);
    Ok("ok".to_owned())
}

fn form(name: &str) -> anyhow::Result<Form> {
    Ok(match name {
        "firehose" => Form::Firehose,
        "ndjson" => Form::Ndjson,
        "json-array" => Form::JsonArray,
        "lines" => Form::Lines,
        "unread" => Form::Unread,
        _ => bail!("no such form: {name}"),
    })
}
