//! Again: records that are to be packed once more, because the batch that held them is gone and the log still has them.
//!
//! In: what the delivery loop gives back, when that is durable in the ledger. Out: the same to the packing loop, which
//! goes back to the lowest of them. The only arrow that points backward, and it carries positions only.

use std::sync::{Mutex, PoisonError};

use hydrant_storage::runs::Runs;
use tokio::sync::Notify;

/// What is to be packed again. Shared by the two loops of a lane.
#[derive(Debug, Default)]
pub struct Again {
    records: Mutex<Runs>,
    added: Notify,
}

impl Again {
    /// Adds records and wakes the packing loop.
    pub fn add(&self, records: &Runs) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).add(records);
        self.added.notify_one();
    }

    /// Waits until something was added since the last call returned. Cancel safe: it takes nothing.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    /// Takes all that was added.
    pub fn take(&self) -> Runs {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
