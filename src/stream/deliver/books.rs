//! Books: what the delivery loop writes down, and what follows only when it is durable.
//!
//! In: entries, in the order in which they must become durable. Out: turns of batches whose next attempt relies on an
//! entry, unlinked files of batches that are settled, records that are to be packed again, and what the log may forget.
//! A ledger without room keeps everything for a later try.

use std::time::Duration;

use hydrant_core::{BatchId, Fault, Sink};
use hydrant_storage::crash::{self, Point, Slip};
use hydrant_storage::ledger::{Entry, GivenBack, Ledger, LedgerError};
use hydrant_storage::outbox::Outbox;
use tracing::{error, warn};

use super::Deliver;
use crate::stream::{LaneError, lane};

/// How long a checkpoint waits at least after the last one, when there is something that the log may forget.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Batches owed that make a checkpoint rarer by another [`CHECKPOINT_EVERY`].
const CHECKPOINT_BATCHES: usize = 10_000;
/// How long a ledger without room is left alone.
pub(super) const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// How far the ledger may grow before it is rewritten as a checkpoint: replaying it takes some milliseconds.
const LEDGER_BYTES_MAX: u64 = 256 << 10;

/// When a batch may be tried next, once what was written of it is durable.
#[derive(Debug)]
pub(super) enum Turn {
    /// At the dead-letter store, where it goes from now on.
    Turned,
    /// Now.
    Now,
    /// After a wait, for this.
    After(Fault),
}

impl Deliver {
    /// A batch's first entry says what lies in it; every other one comes behind. The state has heard of it when it
    /// was packed.
    pub(super) fn record(&mut self, batch: BatchId, is_recorded: bool) {
        if let Some(state) = self.state.batches.get(&batch).filter(|_| !is_recorded) {
            self.entries.push(Entry::Sealed { batch, pieces: state.pieces.clone() });
        }
    }

    pub(super) fn enter(&mut self, entry: Entry) -> Result<(), LaneError> {
        self.state.apply(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes what has come together: first the ledger, and when that is durable, the unlinks that rely on it. A ledger
    /// without room keeps everything for a later try; nothing that waits for an entry is done before.
    pub(super) async fn write(&mut self) -> Result<(), LaneError> {
        if self.entries.is_empty() {
            self.take_turns();
            return Ok(());
        }
        if self.now() < self.write_not_before {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        let settling = self.settling.clone();
        let outbox = self.parts.outbox.clone();
        let hasty = crash::slips(Slip::AttemptBeforeAnswered) && entries.iter().any(is_answer);
        if hasty {
            self.take_turns();
            self.launch();
        }
        let (entries, written) = self
            .with_ledger(move |ledger| {
                if hasty {
                    crash::linger();
                }
                entries.iter().filter(|entry| is_answer(entry)).for_each(|_| crash::reach(Point::AnswerTold));
                let early = crash::slips(Slip::UnlinkBeforeSettled).then(|| unlink(&outbox, settling.clone()));
                let written = ledger.append(&entries).map(|()| early.unwrap_or_else(|| unlink(&outbox, settling)));
                Ok((entries, written))
            })
            .await?;
        match written {
            Ok(unlinked) => {
                self.settling.clear();
                self.unlinked.extend(unlinked);
                self.take_turns();
                Ok(())
            }
            Err(error) if passes(&error) => {
                warn!(%error, "the ledger has no room; it is tried again");
                self.entries = entries;
                self.write_not_before = self.now() + NO_ROOM_WAIT;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets batches go on whose next attempt relied on what is durable now.
    fn take_turns(&mut self) {
        for (batch, turn) in std::mem::take(&mut self.turns) {
            match turn {
                Turn::Turned => {
                    crash::reach(Point::RedirectRecorded);
                    self.dead_letter.turns.add(batch);
                }
                Turn::Now => self.primary.turns.add(batch),
                Turn::After(fault) => {
                    let tries = self.owed.get(&batch).map(|owed| owed.tries).unwrap_or_default();
                    let (now, fraction) = (self.now(), self.parts.edges.entropy.fraction());
                    self.primary.turns.wait(batch, tries, &fault, now, fraction);
                }
            }
        }
    }

    /// Lends the ledger to a blocking thread.
    async fn with_ledger<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LaneError> + Send + 'static,
    ) -> Result<T, LaneError> {
        let Some(mut ledger) = self.ledger.take() else { return Err(LaneError::Ended("ledger")) };
        let done = self.parts.edges.pool.block(move || {
            let result = work(&mut ledger);
            (ledger, result)
        });
        let (ledger, result) = done.await.map_err(LaneError::panicked)?;
        self.ledger = Some(ledger);
        result
    }

    /// Tells the sink which batches never come again: those sealed before the oldest that is still owed.
    fn let_sink_forget(&self) {
        if let Sink::Pieces(sink) = &self.parts.primary {
            let oldest = self.owed.values().map(|owed| owed.sealed_at).min();
            sink.forget_sealed_before(oldest.unwrap_or_else(|| self.parts.edges.clock.now()));
        }
    }

    pub(super) fn checkpoint_due(&self) -> Option<Duration> {
        let (at, forgotten) = self.checkpointed;
        if self.ledger.as_ref().is_some_and(|ledger| ledger.grown() > LEDGER_BYTES_MAX) {
            return Some(at + NO_ROOM_WAIT);
        }
        if self.parts.redriven.is_wanted() {
            return Some(at + CHECKPOINT_EVERY);
        }
        // A checkpoint names every batch that is owed, so a long backlog makes it rarer.
        let every = CHECKPOINT_EVERY * u32::try_from(1 + self.owed.len() / CHECKPOINT_BATCHES).unwrap_or(u32::MAX);
        (self.state.forget > forgotten).then_some(at + every)
    }

    /// Writes the state as a new ledger file, then lets the log forget what every later start will skip. Without room
    /// the old file goes on. Says whether all that the loop knows is durable now.
    pub(super) async fn checkpoint(&mut self) -> Result<bool, LaneError> {
        self.write().await?;
        self.checkpointed.0 = self.now();
        if !self.entries.is_empty() {
            return Ok(false);
        }
        let mut state = std::mem::take(&mut self.state); // not cloned: it names every batch that is owed
        let unlinked = std::mem::take(&mut self.unlinked);
        let (outbox, log) = (self.parts.outbox.clone(), self.parts.log.clone());
        let forget = state.forget;
        let (redriven, marks) = self.parts.redriven.snapshot(); // all that the packing loop read below that is in it
        state.redriven = redriven;
        let (state, written) = self
            .with_ledger(move |ledger| {
                outbox.sync().map_err(LaneError::OutboxFolder)?; // settled batches leave when their unlink is durable
                crash::reach(Point::CheckpointBegun);
                for batch in unlinked {
                    state.unlinked(batch);
                }
                let written = ledger.checkpoint(&state);
                crash::reach(Point::CheckpointUnlinked);
                if written.is_ok()
                    && let Err(error) = log.forget(forget)
                {
                    warn!(%error, "the log could not forget; it will be told again");
                }
                Ok((state, written))
            })
            .await?;
        self.state = state;
        match written {
            Ok(()) => {
                for owed in self.owed.values_mut() {
                    owed.is_recorded = true;
                }
                self.checkpointed.1 = forget;
                self.parts.redriven.saved(marks);
                self.let_sink_forget();
                Ok(true)
            }
            Err(error) if passes(&error) => {
                warn!(%error, "no checkpoint: the ledger has no room for a new file");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives damaged batches up. First their files get another name, for a start would adopt one that lies there and
    /// that the ledger does not owe; a start that finds none of them and a ledger that owes them does the same as this.
    /// Then the ledger; and when that is durable, and only then, their records may be packed again.
    pub(super) async fn give_back(&mut self) -> Result<(), LaneError> {
        // Of a batch whose refused pieces are being sealed elsewhere it is not known yet what it owes.
        if self.damaged.is_empty() || self.now() < self.write_not_before || self.burial.is_some() {
            return Ok(());
        }
        let (outbox, batches) = (self.parts.outbox.clone(), self.damaged.keys().copied().collect::<Vec<_>>());
        let aside = self.parts.edges.pool.block(move || set_aside(&outbox, batches));
        if !aside.await.map_err(LaneError::panicked)?? {
            self.write_not_before = self.now() + NO_ROOM_WAIT;
            return Ok(());
        }
        crash::reach(Point::AsideDurable);
        let mut before = self.state.clone();
        let kept_from = self.parts.log.first_kept();
        let mut given = Vec::new();
        for batch in self.damaged.keys() {
            given.extend(self.state.give_back(*batch, kept_from).map(|given| (*batch, given)));
        }
        if !self.checkpoint().await? {
            // Settled batches may have left meanwhile.
            let state = &self.state.batches;
            before.batches.retain(|batch, _| state.contains_key(batch) || self.damaged.contains_key(batch));
            self.state = before;
            self.write_not_before = self.now() + NO_ROOM_WAIT;
            return Ok(());
        }
        crash::reach(Point::AsideRecorded);
        for (batch, GivenBack { again, lost, hull }) in given {
            let why = self.damaged.remove(&batch).unwrap_or_default();
            error!(stream = self.parts.stream, %batch, why, records = %hull, again = again.len(), lost, "a batch file is damaged");
            self.release(batch);
            self.readable(batch); // it may have been read for its dead letters meanwhile
            self.letters.forget(batch);
            self.parts.counters.records_lost.add(lost);
            self.parts.again.add(&again);
        }
        self.damaged.clear();
        Ok(())
    }
}

/// Gives the files of damaged batches another name, durably; says whether all have one now.
fn set_aside(outbox: &Outbox, batches: Vec<BatchId>) -> Result<bool, LaneError> {
    for batch in batches {
        match lane::set_aside(outbox, batch) {
            Ok(()) => {}
            Err(error) if error.is_poison() => return Err(error),
            Err(error) => {
                warn!(%batch, %error, "a damaged batch file could not be set aside; it is tried again");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_answer(entry: &Entry) -> bool {
    matches!(entry, Entry::Answered { .. })
}

/// Whether the same call may succeed later, and everything is as it was.
fn passes(error: &LedgerError) -> bool {
    matches!(error, LedgerError::NoSpace(_) | LedgerError::NotAllocated(_) | LedgerError::TooLarge { .. })
}

/// Removes settled batch files. One that cannot be removed now stays in the ledger as settled, and the next start
/// removes it.
fn unlink(outbox: &Outbox, settled: Vec<BatchId>) -> Vec<BatchId> {
    let mut unlinked = settled;
    if !unlinked.is_empty() {
        crash::reach(Point::SettleRecorded);
    }
    unlinked.retain(|batch| match outbox.remove(*batch) {
        Ok(()) => {
            crash::reach(Point::SettleUnlinked);
            true
        }
        Err(error) => {
            warn!(%batch, %error, "a settled batch file could not be removed");
            false
        }
    });
    unlinked
}
