//! Packing loop: from the log to the outbox.
//!
//! In: slices of the log, as the byte budget allows. Out: sealed batches, told to the delivery loop in the order in
//! which they became durable. One task owns all of it; nothing here is locked.
//!
//! ```text
//!   log ──slice──> rest ──records──> buffer ──full, due, pressed──> seals under way ──> delivery loop
//!    ^                                 └── units of a large one ──> its draft ┘ │
//!    └──── no room on disk: drop, go back to the watermark, seal smaller ones ──┤
//!    └──────────── a batch is gone: the same, when its records are known to be open again
//! ```
//!
//! Never sends anything, and never tells the log to forget: the delivery loop does when its ledger knows.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{Clock, Position, Span, Timestamp};
use hydrant_storage::crash::{self, Point};
use hydrant_storage::log::{Frame, Log, Lost, ReadError, Reader, Slice};
use hydrant_storage::outbox::{Header, SealError};
use hydrant_storage::redriven::Origin;
use hydrant_storage::space::Share;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::again::Again;
use super::budget::{Account, Grant};
use super::buffer::{Buffer, Form, Now, Reason};
use super::counters::Counters;
use super::ledger::Sealed;
use super::pool::{Pool, finish};
use super::redriven::Marks;
use super::seal::{Open, Outcome, SEALS_MAX, Sealer};
use super::{LaneError, retry, sleep_until};
use crate::config::spec::Hints;
use crate::streams::{Ailment, Health, Part, State};

/// Bytes asked of the log at a time: large enough that reading costs little per record, small enough that many
/// streams can read within the budget.
const SLICE_BYTES: u64 = 1 << 20;
/// How long a lane that found no room on disk waits before it reads and compresses the same records again, at first and
/// at most: it doubles until a seal succeeds. Other streams need the cores meanwhile.
const NO_ROOM_WAIT_MIN: Duration = Duration::from_secs(1);
const NO_ROOM_WAIT_MAX: Duration = Duration::from_secs(16);
/// How long a lane finds no room before somebody should look: an outbox is full now and then, and soon has room again.
const NO_ROOM_PATIENCE: Duration = Duration::from_secs(30);
/// How small objects may become when there is no room on disk for larger ones: the smallest size hint there is.
const SHRUNK_BYTES_MIN: u64 = 1 << 20;

/// What the packing loop tells the delivery loop.
#[derive(Debug)]
pub enum Packed {
    /// This batch is durable in the outbox.
    Batch(Box<Header>),
    /// These records can never be read again.
    Lost(Lost),
    /// These positions were never given to a record.
    Gap(Span),
}

/// The end of a read: the reader to go on with, the room that was taken, what was read.
type Read = (Reader, Grant, Result<Slice, ReadError>);

/// What the loop is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where records come from.
    pub log: Log,
    /// What is sealed already.
    pub sealed: Sealed,
    /// Its account with the byte budget.
    pub account: Arc<Account>,
    /// When a buffer is sealed.
    pub hints: Hints,
    /// How records lie in a batch.
    pub form: Form,
    /// Makes batch files.
    pub sealer: Arc<Sealer>,
    /// Where sealed batches are told.
    pub out: mpsc::Sender<Packed>,
    /// Records whose batch is gone come from here.
    pub again: Arc<Again>,
    /// Told of dead letters that were put back, before their records are sealed.
    pub redriven: Arc<Marks>,
    /// The stream's disk share.
    pub share: Arc<Share>,
    /// Told when an append was refused because the share is used up.
    pub log_full: Arc<Notify>,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Told when the log cannot be read, or takes nothing more.
    pub health: Arc<Health>,
    /// The stream's name, for log lines.
    pub stream: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Threads.
    pub pool: Pool,
}

/// The loop's state.
#[derive(Debug)]
pub struct Pack {
    parts: Parts,
    /// Whether an attempt could start now.
    room: watch::Receiver<bool>,
    /// Everything below this position is to be sealed without waiting for size or age.
    drain: watch::Receiver<Position>,
    buffer: Buffer,
    buffer_grant: Grant,
    /// The batch of a large buffer whose first units were handed over.
    open: Option<Open>,
    rest: VecDeque<(Frame, Range<usize>)>,
    rest_grant: Grant,
    reader: Option<Reader>,
    reading: Option<JoinHandle<Read>>,
    read_to: Position,
    seals: JoinSet<Outcome>,
    /// Age seals wait until the log has been read up to here, or a long outage would make an object of each slice.
    catch_up_to: Position,
    /// When packing, which stands still until then, goes back to the watermark: there was no room on disk, or records
    /// are to be packed again.
    rewind_at: Option<Duration>,
    no_room_wait: Duration,
    /// Since when no seal has found room.
    no_room_since: Option<Duration>,
    /// How large objects may be from the next rewind on, if there was no room for larger ones. The log forgets nothing
    /// before a seal succeeds: one that needs more room than there is would wait for ever.
    size_with_room: Option<u64>,
    /// Reads of the log in a row that the disk did not answer, and when the next is made.
    unread: u32,
    read_not_before: Option<Duration>,
    is_log_poisoned: bool,
}

impl Pack {
    /// A loop that goes on where the last one ended.
    ///
    /// `room` says whether an attempt could start now; everything below `drain` is to be sealed without waiting for
    /// size or age.
    pub fn new(parts: Parts, room: watch::Receiver<bool>, drain: watch::Receiver<Position>) -> Self {
        let watermark = parts.sealed.watermark();
        Self {
            buffer: empty(&parts),
            buffer_grant: parts.account.nothing(),
            open: None,
            rest: VecDeque::new(),
            rest_grant: parts.account.nothing(),
            reader: Some(parts.log.reader(watermark)),
            reading: None,
            read_to: watermark,
            seals: JoinSet::new(),
            catch_up_to: parts.log.end(),
            rewind_at: None,
            no_room_wait: NO_ROOM_WAIT_MIN,
            no_room_since: None,
            size_with_room: None,
            unread: 0,
            read_not_before: None,
            is_log_poisoned: false,
            room,
            drain,
            parts,
        }
    }

    /// Runs until stopped. Seals that have begun are finished and told; buffers are dropped, for the log has them.
    ///
    /// # Errors
    /// When storage fails in a way that this lane cannot go on from.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LaneError> {
        loop {
            self.fill();
            self.seal_if_asked();
            self.parts.counters.oldest_buffered_ms.set(self.buffer.oldest_arrival().map_or(0, Timestamp::as_millis));
            let may_read = self.rest.is_empty() && self.rewind_at.is_none() && self.read_not_before.is_none();
            let due = self.age_due();
            tokio::select! {
                biased; // stop first, then what is finished, then what is new
                () = stop.cancelled() => break,
                Some(done) = self.seals.join_next() => self.sealed(done.map_err(LaneError::panicked)?).await?,
                () = self.parts.account.pressed() => self.give_way(),
                () = self.parts.log_full.notified() => self.make_room(),
                () = self.parts.again.added() => self.rewind_at = Some(self.parts.clock.monotonic()),
                () = sleep_until(&*self.parts.clock, due) => self.seal(Reason::Age),
                read = finished(&mut self.reading) => self.took(read).await?,
                grant = granted(&self.parts, self.read_to), if may_read && self.reading.is_none() => self.read(grant),
                Ok(()) = self.room.changed() => {}
                Ok(()) = self.drain.changed() => {}
                () = sleep_until(&*self.parts.clock, self.read_not_before) => self.read_not_before = None,
                () = self.parts.log.wait_poisoned(), if !self.is_log_poisoned => self.log_poisoned(),
                () = sleep_until(&*self.parts.clock, self.rewind_at), if self.seals.is_empty() => self.rewind().await,
            }
        }
        while let Some(done) = self.seals.join_next().await {
            self.sealed(done.map_err(LaneError::panicked)?).await?;
        }
        self.abandon().await;
        Ok(())
    }

    /// Moves records from the slice into the buffer until it is full and no further seal may start.
    fn fill(&mut self) {
        while self.rewind_at.is_none()
            && let Some((frame, range)) = self.rest.front_mut()
        {
            let now = Now { wall: self.parts.clock.now(), monotonic: self.parts.clock.monotonic() };
            let before = self.buffer.len();
            let taken = self.buffer.push(frame, range.clone(), now);
            range.start += taken;
            let is_done = range.start >= range.end;
            let moved = self.buffer.len() - before;
            self.buffer_grant.resize(self.buffer.footprint()); // first, so that nobody takes the room in between
            self.rest_grant.resize(self.rest_grant.bytes().saturating_sub(moved));
            if is_done {
                self.rest.pop_front();
            }
            match (self.buffer.is_unit_full(), is_done) {
                (false, true) => {}
                _ if !self.may_seal() => return,
                (true, _) => self.spill(),
                (false, false) => self.seal(Reason::Size),
            }
        }
        if self.rest.is_empty() {
            self.rest_grant.resize(0);
        }
    }

    fn seal_if_asked(&mut self) {
        if self.buffer.is_empty() || !self.may_seal() || self.rewind_at.is_some() {
            return;
        }
        let reason = if self.buffer.is_full() {
            Reason::Size
        } else if self.is_drained_into_buffer() {
            Reason::Drain
        } else if self.parts.hints.interval.is_zero() && *self.room.borrow() && self.seals.is_empty() {
            Reason::Room
        } else {
            return;
        };
        self.seal(reason);
    }

    /// Whether the buffer holds the last of the records that are to be sealed at once.
    fn is_drained_into_buffer(&self) -> bool {
        let below = *self.drain.borrow();
        self.rest.is_empty() && self.read_to >= below && self.buffer.first().is_some_and(|first| first < below)
    }

    /// Producers are being refused. If it is the log that fills the share, or a draft beside it, sealing lets it forget.
    fn make_room(&mut self) {
        let log_fills = self.parts.log.usage().bytes > self.parts.share.used() / 2;
        if (log_fills || self.open.is_some()) && self.seals.is_empty() {
            self.seal(Reason::LogShare);
        }
    }

    fn age_due(&self) -> Option<Duration> {
        let caught_up = self.read_to >= self.catch_up_to || self.unread > 0; // what is buffered need not wait for a disk
        let zero = self.parts.hints.interval.is_zero(); // sealed for room, not for age
        if caught_up && !zero && self.rewind_at.is_none() && self.may_seal() { self.buffer.due() } else { None }
    }

    fn may_seal(&self) -> bool {
        self.seals.len() < SEALS_MAX as usize
    }

    fn seal(&mut self, reason: Reason) {
        if self.buffer.is_empty() || self.rewind_at.is_some() {
            return;
        }
        let (held, grant, sealer) = (self.buffer.take(), self.grant_for_seal(), Arc::clone(&self.parts.sealer));
        match self.open.take() {
            None => self.seals.spawn(sealer.seal(held, grant, reason)),
            Some(open) => self.seals.spawn(sealer.seal_open(open, held, grant, reason)),
        };
    }

    /// Hands over what is buffered of a large batch.
    fn spill(&mut self) {
        let (raw, grant, sealer) = (self.buffer.take_unit(), self.grant_for_seal(), Arc::clone(&self.parts.sealer));
        let open = self.open.get_or_insert_with(|| sealer.open(self.parts.account.nothing()));
        self.seals.spawn(Arc::clone(&sealer).spill(open, raw, grant));
    }

    fn grant_for_seal(&mut self) -> Grant {
        let mut grant = std::mem::replace(&mut self.buffer_grant, self.parts.account.nothing());
        grant.sealing();
        grant
    }

    /// Others need memory. A large batch hands over what it has, so that it can still become large; others are sealed.
    fn give_way(&mut self) {
        let spills = self.buffer.is_in_units()
            && self.buffer.footprint() > 0
            && self.parts.sealer.frees_by_spilling(self.open.as_ref());
        if !spills {
            self.seal(Reason::Pressure);
        } else if self.rewind_at.is_none() {
            self.spill();
        }
    }

    async fn sealed(&mut self, outcome: Outcome) -> Result<(), LaneError> {
        match outcome {
            Outcome::Sealed(reason, Ok(header)) => {
                crash::reach(Point::SealDurable);
                debug!(batch = %header.batch, records = header.records, bytes = header.raw_bytes, reason = reason.as_str(), "sealed");
                for span in header.pieces.spans() {
                    self.parts.sealed.insert(span);
                }
                self.parts.counters.sealed(reason);
                self.no_room_wait = NO_ROOM_WAIT_MIN;
                if self.no_room_since.take().is_some() {
                    self.parts.health.report(Part::Room, State::Healthy);
                }
                self.resize(self.buffer.size() * 2);
                self.tell(Packed::Batch(header)).await
            }
            Outcome::Spilled(Ok(())) | Outcome::Superseded => Ok(()),
            Outcome::Sealed(_, Err(error)) | Outcome::Spilled(Err(error)) => self.failed(error),
        }
    }

    fn failed(&mut self, error: SealError) -> Result<(), LaneError> {
        match error {
            SealError::NoSpace(_) | SealError::Crowded { .. } | SealError::NotCreated(_) => {
                if self.rewind_at.is_none() {
                    warn!(stream = self.parts.stream, %error, "no room on disk for a batch; packing waits");
                    let now = self.parts.clock.monotonic();
                    if now.saturating_sub(*self.no_room_since.get_or_insert(now)) >= NO_ROOM_PATIENCE {
                        self.degrade(Part::Room, "disk_full", format!("no room for a batch: {error}"), false);
                    }
                    self.rewind_at = Some(now + self.no_room_wait);
                    self.no_room_wait = (self.no_room_wait * 2).min(NO_ROOM_WAIT_MAX);
                    let found_none = if self.open.is_some() { self.buffer.len() } else { self.buffer.size() };
                    self.size_with_room = Some(found_none / 2);
                }
                Ok(())
            }
            SealError::HeaderTooLarge { .. } | SealError::Poisoned(_) => Err(LaneError::Outbox(error)),
        }
    }

    /// Drops what is buffered and goes back to the watermark: nothing is lost, as the log has all of it. Only while no
    /// seal is under way, whose records would be read once more. If a seal found no room, the log gives what it can.
    async fn rewind(&mut self) {
        if self.size_with_room.is_some() {
            let log = self.parts.log.clone();
            finish(self.parts.pool.block(move || log.free_spares())).await;
        }
        for span in self.parts.again.take().spans() {
            self.parts.sealed.reopen(span);
        }
        self.rewind_at = None;
        let size = self.size_with_room.take().unwrap_or(self.buffer.size());
        self.abandon().await;
        self.buffer = empty(&self.parts);
        self.resize(size);
        self.buffer_grant.resize(0);
        self.rest.clear();
        self.rest_grant.resize(0);
        if let Some(reading) = self.reading.take() {
            reading.abort(); // its result is dropped with its grant; a read changes nothing
        }
        self.read_to = self.parts.sealed.watermark();
        self.reader = Some(self.parts.log.reader(self.read_to));
    }

    /// Has objects become so large, as far as the stream's own hint and what is sensible go.
    fn resize(&mut self, bytes: u64) {
        let most = self.parts.hints.size.get();
        self.buffer.set_size(bytes.clamp(SHRUNK_BYTES_MIN.min(most), most));
    }

    /// Lets go of a large batch that is not sealed: its draft is removed.
    async fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            finish(self.parts.pool.block(|| drop(open))).await;
        }
    }

    fn read(&mut self, grant: Grant) {
        let Some(mut reader) = self.reader.take() else { return };
        self.reading = Some(self.parts.pool.read(move || {
            let slice = reader.next(usize::try_from(SLICE_BYTES).unwrap_or(usize::MAX));
            (reader, grant, slice)
        }));
    }

    async fn took(
        &mut self,
        (reader, mut grant, slice): (Reader, Grant, Result<Slice, ReadError>),
    ) -> Result<(), LaneError> {
        self.reader = Some(reader);
        let slice = match slice {
            Ok(slice) => slice,
            Err(error) => {
                self.unreadable(&error);
                return Ok(());
            }
        };
        if std::mem::take(&mut self.unread) > 0 {
            info!(stream = self.parts.stream, "the log can be read again");
            if !self.is_log_poisoned {
                self.parts.health.report(Part::Log, State::Healthy);
            }
        }
        for Origin { object, ordinals, .. } in slice.redriven() {
            self.parts.redriven.add(*object, ordinals);
        }
        for lost in slice.lost {
            self.lost(lost).await?;
        }
        for frame in slice.frames {
            let span = frame.span();
            self.skipped(Span { first: self.read_to, end: span.first }).await?;
            for open in self.parts.sealed.missing(span) {
                self.rest.push_back((frame.clone(), index(span, open.first)..index(span, open.end)));
            }
            self.read_to = span.end;
        }
        self.skipped(Span { first: self.read_to, end: slice.end }).await?;
        self.read_to = self.read_to.max(slice.end);
        grant.resize(self.rest.iter().map(|(frame, _)| frame.data.len() as u64).sum());
        self.rest_grant = grant;
        Ok(())
    }

    /// The disk does not give a part of the log. That is no damage, so nothing is passed over: it is read again, more and
    /// more rarely, and an operator is told.
    fn unreadable(&mut self, error: &ReadError) {
        self.unread = self.unread.saturating_add(1);
        let wait = retry::wait(self.unread, 1.0, None);
        self.read_not_before = Some(self.parts.clock.monotonic() + wait);
        error!(stream = self.parts.stream, %error, wait_s = wait.as_secs(), "the log cannot be read; it is tried again");
        self.degrade(Part::Log, "unreadable", format!("the log cannot be read: {error}"), false);
    }

    fn log_poisoned(&mut self) {
        self.is_log_poisoned = true;
        let why = self.parts.log.usage().poisoned.unwrap_or_default();
        self.degrade(Part::Log, "poisoned", format!("the log takes no records before a restart: {why}"), true);
    }

    fn degrade(&self, part: Part, code: &'static str, message: String, is_final: bool) {
        let since = match self.parts.health.of(part) {
            State::Degraded(ailment) if ailment.is_final => return,
            State::Degraded(ailment) => ailment.since,
            State::Healthy | State::Failed(_) => self.parts.clock.now(),
        };
        self.parts.health.report(part, State::Degraded(Ailment { since, code, message, is_final }));
    }

    async fn lost(&mut self, lost: Lost) -> Result<(), LaneError> {
        let open: Vec<Span> = self.parts.sealed.missing(lost.span).collect();
        for span in open {
            error!(stream = self.parts.stream, records = %span, why = lost.why, "records are lost: the log cannot be read there");
            self.parts.counters.records_lost.add(span.count());
            self.parts.sealed.insert(span);
            self.tell(Packed::Lost(Lost { span, why: lost.why.clone() })).await?;
        }
        Ok(())
    }

    /// Positions that the log jumped over when it was opened again. Nobody was ever told of them.
    async fn skipped(&mut self, gap: Span) -> Result<(), LaneError> {
        let open: Vec<Span> = self.parts.sealed.missing(gap).collect();
        for span in open {
            self.parts.sealed.insert(span);
            self.tell(Packed::Gap(span)).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, packed: Packed) -> Result<(), LaneError> {
        self.parts.out.send(packed).await.map_err(|_| LaneError::Ended("delivery loop"))
    }
}

fn empty(parts: &Parts) -> Buffer {
    Buffer::new(parts.hints, parts.form, parts.pool.blocks().chain())
}

/// The index of `position` in a frame that spans `span`.
fn index(span: Span, position: Position) -> usize {
    usize::try_from(position.get() - span.first.get()).unwrap_or(usize::MAX)
}

/// Waits until there is something to read and room to read it into. Cancel safe.
async fn granted(parts: &Parts, read_to: Position) -> Grant {
    parts.log.wait_beyond(read_to).await;
    parts.account.reserve(SLICE_BYTES).await
}

/// Waits for the read under way; for ever if there is none. Cancel safe.
async fn finished<T>(reading: &mut Option<JoinHandle<T>>) -> T {
    let Some(handle) = reading else { return std::future::pending().await };
    let result = finish(handle).await;
    *reading = None;
    result
}
