//! The oracle's own protocol: lines over TCP, a question and its answer each.
//!
//! | question | answer | |
//! |---|---|---|
//! | `plan` | the plan as JSON | |
//! | `claim STREAM COUNT` | `ok FIRST` | before the request is sent |
//! | `acked STREAM FIRST COUNT` | `ok` | after a 200 |
//! | `refused STREAM FIRST COUNT` | `ok` | after an answer that says: not taken |
//! | `poll` | `ok OBJECTS` | reads what is new |
//! | `verdict` | the verdict as JSON, by what was read so far | |
//! | `image NANOS` | the same, by what lies in the places now and was promised at that moment since 1970 | of a disk that lost its power then |
//!
//! Anything else, and any failure, is answered `error TEXT`. A connection may ask any number of times.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context;

use super::arrivals::lock;
use super::{Arrivals, Claims, Plan};

struct Oracle {
    plan: Plan,
    claims: Mutex<Claims>,
    arrivals: Mutex<Arrivals>,
}

/// Answers questions about this plan until the process ends.
///
/// # Errors
/// When the plan's places cannot be named, or when connections can no longer be accepted.
pub fn serve(plan: Plan, listener: &TcpListener) -> anyhow::Result<()> {
    let (claims, arrivals) = (Mutex::new(Claims::new(&plan)), Mutex::new(Arrivals::new(&plan)?));
    let oracle = Arc::new(Oracle { plan, claims, arrivals });
    loop {
        let (stream, _) = listener.accept()?;
        let oracle = Arc::clone(&oracle);
        // A connection that breaks is its client's end, and the client knows.
        thread::spawn(move || drop(converse(&oracle, stream)));
    }
}

fn converse(oracle: &Oracle, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = oracle.answer(&line?).unwrap_or_else(|error| format!("error {error:#}").replace('\n', " "));
        stream.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

impl Oracle {
    fn answer(&self, question: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = question.split_whitespace().collect();
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text} is not a number"));
        let stream = |text: &str| text.parse::<usize>().with_context(|| format!("{text} is not a stream"));
        match words.as_slice() {
            ["plan"] => Ok(serde_json::to_string(&self.plan)?),
            ["claim", of, count] => {
                let first = lock(&self.claims).claim(stream(of)?, number(count)?).context("no such stream")?;
                Ok(format!("ok {first}"))
            }
            ["acked", of, first, count] => {
                lock(&self.claims).acked(stream(of)?, number(first)?, number(count)?);
                Ok("ok".to_owned())
            }
            ["refused", of, first, count] => {
                lock(&self.claims).refused(stream(of)?, number(first)?, number(count)?);
                Ok("ok".to_owned())
            }
            ["poll"] => {
                let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(format!("ok {}", arrivals.poll(&self.claims)?))
            }
            ["verdict"] => Ok(serde_json::to_string(&lock(&self.claims).verdict())?),
            ["image", moment] => {
                let claims = Mutex::new(lock(&self.claims).as_of(number(moment)?));
                Arrivals::new(&self.plan)?.poll(&claims)?;
                Ok(serde_json::to_string(&lock(&claims).verdict())?)
            }
            _ => anyhow::bail!("no such question: {question}"),
        }
    }
}
