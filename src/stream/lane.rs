//! Lane: a packing loop and a delivery loop with what lies between them, opened from disk and kept running.
//!
//! In: a stream's log, folders and stores. Out: objects at their destination. A lane whose loop ends by an error is
//! opened again from disk after a wait, just as a new process would; one whose files are poisoned is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, ObjectSink, Position, Sink};
use hydrant_storage::crash::{self, Point};
use hydrant_storage::ledger::{Checkpoint, DamagedBatch, Entry, GivenBack, Ledger, Recovery};
use hydrant_storage::log::Log;
use hydrant_storage::outbox::{Outbox, SinkMark, Summary};
use hydrant_storage::space::Share;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::again::Again;
use super::budget::Account;
use super::buffer::Form;
use super::counters::Counters;
use super::deliver::{self, Deliver, Found, Start};
use super::health::{Places, Ward};
use super::ledger::Sealed;
use super::pack::{self, Pack, Packed};
use super::redriven::Marks;
use super::seal::{SEALS_MAX, Sealer};
use super::{Edges, LaneError, retry};
use crate::config::spec::{SinkSpec, StreamSpec};
use crate::streams::{Ailment, Health, State};

/// A lane that ran for this long had got over its last error.
const GOOD_RUN: Duration = Duration::from_mins(1);
/// Sealed batches that packing may be ahead of the delivery loop's notice. They lie on disk; this holds headers.
const PACKED_MAX: usize = 64;

/// What a lane is made of, for as long as the stream lives.
#[derive(Clone)]
pub struct Lane {
    /// As declared.
    pub spec: Arc<StreamSpec>,
    /// The stream's version, for object names.
    pub version: u64,
    /// The stream's folder.
    pub dir: PathBuf,
    /// Where its data go.
    pub primary: Sink,
    /// The store of its dead letters.
    pub dead_letter: Arc<dyn ObjectSink>,
    /// Its share of the disk.
    pub share: Arc<Share>,
    /// Its account with the byte budget.
    pub account: Arc<Account>,
    /// How it is.
    pub health: Arc<Health>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Told when an append found no room.
    pub log_full: Arc<Notify>,
    /// Everything below this position is to be sealed at once.
    pub drain: watch::Receiver<Position>,
    /// Told the position below which everything is settled.
    pub settled: watch::Sender<Position>,
    /// Which dead letters were put back.
    pub redriven: Arc<Marks>,
    /// Permits of the seals under way, [`SEALS_MAX`] of them. Whoever holds all knows that no file is being written.
    pub seals: Arc<Semaphore>,
    /// How long a stop waits for attempts in flight.
    pub grace: Duration,
    /// What the outside looks like.
    pub edges: Edges,
}

/// A lane's files, opened and understood. There is no other recovery than this: each start, a restart of the lane and a
/// crash all come through here.
pub struct OpenLane {
    outbox: Outbox,
    ledger: Ledger,
    /// The ledger's state with the batches that it has not heard of.
    state: Checkpoint,
    found: Vec<Found>,
    /// What the ledger's file is yet to hear, before anything else.
    unheard: Vec<Entry>,
    floor: Position,
    /// Records that are lost with damaged batches.
    lost: u64,
}

impl OpenLane {
    /// Opens the outbox and the ledger of `stream` below `dir` and finds out what is owed. Blocks.
    ///
    /// # Errors
    /// When the files cannot be read, or the ledger is damaged in its middle.
    pub fn open(stream: &str, dir: &Path, share: &Arc<Share>, edges: &Edges) -> Result<Self, LaneError> {
        let Edges { files, clock, .. } = edges;
        let (outbox, found) =
            Outbox::open(&dir.join("outbox"), Arc::clone(files), Arc::clone(clock), Arc::clone(share))?;
        crash::reach(Point::OpenOutbox);
        let (mut ledger, mut state) =
            Ledger::open(&dir.join("ledger"), Arc::clone(files), Arc::clone(clock), Arc::clone(share))?;
        crash::reach(Point::OpenLedger);
        state.advance(Position::FIRST);
        let Recovery { owed, adopted, remove, gone, damaged, strangers, highest } = Recovery::new(&state, found);
        for name in strangers {
            warn!(stream, file = name, "this file in the outbox is no batch; it is left alone");
        }
        for batch in remove {
            outbox.remove(batch).map_err(LaneError::PutAway)?;
        }
        for batch in gone {
            state.unlinked(batch);
        }
        let mut found: Vec<Found> = owed.into_iter().map(|summary| Found { summary, is_recorded: true }).collect();
        let mut unheard = adopt(&mut state, adopted, &mut found)?;
        let mut lost = 0;
        if !damaged.is_empty() {
            // First the files: one that lies there and that the ledger does not owe is adopted by the next start.
            for DamagedBatch { batch, .. } in &damaged {
                set_aside(&outbox, *batch)?;
            }
            crash::reach(Point::AsideDurable);
            lost = damaged.into_iter().map(|damaged| give_back(stream, &mut state, damaged)).sum();
            // Before any of the records is sealed again: else a crash would give them back once more.
            ledger.checkpoint(&state)?;
            crash::reach(Point::AsideRecorded);
            for found in &mut found {
                found.is_recorded = true;
            }
            unheard.clear();
        }
        found.sort_by_key(|found| (found.summary.pieces.hull().first, found.summary.batch));
        crash::reach(Point::OpenRecovered);
        let floor = highest.plus(1).max(state.forget);
        Ok(Self { outbox, ledger, state, found, unheard, floor, lost })
    }

    /// The lowest position that the log may give to a new record.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// Everything below this position is sealed: the log has been allowed to forget it.
    pub fn forgotten(&self) -> Position {
        self.state.forget
    }

    /// Whether the lane still owes batches to its destination.
    pub fn owes(&self) -> bool {
        !self.found.is_empty()
    }
}

/// Takes batches on that the ledger has not heard of. The rest of recovery goes by what dead letters say of the batches that
/// they come from, so these are known first; and if there are some, the ledger hears of all before anything else.
fn adopt(state: &mut Checkpoint, adopted: Vec<Summary>, found: &mut Vec<Found>) -> Result<Vec<Entry>, LaneError> {
    let (letters, data): (Vec<Summary>, Vec<Summary>) =
        adopted.into_iter().partition(|summary| !summary.letters.is_empty());
    let has_letters = !letters.is_empty();
    let mut unheard = Vec::new();
    for summary in data.into_iter().chain(letters) {
        let (batch, pieces) = (summary.batch, summary.pieces.clone());
        let entry = match summary.letters.clone() {
            letters if letters.is_empty() => Entry::Sealed { batch, pieces },
            letters => Entry::Buried { batch, pieces, letters },
        };
        state.apply(&entry)?;
        found.push(Found { summary, is_recorded: has_letters });
        unheard.extend(has_letters.then_some(entry));
    }
    Ok(unheard)
}

/// A batch is gone. What the log still holds of it is packed again; the rest is lost, and counted.
fn give_back(stream: &str, state: &mut Checkpoint, damaged: DamagedBatch) -> u64 {
    let DamagedBatch { batch, why, .. } = damaged;
    let Some(GivenBack { again, lost, hull }) = state.give_back(batch, state.forget) else { return 0 };
    error!(stream, %batch, why, records = %hull, again = again.len(), lost, "a batch file is damaged");
    lost
}

/// Gives the file of a damaged batch another name, durably.
///
/// # Errors
/// As poison when the folder could not be synced.
pub fn set_aside(outbox: &Outbox, batch: BatchId) -> Result<(), LaneError> {
    outbox.set_aside(batch).map_err(|error| match outbox.sync() {
        Ok(()) => LaneError::PutAway(error),
        Err(poisoned) => LaneError::OutboxFolder(poisoned),
    })
}

impl Lane {
    /// The permits of a lane under which no seal has begun.
    pub fn seals() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(SEALS_MAX as usize))
    }

    /// Runs the lane until it is stopped, opening it again after an error.
    pub async fn run(self, mut open: OpenLane, log: Log, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let started = self.edges.clock.monotonic();
            let Err(error) = self.run_once(open, &log, &stop).await else { return };
            if self.edges.clock.monotonic().saturating_sub(started) > GOOD_RUN {
                failures = 0;
            }
            failures += 1;
            self.fail(&error);
            if error.is_poison() {
                return;
            }
            open = loop {
                let wait = retry::wait(failures, self.edges.entropy.fraction(), None);
                if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                    return;
                }
                // A seal of the lane that failed may still be writing its file, which the opening must find.
                let _quiet = self.seals.acquire_many(SEALS_MAX).await;
                let lane = self.clone();
                let opening =
                    self.edges.pool.block(move || OpenLane::open(&lane.spec.name, &lane.dir, &lane.share, &lane.edges));
                match opening.await {
                    Ok(Ok(open)) => break open,
                    Ok(Err(error)) => {
                        self.fail(&error);
                        if error.is_poison() {
                            return;
                        }
                    }
                    Err(failed) => self.fail(&LaneError::panicked(failed)),
                }
                failures += 1;
            };
            info!(stream = self.spec.name, "the lane is open again");
            self.health.set(State::Healthy);
        }
    }

    fn fail(&self, error: &LaneError) {
        error!(stream = self.spec.name, %error, "the lane has stopped");
        let code = if error.is_poison() { "poisoned" } else { "stopped" };
        self.health.set(State::Failed(Ailment {
            since: self.edges.clock.now(),
            code,
            message: error.to_string(),
            is_final: error.is_poison(),
        }));
    }

    async fn run_once(&self, open: OpenLane, log: &Log, stop: &CancellationToken) -> Result<(), LaneError> {
        if !open.found.is_empty() {
            info!(stream = self.spec.name, batches = open.found.len(), "batches are owed from before");
        }
        self.counters.watch_outbox(&open.outbox);
        self.counters.records_lost.add(open.lost);
        self.learn_redriven(&open, log).await?;
        let again = Arc::new(Again::default());
        let (tell, packed) = mpsc::channel::<Packed>(PACKED_MAX);
        let (room_tx, room) = watch::channel(false);
        let pack = Pack::new(self.pack_parts(&open, log, tell, &again), room, self.drain.clone());
        let parts = self.deliver_parts(&open, log, packed, room_tx, again);
        let OpenLane { ledger, state, found, unheard, .. } = open;
        let deliver = Deliver::new(Start { ledger, state, found, unheard }, parts)?;
        let halt = stop.child_token();
        let packing = AbortOnDropHandle::new(tokio::spawn(pack.run(halt.clone())));
        let delivery = AbortOnDropHandle::new(tokio::spawn(deliver.run(halt.clone())));
        let (packing, delivery) = both(packing, delivery, &halt).await;
        if stop.is_cancelled() {
            for error in [packing.err(), delivery.err()].into_iter().flatten() {
                warn!(stream = self.spec.name, %error, "the lane ended by an error while stopping");
            }
            return Ok(());
        }
        // Poison of either outweighs all; else the half that failed by itself tells more than the one that missed it.
        match (packing, delivery) {
            (_, Err(error)) if error.is_poison() => Err(error),
            (Err(LaneError::Ended(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(())) => Err(LaneError::Ended("lane")),
        }
    }

    /// Finds out what was put back, from the ledger and, above its forget-position, from the log.
    async fn learn_redriven(&self, open: &OpenLane, log: &Log) -> Result<(), LaneError> {
        let (log, from) = (log.clone(), open.forgotten());
        let in_log = self.edges.pool.read(move || log.redriven(from)).await.map_err(LaneError::panicked)??;
        self.redriven.learn(&open.state.redriven, &in_log);
        Ok(())
    }

    fn pack_parts(&self, open: &OpenLane, log: &Log, out: mpsc::Sender<Packed>, again: &Arc<Again>) -> pack::Parts {
        let sealer = Sealer::new(self, open.outbox.clone());
        pack::Parts {
            log: log.clone(),
            sealed: Sealed::new(open.state.forget, open.state.sealed_above.spans()),
            account: Arc::clone(&self.account),
            hints: self.spec.hints,
            form: self.form(),
            sealer: Arc::new(sealer),
            out,
            again: Arc::clone(again),
            redriven: Arc::clone(&self.redriven),
            share: Arc::clone(&self.share),
            log_full: Arc::clone(&self.log_full),
            counters: Arc::clone(&self.counters),
            health: Arc::clone(&self.health),
            stream: self.spec.name.clone(),
            clock: Arc::clone(&self.edges.clock),
            pool: self.edges.pool.clone(),
        }
    }

    /// How records lie in a batch: one batch is one object, or one request.
    fn form(&self) -> Form {
        match &self.spec.sink {
            SinkSpec::Objects(objects) => Form::Object(objects.delimiter),
            SinkSpec::Pieces(_) => Form::Pieces { most: u64::from(self.primary.limits().pieces_max) },
        }
    }

    /// What batch headers say of where they go.
    pub(super) fn mark(&self) -> SinkMark {
        let kind = self.spec.sink.kind().to_owned();
        SinkMark { kind, destination: self.primary.destination(), version: self.version }
    }

    fn deliver_parts(
        &self,
        open: &OpenLane,
        log: &Log,
        packed: mpsc::Receiver<Packed>,
        room: watch::Sender<bool>,
        again: Arc<Again>,
    ) -> deliver::Parts {
        deliver::Parts {
            stream: self.spec.name.clone(),
            log: log.clone(),
            outbox: open.outbox.clone(),
            primary: self.primary.clone(),
            dead_letter: Arc::clone(&self.dead_letter),
            mark: self.mark(),
            letters: self.spec.dead_letter.clone(),
            seals: Arc::clone(&self.seals),
            drain: self.drain.clone(),
            retry_for: self.spec.retry_for,
            packed,
            again,
            room,
            settled: self.settled.clone(),
            redriven: Arc::clone(&self.redriven),
            ward: Ward::new(&self.spec.name, self.places(), Arc::clone(&self.health), Arc::clone(&self.edges.clock)),
            counters: Arc::clone(&self.counters),
            edges: self.edges.clone(),
            grace: self.grace,
        }
    }

    /// Its stores, as messages name them.
    fn places(&self) -> Places {
        Places::of(&self.spec, &self.primary.destination(), &self.dead_letter.destination())
    }
}

type Half = AbortOnDropHandle<Result<(), LaneError>>;

/// Waits for both loops; the end of one stops the other.
async fn both(
    mut packing: Half,
    mut delivery: Half,
    halt: &CancellationToken,
) -> (Result<(), LaneError>, Result<(), LaneError>) {
    let flatten =
        |ended: Result<Result<(), LaneError>, _>| ended.unwrap_or_else(|failed| Err(LaneError::panicked(failed)));
    tokio::select! {
        ended = &mut packing => {
            halt.cancel();
            (flatten(ended), flatten(delivery.await))
        }
        ended = &mut delivery => {
            halt.cancel();
            (flatten(packing.await), flatten(ended))
        }
    }
}
