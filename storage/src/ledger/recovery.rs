//! Recovery: what the ledger says and what the outbox holds, put together. Pure.
//!
//! | ledger          | file    | then |
//! |-----------------|---------|------|
//! | sealed          | whole   | owed |
//! | sealed          | damaged | damage: what the log still has is read again, the rest is lost |
//! | sealed          | none    | damage, the same way |
//! | settled         | any     | the unlink did not last: unlink again |
//! | settled         | none    | gone: leaves the ledger at the next checkpoint |
//! | nothing         | whole   | the seal was the last thing that happened: adopted |
//! | nothing         | damaged | never acknowledged by the ledger, so the log has its records: removed |

use std::collections::BTreeMap;

use hydrant_core::{BatchId, Position};

use super::checkpoint::Checkpoint;
use crate::outbox::{Found, Summary};

/// What to do with each batch after an open.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Sealed and owed, as the ledger says, in the order of [`Outbox::open`](crate::outbox::Outbox::open).
    pub owed: Vec<Summary>,
    /// Sealed and owed, but the ledger does not say so yet: a `Sealed` entry must be durable before anything else
    /// is done with them.
    pub adopted: Vec<Summary>,
    /// To be removed: settled already, or damaged before the ledger knew of them.
    pub remove: Vec<BatchId>,
    /// Settled and durably gone: [`Checkpoint::unlinked`] may take them out.
    pub gone: Vec<BatchId>,
    /// Sealed, not settled, and the file is missing or damaged.
    pub damaged: Vec<DamagedBatch>,
    /// Files in the outbox that are no batches; they are left alone.
    pub strangers: Vec<String>,
    /// The highest position that ledger or outbox names. The log goes on above it.
    pub highest: Position,
}

/// A batch that is owed and cannot be sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBatch {
    /// Which. Its pieces stand in the checkpoint.
    pub batch: BatchId,
    /// What is wrong.
    pub why: String,
}

impl Recovery {
    /// Combines what [`Ledger::open`](super::Ledger::open) and [`Outbox::open`](crate::outbox::Outbox::open) found.
    pub fn new(checkpoint: &Checkpoint, found: Vec<Found>) -> Self {
        let mut recovery = Self { highest: checkpoint.highest, ..Self::default() };
        // Whether each batch that the ledger knows is settled; those that are not found stay.
        let mut missing: BTreeMap<BatchId, bool> =
            checkpoint.batches.iter().map(|(batch, state)| (*batch, state.settled)).collect();
        for file in found {
            match file {
                Found::Whole { summary, .. } => {
                    let known = missing.remove(&summary.batch);
                    recovery.whole(summary, known);
                }
                Found::Damaged { name, batch: None, .. } => recovery.strangers.push(name),
                Found::Damaged { batch: Some(batch), why, .. } => match missing.remove(&batch) {
                    Some(false) => recovery.damaged.push(DamagedBatch { batch, why }),
                    _ => recovery.remove.push(batch),
                },
            }
        }
        for (batch, is_settled) in missing {
            if is_settled {
                recovery.gone.push(batch);
            } else {
                let why = "its file is missing".to_owned();
                recovery.damaged.push(DamagedBatch { batch, why });
            }
        }
        recovery
    }

    fn whole(&mut self, summary: Summary, settled: Option<bool>) {
        let hull = summary.pieces.hull();
        if !hull.is_empty() {
            self.highest = self.highest.max(Position::new(hull.end.get() - 1));
        }
        match settled {
            Some(true) => self.remove.push(summary.batch),
            Some(false) => self.owed.push(summary),
            None => self.adopted.push(summary),
        }
    }
}
