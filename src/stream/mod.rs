//! One delivery stream, one file per station.
//!
//! A stream has a log and a *lane*: a packing loop and a delivery loop with an outbox between them and a ledger
//! beside them. Each loop owns its state outright.
//!
//! ```text
//!                    ┌────────────── pack ──────────────┐             ┌────── deliver ──────┐
//!   log ──slice──> │ buffer ── full, due, pressed ── seal │──outbox──> │ send ── verdict ── settle │
//!    ^               └──────────────────────────────────┘             └──────────┬──────────┘
//!    └─────────────────────────── forget, by the ledger ─────────────────────────┘
//! ```
//!
//! What a destination refuses piece by piece comes together in `letters`, and `bury` makes a batch of it, which the same
//! delivery loop sends to the dead-letter store.
//!
//! `buffer`, `answers`, `send`, `retry`, `letters`, `ledger` are pure and hold most of the logic.

pub mod lane;

pub mod pack;

pub mod buffer;

pub mod budget;

pub mod seal;

pub mod deliver;

pub mod flight;

pub mod again;

pub mod answers;

pub mod send;

pub mod retry;

pub mod letters;

pub mod bury;

pub mod ledger;

pub mod redriven;

pub mod health;

pub mod counters;

pub mod pool;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{Clock, Entropy};
use hydrant_storage::files::Files;
use hydrant_storage::ledger::{self as ledger_file, Contradiction, LedgerError};
use hydrant_storage::log::ReadError;
use hydrant_storage::outbox::{self, SealError};

use pool::Pool;

/// What the outside looks like to a stream: everything that a test can replace.
#[derive(Clone, Debug)]
pub struct Edges {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// The disk.
    pub files: Arc<dyn Files>,
    /// Threads.
    pub pool: Pool,
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The outbox does not take batches.
    #[error("outbox: {0}")]
    Outbox(#[source] SealError),
    /// The outbox folder cannot be synced.
    #[error("outbox: {0}")]
    OutboxFolder(#[source] io::Error),
    /// The ledger cannot be written.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// The loops and the ledger do not agree.
    #[error("ledger: {0}")]
    Contradiction(#[from] Contradiction),
    /// The outbox cannot be opened.
    #[error(transparent)]
    OpenOutbox(#[from] outbox::OpenError),
    /// The ledger cannot be opened.
    #[error(transparent)]
    OpenLedger(#[from] ledger_file::OpenError),
    /// The log does not say what was put back into it.
    #[error("redriven records: {0}")]
    Redriven(#[from] ReadError),
    /// What a settled or damaged batch left cannot be put away.
    #[error("put away a batch file: {0}")]
    PutAway(#[source] io::Error),
    /// Our own code failed.
    #[error("panic: {0}")]
    Panicked(String),
    /// The other half is gone.
    #[error("the {0} has ended")]
    Ended(&'static str),
}

impl LaneError {
    /// Whether only a new process may touch the lane's files again.
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Outbox(SealError::Poisoned(_)) | Self::OutboxFolder(_) | Self::Ledger(LedgerError::Poisoned(_)) => {
                true
            }
            Self::OpenOutbox(error) => error.is_poison(),
            Self::OpenLedger(error) => error.is_poison(),
            Self::Outbox(_)
            | Self::Ledger(_)
            | Self::Contradiction(_)
            | Self::Redriven(_)
            | Self::PutAway(_)
            | Self::Panicked(_)
            | Self::Ended(_) => false,
        }
    }

    fn panicked(failed: tokio::task::JoinError) -> Self {
        match failed.try_into_panic() {
            Ok(panic) => {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned());
                Self::Panicked(text.unwrap_or_else(|| "no message".to_owned()))
            }
            Err(_cancelled) => Self::Ended("runtime"),
        }
    }
}

/// Sleeps until the monotonic clock shows `due`; for ever if there is none. Cancel safe.
async fn sleep_until(clock: &dyn Clock, due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(clock.monotonic())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
