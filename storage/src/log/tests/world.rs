//! A log on a simulated disk, and beside it a model of what was promised. Every check is one question: is all that
//! was acknowledged there, once, in order, byte for byte, and nothing else?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hydrant_core::{ByteSize, Clock, Position, Span, Timestamp};

use crate::files::sim::SimFiles;
use crate::log::{AppendError, Committers, Frame, Log, Lost, OpenError, Options, Payloads, Reader};
use crate::redriven::Origin;
use crate::space::{Share, Space};

pub(super) const DIR: &str = "data/log";

/// A clock that stands.
#[derive(Debug)]
pub(super) struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub(super) type Answer = Result<Span, AppendError>;

/// One call of `append`, not yet answered.
pub(super) struct Call {
    records: Vec<Vec<u8>>,
    future: Pin<Box<dyn Future<Output = Answer>>>,
}

impl Call {
    pub(super) fn poll(&mut self) -> Poll<Answer> {
        self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// A log, its disk, and what is known about what it must hold.
pub(super) struct World {
    pub(super) files: SimFiles,
    pub(super) options: Options,
    pub(super) share: Arc<Share>,
    pub(super) committers: Committers,
    pub(super) log: Option<Log>,
    /// What opening said was lost.
    pub(super) lost_at_open: Vec<Lost>,
    /// Acknowledged, or read once: promised either way.
    pub(super) promised: BTreeMap<Position, Vec<u8>>,
    /// Requests whose outcome is not known. Each may be found whole, or not at all.
    unsure: Vec<Vec<Vec<u8>>>,
    pub(super) forgotten: Position,
    records_made: u64,
    /// Bytes of what was just written that stay in memory.
    pub(super) memory: ByteSize,
    /// A reader that goes on where it stood.
    follower: Option<Reader>,
}

/// What a reader gave.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) records: BTreeMap<Position, Vec<u8>>,
    pub(super) lost: Vec<Lost>,
}

impl Read {
    pub(super) fn loses(&self, position: Position) -> bool {
        self.lost.iter().any(|lost| lost.span.contains(position))
    }
}

/// Segments of 8 to 16 KiB, so that a few requests fill one, and always the same seed for salts, which is the worst
/// that a caller could do.
pub(super) fn small() -> Options {
    Options {
        segment_bytes_first: ByteSize::kib(8),
        segment_bytes_max: ByteSize::kib(16),
        queue_bytes_max: ByteSize::kib(64),
        salt_seed: Some(7),
        ..Options::new(0xCAFE)
    }
}

impl World {
    /// A new log on a new disk.
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self::on(SimFiles::new(seed), small());
        world.open().unwrap();
        world
    }

    /// A world whose log is not open yet.
    pub(super) fn on(files: SimFiles, options: Options) -> Self {
        Self {
            files,
            options,
            share: Space::new(ByteSize::gib(1)).share(ByteSize::gib(1)),
            committers: Committers::start(0).unwrap(),
            log: None,
            lost_at_open: Vec::new(),
            promised: BTreeMap::new(),
            unsure: Vec::new(),
            forgotten: Position::FIRST,
            records_made: 0,
            memory: ByteSize::bytes(0),
            follower: None,
        }
    }

    /// The same promises, on a copy of the disk that goes on by another seed. The log is not open.
    pub(super) fn fork(&self, seed: u64) -> Self {
        Self {
            promised: self.promised.clone(),
            unsure: self.unsure.clone(),
            forgotten: self.forgotten,
            records_made: self.records_made,
            ..Self::on(self.files.fork(seed), self.options.clone())
        }
    }

    /// Opens the log again, with what a ledger would know.
    pub(super) fn open(&mut self) -> Result<(), OpenError> {
        (self.log, self.follower) = (None, None);
        // What the process that is gone had queued is gone with it: dropping the threads would write it now.
        let committers = Committers::start(0).unwrap().with_memory(self.memory);
        std::mem::forget(std::mem::replace(&mut self.committers, committers));
        self.options.forgotten = self.forgotten;
        self.options.floor = self.options.floor.max(self.forgotten);
        self.share = Space::new(ByteSize::gib(1)).share(self.share.limit());
        let (files, share) = (Arc::new(self.files.clone()), Arc::clone(&self.share));
        let opened = Log::open(Path::new(DIR), &self.options, files, Arc::new(Standing), share, &self.committers)?;
        (self.log, self.lost_at_open) = (Some(opened.log), opened.lost);
        Ok(())
    }

    pub(super) fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    /// Records of these lengths, no two alike as long as they have room for a number.
    pub(super) fn records(&mut self, lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut make = |length: &usize| {
            self.records_made += 1;
            let number = format!("{:08}|", self.records_made);
            number.bytes().cycle().take((*length).max(number.len())).collect()
        };
        lengths.iter().map(&mut make).collect()
    }

    /// Puts a request into the queue; nothing is written yet.
    pub(super) fn call(&mut self, lengths: &[usize]) -> Call {
        self.call_from(lengths, None)
    }

    /// The same for records that come from there, if they were redriven.
    fn call_from(&mut self, lengths: &[usize], origin: Option<Origin>) -> Call {
        let records = self.records(lengths);
        let payloads = Payloads {
            data: Bytes::from(records.concat()),
            lengths: records.iter().map(|record| u32::try_from(record.len()).unwrap()).collect(),
        };
        let log = self.log().clone();
        let future = Box::pin(async move {
            match origin {
                None => log.append(payloads).await,
                Some(origin) => log.append_redriven(payloads, &origin).await,
            }
        });
        Call { records, future }
    }

    /// Stores requests in one round, and remembers what was promised.
    pub(super) fn append(&mut self, requests: &[Vec<usize>]) -> Vec<Answer> {
        let mut calls: Vec<Call> = requests.iter().map(|lengths| self.call(lengths)).collect();
        let early: Vec<Poll<Answer>> = calls.iter_mut().map(Call::poll).collect();
        self.committers.serve();
        let answer = |(call, early): (&mut Call, Poll<Answer>)| match early {
            Poll::Ready(answer) => answer,
            Poll::Pending => match call.poll() {
                Poll::Ready(answer) => answer,
                Poll::Pending => panic!("an append without an answer after its round"),
            },
        };
        let answers: Vec<Answer> = calls.iter_mut().zip(early).map(answer).collect();
        for (call, answer) in calls.into_iter().zip(&answers) {
            self.remember(call.records, answer);
        }
        answers
    }

    /// One request that must be stored.
    pub(super) fn store(&mut self, lengths: &[usize]) -> Span {
        self.append(&[lengths.to_vec()]).remove(0).unwrap()
    }

    /// One request of dead letters, which must be stored.
    pub(super) fn store_redriven(&mut self, lengths: &[usize], origin: Origin) -> Span {
        let mut call = self.call_from(lengths, Some(origin));
        assert!(call.poll().is_pending());
        self.committers.serve();
        let Poll::Ready(answer) = call.poll() else { panic!("an append without an answer after its round") };
        self.remember(call.records, &answer);
        answer.unwrap()
    }

    /// Requests that are in the queue when the process ends.
    pub(super) fn leave_queued(&mut self, requests: &[Vec<usize>]) {
        for lengths in requests {
            let mut call = self.call(lengths);
            assert!(call.poll().is_pending());
            self.unsure.push(call.records);
        }
    }

    fn remember(&mut self, records: Vec<Vec<u8>>, answer: &Answer) {
        match answer {
            Ok(span) => {
                let above = self.promised.last_key_value().map_or(Position::ZERO, |(last, _)| *last);
                assert!(span.first > above && span.first >= self.options.floor, "{span} after {above}");
                assert_eq!(span.count(), records.len() as u64);
                for (index, record) in records.into_iter().enumerate() {
                    self.promised.insert(span.first.plus(index as u64), record);
                }
            }
            Err(AppendError::Unknown(_)) => self.unsure.push(records),
            Err(_) => {}
        }
    }

    pub(super) fn forget(&mut self, upto: Position) -> std::io::Result<()> {
        self.forgotten = self.forgotten.max(upto);
        self.log().forget(self.forgotten)
    }

    /// Reads from `from` to the end, in slices of about this many bytes.
    pub(super) fn read(&self, from: Position, bytes_max: usize) -> Read {
        let (mut reader, mut read) = (self.log().reader(from), Read::default());
        let mut at = from;
        loop {
            let slice = reader.next(bytes_max).unwrap();
            assert_eq!(slice.end, reader.position());
            let ends = slice.frames.iter().map(|frame| frame.span().end).chain(slice.lost.iter().map(|l| l.span.end));
            assert!(ends.max().is_none_or(|end| end <= slice.end));
            for frame in &slice.frames {
                assert!(frame.first >= at && frame.count() > 0, "{} after {at}", frame.span());
                at = frame.span().end;
                for (position, record) in frame.records() {
                    assert!(read.records.insert(position, record.to_vec()).is_none(), "{position} twice");
                }
            }
            read.lost.extend(slice.lost);
            if slice.frames.is_empty() {
                assert_eq!(slice.end, self.log().end().max(from));
                return read;
            }
        }
    }

    /// Reads on where it stopped the last time, up to the end, and checks that nothing was passed over.
    pub(super) fn follow(&mut self) {
        let (log, from) = (self.log().clone(), self.forgotten);
        let reader = self.follower.get_or_insert_with(|| log.reader(from));
        let mut expected = self.promised.range(reader.position().max(from)..);
        loop {
            let slice = reader.next(3000).unwrap();
            assert_eq!(slice.lost, []);
            for (position, record) in slice.frames.iter().flat_map(Frame::records) {
                if position >= from {
                    let promised = expected.next().map(|(position, record)| (*position, record.as_slice()));
                    assert_eq!(Some((position, record)), promised, "other than was promised");
                }
            }
            if slice.frames.is_empty() {
                assert_eq!(expected.next(), None, "not all was read");
                return;
            }
        }
    }

    /// Reads all, and checks it against the promises. Nothing may be lost.
    pub(super) fn check(&mut self) {
        assert_eq!(self.lost_at_open, [], "opening found losses");
        let read = self.check_but_for_losses();
        assert_eq!(read.lost, []);
    }

    /// The same, but what is reported as lost may be missing.
    pub(super) fn check_but_for_losses(&mut self) -> Read {
        let read = self.read(self.forgotten, 3000);
        for (position, record) in self.promised.range(self.forgotten..) {
            match read.records.get(position) {
                Some(found) => assert!(found == record, "{position} holds other bytes than were promised"),
                None => assert!(read.loses(*position), "{position} is missing"),
            }
        }
        let invented = read.records.iter().filter(|(position, _)| !self.promised.contains_key(position));
        let invented: BTreeMap<Position, Vec<u8>> = invented.map(|(at, record)| (*at, record.clone())).collect();
        let mut invented = invented.into_iter().peekable();
        while let Some((position, record)) = invented.peek() {
            let request = self.unsure.iter().position(|records| records.first() == Some(record));
            let Some(request) = request else { panic!("{position} was never accepted: {:?}", text(record)) };
            let span = Span::new(*position, self.unsure[request].len() as u64);
            // What has been read once is promised: the ledger may name it.
            for record in self.unsure.remove(request) {
                let (position, found) = invented.next().expect("only a part of a request was found");
                assert!(span.contains(position) && found == record, "{position} does not belong to its request");
                self.promised.insert(position, record);
            }
        }
        read
    }

    /// The paths of all segments, sorted.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "log");
        self.files.paths().into_iter().filter(is_segment).collect()
    }
}

/// The start of a record, as it was made.
fn text(record: &[u8]) -> String {
    String::from_utf8_lossy(&record[..record.len().min(9)]).into_owned()
}
