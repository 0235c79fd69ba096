//! Delivery loop: from the outbox to the destination.
//!
//! In: batches as they are sealed, and those that a start found in the outbox. Out: nothing but verdicts; a settled
//! batch leaves the ledger and the disk. One task owns all of it, the ledger included; nothing here is locked.
//!
//! ```text
//!   sealed ──> owed ──turn──> attempt in flight ──verdict──> settle: ledger, then unlink
//!               ^  ^                              │
//!               │  └──────────── again ───────────┤ separate pieces: those that are left, when the ledger has the answers
//!               ├─ turned to the other store ─────┤ refused, or its time is over: ledger first
//!               ├─ sealed as dead letters ────────┤ pieces that were refused: their batch is settled after that
//!               └─ packed again, or lost ─────────┘ its file is damaged: set aside, then the ledger
//! ```
//!
//! One attempt is a [`Flight`]; what follows it stands in [`send`](super::send). `objects` and `pieces` are the two kinds
//! of answers, `books` is the ledger. Never reads the log, and never changes the bytes of a batch.

mod books;
mod objects;
mod pieces;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, Fault, Limits, ObjectSink, PieceSink, Position, Sink, Timestamp};
use hydrant_storage::ledger::{Checkpoint, Entry, Ledger};
use hydrant_storage::log::Log;
use hydrant_storage::outbox::{Outbox, SinkMark, Summary};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::books::Turn;
use self::pieces::{Burial, sealed};
use super::again::Again;
use super::counters::Counters;
use super::flight::{Errand, Flight, Landing};
use super::health::Ward;
use super::pack::Packed;
use super::redriven::Marks;
use super::send::{Tries, Turns};
use super::{Edges, LaneError, letters, sleep_until};
use crate::config::spec::{DeadLetterSpec, RetryFor};

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
    /// Entries of the state that the ledger's file is yet to hear, before any other.
    pub unheard: Vec<Entry>,
}

/// What the loop is made of.
pub struct Parts {
    /// The stream's name, for the names of dead letters.
    pub stream: String,
    /// The log, told what it may forget.
    pub log: Log,
    /// Where the batches lie.
    pub outbox: Outbox,
    /// Where batches go.
    pub primary: Sink,
    /// Where they go when that is over.
    pub dead_letter: Arc<dyn ObjectSink>,
    /// What batch headers say of where they go.
    pub mark: SinkMark,
    /// How dead letters are named, and when a buffer of them is sealed.
    pub letters: DeadLetterSpec,
    /// Permits of the lane's seals.
    pub seals: Arc<Semaphore>,
    /// Everything below this position is to be settled soon.
    pub drain: watch::Receiver<Position>,
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
    /// Which dead letters were put back, for checkpoints.
    pub redriven: Arc<Marks>,
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

/// How many attempts one of the two destinations takes at once, and the turns of the batches that go there.
struct Destination {
    most: usize,
    turns: Turns,
}

impl Destination {
    fn new(limits: Limits) -> Self {
        let most = usize::try_from(limits.attempts_in_flight_max).unwrap_or(usize::MAX).max(1);
        Self { most, turns: Turns::default() }
    }
}

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// To where its stream's records go.
    Primary,
    /// To the dead-letter store: it was turned there, or holds dead letters.
    DeadLetter,
}

/// A batch that is owed: no more of it than its waiting needs, for there may be very many. The rest stands in its file.
#[derive(Debug)]
struct Owed {
    first: Position,
    records: u64,
    raw_bytes: u64,
    oldest_arrival: Timestamp,
    sealed_at: Timestamp,
    tries: Tries,
    to: To,
    is_flying: bool,
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
    /// Batches that may be tried again once the entries are durable.
    turns: Vec<(BatchId, Turn)>,
    /// Refused pieces that lie in no batch of dead letters yet.
    letters: letters::Buffer,
    /// Those of them that are being sealed.
    burial: Option<Burial>,
    checkpointed: (Duration, Position),
    is_packing_over: bool,
}

impl Deliver {
    /// A loop that goes on where the last one ended.
    ///
    /// # Errors
    /// When what was found contradicts the ledger.
    pub fn new(start: Start, parts: Parts) -> Result<Self, LaneError> {
        let Start { ledger, state, found, unheard } = start;
        let mut deliver = Self {
            primary: Destination::new(parts.primary.limits()),
            dead_letter: Destination::new(parts.dead_letter.limits()),
            owed: HashMap::new(),
            owed_from: BTreeSet::new(),
            flights: JoinSet::new(),
            unreadable: HashMap::new(),
            damaged: BTreeMap::new(),
            ledger: Some(ledger),
            checkpointed: (parts.edges.clock.monotonic(), state.forget),
            state,
            entries: unheard,
            write_not_before: Duration::ZERO,
            settling: Vec::new(),
            unlinked: Vec::new(),
            turns: Vec::new(),
            letters: letters::Buffer::new(parts.letters.hints),
            burial: None,
            is_packing_over: false,
            parts,
        };
        for Found { summary, is_recorded } in found {
            deliver.owe(&summary, Tries::of_a_batch_found(), is_recorded)?;
        }
        deliver.advance();
        Ok(deliver)
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
                if self.burial_due().is_some_and(|due| due <= self.now()) {
                    self.bury(); // for the same reason
                }
                self.launch();
            }
            self.publish();
            if deadline.is_some() && self.flights.is_empty() && self.burial.is_none() && self.is_packing_over {
                break;
            }
            let wake = deadline.or_else(|| self.wake_at());
            let checkpoint_due = self.checkpoint_due();
            let burial_due = self.burial_due().filter(|_| deadline.is_none());
            tokio::select! {
                biased; // stop first, then what has landed, then what is new
                () = stop.cancelled(), if deadline.is_none() => deadline = Some(self.now() + self.parts.grace),
                buried = sealed(&mut self.burial) => self.buried(buried)?,
                Some(landed) = self.flights.join_next() => self.landed(landed.map_err(LaneError::panicked)?).await?,
                packed = self.parts.packed.recv(), if !self.is_packing_over => self.packed(packed)?,
                () = sleep_until(&*self.parts.edges.clock, wake) => if deadline.is_some() { break },
                () = sleep_until(&*self.parts.edges.clock, checkpoint_due) => {}
                () = sleep_until(&*self.parts.edges.clock, burial_due) => {}
                () = self.parts.redriven.asked() => {}
                Ok(()) = self.parts.drain.changed() => {}
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
                self.owe(&Summary::from(*header), Tries::default(), false)?;
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

    /// Takes a batch on: one that was just sealed, or one that a start found.
    fn owe(&mut self, summary: &Summary, tries: Tries, is_recorded: bool) -> Result<(), LaneError> {
        let &Summary { batch, records, raw_bytes, oldest_arrival, .. } = summary;
        let first = summary.pieces.hull().first;
        let is_turned = self.redirected(batch).is_some() || !summary.letters.is_empty();
        let to = if is_turned { To::DeadLetter } else { To::Primary };
        self.owed_from.insert((first, batch));
        let is_flying = false;
        self.owed.insert(
            batch,
            Owed {
                first,
                records,
                raw_bytes,
                oldest_arrival,
                sealed_at: summary.sealed_at,
                tries,
                to,
                is_flying,
                is_recorded,
            },
        );
        match (to, &self.parts.primary) {
            (To::DeadLetter, _) => self.dead_letter.turns.add(batch),
            (To::Primary, Sink::Objects(_)) => self.primary.turns.add(batch),
            (To::Primary, Sink::Pieces(_)) => self.resume(batch)?,
        }
        Ok(())
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
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        owed.is_flying = false;
        if !matches!(landing, Landing::Unreadable(_)) {
            self.readable(batch);
        }
        match landing {
            Landing::Placed(verdict) => self.placed(batch, verdict).await,
            Landing::Told(told) => self.told(batch, told),
            Landing::Unfit(refused) => self.unfit(batch, refused),
            Landing::Unreadable(fault) => {
                let tries = self.unreadable(batch, &fault);
                let (now, fraction) = (self.now(), self.parts.edges.entropy.fraction());
                self.destination(batch).turns.again(batch, tries, &fault, now, fraction);
                self.parts.counters.attempts_failed.add(1);
                Ok(())
            }
            Landing::Damaged(why) => {
                self.destination(batch).turns.ended(false);
                self.damaged.insert(batch, why);
                Ok(())
            }
        }
    }

    fn destination(&mut self, batch: BatchId) -> &mut Destination {
        match self.owed.get(&batch).map(|owed| owed.to) {
            Some(To::DeadLetter) => &mut self.dead_letter,
            Some(To::Primary) | None => &mut self.primary,
        }
    }

    /// The disk did not give a batch. The destination has no part in it, so this counts for nothing there.
    fn unreadable(&mut self, batch: BatchId, fault: &Fault) -> Tries {
        let now = self.now();
        let failed = self.unreadable.entry(batch).or_default();
        *failed = failed.saturating_add(1);
        let tries = Tries { failed: *failed, ..Tries::default() };
        self.parts.ward.unreadable(batch, fault, now);
        tries
    }

    /// The disk gave a batch.
    fn readable(&mut self, batch: BatchId) {
        if self.unreadable.remove(&batch).is_some() && self.unreadable.is_empty() {
            self.parts.ward.readable();
        }
    }

    /// Nothing of a batch is owed any more.
    fn settle(&mut self, batch: BatchId) -> Result<(), LaneError> {
        let Some(owed) = self.release(batch) else { return Ok(()) };
        self.record(batch, owed.is_recorded);
        self.enter(Entry::Settled { batch })?;
        self.settling.push(batch);
        debug!(%batch, records = owed.records, dead_letter = owed.to == To::DeadLetter, "settled");
        Ok(())
    }

    // Attempts.

    fn launch(&mut self) {
        let now = self.now();
        while let Some(batch) = self.next_primary(now) {
            let errand = match &self.parts.primary {
                Sink::Objects(sink) => self.place(batch, sink),
                Sink::Pieces(sink) => self.deliver(batch, sink),
            };
            self.fly(batch, errand);
        }
        while let Some(batch) = self.dead_letter.turns.next(now, self.dead_letter.most) {
            let errand = self.place(batch, &self.parts.dead_letter);
            self.fly(batch, errand);
        }
    }

    /// The next batch for the destination. While no more may be refused, only one whose file the disk did not give: its dead
    /// letters may be what there is no room for, and they wait until it is read.
    fn next_primary(&mut self, now: Duration) -> Option<BatchId> {
        let (has_room, most, unreadable) = (self.letters.has_room(), self.primary.most, &self.unreadable);
        self.primary.turns.next_of(now, most, |batch| has_room || unreadable.contains_key(batch))
    }

    fn place(&self, batch: BatchId, sink: &Arc<dyn ObjectSink>) -> Errand {
        let intended = self.parts.primary.destination();
        Errand::Place { sink: Arc::clone(sink), redirected: self.redirected(batch).cloned(), intended }
    }

    fn deliver(&self, batch: BatchId, sink: &Arc<dyn PieceSink>) -> Errand {
        let answered = self.state.batches.get(&batch).map(|state| state.answers.answered());
        Errand::Deliver { sink: Arc::clone(sink), answered: answered.unwrap_or_default() }
    }

    fn fly(&mut self, batch: BatchId, errand: Errand) {
        let (outbox, pool) = (self.parts.outbox.clone(), self.parts.edges.pool.clone());
        if let Some(owed) = self.owed.get_mut(&batch) {
            owed.is_flying = true;
        }
        self.flights.spawn(Flight { batch, outbox, pool, errand }.fly());
    }

    fn wake_at(&self) -> Option<Duration> {
        let primary = self.primary.turns.wake_at(self.primary.most).filter(|_| self.letters.has_room());
        let dead_letter = self.dead_letter.turns.wake_at(self.dead_letter.most);
        let gives_back = !self.damaged.is_empty() && self.burial.is_none();
        let unwritten = (!self.entries.is_empty() || gives_back).then_some(self.write_not_before);
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
        self.parts.counters.letters_waiting.set(self.letters.len());
    }
}
