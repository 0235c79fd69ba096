//! Judge: the records of one object, against what was issued.
//!
//! In: the bytes of an object, uncompressed. Out: marks in the claims. Frames name themselves; empty and one-byte
//! records are named by their neighbours, as the records of a request lie side by side:
//!
//! ```text
//!   frame 7 · tiny · frame 9 · tiny │ frame 11 (first of its request)
//!              8 ───┘          └─ 10
//! ```
//!
//! Documents name themselves, each on its line.
//!
//! A run at the start of an object is named by the frame behind it, unless that one begins a request: then it stays
//! nameless and is only counted. Order: no request stands behind another one that was claimed after its own answer.

use super::Records;
use super::claims::{Claims, Request};
use crate::document::{self, Fate, fate};
use crate::frame::{Item, Items, Name, Shape, shape, write};

/// Which records of a stream a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Any.
    Any,
    /// Those that its destination takes.
    Taken,
    /// Those that its destination refuses, as dead letters: they come from several batches, and have no order.
    Refused,
    /// Any, as dead letters.
    Letters,
}

impl Held {
    const fn is_ordered(self) -> bool {
        matches!(self, Self::Any | Self::Taken)
    }

    fn may_hold(self, fate: Fate) -> bool {
        match self {
            Self::Any | Self::Letters => true,
            Self::Taken => fate == Fate::Taken,
            Self::Refused => fate != Fate::Taken,
        }
    }
}

/// Reads an object of a stream. `place` names it in what is told.
pub(super) fn judge(claims: &mut Claims, stream: usize, place: &str, held: Held, bytes: &[u8]) {
    let Some(of) = claims.stream(stream) else { return };
    let (records, delimiter) = (of.records, of.delimiter.as_bytes());
    let (last, run, newest_claim, payload) = (None, Vec::new(), 0, Vec::new());
    let mut reader = Reader { claims, stream, place, held, last, run, newest_claim, payload };
    if records == Records::Documents {
        return reader.documents(bytes);
    }
    for item in Items::new(bytes, delimiter) {
        match item {
            Item::Frame(name, frame) => reader.frame(name, frame),
            Item::Tiny(byte) => reader.small(Some(byte)),
            Item::Empty => reader.small(None),
            Item::Broken(at, len) => reader.broken(at, len),
        }
    }
    reader.drop_run();
}

struct Reader<'a> {
    claims: &'a mut Claims,
    stream: usize,
    place: &'a str,
    held: Held,
    /// The last record that has a name.
    last: Option<u64>,
    /// Small records since the object's start or since something broken, not named yet.
    run: Vec<Option<u8>>,
    /// The latest claim of the requests read so far.
    newest_claim: u64,
    payload: Vec<u8>,
}

impl Reader<'_> {
    fn documents(&mut self, bytes: &[u8]) {
        let mut at = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\n").and_then(|document| Some((document::name(document)?, document))) {
                Some((name, document)) => self.document(name, document),
                None => self.broken(at, line.len()),
            }
            at += line.len();
        }
    }

    fn document(&mut self, name: Name, document: &[u8]) {
        let Some(request) = self.request(name) else { return };
        self.payload.clear();
        document::write(self.claims.seed(), name, &mut self.payload);
        if self.payload != document {
            return self.wrong(|counts| &mut counts.torn, || other_bytes(name));
        }
        self.check_side(name.id, fate(self.claims.seed(), name));
        self.mark(name.id, request);
        self.last = Some(name.id);
    }

    /// Whether a record lies with those that its destination takes, or with those that it refuses, as it should.
    fn check_side(&mut self, id: u64, fate: Fate) {
        if !self.held.may_hold(fate) {
            self.wrong(|counts| &mut counts.misplaced, || format!("record {id} is to lie elsewhere: {fate:?}"));
        }
    }

    /// The request of a record, if it was issued to this stream.
    fn request(&mut self, name: Name) -> Option<Request> {
        let stream = self.claims.stream(self.stream).filter(|_| usize::try_from(name.stream) == Ok(self.stream));
        let request = stream.and_then(|stream| stream.request(name.id));
        if request.is_none() {
            self.drop_run();
            self.last = None;
            self.wrong(|counts| &mut counts.invented, || format!("{name:?} was never issued to this stream"));
        }
        request
    }

    fn frame(&mut self, name: Name, frame: &[u8]) {
        let Some(request) = self.request(name) else { return };
        self.name_run(name.id, request);
        self.payload.clear();
        write(self.claims.seed(), name, name.id == request.first, &mut self.payload);
        if self.payload == frame {
            self.check_side(name.id, Fate::Taken);
            self.mark(name.id, request);
        } else {
            self.wrong(|counts| &mut counts.torn, || other_bytes(name));
        }
        self.last = Some(name.id);
    }

    /// An empty record or one of a byte: the next one of the last one's request, if that is what it looks like.
    fn small(&mut self, byte: Option<u8>) {
        let Some(last) = self.last else { return self.run.push(byte) };
        match self.neighbour(last, 1) {
            Some((id, request, shape)) if looks_like(shape, byte) => {
                self.mark(id, request);
                self.last = Some(id);
            }
            _ => self.nameless(byte),
        }
    }

    /// Names the run in front of a frame, from its end.
    fn name_run(&mut self, frame: u64, request: Request) {
        let run = std::mem::take(&mut self.run);
        let mut named = Vec::new();
        let mut at = frame;
        for byte in run.iter().rev() {
            match self.neighbour(at, -1) {
                Some((id, of, shape)) if of.first == request.first && looks_like(shape, *byte) => {
                    named.push(id);
                    at = id;
                }
                _ => break,
            }
        }
        run.iter().take(run.len() - named.len()).for_each(|byte| self.nameless(*byte));
        for id in named.into_iter().rev() {
            self.mark(id, request);
            self.last = Some(id);
        }
    }

    /// The next record before or behind this one in its request that can be seen.
    fn neighbour(&self, id: u64, step: i64) -> Option<(u64, Request, Shape)> {
        let stream = self.claims.stream(self.stream)?;
        let request = stream.request(id)?;
        let number = u32::try_from(self.stream).ok()?;
        let mut at = id;
        loop {
            at = at.checked_add_signed(step).filter(|at| (request.first..request.end).contains(at))?;
            let shape = shape(self.claims.seed(), Name { stream: number, id: at }, at == request.first);
            if shape != Shape::Empty || !stream.delimiter.as_bytes().is_empty() {
                return Some((at, request, shape));
            }
        }
    }

    fn mark(&mut self, id: u64, request: Request) {
        let behind_later = self.last.is_some_and(|last| last >= id && last < request.end);
        let in_order = !behind_later && self.newest_claim < request.answered;
        if !in_order && self.held.is_ordered() {
            self.wrong(|counts| &mut counts.misordered, || format!("record {id} stands behind a later one"));
        }
        self.newest_claim = self.newest_claim.max(request.claimed);
        let is_letter = !self.held.is_ordered();
        let Some(stream) = self.claims.stream_mut(self.stream) else { return };
        stream.counts.letters += u64::from(is_letter);
        if stream.found(id) {
            self.wrong(|counts| &mut counts.duplicated, || format!("record {id} is there again"));
        } else if stream.is_refused(id) {
            self.wrong(|counts| &mut counts.invented, || format!("record {id} was refused and is there"));
        }
    }

    fn nameless(&mut self, byte: Option<u8>) {
        if let Some(stream) = self.claims.stream_mut(self.stream) {
            stream.found_nameless(byte);
        }
    }

    fn drop_run(&mut self) {
        for byte in std::mem::take(&mut self.run) {
            self.nameless(byte);
        }
    }

    fn broken(&mut self, at: usize, len: usize) {
        self.drop_run();
        self.last = None;
        self.wrong(|counts| &mut counts.torn, || format!("{len} bytes at {at} are no record"));
    }

    fn wrong(&mut self, count: fn(&mut super::Counts) -> &mut u64, what: impl FnOnce() -> String) {
        let Some(stream) = self.claims.stream_mut(self.stream) else { return };
        *count(&mut stream.counts) += 1;
        let name = stream.name.clone();
        self.claims.example(|| format!("{name}: {}: {}", self.place, what()));
    }
}

fn other_bytes(name: Name) -> String {
    format!("record {} has other bytes than were sent", name.id)
}

fn looks_like(shape: Shape, byte: Option<u8>) -> bool {
    match byte {
        None => shape == Shape::Empty,
        Some(byte) => shape == Shape::Tiny(byte),
    }
}
