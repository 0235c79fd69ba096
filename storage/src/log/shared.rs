//! What all handles of a log share: the queue in front of the commit, the gate that shuts it, how far the log is.
//!
//! In: requests from any task; rounds from one commit thread at a time.
//! Out: an answer to each request; who waits for records is woken.
//!
//! ```text
//!   append ──> gate ──> room in the queue ──> queue ──> round ──> answers, progress
//!               └── closed or poisoned: refused, and so is who waits for room
//! ```
//!
//! Locks guard a few fields for a few lines, but for the committer's, which only the thread takes that serves the log.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_core::{ByteSize, Clock, Position, Span};
use tokio::sync::{Semaphore, oneshot, watch};

use super::commit::{self, Committer, Pending, Round};
use super::committers::{Committers, Pool};
use super::frame::{self, Draft};
use super::rack::{ForgetError, Held, Rack};
use super::recent::Recent;
use super::{AppendError, Options, Payloads, Usage};
use crate::buffers::Buffers;
use crate::redriven::Origin;
use crate::timing::Timings;

/// Requests of up to this many bytes, on the average of a round, are worth waiting for company: what they cost is their
/// sync. Larger ones are better written while the next are being made.
const SMALL_REQUEST_BYTES: u64 = 16 << 10;

/// Most requests that room is kept for: a hundred KiB or so.
const ROOM_MAX: usize = 1024;

/// The longest that a round waits for company, whatever the disk's syncs take.
const PATIENCE_MAX: Duration = Duration::from_micros(500);

/// What all handles of a log share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) rack: Rack,
    clock: Arc<dyn Clock>,
    pool: Arc<Pool>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    queue_bytes_max: u32,
    segment_bytes_first: u64,
    queue: Mutex<Queue>,
    /// Told when those are there for whom a round waits.
    gathered: Condvar,
    /// Locked only by the one thread that serves this log.
    committer: Mutex<Committer>,
    pub(super) progress: watch::Sender<Progress>,
    /// What readers read into.
    pub(super) buffers: Buffers,
    pub(super) recent: Recent,
    times: Timings,
}

/// What waits to be written. Bounded by `room`.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Pending>,
    /// Whether the log is in the pool or being served.
    scheduled: bool,
    gate: Gate,
    /// What the next round waits for.
    company: Company,
    /// Whether it does just now.
    is_gathering: bool,
}

/// Those who were answered last, and those who came meanwhile, mostly come again together: at the pace of syncs, in
/// two groups that take turns, unless a round waits for both.
#[derive(Clone, Copy, Debug, Default)]
struct Company {
    /// How many those are.
    requests: usize,
    /// How long they are worth waiting for: a part of what their own round costs.
    patience: Duration,
}

/// Whether the log takes records.
#[derive(Clone, Debug, Default)]
pub(super) enum Gate {
    #[default]
    Open,
    Closed,
    Poisoned(String),
}

impl Gate {
    fn check(&self) -> Result<(), AppendError> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(AppendError::Closed),
            Self::Poisoned(why) => Err(AppendError::Poisoned(why.clone())),
        }
    }
}

/// How far the log is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// One past the last durable record.
    pub(super) end: Position,
    /// Whether it stays there.
    pub(super) closed: bool,
    /// Whether nothing is taken any more, because a write or sync failed.
    pub(super) poisoned: bool,
}

impl Shared {
    pub(super) fn new(
        options: &Options,
        rack: Rack,
        committer: Committer,
        clock: Arc<dyn Clock>,
        committers: &Committers,
    ) -> Arc<Self> {
        let queue_bytes_max = u32::try_from(options.queue_bytes_max.get()).unwrap_or(u32::MAX);
        let end = rack.end();
        Arc::new(Self {
            rack,
            clock,
            pool: committers.pool(),
            room: Arc::new(Semaphore::new(queue_bytes_max as usize)),
            queue_bytes_max,
            segment_bytes_first: options.segment_bytes_first.get(),
            queue: Mutex::default(),
            gathered: Condvar::new(),
            committer: Mutex::new(committer),
            progress: watch::Sender::new(Progress { end, closed: false, poisoned: false }),
            buffers: options.buffers.clone(),
            recent: Recent::new(committers.room()),
            times: Timings::default(),
        })
    }

    pub(super) async fn append(
        self: &Arc<Self>,
        payloads: Payloads,
        origin: Option<&Origin>,
    ) -> Result<Span, AppendError> {
        if payloads.lengths.is_empty() {
            self.queue().gate.check()?;
            return Ok(Span::new(self.progress.borrow().end, 0));
        }
        let max = ByteSize::bytes(self.queue_bytes_max.into());
        let bytes = ByteSize::bytes(frame::bytes_of(&payloads));
        let too_large = AppendError::TooLarge { bytes, max };
        let Some(permits) = u32::try_from(bytes.get()).ok().filter(|bytes| *bytes <= self.queue_bytes_max) else {
            return Err(too_large);
        };
        let draft = Draft::new(payloads, origin, self.clock.now()).ok_or(too_large)?;
        let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(permits).await else {
            return Err(self.queue().gate.check().err().unwrap_or(AppendError::Closed));
        };
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending { draft, answer, permit })?;
        // Dropped without a word only when a round panicked.
        answered.await.unwrap_or_else(|_| Err(AppendError::Unknown("the commit thread failed".to_owned())))
    }

    fn enqueue(self: &Arc<Self>, pending: Pending) -> Result<(), AppendError> {
        let mut queue = self.queue();
        queue.gate.check()?;
        queue.waiting.push(pending);
        if queue.is_gathering && queue.waiting.len() == queue.company.requests {
            self.gathered.notify_one();
        }
        if std::mem::replace(&mut queue.scheduled, true) {
            return Ok(());
        }
        drop(queue);
        if !self.pool.push(Arc::clone(self)) {
            self.shut(Gate::Closed);
            let waiting = std::mem::take(&mut self.queue().waiting);
            for pending in waiting {
                pending.answer(Err(AppendError::Closed));
            }
        }
        Ok(())
    }

    /// As if the last round had left this behind.
    #[cfg(test)]
    pub(super) fn expect_company(&self, requests: usize, patience: Duration) {
        self.queue().company = Company { requests, patience };
    }

    /// Whether somebody waits for company.
    #[cfg(test)]
    pub(super) fn is_gathering(&self) -> bool {
        self.queue().is_gathering
    }

    /// Lets the company of the last round come, for a moment. Called before a round when nothing else is to be done.
    pub(crate) fn gather(&self) {
        let mut queue = self.queue();
        let patience = queue.company.patience;
        if !patience.is_zero() {
            queue.is_gathering = true;
            let is_alone = |queue: &mut Queue| queue.waiting.len() < queue.company.requests;
            let waited = self.gathered.wait_timeout_while(queue, patience, is_alone);
            // Whether they came or not, the round goes on with what is there.
            waited.unwrap_or_else(PoisonError::into_inner).0.is_gathering = false;
        }
    }

    /// Stores what waits. Called by one thread at a time; says whether more has come meanwhile.
    pub(crate) fn round(&self) -> bool {
        let waiting = {
            let mut queue = self.queue();
            // Room for as many as there may be, at once: grown one by one they would be moved time and again.
            let room = Vec::with_capacity(queue.company.requests.min(ROOM_MAX));
            std::mem::replace(&mut queue.waiting, room)
        };
        let (requests, bytes) = (waiting.len(), waiting.iter().map(|pending| pending.draft.frame_len()).sum::<u64>());
        let started = self.clock.monotonic();
        if let Round::Poisoned(why) = self.commit(waiting) {
            self.shut(Gate::Poisoned(why));
        }
        let patience = (self.clock.monotonic().saturating_sub(started) / 4).min(PATIENCE_MAX);
        let is_small = bytes <= requests as u64 * SMALL_REQUEST_BYTES;
        let mut queue = self.queue();
        let requests = requests + queue.waiting.len();
        let worth_it = is_small && requests > 1;
        queue.company = Company { requests, patience: if worth_it { patience } else { Duration::ZERO } };
        queue.scheduled = !queue.waiting.is_empty();
        queue.scheduled
    }

    fn commit(&self, waiting: Vec<Pending>) -> Round {
        if let Some(why) = self.poisoned() {
            return commit::refuse(waiting, why);
        }
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let published = |end| self.progress.send_modify(|progress| progress.end = end);
        let round = || {
            let round = committer.round(waiting, &self.rack, &self.recent, &self.times, &published);
            match round {
                Round::Done if self.queue().waiting.is_empty() => match committer.mark() {
                    Ok(()) => Round::Done,
                    Err(error) => Round::Poisoned(error.to_string()),
                },
                round => round,
            }
        };
        // A panic is a bug of ours. It must not take the thread from the other logs, nor leave this one half-written.
        catch_unwind(AssertUnwindSafe(round))
            .unwrap_or_else(|_| Round::Poisoned("the commit round panicked".to_owned()))
    }

    pub(super) fn forget(&self, upto: Position) -> io::Result<()> {
        if let Some(why) = self.poisoned() {
            return Err(io::Error::other(format!("log is poisoned: {why}")));
        }
        self.rack.forget(upto, self.segment_bytes_first).map_err(|error| match error {
            ForgetError::Later(error) => error,
            ForgetError::Unsure(error) => {
                self.shut(Gate::Poisoned(error.to_string()));
                error
            }
        })
    }

    pub(super) fn free_spares(&self) {
        self.rack.free_spares();
    }

    /// Takes nothing any more. What was shut stays as it was shut.
    pub(super) fn shut(&self, gate: Gate) {
        let (closed, poisoned) = (matches!(gate, Gate::Closed), matches!(gate, Gate::Poisoned(_)));
        {
            let mut queue = self.queue();
            if matches!((&queue.gate, &gate), (Gate::Open, _) | (Gate::Closed, Gate::Poisoned(_))) {
                if let Gate::Poisoned(why) = &gate {
                    tracing::error!(dir = %self.rack.dir.display(), error = why, "log is poisoned");
                }
                queue.gate = gate;
            }
        }
        self.room.close();
        self.progress.send_modify(|progress| {
            progress.closed |= closed;
            progress.poisoned |= poisoned;
        });
    }

    pub(super) fn usage(&self) -> Usage {
        let Held { bytes, spare_bytes, records, segments } = self.rack.held();
        Usage { bytes, spare_bytes, records, segments, syncs: self.times.read(), poisoned: self.poisoned() }
    }

    /// Why the log takes nothing any more, if so.
    fn poisoned(&self) -> Option<String> {
        if let Gate::Poisoned(why) = &self.queue().gate { Some(why.clone()) } else { None }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
