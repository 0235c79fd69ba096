//! The oracle as a producer sees it: a connection that gives out ids and takes answers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};

use super::{Plan, Verdict};

/// A connection to the oracle.
#[derive(Debug)]
pub struct Witness {
    stream: BufReader<TcpStream>,
}

impl Witness {
    /// Connects to the oracle at `host:port`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("oracle at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// What the run is about.
    ///
    /// # Errors
    /// When the oracle does not answer, as for all that follow.
    pub fn plan(&mut self) -> anyhow::Result<Plan> {
        Ok(serde_json::from_str(&self.ask("plan")?)?)
    }

    /// Ids for the records of one request; the first of them.
    ///
    /// # Errors
    /// When the oracle does not answer.
    pub fn claim(&mut self, stream: usize, count: usize) -> anyhow::Result<u64> {
        let answer = self.ask(&format!("claim {stream} {count}"))?;
        answer.strip_prefix("ok ").and_then(|first| first.parse().ok()).with_context(|| format!("claim: {answer}"))
    }

    /// Tells that records were acknowledged.
    ///
    /// # Errors
    /// When the oracle does not answer.
    pub fn acked(&mut self, stream: usize, first: u64, count: usize) -> anyhow::Result<()> {
        self.ask(&format!("acked {stream} {first} {count}")).map(drop)
    }

    /// Tells that records were not taken.
    ///
    /// # Errors
    /// When the oracle does not answer.
    pub fn refused(&mut self, stream: usize, first: u64, count: usize) -> anyhow::Result<()> {
        self.ask(&format!("refused {stream} {first} {count}")).map(drop)
    }

    /// Has the oracle read what is new; how many objects that were.
    ///
    /// # Errors
    /// When the oracle does not answer, or cannot read a place.
    pub fn poll(&mut self) -> anyhow::Result<u64> {
        let answer = self.ask("poll")?;
        answer.strip_prefix("ok ").and_then(|count| count.parse().ok()).with_context(|| format!("poll: {answer}"))
    }

    /// The verdict by what the oracle read so far.
    ///
    /// # Errors
    /// When the oracle does not answer.
    pub fn verdict(&mut self) -> anyhow::Result<Verdict> {
        Ok(serde_json::from_str(&self.ask("verdict")?)?)
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        let answer = answer.trim_end();
        if answer.is_empty() {
            bail!("the oracle hung up");
        }
        if let Some(error) = answer.strip_prefix("error ") {
            bail!("oracle: {error}");
        }
        Ok(answer.to_owned())
    }
}
