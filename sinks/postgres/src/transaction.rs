//! One attempt: a batch in one transaction, with its guard.
//!
//! ```text
//!   begin, put up the guard ──there already──────────────────────────────> delivered before: roll back
//!        └─ savepoint ─> COPY all ──taken──> (merge) ──> commit ──────────> delivered
//!                          └─ a row is at fault ─> search: COPY windows ──> roll back, and say which
//! ```
//!
//! The guard is answered before the first row is sent, and is held until the end: whatever became of an earlier attempt is
//! decided by then. Nothing is committed unless the table took every row.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use hydrant_core::batch::Batch;
use hydrant_core::{Fault, FaultCode};
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use crate::connection::Failure;
use crate::search::Search;
use crate::table::Statements;
use crate::wire::Judgement;

/// How much goes in one message of a COPY: large beside its head of five bytes, small beside a batch.
const PART_BYTES: usize = 128 << 10;

/// Most tries of a search. What it has found by then is reported, and the next attempt goes on: a second or so each.
const TRIES_MAX: usize = 1_000;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// All rows are committed, now or by an earlier attempt.
    Delivered,
    /// Nothing is committed. These rows can never be, by their number in the body; of the others that is not known.
    Refused(BTreeMap<usize, Fault>),
}

/// One attempt on a session outside any transaction. When it has ended well the session is outside again.
pub(crate) struct Attempt<'a> {
    pub(crate) client: &'a Client,
    pub(crate) statements: &'a Statements,
    pub(crate) batch: &'a Batch,
    /// Rows of a text COPY, each ended by a newline.
    pub(crate) body: Bytes,
    /// Longest wait for one answer.
    pub(crate) patience: Duration,
}

impl Attempt<'_> {
    /// Makes it. If tables are missing that may be made, makes them and begins once more.
    pub(crate) async fn make(&self) -> Result<Ending, Failure> {
        match self.transact().await {
            Err(failure) if failure.lacks_table() => {
                self.say("ROLLBACK").await?;
                if let Err(reason) = self.say(&self.statements.create).await {
                    let (lacks, reason) = (failure.into_fault(), reason.into_fault());
                    let message = format!("{}, and cannot be made: {}", lacks.message, reason.message);
                    return Err(Failure::unanswered(lacks.code, message));
                }
                self.transact().await
            }
            ended => ended,
        }
    }

    async fn transact(&self) -> Result<Ending, Failure> {
        let counts = self.say(&self.statements.begin(self.batch)).await?;
        match counts.as_slice() {
            [.., 1, _savepoint] => {}
            [.., 0, _savepoint] => {
                self.say("ROLLBACK").await?;
                return Ok(Ending::Delivered);
            }
            _ => return Err(Failure::unanswered(FaultCode::Protocol, "the answer to the guard is not one")),
        }
        let copy = self.within(self.client.prepare(&self.statements.copy)).await?;
        match self.fill(&copy, parts(&self.body, 0..self.body.len())).await {
            Ok(()) => self.commit().await,
            Err(failure) => {
                let rows = Rows::of(&self.body);
                let mut search = Search::new(rows.count());
                self.blame(&mut search, failure)?;
                self.search(&copy, &rows, search).await
            }
        }
    }

    /// Finds the rows at fault, each try behind a savepoint.
    async fn search(&self, copy: &Statement, rows: &Rows<'_>, mut search: Search) -> Result<Ending, Failure> {
        for _ in 0..TRIES_MAX {
            let next = search.next();
            if next.is_empty() {
                break;
            }
            match self.again(copy, rows.parts(&next)).await {
                Ok(()) => {
                    search.taken();
                    self.say(&self.statements.keep).await?;
                }
                Err(failure) => self.blame(&mut search, failure)?,
            }
        }
        let is_complete = search.next().is_empty();
        let refused = search.into_refused();
        if refused.is_empty() && is_complete {
            return self.commit().await; // every row was taken in the end
        }
        self.say("ROLLBACK").await?;
        Ok(Ending::Refused(refused))
    }

    /// Undoes the last try and sends rows, without a wait in between.
    async fn again(&self, copy: &Statement, parts: impl Iterator<Item = Bytes>) -> Result<(), Failure> {
        let (undone, filled) = tokio::join!(biased; self.say(&self.statements.undo), self.fill(copy, parts));
        undone?;
        filled
    }

    /// Notes what a failure says of the rows just tried; gives back one that no row is to blame for.
    fn blame(&self, search: &mut Search, failure: Failure) -> Result<(), Failure> {
        let Failure::Complaint(complaint) = failure else { return Err(failure) };
        let line = complaint.line(&self.statements.filled);
        let complaint = complaint.with_column_of(&self.statements.filled, &self.statements.columns);
        match complaint.judge() {
            Judgement::Row(fault) => search.refused(line, fault),
            Judgement::Again(_) => return Err(Failure::Complaint(complaint)),
        }
        Ok(())
    }

    /// Sends rows, and has them merged where they went to a stage.
    async fn fill(&self, copy: &Statement, parts: impl Iterator<Item = Bytes>) -> Result<(), Failure> {
        self.within(async {
            let mut sink = pin!(self.client.copy_in::<_, Bytes>(copy).await?);
            for part in parts {
                sink.feed(part).await?;
            }
            sink.finish().await
        })
        .await?;
        if let Some(merge) = &self.statements.merge {
            self.say(merge).await?;
        }
        Ok(())
    }

    async fn commit(&self) -> Result<Ending, Failure> {
        let answers = self.say(&self.statements.commit).await?;
        // One for each of its statements. A commit is believed only as a whole.
        if answers.len() == 3 {
            Ok(Ending::Delivered)
        } else {
            Err(Failure::unanswered(FaultCode::Protocol, "the answer to COMMIT is not one"))
        }
    }

    /// Has statements executed; gives the number of rows of each.
    pub(crate) async fn say(&self, statements: &str) -> Result<Vec<u64>, Failure> {
        let answers = self.within(self.client.simple_query(statements)).await?;
        let count = |answer: &SimpleQueryMessage| match answer {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        };
        Ok(answers.iter().filter_map(count).collect())
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        let too_late = |_| Failure::unanswered(FaultCode::TimedOut, format!("no answer within {:?}", self.patience));
        Ok(timeout(self.patience, answer).await.map_err(too_late)??)
    }
}

/// A range of the body, in parts of one message each.
fn parts(body: &Bytes, range: std::ops::Range<usize>) -> impl Iterator<Item = Bytes> {
    let end = range.end;
    range.step_by(PART_BYTES).map(move |start| body.slice(start..end.min(start + PART_BYTES)))
}

/// The rows of a body: newlines inside values are escaped, so each that is there ends a row.
struct Rows<'a> {
    body: &'a Bytes,
    /// Where each row ends, behind its newline.
    ends: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn of(body: &'a Bytes) -> Self {
        let ends = body.iter().enumerate().filter_map(|(at, byte)| (*byte == b'\n').then_some(at + 1)).collect();
        Self { body, ends }
    }

    fn count(&self) -> usize {
        self.ends.len()
    }

    /// Where a row begins, which is where the one before it ends.
    fn start(&self, row: usize) -> usize {
        row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    /// The bytes of these rows, ascending; neighbours travel together.
    fn parts(&self, rows: &[usize]) -> impl Iterator<Item = Bytes> {
        rows.chunk_by(|left, right| left + 1 == *right).flat_map(|run| {
            let (first, last) = (run.first().copied().unwrap_or(0), run.last().copied().unwrap_or(0));
            parts(self.body, self.start(first)..self.start(last + 1))
        })
    }
}
