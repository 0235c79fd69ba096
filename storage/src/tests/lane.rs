//! One lane on a simulated disk: the smallest thing that uses log, outbox and ledger as the stream loops do.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hydrant_core::{BatchId, ByteSize, Position, Timestamp};

use super::Action;
use super::model::{Id, Line, Model, body, payload};
use crate::files::sim::{Op, SimFiles, Times};
use crate::ledger::{Checkpoint, Entry, Ledger, LedgerError, Recovery};
use crate::log::{AppendError, Committers, Log, Options, Payloads, Reader};
use crate::outbox::{Content, Header, Outbox, SealError, SinkMark, Summary};
use crate::redriven::Origin;
use crate::runs::Runs;
use crate::space::Claim;
use crate::testing::{StillClock, share};

/// Lines in each object of dead letters.
const LINES: u32 = 40;

pub(super) const DIR: &str = "/data/streams/web";

pub(super) struct World {
    pub(super) files: SimFiles,
    /// Whether an fsync of a folder may fail. File systems that lose a name then take nothing more before they are
    /// mounted again (`docs/formats/disk.md`), so such a process ends with its machine.
    folders_fail: bool,
    /// Sizes of segments, first and largest, and the disk that the stream may have.
    sizes: Sizes,
    /// How often the process died of what the disk did.
    pub(super) deaths: u32,
    model: Model,
    lane: Option<Lane>,
}

#[derive(Clone, Copy)]
struct Sizes {
    first: ByteSize,
    max: ByteSize,
    disk: ByteSize,
}

/// So small that a few requests fill a segment, and a few segments the disk.
const SMALL: Sizes = Sizes { first: ByteSize::kib(8), max: ByteSize::kib(32), disk: ByteSize::mib(4) };

struct Lane {
    log: Log,
    committers: Committers,
    reader: Reader,
    outbox: Outbox,
    ledger: Ledger,
    state: Checkpoint,
    /// Read and not sealed.
    buffer: BTreeMap<Position, Id>,
    /// Sealed, but the ledger had no room to say so.
    unrecorded: Vec<(BatchId, Runs)>,
    /// Removed, but not durably.
    removed: Vec<BatchId>,
    /// Something is poisoned: nothing can be done before the next start.
    dead: bool,
}

impl World {
    pub(super) fn new(files: SimFiles) -> Self {
        Self { files, folders_fail: false, sizes: SMALL, deaths: 0, model: Model::default(), lane: None }
    }

    /// With the sizes that the server uses.
    pub(super) fn with_usual_sizes(files: SimFiles) -> Self {
        let Options { segment_bytes_first: first, segment_bytes_max: max, .. } = Options::new(1);
        Self { sizes: Sizes { first, max, disk: ByteSize::gib(5) }, ..Self::new(files) }
    }

    pub(super) fn step(&mut self, action: &Action) {
        match action {
            Action::Kill if !self.folders_fail => self.stop(SimFiles::kill),
            Action::Kill => {}
            Action::Crash => self.stop(SimFiles::crash),
            Action::Fail(op, nth, times) => self.fail(*op, *nth, *times),
            Action::Room(room) => self.files.set_capacity(room.map(|room| self.files.used() + room)),
            work => {
                let mut lane = self.take_lane();
                lane.record(&mut self.model);
                lane.work(work, &mut self.model);
                if lane.dead || self.files.is_dead() {
                    let end = if self.folders_fail { SimFiles::crash } else { SimFiles::kill };
                    self.deaths += 1;
                    self.mend();
                    end(&self.files);
                } else {
                    self.lane = Some(lane);
                }
            }
        }
    }

    pub(super) fn run(&mut self, actions: &[Action]) {
        for action in actions {
            self.step(action);
        }
    }

    pub(super) fn fail(&mut self, op: Op, nth: u64, times: Times) {
        self.folders_fail |= op == Op::SyncDir;
        self.files.fail(op, nth, times, ErrorKind::Other);
    }

    fn mend(&mut self) {
        self.files.heal();
        self.folders_fail = false;
    }

    /// The records that were acknowledged and lie in no settled batch.
    pub(super) fn owed(&self) -> BTreeMap<Position, Id> {
        self.model.owed()
    }

    /// Mends the disk, delivers all there is, and asks whether that was all.
    pub(super) fn finish(mut self) {
        self.files.set_capacity(None);
        self.stop(SimFiles::crash);
        self.mend();
        let mut lane = self.take_lane();
        lane.record(&mut self.model);
        for object in self.model.objects() {
            lane.redrive(object, LINES as usize, &mut self.model);
            lane.redrive(object, LINES as usize, &mut self.model);
        }
        for _ in 0..200 {
            lane.work(&Action::Read(10_000), &mut self.model);
        }
        lane.work(&Action::Seal { every: 1, rest: 0 }, &mut self.model);
        while lane.state.owed().next().is_some() {
            lane.work(&Action::Settle(0), &mut self.model);
        }
        lane.work(&Action::SyncRemovals, &mut self.model);
        lane.work(&Action::Checkpoint, &mut self.model);
        assert!(!lane.dead, "nothing fails on a mended disk");
        assert_eq!(lane.outbox.usage().batches, 0);
        assert!(lane.state.batches.is_empty() && lane.state.sealed_above.is_empty());
        drop(lane);
        self.files.crash();
        let lane = self.take_lane();
        assert!(lane.state.batches.is_empty());
        self.model.finished(LINES);
    }

    fn stop(&mut self, how: fn(&SimFiles)) {
        // The handles go after the disk did: what they do when they are dropped must not matter.
        how(&self.files);
        self.lane = None;
    }

    /// The lane, started if it does not run. A start that fails because of a fault is tried again without.
    fn take_lane(&mut self) -> Lane {
        if let Some(lane) = self.lane.take() {
            return lane;
        }
        if let Some(lane) = Lane::open(&self.files, self.sizes, &mut self.model).filter(|_| !self.files.is_dead()) {
            return lane;
        }
        self.deaths += 1;
        let end = if self.files.is_dead() { SimFiles::kill } else { SimFiles::crash };
        self.mend();
        end(&self.files);
        if let Some(lane) = Lane::open(&self.files, self.sizes, &mut self.model) {
            return lane;
        }
        // Only a ledger that never was needs room.
        self.files.set_capacity(None);
        assert!(self.model.records.is_empty(), "a start on a full disk failed");
        Lane::open(&self.files, self.sizes, &mut self.model).expect("a mended disk can be opened")
    }
}

impl Lane {
    /// As a start does it. `None` when the disk refused.
    fn open(files: &SimFiles, sizes: Sizes, model: &mut Model) -> Option<Self> {
        let (dir, share) = (Path::new(DIR), share(sizes.disk));
        let disk = || Arc::new(files.clone());
        let (ledger, state) =
            Ledger::open(&dir.join("ledger"), disk(), StillClock::shared(), Arc::clone(&share)).ok()?;
        let (outbox, found) =
            Outbox::open(&dir.join("outbox"), disk(), StillClock::shared(), Arc::clone(&share)).ok()?;
        let recovery = Recovery::new(&state, found);
        let options = Options {
            floor: recovery.highest.plus(1),
            forgotten: state.forget,
            segment_bytes_first: sizes.first,
            segment_bytes_max: sizes.max,
            salt_seed: Some(state.highest.get() ^ 0x5eed),
            ..Options::new(1)
        };
        let committers = Committers::start(0).unwrap();
        let opened = Log::open(&dir.join("log"), &options, disk(), StillClock::shared(), share, &committers).ok()?;
        opened.lost.iter().for_each(|lost| model.lost(lost.span));
        assert!(recovery.damaged.is_empty(), "{:?}", recovery.damaged);
        assert!(recovery.strangers.is_empty(), "{:?}", recovery.strangers);
        let reader = opened.log.reader(state.forget);
        let mut state = state;
        state.redriven.add_all(&opened.log.redriven(state.forget).ok()?);
        let mut lane = Self {
            log: opened.log,
            committers,
            reader,
            outbox,
            ledger,
            state,
            buffer: BTreeMap::new(),
            unrecorded: Vec::new(),
            removed: Vec::new(),
            dead: false,
        };
        lane.recover(recovery, model);
        Some(lane)
    }

    fn recover(&mut self, recovery: Recovery, model: &mut Model) {
        let redirected = |summary: &Summary| {
            let state = self.state.batches.get(&summary.batch);
            (summary.batch, state.and_then(|state| state.redirected.clone()))
        };
        let owed = recovery.owed.iter().chain(&recovery.adopted).map(redirected).collect();
        model.recovered(&owed);
        recovery.gone.into_iter().for_each(|batch| self.state.unlinked(batch));
        for batch in recovery.remove {
            if self.outbox.remove(batch).is_ok() {
                self.removed.push(batch);
            }
        }
        self.unrecorded = recovery.adopted.into_iter().map(|summary| (summary.batch, summary.pieces)).collect();
    }

    /// Appends to the ledger what must come before anything else.
    fn record(&mut self, model: &mut Model) {
        while let Some((batch, pieces)) = self.unrecorded.pop() {
            let entry = Entry::Sealed { batch, pieces: pieces.clone() };
            if !self.append_entry(&entry, model) {
                self.unrecorded.push((batch, pieces));
                return;
            }
        }
    }

    fn work(&mut self, action: &Action, model: &mut Model) {
        match action {
            Action::Append(count) => self.append(*count, model),
            Action::Redrive(object, count) => self.redrive(*object, *count, model),
            Action::Read(bytes) => self.read(*bytes, model),
            Action::Seal { every, rest } => self.seal(*every, *rest, model),
            Action::Settle(which) => self.settle(*which, model),
            Action::Redirect(which) => self.redirect(*which, model),
            Action::SyncRemovals => self.sync_removals(),
            Action::Checkpoint => self.checkpoint(),
            other => unreachable!("{other:?} is not the lane's"),
        }
    }

    fn append(&mut self, count: usize, model: &mut Model) {
        let ids: Vec<Id> = (0..count).map(|_| model.new_record()).collect();
        self.store(&ids, None, model);
    }

    /// Puts back what the lane does not know to be back.
    fn redrive(&mut self, object: u8, count: usize, model: &mut Model) {
        let name = dead_letters(object);
        let is_left = |ordinal: &u32| !self.state.redriven.holds(name, *ordinal);
        let ordinals: Vec<u32> = (0..LINES).filter(is_left).take(count).collect();
        let ids: Vec<Id> =
            ordinals.iter().map(|ordinal| model.new_redriven(Line { object, ordinal: *ordinal })).collect();
        if !ids.is_empty() {
            let origin = Origin { object: name, ordinals: ordinals.into_iter().collect(), is_processed: false };
            self.store(&ids, Some(&origin), model);
        }
    }

    fn store(&mut self, ids: &[Id], origin: Option<&Origin>, model: &mut Model) {
        let payloads: Vec<Vec<u8>> = ids.iter().map(|id| payload(*id)).collect();
        let lengths = payloads.iter().map(|payload| u32::try_from(payload.len()).unwrap()).collect();
        let payloads = Payloads { data: payloads.concat().into(), lengths };
        let mut append = pin!(async {
            match origin {
                None => self.log.append(payloads).await,
                Some(origin) => self.log.append_redriven(payloads, origin).await,
            }
        });
        let mut ctx = Context::from_waker(Waker::noop());
        let mut answer = append.as_mut().poll(&mut ctx);
        if answer.is_pending() {
            self.committers.serve();
            answer = append.as_mut().poll(&mut ctx);
        }
        let Poll::Ready(answer) = answer else { panic!("an append without an answer") };
        match answer {
            Ok(span) => {
                assert_eq!(span.count(), ids.len() as u64);
                model.acknowledged(span.first, ids);
                if let Some(Origin { object, ordinals, .. }) = origin {
                    self.state.redriven.add(*object, ordinals);
                }
            }
            Err(AppendError::Full | AppendError::Unavailable(_)) => {}
            Err(AppendError::Unknown(_)) => {
                model.unanswered.extend(ids.iter().copied());
                self.dead = true;
            }
            Err(AppendError::Poisoned(_)) => self.dead = true,
            Err(other) => panic!("{other}"),
        }
    }

    fn read(&mut self, bytes: usize, model: &mut Model) {
        let Ok(slice) = self.reader.next(bytes) else { return }; // made to fail; the reader stands where it stood
        for lost in &slice.lost {
            model.lost(lost.span);
            self.buffer.retain(|position, _| !lost.span.contains(*position));
        }
        for Origin { object, ordinals, .. } in slice.redriven() {
            self.state.redriven.add(*object, ordinals);
        }
        for (position, data) in slice.frames.iter().flat_map(crate::log::Frame::records) {
            let sealed = self.state.sealed_above.completes(position)
                || position < self.state.forget
                || self.unrecorded.iter().any(|(_, pieces)| pieces.completes(position));
            let id = model.read(position, data);
            if !sealed {
                self.buffer.insert(position, id);
            }
        }
    }

    fn seal(&mut self, every: u64, rest: u64, model: &mut Model) {
        let taken = |position: &Position| position.get() % every == rest;
        let records: Vec<(Position, Id)> =
            self.buffer.iter().filter(|(position, _)| taken(position)).map(|(at, id)| (*at, *id)).collect();
        if records.is_empty() {
            return;
        }
        let batch = model.new_batch(&records);
        let header = header(batch, &records);
        match self.outbox.seal(&header, &[Bytes::from(body(&records))], Claim::DataSeal) {
            Ok(()) => {
                model.sealed(batch);
                self.buffer.retain(|position, _| !taken(position));
                self.unrecorded.push((batch, header.pieces));
                self.record(model);
            }
            Err(SealError::NoSpace(_) | SealError::NotCreated(_)) => {}
            Err(SealError::Poisoned(_)) => {
                model.perhaps_sealed(batch);
                self.dead = true;
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn settle(&mut self, which: usize, model: &mut Model) {
        let Some(batch) = self.pick(which) else { return };
        let Ok(bytes) = self.outbox.body(batch).and_then(|body| body.read(0, usize::MAX)) else { return };
        model.delivered(batch, &bytes);
        if self.append_entry(&Entry::Settled { batch }, model) && self.outbox.remove(batch).is_ok() {
            self.removed.push(batch);
        }
    }

    fn redirect(&mut self, which: usize, model: &mut Model) {
        if let Some(batch) = self.pick(which) {
            self.append_entry(&Entry::Redirected { batch, key: format!("dead/{batch}") }, model);
        }
    }

    fn pick(&self, which: usize) -> Option<BatchId> {
        let owed: Vec<BatchId> = self.state.owed().map(|(batch, _)| batch).collect();
        owed.get(which % owed.len().max(1)).copied()
    }

    /// Appends an entry and applies it; whether it is durable.
    fn append_entry(&mut self, entry: &Entry, model: &mut Model) -> bool {
        match self.ledger.append(std::slice::from_ref(entry)) {
            Ok(()) => {
                self.state.apply(entry).unwrap();
                match entry {
                    Entry::Settled { batch } => model.settled(*batch),
                    Entry::Redirected { batch, key } => model.redirected(*batch, key),
                    _ => {}
                }
                true
            }
            Err(LedgerError::NoSpace(_) | LedgerError::NotAllocated(_)) => {
                assert!(!matches!(entry, Entry::Settled { .. }), "a settled batch needs no new room");
                false
            }
            Err(_) => {
                if let Entry::Settled { batch } = entry {
                    model.perhaps_settled(*batch);
                }
                self.dead = true;
                false
            }
        }
    }

    fn sync_removals(&mut self) {
        match self.outbox.sync() {
            Ok(()) => self.removed.drain(..).for_each(|batch| self.state.unlinked(batch)),
            Err(_) => self.dead = true,
        }
    }

    /// The forget-position: the lowest record that was not read, or read and not sealed, or sealed and not recorded.
    fn checkpoint(&mut self) {
        let buffered = self.buffer.keys().next().copied();
        let unrecorded = self.unrecorded.iter().map(|(_, pieces)| pieces.hull().first);
        let forget = unrecorded.chain(buffered).fold(self.reader.position(), Ord::min);
        self.state.advance(forget);
        match self.ledger.checkpoint(&self.state) {
            Ok(()) => {
                self.log.forget(self.state.forget).ok();
                self.dead = self.log.usage().poisoned.is_some();
            }
            Err(LedgerError::NoSpace(_) | LedgerError::NotAllocated(_)) => {}
            Err(_) => self.dead = true,
        }
    }
}

fn dead_letters(object: u8) -> BatchId {
    BatchId::from_bytes([object; 16])
}

fn header(batch: BatchId, records: &[(Position, Id)]) -> Header {
    Header {
        batch,
        sealed_at: Timestamp::from_millis(1),
        oldest_arrival: Timestamp::default(),
        records: records.len() as u64,
        raw_bytes: 0,
        pieces: records.iter().map(|(position, _)| hydrant_core::PieceId::whole(*position)).collect(),
        sink: SinkMark { kind: "file".into(), destination: "file:///x".into(), version: 1 },
        content: Content::Object {
            key: batch.to_string(),
            content_type: "application/octet-stream".into(),
            content_encoding: None,
            metadata: Vec::new(),
        },
    }
}
