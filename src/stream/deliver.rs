//! Delivery loop: from the outbox to the destination.
//!
//! In: batches as they are sealed, and those that a start found in the outbox. Out: nothing but verdicts; a settled
//! batch leaves the ledger and the disk. One task owns all of it, the ledger included; nothing here is locked.
//!
//! ```text
//!   sealed ──> owed ──turn──> attempt in flight ──verdict──> settle: ledger, then unlink
//!               ^  ^                              │
//!               │  └──────────── again ───────────┤
//!               ├─ turned to the other store ─────┤ refused, or its time is over: ledger first
//!               └─ packed again, or lost ─────────┘ its file is damaged: set aside, then the ledger
//! ```
//!
//! One attempt is a [`Flight`]; what follows it stands in [`send`](super::send). Never reads the log, and never changes
//! the bytes of a batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, Fault, ObjectSink, Position, Timestamp, Verdict};
use hydrant_storage::crash::{self, Point, Slip};
use hydrant_storage::ledger::{Checkpoint, Entry, GivenBack, Ledger, LedgerError};
use hydrant_storage::log::Log;
use hydrant_storage::outbox::{Content, Outbox, Summary};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::again::Again;
use super::counters::Counters;
use super::flight::{Flight, Landing};
use super::health::Ward;
use super::pack::Packed;
use super::send::{Next, Tries, Turns};
use super::{Edges, LaneError, lane, sleep_until};
use crate::config::spec::RetryFor;
use crate::encode::name::{ErrorPrefix, ErrorType, NameParts};

/// How long a checkpoint waits at least after the last one, when there is something that the log may forget.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Batches owed that make a checkpoint rarer by another [`CHECKPOINT_EVERY`].
const CHECKPOINT_BATCHES: usize = 10_000;
/// How long a ledger without room is left alone.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// How far the ledger may grow before it is rewritten as a checkpoint: replaying it takes some milliseconds.
const LEDGER_BYTES_MAX: u64 = 256 << 10;
/// Most events taken in before the ledger is written, so that settling is grouped and never put off for long.
const EVENTS_TOGETHER_MAX: usize = 256;

/// What the loop starts from, as the lane's files were found.
pub struct Start {
    /// What is known of the batches.
    pub ledger: Ledger,
    /// What is sealed and owed: the ledger's state, with the batches that it is yet to hear of.
    pub state: Checkpoint,
    /// Batches that a start found unsettled, in the order of sealing.
    pub found: Vec<Found>,
}

/// What the loop is made of.
pub struct Parts {
    /// The stream's name, for the names of redirected objects.
    pub stream: String,
    /// The log, told what it may forget.
    pub log: Log,
    /// Where the batches lie.
    pub outbox: Outbox,
    /// Where batches go.
    pub primary: Arc<dyn ObjectSink>,
    /// Where they go when that is over.
    pub dead_letter: Arc<dyn ObjectSink>,
    /// What the names of redirected objects start with.
    pub error_prefix: ErrorPrefix,
    /// How long a batch is tried.
    pub retry_for: RetryFor,
    /// Sealed batches come from here.
    pub packed: mpsc::Receiver<Packed>,
    /// Records whose batch is gone go back to the packing loop here.
    pub again: Arc<Again>,
    /// Told whether an attempt could start now.
    pub room: watch::Sender<bool>,
    /// Told the position below which everything is settled.
    pub settled: watch::Sender<Position>,
    /// Told how the stream is.
    pub ward: Ward,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Time, chance, threads.
    pub edges: Edges,
    /// How long a stop waits for attempts in flight.
    pub grace: Duration,
}

/// A batch that a start found unsettled.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is.
    pub summary: Summary,
    /// Whether the ledger's file knows it.
    pub is_recorded: bool,
}

/// One of the two stores and the turns of the batches that go there.
struct Destination {
    sink: Arc<dyn ObjectSink>,
    most: usize,
    turns: Turns,
}

impl Destination {
    fn new(sink: Arc<dyn ObjectSink>) -> Self {
        let most = usize::try_from(sink.limits().attempts_in_flight_max).unwrap_or(usize::MAX).max(1);
        Self { sink, most, turns: Turns::default() }
    }
}

/// A batch that is owed: no more of it than its waiting needs, for there may be very many. The rest stands in its file.
#[derive(Debug)]
struct Owed {
    first: Position,
    records: u64,
    raw_bytes: u64,
    oldest_arrival: Timestamp,
    tries: Tries,
    /// Whether the ledger knows it.
    is_recorded: bool,
}

/// The loop's state.
pub struct Deliver {
    parts: Parts,
    primary: Destination,
    dead_letter: Destination,
    owed: HashMap<BatchId, Owed>,
    /// The first record of each owed batch, to know below which position everything is settled.
    owed_from: BTreeSet<(Position, BatchId)>,
    flights: JoinSet<(BatchId, Landing)>,
    /// Owed batches whose file the disk did not give at their last attempts, and how many such there were.
    unreadable: HashMap<BatchId, u32>,
    /// Owed batches whose file is damaged, and how. They leave with the next checkpoint.
    damaged: BTreeMap<BatchId, String>,
    ledger: Option<Ledger>,
    /// What the ledger says, or will say when the entries below are written.
    state: Checkpoint,
    /// Ledger entries to be written before anything else is done.
    entries: Vec<Entry>,
    /// When the entries may be tried again, after the ledger had no room for them.
    write_not_before: Duration,
    /// Batches to unlink once the entries are durable.
    settling: Vec<BatchId>,
    /// Batches that are unlinked; they leave the state when that is durable.
    unlinked: Vec<BatchId>,
    /// Batches that may be sent to the dead-letter store once the entries are durable.
    turned: Vec<BatchId>,
    checkpointed: (Duration, Position),
    is_packing_over: bool,
}

impl Deliver {
    /// A loop that goes on where the last one ended.
    pub fn new(start: Start, parts: Parts) -> Self {
        let Start { ledger, state, found } = start;
        let mut deliver = Self {
            primary: Destination::new(Arc::clone(&parts.primary)),
            dead_letter: Destination::new(Arc::clone(&parts.dead_letter)),
            owed: HashMap::new(),
            owed_from: BTreeSet::new(),
            flights: JoinSet::new(),
            unreadable: HashMap::new(),
            damaged: BTreeMap::new(),
            ledger: Some(ledger),
            checkpointed: (parts.edges.clock.monotonic(), state.forget),
            state,
            entries: Vec::new(),
            write_not_before: Duration::ZERO,
            settling: Vec::new(),
            unlinked: Vec::new(),
            turned: Vec::new(),
            is_packing_over: false,
            parts,
        };
        for Found { summary, is_recorded } in found {
            deliver.owe(&summary, is_recorded);
        }
        deliver.advance();
        deliver
    }

    /// Runs until stopped and the packing loop has ended; attempts in flight get the grace period.
    ///
    /// # Errors
    /// When the ledger or the outbox fails in a way that this lane cannot go on from.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LaneError> {
        let mut deadline = None;
        loop {
            if self.checkpoint_due().is_some_and(|due| due <= self.now()) {
                self.checkpoint().await?; // here, so that a busy destination cannot put it off for ever
            }
            if deadline.is_none() {
                self.launch();
            }
            self.publish();
            if deadline.is_some() && self.flights.is_empty() && self.is_packing_over {
                break;
            }
            let wake = deadline.or_else(|| self.wake_at());
            let checkpoint_due = self.checkpoint_due();
            tokio::select! {
                biased; // stop first, then what has landed, then what is new
                () = stop.cancelled(), if deadline.is_none() => deadline = Some(self.now() + self.parts.grace),
                Some(landed) = self.flights.join_next() => self.landed(landed.map_err(LaneError::panicked)?).await?,
                packed = self.parts.packed.recv(), if !self.is_packing_over => self.packed(packed)?,
                () = sleep_until(&*self.parts.edges.clock, wake) => if deadline.is_some() { break },
                () = sleep_until(&*self.parts.edges.clock, checkpoint_due) => {}
            }
            self.take_what_is_ready().await?;
            self.write().await?;
            self.give_back().await?;
        }
        self.flights.abort_all(); // past the grace period: silence means not delivered
        self.checkpoint().await.map(drop)
    }

    fn now(&self) -> Duration {
        self.parts.edges.clock.monotonic()
    }

    // Events.

    async fn take_what_is_ready(&mut self) -> Result<(), LaneError> {
        for _ in 0..EVENTS_TOGETHER_MAX {
            if let Some(landed) = self.flights.try_join_next() {
                self.landed(landed.map_err(LaneError::panicked)?).await?;
            } else if let Ok(packed) = self.parts.packed.try_recv() {
                self.packed(Some(packed))?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn packed(&mut self, packed: Option<Packed>) -> Result<(), LaneError> {
        match packed {
            Some(Packed::Batch(header)) => {
                self.state.apply(&Entry::Sealed { batch: header.batch, pieces: header.pieces.clone() })?;
                self.owe(&Summary::from(*header), false);
            }
            Some(Packed::Gap(span)) => self.state.sealed_above.push_span(span),
            Some(Packed::Lost(lost)) => self.enter(Entry::Lost { span: lost.span, why: lost.why })?,
            None => self.is_packing_over = true,
        }
        self.advance();
        Ok(())
    }

    /// Moves the watermark over whatever is sealed, lost or no record at all.
    fn advance(&mut self) {
        if let Some(end) = self.state.sealed_above.whole_run(self.state.forget) {
            self.state.advance(end);
        }
    }

    fn owe(&mut self, summary: &Summary, is_recorded: bool) {
        let &Summary { batch, records, raw_bytes, oldest_arrival, .. } = summary;
        let first = summary.pieces.hull().first;
        let is_redirected = self.redirected(batch).is_some();
        let destination = if is_redirected { &mut self.dead_letter } else { &mut self.primary };
        destination.turns.add(batch);
        self.owed_from.insert((first, batch));
        let tries = Tries::default();
        self.owed.insert(batch, Owed { first, records, raw_bytes, oldest_arrival, tries, is_recorded });
    }

    /// The key in the dead-letter store of a batch that was turned there.
    fn redirected(&self, batch: BatchId) -> Option<&String> {
        self.state.batches.get(&batch).and_then(|state| state.redirected.as_ref())
    }

    fn release(&mut self, batch: BatchId) -> Option<Owed> {
        let owed = self.owed.remove(&batch)?;
        self.owed_from.remove(&(owed.first, batch));
        Some(owed)
    }

    async fn landed(&mut self, (batch, landing): (BatchId, Landing)) -> Result<(), LaneError> {
        let is_dead_letter = self.redirected(batch).is_some();
        if let Landing::Unreadable(fault) = &landing {
            self.unreadable(batch, fault, is_dead_letter);
            return Ok(());
        }
        if self.unreadable.remove(&batch).is_some() && self.unreadable.is_empty() {
            self.parts.ward.readable();
        }
        match landing {
            Landing::Answered(verdict) => self.answered(batch, verdict, is_dead_letter).await,
            Landing::Unreadable(_) => Ok(()),
            Landing::Damaged(why) => {
                let destination = if is_dead_letter { &mut self.dead_letter } else { &mut self.primary };
                destination.turns.ended(false);
                self.damaged.insert(batch, why);
                Ok(())
            }
        }
    }

    /// The disk did not give a batch. The destination has no part in it, so this counts for nothing there.
    fn unreadable(&mut self, batch: BatchId, fault: &Fault, is_dead_letter: bool) {
        let now = self.now();
        let failed = self.unreadable.entry(batch).or_default();
        *failed = failed.saturating_add(1);
        let tries = Tries { failed: *failed, failing_since: None };
        let destination = if is_dead_letter { &mut self.dead_letter } else { &mut self.primary };
        destination.turns.again(batch, tries, fault, now, self.parts.edges.entropy.fraction());
        self.parts.counters.attempts_failed.add(1);
        self.parts.ward.unreadable(batch, fault, now);
    }

    async fn answered(&mut self, batch: BatchId, verdict: Verdict, is_dead_letter: bool) -> Result<(), LaneError> {
        let now = self.now();
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        let (destination, retry_for) = if is_dead_letter {
            (&mut self.dead_letter, RetryFor::Forever)
        } else {
            (&mut self.primary, self.parts.retry_for)
        };
        let verdict = match verdict {
            Verdict::Refused(fault) if is_dead_letter => Verdict::Retry(fault), // there is nowhere further to go
            verdict => verdict,
        };
        let is_refused = matches!(verdict, Verdict::Refused(_)); // the object's fault, not the destination's
        match owed.tries.after(verdict, now, retry_for) {
            Next::Settle => {
                crash::reach(if is_dead_letter { Point::RedirectPlaced } else { Point::SettleDelivered });
                destination.turns.ended(true);
                self.settle(batch, is_dead_letter)
            }
            Next::Again(fault) => {
                let jitter = || self.parts.edges.entropy.fraction();
                destination.turns.failed(&fault, now, retry_for, jitter());
                destination.turns.again(batch, owed.tries, &fault, now, jitter());
                self.parts.counters.attempts_failed.add(1);
                debug!(%batch, attempt = owed.tries.failed, error = %fault, "delivery will be retried");
                self.parts.ward.failed(&fault, &destination.turns, now, is_dead_letter);
                Ok(())
            }
            Next::Redirect(fault) => {
                if !is_refused {
                    destination.turns.failed(&fault, now, retry_for, self.parts.edges.entropy.fraction());
                    self.parts.ward.failed(&fault, &destination.turns, now, is_dead_letter);
                }
                destination.turns.ended(is_refused);
                crash::reach(Point::RedirectDecided);
                self.parts.counters.attempts_failed.add(1);
                self.redirect(batch, &fault).await
            }
        }
    }

    fn settle(&mut self, batch: BatchId, is_dead_letter: bool) -> Result<(), LaneError> {
        let Some(owed) = self.release(batch) else { return Ok(()) };
        self.record(batch, owed.is_recorded);
        self.enter(Entry::Settled { batch })?;
        self.settling.push(batch);
        self.parts.counters.settled(owed.records, owed.raw_bytes, is_dead_letter);
        self.parts.ward.delivered(is_dead_letter);
        debug!(%batch, records = owed.records, dead_letter = is_dead_letter, "settled");
        Ok(())
    }

    /// Turns a batch to the dead-letter store, for good.
    async fn redirect(&mut self, batch: BatchId, fault: &Fault) -> Result<(), LaneError> {
        let outbox = self.parts.outbox.clone();
        let read = self.parts.edges.pool.block(move || outbox.read(batch)).await.map_err(LaneError::panicked)?;
        let header = match read {
            Ok((header, _)) => header,
            Err(error) => {
                // The next attempt meets it again, and tells damage from a disk that does not answer.
                debug!(%batch, %error, "a batch could not be read to be redirected");
                self.primary.turns.add(batch);
                return Ok(());
            }
        };
        let key = self.parts.error_prefix.key(
            ErrorType::DeliveryFailed,
            &NameParts {
                stream: &self.parts.stream,
                version: header.sink.version,
                oldest_arrival: header.oldest_arrival,
                batch,
                extension: extension(&header.content),
            },
        );
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        warn!(%batch, attempts = owed.tries.failed, error = %fault, %key, "object goes to the dead-letter store");
        owed.tries = Tries::default();
        let is_recorded = std::mem::replace(&mut owed.is_recorded, true);
        self.record(batch, is_recorded);
        self.enter(Entry::Redirected { batch, key })?;
        self.turned.push(batch);
        self.parts.counters.batches_redirected.add(1);
        Ok(())
    }

    /// A batch's first entry says what lies in it; every other one comes behind. The state has heard of it when it
    /// was packed.
    fn record(&mut self, batch: BatchId, is_recorded: bool) {
        if let Some(state) = self.state.batches.get(&batch).filter(|_| !is_recorded) {
            self.entries.push(Entry::Sealed { batch, pieces: state.pieces.clone() });
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<(), LaneError> {
        self.state.apply(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    // Attempts.

    fn launch(&mut self) {
        let now = self.now();
        while let Some(batch) = self.primary.turns.next(now, self.primary.most) {
            let sink = Arc::clone(&self.primary.sink);
            self.fly(batch, sink);
        }
        while let Some(batch) = self.dead_letter.turns.next(now, self.dead_letter.most) {
            let sink = Arc::clone(&self.dead_letter.sink);
            self.fly(batch, sink);
        }
    }

    fn fly(&mut self, batch: BatchId, sink: Arc<dyn ObjectSink>) {
        let flight = Flight {
            batch,
            redirected: self.redirected(batch).cloned(),
            intended: self.parts.primary.destination(),
            outbox: self.parts.outbox.clone(),
            pool: self.parts.edges.pool.clone(),
            sink,
        };
        self.flights.spawn(flight.fly());
    }

    fn wake_at(&self) -> Option<Duration> {
        let primary = self.primary.turns.wake_at(self.primary.most);
        let dead_letter = self.dead_letter.turns.wake_at(self.dead_letter.most);
        let unwritten = (!self.entries.is_empty() || !self.damaged.is_empty()).then_some(self.write_not_before);
        primary.into_iter().chain(dead_letter).chain(unwritten).min()
    }

    // What others are told.

    fn settled_below(&self) -> Position {
        let watermark = self.state.forget;
        self.owed_from.first().map_or(watermark, |(first, _)| watermark.min(*first))
    }

    fn publish(&self) {
        let has_room = self.primary.turns.has_room(self.primary.most);
        self.parts.room.send_if_modified(|room| std::mem::replace(room, has_room) != has_room);
        let below = self.settled_below();
        self.parts.settled.send_if_modified(|settled| std::mem::replace(settled, below) != below);
        let oldest = self.owed_from.first().and_then(|(_, batch)| self.owed.get(batch));
        self.parts.counters.oldest_sealed_ms.set(oldest.map_or(0, |owed| owed.oldest_arrival.as_millis()));
        self.parts.counters.batches_waiting.set(self.owed.len() as u64);
    }

    // The ledger.

    /// Writes what has come together: first the ledger, and when that is durable, the unlinks that rely on it. A ledger
    /// without room keeps everything for a later try; nothing that waits for an entry is done before.
    async fn write(&mut self) -> Result<(), LaneError> {
        if self.entries.is_empty() || self.now() < self.write_not_before {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        let settling = self.settling.clone();
        let outbox = self.parts.outbox.clone();
        let (entries, written) = self
            .with_ledger(move |ledger| {
                let early = crash::slips(Slip::UnlinkBeforeSettled).then(|| unlink(&outbox, settling.clone()));
                let written = ledger.append(&entries).map(|()| early.unwrap_or_else(|| unlink(&outbox, settling)));
                Ok((entries, written))
            })
            .await?;
        match written {
            Ok(unlinked) => {
                self.settling.clear();
                self.unlinked.extend(unlinked);
                for batch in std::mem::take(&mut self.turned) {
                    crash::reach(Point::RedirectRecorded);
                    self.dead_letter.turns.add(batch);
                }
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

    fn checkpoint_due(&self) -> Option<Duration> {
        let (at, forgotten) = self.checkpointed;
        if self.ledger.as_ref().is_some_and(|ledger| ledger.grown() > LEDGER_BYTES_MAX) {
            return Some(at + NO_ROOM_WAIT);
        }
        // A checkpoint names every batch that is owed, so a long backlog makes it rarer.
        let every = CHECKPOINT_EVERY * u32::try_from(1 + self.owed.len() / CHECKPOINT_BATCHES).unwrap_or(u32::MAX);
        (self.state.forget > forgotten).then_some(at + every)
    }

    /// Writes the state as a new ledger file, then lets the log forget what every later start will skip. Without room
    /// the old file goes on. Says whether all that the loop knows is durable now.
    async fn checkpoint(&mut self) -> Result<bool, LaneError> {
        self.write().await?;
        self.checkpointed.0 = self.now();
        if !self.entries.is_empty() {
            return Ok(false);
        }
        let mut state = std::mem::take(&mut self.state); // not cloned: it names every batch that is owed
        let unlinked = std::mem::take(&mut self.unlinked);
        let (outbox, log) = (self.parts.outbox.clone(), self.parts.log.clone());
        let forget = state.forget;
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
                Ok(true)
            }
            Err(error) if passes(&error) => {
                warn!(%error, "no checkpoint: the ledger has no room for a new file");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    // Damage.

    /// Gives damaged batches up. First their files get another name, for a start would adopt one that lies there and
    /// that the ledger does not owe; a start that finds none of them and a ledger that owes them does the same as this.
    /// Then the ledger; and when that is durable, and only then, their records may be packed again.
    async fn give_back(&mut self) -> Result<(), LaneError> {
        if self.damaged.is_empty() || self.now() < self.write_not_before {
            return Ok(());
        }
        let (outbox, batches) = (self.parts.outbox.clone(), self.damaged.keys().copied().collect::<Vec<_>>());
        let aside = self.parts.edges.pool.block(move || set_aside(&outbox, batches));
        if !aside.await.map_err(LaneError::panicked)?? {
            self.write_not_before = self.now() + NO_ROOM_WAIT;
            return Ok(());
        }
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
        for (batch, GivenBack { again, lost, hull }) in given {
            let why = self.damaged.remove(&batch).unwrap_or_default();
            error!(stream = self.parts.stream, %batch, why, records = %hull, again = again.len(), lost, "a batch file is damaged");
            self.release(batch);
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

/// The extension that an object's key ends with, its dot included.
fn extension(content: &Content) -> &str {
    let Content::Object { key, .. } = content;
    let name = key.rsplit('/').next().unwrap_or(key);
    name.rfind('.').map_or("", |dot| &name[dot..])
}
