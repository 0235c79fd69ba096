//! Redriven: which dead letters of a stream were put back into its log, as this process knows it.
//!
//! In: what the ledger and the log of a lane say when it starts; what a redrive has the log store; what the packing loop
//! reads. Out: for a redrive, what is not to be put back once more; for the ledger, what its next checkpoint must hold.
//!
//! ```text
//!   a letter is put back  ──>  frame in the log that names it  ──packed──>  checkpoint, before the log forgets the frame
//!   a start                <──  both are read
//! ```
//!
//! So the frame is the mark: the two cannot come apart. The packing loop tells of a frame before its records are sealed,
//! because whoever had it stored may be slower than the rest of the road. Only an object that is placed without the log has
//! no frame; it is put down by a checkpoint, and placing it once more would change nothing.
//!
//! A small map behind a lock. Never does I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_core::BatchId;
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::redriven::Redriven;
use tokio::sync::{Mutex as TurnMutex, Notify, OwnedMutexGuard, watch};

/// Most objects of which it is remembered that letters of them were put back: each takes some twenty bytes in every
/// checkpoint, and a hundred in memory. As many as batches may wait.
pub const OBJECTS_MAX: usize = 100_000;

/// What is known of a stream's redrives.
#[derive(Debug, Default)]
pub struct Marks {
    known: Mutex<Known>,
    /// Told when a checkpoint is asked for.
    asked: Notify,
    progress: watch::Sender<Progress>,
    turn: Arc<TurnMutex<()>>,
}

#[derive(Debug, Default)]
struct Known {
    redriven: Redriven,
    /// How often something was added.
    changes: u64,
    /// Of these, how many a checkpoint is asked to hold.
    wanted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Whether all is known that was put back before this process.
    is_complete: bool,
    /// How many changes the ledger holds.
    saved: u64,
}

/// The right to redrive: there is one for a stream.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held for its end")] OwnedMutexGuard<()>);

impl Marks {
    /// What a lane found when it was opened: from now on all is known.
    pub fn learn(&self, ledger: &Redriven, log: &Redriven) {
        let mut known = self.known();
        known.redriven.add_all(ledger);
        known.redriven.add_all(log);
        known.changes += 1;
        drop(known);
        self.progress.send_modify(|progress| progress.is_complete = true);
    }

    /// Resolves when all is known that was put back before. Cancel safe.
    pub async fn wait_complete(&self) {
        // The sender lives as long as this, so the wait ends by its condition.
        self.progress.subscribe().wait_for(|progress| progress.is_complete).await.ok();
    }

    /// These lines of an object are in the log, or were.
    pub fn add(&self, object: BatchId, ordinals: &Ordinals) {
        let mut known = self.known();
        known.redriven.add(object, ordinals);
        known.changes += 1;
    }

    /// The same for what left no trace in the log; resolves when the ledger holds all that was added. Cancel safe.
    pub async fn save(&self, added: impl IntoIterator<Item = (BatchId, Ordinals)>) {
        let wanted = {
            let mut known = self.known();
            for (object, ordinals) in added {
                known.redriven.add(object, &ordinals);
            }
            known.changes += 1;
            known.wanted = known.changes;
            known.wanted
        };
        self.asked.notify_one();
        self.progress.subscribe().wait_for(|progress| progress.saved >= wanted).await.ok();
    }

    /// The lines of an object that are in the log, or were.
    pub fn of(&self, object: BatchId) -> Ordinals {
        self.known().redriven.of(object).cloned().unwrap_or_default()
    }

    /// Whether lines of this object can be remembered.
    pub fn has_room_for(&self, object: BatchId) -> bool {
        let known = self.known();
        known.redriven.objects() < OBJECTS_MAX || known.redriven.of(object).is_some()
    }

    /// All that was put back, and how many changes that is.
    pub fn snapshot(&self) -> (Redriven, u64) {
        let known = self.known();
        (known.redriven.clone(), known.changes)
    }

    /// The ledger holds what a snapshot said.
    pub fn saved(&self, changes: u64) {
        self.progress.send_modify(|progress| progress.saved = progress.saved.max(changes));
    }

    /// Whether somebody waits for a checkpoint.
    pub fn is_wanted(&self) -> bool {
        self.known().wanted > self.progress.borrow().saved
    }

    /// Resolves when a checkpoint is asked for. Cancel safe: one that was missed shows in [`is_wanted`](Self::is_wanted).
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The right to redrive, unless somebody has it.
    pub fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_lock_owned().ok().map(Turn)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is done under the lock is whole after each step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: u8) -> BatchId {
        BatchId::from_bytes([number; 16])
    }

    fn set(ordinals: &[u32]) -> Ordinals {
        ordinals.iter().copied().collect()
    }

    #[tokio::test]
    async fn whoever_waits_for_a_checkpoint_goes_on_when_one_holds_what_was_added() {
        let marks = Marks::default();
        marks.add(object(1), &set(&[3]));
        assert!(!marks.is_wanted(), "the log holds it");
        let (before, changes) = marks.snapshot();
        let checkpoints = async {
            marks.asked().await;
            marks.saved(changes); // one that was begun before
            assert!(marks.is_wanted());
            let (redriven, changes) = marks.snapshot();
            assert!(redriven.holds(object(2), 0) && !before.holds(object(2), 0));
            marks.saved(changes);
        };
        tokio::join!(marks.save([(object(2), set(&[0]))]), checkpoints);
        assert!(!marks.is_wanted());
    }

    #[tokio::test]
    async fn all_is_known_when_ledger_and_log_were_read() {
        let marks = Marks::default();
        let (mut ledger, mut log) = (Redriven::default(), Redriven::default());
        ledger.add(object(1), &set(&[1]));
        log.add(object(1), &set(&[2]));
        tokio::join!(marks.wait_complete(), async { marks.learn(&ledger, &log) });
        let known = marks.snapshot().0;
        assert!(known.holds(object(1), 1) && known.holds(object(1), 2) && !known.holds(object(1), 3));
    }

    #[test]
    fn one_at_a_time_may_redrive() {
        let marks = Marks::default();
        let turn = marks.turn();
        assert!(turn.is_some() && marks.turn().is_none());
        drop(turn);
        assert!(marks.turn().is_some());
    }
}
