//! Claims: which records were issued, which of them are promised, which arrived.
//!
//! In: claims and answers as producers report them; records as the judge finds them. Out: the verdict.
//! Ids are dense per stream; the records of one request have neighbouring ids. Never reads anything itself.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Counts, Delimiter, Plan, Records, Verdict};
use crate::frame::{Name, Shape, shape};

/// How many things that are wrong are told in words.
const EXAMPLES_MAX: usize = 20;

/// What was issued, promised and found, of all streams of a run.
#[derive(Debug)]
pub struct Claims {
    seed: u64,
    /// When the last claim or answer came, in nanoseconds since 1970 by the wall clock. It grows with each of them, so it
    /// tells their order too.
    now: u64,
    streams: Vec<Stream>,
    examples: Vec<String>,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) records: Records,
    pub(super) delimiter: Delimiter,
    /// In the order of their first ids.
    requests: Vec<Request>,
    next: u64,
    obliged: Bits,
    refused: Bits,
    seen: Bits,
    /// Empty and one-byte records that no neighbour gave a name to, by their byte.
    nameless: BTreeMap<Option<u8>, u64>,
    /// What the judge counted; the rest is counted for the verdict.
    pub(super) counts: Counts,
}

/// The records of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) first: u64,
    /// One past the last.
    pub(super) end: u64,
    /// When its ids were claimed, before it was sent.
    pub(super) claimed: u64,
    /// When its answer had arrived; never, if it did not.
    pub(super) answered: u64,
}

impl Claims {
    /// Nothing is issued yet.
    pub fn new(plan: &Plan) -> Self {
        let stream = |plan: &super::StreamPlan| Stream {
            name: plan.name.clone(),
            records: plan.records,
            delimiter: plan.delimiter,
            requests: Vec::new(),
            next: 0,
            obliged: Bits::default(),
            refused: Bits::default(),
            seen: Bits::default(),
            nameless: BTreeMap::new(),
            counts: Counts::default(),
        };
        Self { seed: plan.seed, now: 0, streams: plan.streams.iter().map(stream).collect(), examples: Vec::new() }
    }

    /// Gives out `count` ids of a stream for one request; the first of them. Nothing for a stream that is not there.
    pub fn claim(&mut self, stream: usize, count: u64) -> Option<u64> {
        self.tick();
        let stream = self.streams.get_mut(stream)?;
        let first = stream.next;
        stream.next += count;
        stream.requests.push(Request { first, end: stream.next, claimed: self.now, answered: u64::MAX });
        Some(first)
    }

    /// Notes that a record was acknowledged, so it must arrive.
    pub fn acked(&mut self, stream: usize, first: u64, count: u64) {
        self.answer(stream, first, count, |stream| &mut stream.obliged);
    }

    /// Notes that a record was refused, so it must not arrive.
    pub fn refused(&mut self, stream: usize, first: u64, count: u64) {
        self.answer(stream, first, count, |stream| &mut stream.refused);
    }

    fn answer(&mut self, stream: usize, first: u64, count: u64, set: fn(&mut Stream) -> &mut Bits) {
        self.tick();
        let Some(stream) = self.streams.get_mut(stream) else { return };
        for id in first..(first + count).min(stream.next) {
            set(stream).set(id);
        }
        if let Some(request) = stream.request_mut(first) {
            request.answered = self.now;
        }
    }

    fn tick(&mut self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "told beside the moments of power cuts, which another process notes"
        )]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).max(self.now + 1);
    }

    /// What was promised at a moment, in nanoseconds since 1970, and nothing found yet. What was answered later is
    /// indeterminate then: it may have been on its way.
    #[must_use]
    pub fn as_of(&self, moment: u64) -> Self {
        let streams = self.streams.iter().map(|stream| stream.as_of(moment)).collect();
        Self { seed: self.seed, now: self.now, streams, examples: Vec::new() }
    }

    /// The seed of the run.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn stream(&self, stream: usize) -> Option<&Stream> {
        self.streams.get(stream)
    }

    pub(super) fn stream_mut(&mut self, stream: usize) -> Option<&mut Stream> {
        self.streams.get_mut(stream)
    }

    /// Tells something that is wrong, if there is still room.
    pub(super) fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }

    /// Judges by what is known so far.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { seed: self.seed, examples: self.examples.clone(), ..Verdict::default() };
        for (number, stream) in (0..).zip(&self.streams) {
            let counts = stream.count(self.seed, number, &mut verdict.examples);
            verdict.total.add(&counts);
            verdict.streams.push((stream.name.clone(), counts));
        }
        verdict.ok = verdict.total.wrong() == 0;
        verdict
    }
}

impl Stream {
    fn as_of(&self, moment: u64) -> Self {
        let (mut obliged, mut refused) = (Bits::default(), Bits::default());
        for request in self.requests.iter().filter(|request| request.answered <= moment) {
            for id in request.first..request.end {
                for (then, now) in [(&mut obliged, &self.obliged), (&mut refused, &self.refused)] {
                    if now.get(id) {
                        then.set(id);
                    }
                }
            }
        }
        Self {
            name: self.name.clone(),
            records: self.records,
            delimiter: self.delimiter,
            requests: self.requests.clone(),
            next: self.next,
            obliged,
            refused,
            seen: Bits::default(),
            nameless: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// The request of a record, if it was issued.
    pub(super) fn request(&self, id: u64) -> Option<Request> {
        let behind = self.requests.partition_point(|request| request.first <= id);
        self.requests.get(behind.checked_sub(1)?).filter(|request| id < request.end).copied()
    }

    fn request_mut(&mut self, id: u64) -> Option<&mut Request> {
        let behind = self.requests.partition_point(|request| request.first <= id);
        self.requests.get_mut(behind.checked_sub(1)?)
    }

    /// Notes that a record was found; whether it had been before.
    pub(super) fn found(&mut self, id: u64) -> bool {
        self.seen.set(id)
    }

    pub(super) fn is_refused(&self, id: u64) -> bool {
        self.refused.get(id)
    }

    /// Notes a record of no byte or of this one byte that nothing gave a name to.
    pub(super) fn found_nameless(&mut self, byte: Option<u8>) {
        *self.nameless.entry(byte).or_default() += 1;
    }

    fn count(&self, seed: u64, number: u32, examples: &mut Vec<String>) -> Counts {
        let mut counts = Counts { issued: self.next, ..self.counts };
        let mut owed: BTreeMap<Option<u8>, u64> = BTreeMap::new();
        let mut open: BTreeMap<Option<u8>, u64> = BTreeMap::new();
        for request in &self.requests {
            for id in request.first..request.end {
                let (obliged, refused) = (self.obliged.get(id), self.refused.get(id));
                counts.obliged += u64::from(obliged);
                counts.refused += u64::from(refused);
                counts.indeterminate += u64::from(!obliged && !refused);
                if self.seen.get(id) {
                    counts.arrived += 1;
                    continue;
                }
                if refused {
                    continue;
                }
                let name = Name { stream: number, id };
                let shape = match self.records {
                    Records::Frames => shape(seed, name, id == request.first),
                    Records::Documents => Shape::Frame(0), // of any length: it can be told from others
                };
                let byte = match shape {
                    Shape::Empty if self.delimiter == Delimiter::None => {
                        counts.invisible += u64::from(obliged);
                        continue;
                    }
                    Shape::Empty => None,
                    Shape::Tiny(byte) => Some(byte),
                    Shape::Frame(_) => {
                        if obliged {
                            counts.lost += 1;
                            if examples.len() < EXAMPLES_MAX {
                                examples.push(format!("{}: record {id} was acknowledged and is not there", self.name));
                            }
                        }
                        continue;
                    }
                };
                *if obliged { owed.entry(byte) } else { open.entry(byte) }.or_default() += 1;
            }
        }
        self.settle_nameless(&mut counts, &owed, &open);
        counts
    }

    /// Gives nameless records to owed ones first, then to indeterminate ones. What is left over was never issued, or is
    /// there twice; what is still owed is lost.
    fn settle_nameless(&self, counts: &mut Counts, owed: &BTreeMap<Option<u8>, u64>, open: &BTreeMap<Option<u8>, u64>) {
        let of = |map: &BTreeMap<Option<u8>, u64>, byte| map.get(byte).copied().unwrap_or(0);
        let bytes: std::collections::BTreeSet<&Option<u8>> = owed.keys().chain(self.nameless.keys()).collect();
        for byte in bytes {
            let (found, owed, open) = (of(&self.nameless, byte), of(owed, byte), of(open, byte));
            counts.lost += owed.saturating_sub(found);
            counts.arrived += found.min(owed + open);
            counts.invented += found.saturating_sub(owed + open);
        }
    }
}

/// A set of ids, a bit each.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Puts an id in; whether it was there already.
    fn set(&mut self, id: u64) -> bool {
        let (word, bit) = Self::place(id);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let had = self.0[word] & bit != 0;
        self.0[word] |= bit;
        had
    }

    fn get(&self, id: u64) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(id: u64) -> (usize, u64) {
        (usize::try_from(id / 64).unwrap_or(usize::MAX), 1 << (id % 64))
    }
}
