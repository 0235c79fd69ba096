//! The directory of live streams: what the API, the metrics and the commands see of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_core::{Position, Span, Timestamp};
use hydrant_storage::log::{AppendError, Log, Payloads};
use hydrant_storage::redriven::Origin;
use hydrant_storage::space::Share;
use tokio::sync::{Notify, watch};

use crate::config::spec::StreamSpec;
use crate::stream::counters::Counters;
use crate::stream::redriven::Marks;

/// How often somebody who waits for a stream looks whether it has failed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// The live streams by name.
#[derive(Debug, Default)]
pub struct Streams {
    by_name: BTreeMap<String, Arc<LiveStream>>,
}

impl Streams {
    /// The directory of these streams.
    pub fn new(streams: impl IntoIterator<Item = LiveStream>) -> Self {
        Self { by_name: streams.into_iter().map(|stream| (stream.spec.name.clone(), Arc::new(stream))).collect() }
    }

    /// The stream of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<LiveStream>> {
        self.by_name.get(name)
    }

    /// Streams in the order of their names, those behind `after` only.
    pub fn list(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<LiveStream>> {
        self.by_name.values().filter(move |stream| after.is_none_or(|after| stream.spec.name.as_str() > after))
    }
}

/// A stream as the outside sees it: takes records, describes itself, tells how it is.
#[derive(Debug)]
pub struct LiveStream {
    spec: Arc<StreamSpec>,
    identity: Identity,
    log: Log,
    share: Arc<Share>,
    health: Arc<Health>,
    counters: Arc<Counters>,
    log_full: Arc<Notify>,
    drain: watch::Sender<Position>,
    settled: watch::Sender<Position>,
    redriven: Arc<Marks>,
}

/// What a stream is besides its specification, kept in the data directory.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Drawn when the stream was made; another stream of the same name has another one.
    pub incarnation: u64,
    /// Starts at 1 and grows by one when a start finds another definition.
    pub version: u64,
    /// When the stream was first declared.
    pub created_at: Timestamp,
    /// When its definition last changed, if ever.
    pub updated_at: Option<Timestamp>,
}

impl LiveStream {
    /// A stream that takes records into this log.
    pub fn new(spec: impl Into<Arc<StreamSpec>>, identity: Identity, log: Log, share: Arc<Share>) -> Self {
        Self {
            spec: spec.into(),
            identity,
            log,
            share,
            health: Arc::default(),
            counters: Arc::default(),
            log_full: Arc::default(),
            drain: watch::Sender::new(Position::ZERO),
            settled: watch::Sender::new(Position::ZERO),
            redriven: Arc::default(),
        }
    }

    /// As it was declared.
    pub fn spec(&self) -> &Arc<StreamSpec> {
        &self.spec
    }

    /// What it is besides.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it is.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its share of the disk.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Told when an append found no room.
    pub fn log_full(&self) -> &Arc<Notify> {
        &self.log_full
    }

    /// The position below which everything is to be sealed at once.
    pub fn drain_below(&self) -> watch::Receiver<Position> {
        self.drain.subscribe()
    }

    /// Where its lane tells the position below which everything is settled.
    pub fn settled_below(&self) -> &watch::Sender<Position> {
        &self.settled
    }

    /// Which of its dead letters were put back.
    pub fn redriven(&self) -> &Arc<Marks> {
        &self.redriven
    }

    /// Records that were acknowledged and are not settled.
    pub fn waiting(&self) -> u64 {
        self.log.end().get().saturating_sub(self.settled.borrow().get().max(Position::FIRST.get()))
    }

    /// Stores records. Resolves when they are durable, all of them, with their positions; after an error none is,
    /// unless the error says that nobody knows.
    ///
    /// Cancel safe: a dropped call may still store its records, as any request may whose answer was lost.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, payloads: Payloads) -> Result<Span, AppendError> {
        let (records, bytes) = (payloads.lengths.len() as u64, payloads.data.len() as u64);
        let appended = self.log.append(payloads).await;
        match &appended {
            Ok(_) => {
                self.counters.records_in.add(records);
                self.counters.bytes_in.add(bytes);
            }
            Err(AppendError::Full) => {
                self.counters.records_throttled.add(records);
                self.log_full.notify_one();
            }
            Err(_) => {}
        }
        appended
    }

    /// Puts dead letters back. As [`append`](Self::append), with the origin beside the records, so that none of them comes
    /// back once more, whenever the process ends.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_redriven(&self, payloads: Payloads, origin: &Origin) -> Result<Span, AppendError> {
        let records = payloads.lengths.len() as u64;
        let appended = self.log.append_redriven(payloads, origin).await;
        match &appended {
            Ok(_) => {
                self.redriven.add(origin.object, &origin.ordinals);
                self.counters.records_redriven.add(records);
            }
            Err(AppendError::Full) => self.log_full.notify_one(),
            Err(_) => {}
        }
        appended
    }

    /// Asks for everything that is acknowledged now to be sealed and sent; returns one past the last of it.
    pub fn drain_soon(&self) -> Position {
        let end = self.log.end();
        self.drain.send_if_modified(|below| std::mem::replace(below, end.max(*below)) < end);
        end
    }

    /// Seals and sends everything that is acknowledged now, and resolves when it is settled. Cancel safe: a dropped
    /// call still has it sealed.
    ///
    /// # Errors
    /// When the stream has failed in a way that only a new process can mend.
    pub async fn drain(&self) -> Result<(), Ailment> {
        let end = self.drain_soon();
        let mut settled = self.settled.subscribe();
        // The sender lives as long as this stream, so the wait ends by its condition.
        while tokio::time::timeout(HEALTH_EVERY, settled.wait_for(|below| *below >= end)).await.is_err() {
            match self.health.state() {
                State::Failed(ailment) if ailment.is_final => return Err(ailment),
                State::Healthy | State::Degraded(_) | State::Failed(_) => {}
            }
        }
        Ok(())
    }
}

/// How a stream is: its state for `/ready`, kept by its loops, each part by one of them.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<[State; PARTS]>,
}

/// What of a stream may be ill by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The lane as a whole.
    Lane,
    /// What packing reads from.
    Log,
    /// What delivery reads from.
    Outbox,
    /// Where batches go.
    Destination,
    /// The disk that batches are written to.
    Room,
}

const PARTS: usize = 5;

/// The states of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// All is well as far as we know.
    #[default]
    Healthy,
    /// It takes records and does not get on with them, for a reason that somebody can mend.
    Degraded(Ailment),
    /// It delivers nothing until the process is started again, or its directory is mended.
    Failed(Ailment),
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Since when.
    pub since: Timestamp,
    /// A stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
    /// Whether only a new process can mend it.
    pub is_final: bool,
}

impl Health {
    /// The state now: that of the part which is worst, and of such parts the first.
    pub fn state(&self) -> State {
        let parts = self.parts();
        let failed = parts.iter().find(|state| matches!(state, State::Failed(_)));
        let ill = failed.or_else(|| parts.iter().find(|state| **state != State::Healthy));
        ill.cloned().unwrap_or_default()
    }

    /// Replaces the state of one part.
    pub fn report(&self, part: Part, state: State) {
        if let Some(place) = self.parts().get_mut(part as usize) {
            *place = state;
        }
    }

    /// The state of one part.
    pub fn of(&self, part: Part) -> State {
        self.parts().get(part as usize).cloned().unwrap_or_default()
    }

    /// Replaces the state of the lane as a whole, and forgets what ailed its parts: they begin anew.
    pub fn set(&self, lane: State) {
        let mut parts = <[State; PARTS]>::default();
        parts[Part::Lane as usize] = lane;
        *self.parts() = parts;
    }

    fn parts(&self) -> MutexGuard<'_, [State; PARTS]> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
