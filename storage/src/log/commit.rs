//! Group commit: what waits in the queue is written with few system calls, made durable with one sync for each file
//! that was touched, and only then answered, in order.
//!
//! In: drafts of frames with those who wait for them.
//! Out: frames on the disk; to each waiter its positions, or why not.
//!
//! ```text
//!   queue ──> as many as fit the segment ──> write ──> sync ──> readers may read ──> answers
//!      ^                                │                                              │
//!      └──── the rest: a new segment <──┘                        nobody waits: a mark ─┘
//! ```
//!
//! [`Committer::round`] is a plain function that does one turn of this; who calls it, and on which thread, is in
//! `committers.rs`. After a failed write or sync nothing is written any more, and the sync is not tried again: the
//! kernel may have thrown the bytes away and would say yes. A write that finds no room is no better: every segment was
//! allocated before, so that is no full disk but a broken promise of it, and a whole frame may lie there of a request
//! that was told no.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use hydrant_core::{Clock, Position, Span};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::frame::{Draft, HEADER_BYTES, Header};
use super::rack::{Mark, Rack, Spare};
use super::reader::Frame;
use super::recent::Recent;
use super::segment::{self, FRAMES_START, MakeError, Segment};
use super::{AppendError, Options};
use crate::crash::{self, Point, Slip};
use crate::files::{File, Files};
use crate::space::BLOCK_BYTES;
use crate::timing::Timings;

/// Payloads up to this many bytes are copied next to their header. Copying so few costs less than one more part in
/// the vector of the write.
const COPY_BYTES_MAX: usize = 8 << 10;

/// A staging buffer that grew beyond this is given back after its round. Enough for a round of many small requests;
/// an idle log of thousands keeps no more.
const STAGING_BYTES_KEPT: usize = 256 << 10;

/// A request that waits to be written.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) draft: Draft,
    pub(super) answer: oneshot::Sender<Result<Span, AppendError>>,
    /// Room in the queue. Belongs to the payload: the caller may be gone while the payload still waits.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Pending {
    pub(super) fn answer(self, answer: Result<Span, AppendError>) {
        let Self { answer: waiter, permit, .. } = self;
        drop(permit);
        // An error only says that nobody waits any more. What is stored stays stored.
        waiter.send(answer).ok();
    }
}

/// What a round leaves behind.
#[derive(Debug)]
pub(super) enum Round {
    /// All is answered.
    Done,
    /// A write or sync failed. Nothing may be written any more.
    Poisoned(String),
}

/// The writing half of a log.
#[derive(Debug)]
pub(super) struct Committer {
    incarnation: u64,
    salt_seed: u64,
    clock: Arc<dyn Clock>,
    segment_bytes_first: u64,
    segment_bytes_max: u64,
    /// How large the next segment is to be.
    segment_bytes: u64,
    /// The segment that is written to, and where the next frame starts.
    active: Option<(Arc<Segment>, u64)>,
    /// The position that the next record gets.
    next: Position,
    /// One past the last durable record.
    durable: Position,
    /// Headers, tables and paddings of a round, one after the other; kept so that it is allocated once.
    staging: Vec<u8>,
}

impl Committer {
    pub(super) fn new(
        options: &Options,
        salt_seed: u64,
        clock: Arc<dyn Clock>,
        durable: Position,
        next: Position,
    ) -> Self {
        let segment_bytes_first = options.segment_bytes_first.get().max(BLOCK_BYTES);
        Self {
            incarnation: options.incarnation,
            salt_seed,
            clock,
            segment_bytes_first,
            segment_bytes_max: options.segment_bytes_max.get().max(segment_bytes_first),
            segment_bytes: segment_bytes_first,
            active: None,
            next,
            durable,
            staging: Vec::new(),
        }
    }

    /// Stores and answers all of `waiting`. `published` is called each time the log has become durable further.
    pub(super) fn round(
        &mut self,
        waiting: Vec<Pending>,
        rack: &Rack,
        recent: &Recent,
        times: &Timings,
        published: &dyn Fn(Position),
    ) -> Round {
        let mut waiting = waiting.into_iter().peekable();
        while let Some(front) = waiting.peek() {
            let (segment, offset) = match self.segment_for(&front.draft, rack, times) {
                Ok(place) => place,
                Err(NoSegment::Unsure(error)) => return poison(Vec::new(), waiting, &error),
                Err(refusal) => {
                    let error = refusal.into_answer();
                    waiting.for_each(|pending| pending.answer(Err(error.clone())));
                    return Round::Done;
                }
            };
            let mut end = offset;
            let mut group = Vec::with_capacity(waiting.len());
            while let Some(pending) = waiting.next_if(|next| fits(&next.draft, &segment, end)) {
                end += pending.draft.frame_len();
                group.push(pending);
            }
            let mut first = self.next;
            if crash::slips(Slip::AcknowledgeBeforeWrite) {
                answer_early(&mut group, first);
            }
            crash::reach(Point::AppendTaken);
            if let Err(error) = self.store(&segment, offset, &group, times) {
                return poison(group, waiting, &error);
            }
            rack.publish(Mark { position: self.next, offset: end }, Mark { position: first, offset });
            self.durable = self.next;
            self.active = Some((segment, end));
            recent.keep(frames_of(&mut group, first));
            published(self.durable);
            for pending in group {
                let span = Span::new(first, pending.draft.count.into());
                first = span.end;
                pending.answer(Ok(span));
                crash::reach(Point::AppendAnswered);
            }
        }
        Round::Done
    }

    /// Writes how far the log is durable, as nobody waits just now. Not synced: it goes to the disk with whatever
    /// comes next, or when the kernel gets round to it. Until then, damage to the last requests cannot be told from
    /// a torn tail; after that it can.
    pub(super) fn mark(&mut self) -> io::Result<()> {
        let Some((segment, offset)) = &mut self.active else { return Ok(()) };
        let end = *offset + HEADER_BYTES as u64;
        if let (Some(salt), true) = (segment.salt, end <= segment.len) {
            let header = Header::mark(self.durable, self.clock.now()).encode(salt);
            segment.file.write_at(*offset, &[IoSlice::new(&header)])?;
            *offset = end;
        }
        Ok(())
    }

    /// Where a frame goes: behind the last one, or into a new segment.
    fn segment_for(&mut self, draft: &Draft, rack: &Rack, times: &Timings) -> Result<(Arc<Segment>, u64), NoSegment> {
        if let Some((segment, offset)) = &self.active
            && fits(draft, segment, *offset)
        {
            return Ok((Arc::clone(segment), *offset));
        }
        let segment = Arc::new(self.make_segment(draft, rack, times)?);
        rack.push(Arc::clone(&segment));
        self.active = Some((Arc::clone(&segment), FRAMES_START));
        self.segment_bytes = (self.segment_bytes * 2).min(self.segment_bytes_max);
        Ok((segment, FRAMES_START))
    }

    /// A new segment that may hold this frame, durable with its name.
    ///
    /// Everything before it is durable by now, and its header says so: each group is synced before the next begins.
    fn make_segment(&self, draft: &Draft, rack: &Rack, times: &Timings) -> Result<Segment, NoSegment> {
        let room = (FRAMES_START + draft.frame_len()).next_multiple_of(BLOCK_BYTES);
        let spare = rack.take_spare(room);
        let recycled = spare.is_some();
        let file = spare.map_or_else(|| self.allocate(room, rack), Ok)?;
        crash::reach(Point::AppendAllocated);
        let header = segment::Header {
            layout: draft.layout(),
            incarnation: self.incarnation,
            base: self.next,
            previous_end: self.durable,
            salt: salt(self.salt_seed, self.incarnation, self.next),
            len: file.len,
            created_at: self.clock.now(),
        };
        let started = self.clock.monotonic();
        let made = Segment::make(rack, Arc::clone(&file.file), &file.path, &header);
        times.record(self.clock.monotonic().saturating_sub(started));
        made.map_err(|error| match error {
            MakeError::Unsure(error) => NoSegment::Unsure(error),
            MakeError::NotNamed(error) => {
                if recycled {
                    rack.return_spare(file);
                } else {
                    // If it cannot be removed it is written over by the next try, or removed by the next open.
                    rack.files.remove(&file.path).ok();
                    rack.share.give(file.len);
                }
                NoSegment::Unavailable(format!("name segment: {error}"))
            }
        })
    }

    /// A new file for a segment: as large as it should be, or as large as the disk still lets it be.
    fn allocate(&self, room: u64, rack: &Rack) -> Result<Spare, NoSegment> {
        let mut len = self.segment_bytes.max(room).next_multiple_of(BLOCK_BYTES);
        loop {
            let allocated = self.try_allocate(len, rack);
            if !matches!(allocated, Err(NoSegment::Full)) {
                return allocated;
            }
            if !rack.free_spares() {
                let smaller = (len / 2).next_multiple_of(BLOCK_BYTES).max(self.segment_bytes_first).max(room);
                if smaller >= len {
                    return Err(NoSegment::Full);
                }
                len = smaller;
            }
        }
    }

    fn try_allocate(&self, len: u64, rack: &Rack) -> Result<Spare, NoSegment> {
        let free = rack.files.free(&rack.dir).unwrap_or(u64::MAX); // a disk that does not say shows it by the allocation
        rack.share.take_segment(len, free).map_err(|error| {
            tracing::debug!(dir = %rack.dir.display(), %error, "no space for a segment");
            NoSegment::Full
        })?;
        let path = segment::unfinished_path(&rack.dir, self.next);
        create_with_len(&*rack.files, &path, len).map(|file| Spare { number: 0, path, file, len }).map_err(|error| {
            rack.share.give(len);
            match error.kind() {
                io::ErrorKind::StorageFull => NoSegment::Full,
                _ => NoSegment::Unavailable(format!("allocate segment: {error}")),
            }
        })
    }

    /// Writes a group of frames and makes them durable.
    fn store(&mut self, segment: &Segment, offset: u64, group: &[Pending], times: &Timings) -> io::Result<()> {
        let salt = segment.salt.unwrap_or_default();
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let mut cuts = Vec::with_capacity(group.len());
        for Pending { draft, .. } in group {
            staging.extend_from_slice(&draft.header(self.next, self.durable).encode(salt));
            staging.extend_from_slice(&draft.table);
            self.next = self.next.plus(draft.count.into());
            if draft.data.len() <= COPY_BYTES_MAX {
                staging.extend_from_slice(&draft.data);
            } else {
                cuts.push((staging.len(), draft));
            }
            staging.extend_from_slice(&draft.origin_bytes);
            staging.extend_from_slice(draft.padding());
        }
        let written = segment.file.write_at(offset, &parts(&staging, &cuts));
        if staging.capacity() <= STAGING_BYTES_KEPT {
            self.staging = staging;
        }
        written?;
        crash::reach(Point::AppendWritten);
        let started = self.clock.monotonic();
        let synced = if crash::slips(Slip::SkipSyncs) { Ok(()) } else { segment.file.sync() };
        times.record(self.clock.monotonic().saturating_sub(started));
        crash::reach(Point::AppendSynced);
        synced
    }
}

/// The frames of a group that starts at `first`, as a reader gets them. They leave the group without records.
fn frames_of(group: &mut [Pending], mut first: Position) -> impl Iterator<Item = Frame> {
    group.iter_mut().map(move |Pending { draft, .. }| {
        let frame = draft.take_frame(first);
        first = frame.span().end;
        frame
    })
}

/// Whether a frame may be written at this place of a segment.
fn fits(draft: &Draft, segment: &Segment, offset: u64) -> bool {
    offset + draft.frame_len() <= segment.len && draft.layout() <= segment.layout
}

/// The slip: those who wait are told that their records are stored, and the disk is slow.
fn answer_early(group: &mut [Pending], mut first: Position) {
    for pending in group {
        let span = Span::new(first, pending.draft.count.into());
        first = span.end;
        let answer = std::mem::replace(&mut pending.answer, oneshot::channel().0);
        answer.send(Ok(span)).ok();
    }
    crash::linger();
}

/// Why there is no segment to write to.
#[derive(Debug)]
enum NoSegment {
    /// Neither cap nor disk has room.
    Full,
    /// A file could not be made or named. Nothing is in doubt.
    Unavailable(String),
    /// A write or sync failed.
    Unsure(io::Error),
}

impl NoSegment {
    /// What those are told who wanted to write.
    fn into_answer(self) -> AppendError {
        match self {
            Self::Full => AppendError::Full,
            Self::Unavailable(why) => {
                tracing::warn!(error = %why, "no segment to write to");
                AppendError::Unavailable(why)
            }
            Self::Unsure(error) => AppendError::Poisoned(error.to_string()),
        }
    }
}

/// Those whose frames may or may not be on the disk learn that; the others, that nothing was stored.
fn poison(unsure: Vec<Pending>, refused: impl Iterator<Item = Pending>, error: &io::Error) -> Round {
    let why = error.to_string();
    for pending in unsure {
        pending.answer(Err(AppendError::Unknown(why.clone())));
    }
    refuse(refused, why)
}

/// Refuses all of `waiting`, as the log is poisoned.
pub(super) fn refuse(waiting: impl IntoIterator<Item = Pending>, why: String) -> Round {
    for pending in waiting {
        pending.answer(Err(AppendError::Poisoned(why.clone())));
    }
    Round::Poisoned(why)
}

/// A new file of this length, or none.
fn create_with_len(files: &dyn Files, path: &Path, len: u64) -> io::Result<Arc<dyn File>> {
    let file = match files.create(path) {
        // Left by a try that failed half-way and could not be removed then.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => files.open(path)?,
        created => created?,
    };
    if let Err(error) = file.allocate(len) {
        files.remove(path).ok();
        return Err(error);
    }
    Ok(file)
}

/// The bytes of a round in their order: what was staged, cut where a payload comes between.
fn parts<'a>(staging: &'a [u8], cuts: &[(usize, &'a Draft)]) -> Vec<IoSlice<'a>> {
    let mut parts = Vec::with_capacity(2 * cuts.len() + 1);
    let (mut rest, mut at) = (staging, 0);
    for &(cut, draft) in cuts {
        let (before, behind) = rest.split_at(cut - at);
        parts.extend([IoSlice::new(before), IoSlice::new(&draft.data)]);
        (rest, at) = (behind, cut);
    }
    parts.push(IoSlice::new(rest));
    parts
}

/// A number that no earlier use of a file had, even when every use had the same seed: a position starts one segment
/// only.
fn salt(seed: u64, incarnation: u64, base: Position) -> u64 {
    [incarnation, base.get()].into_iter().fold(mix(seed), |salt, number| mix(salt ^ number))
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): each bit of the input changes half the bits of the output.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
