//! The model: what was promised and what was seen. It remembers; it decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_core::{BatchId, Position, Span};

/// A record that can be told from every other one.
pub(super) type Id = u64;

/// The payload of a record: its id, and bytes that follow from it.
pub(super) fn payload(id: Id) -> Vec<u8> {
    let filler = (0..id * 37 % 700).map(|at| (at ^ id).to_le_bytes()[0]);
    id.to_le_bytes().into_iter().chain(filler).collect()
}

/// The body of a batch with these records.
pub(super) fn body(records: &[(Position, Id)]) -> Vec<u8> {
    records.iter().flat_map(|(position, id)| [position.get().to_le_bytes().to_vec(), payload(*id)].concat()).collect()
}

#[derive(Debug, Default)]
pub(super) struct Model {
    ids: Id,
    batches: u64,
    /// Records by position: acknowledged, or seen in the log later.
    pub(super) records: BTreeMap<Position, Id>,
    /// Those of them that were acknowledged. The others may get lost.
    acknowledged: BTreeSet<Position>,
    /// Records whose request ended without an answer. They may turn up, or not.
    pub(super) unanswered: BTreeSet<Id>,
    /// Every batch that was ever to be sealed.
    contents: BTreeMap<BatchId, Vec<(Position, Id)>>,
    /// Which batch holds a record. Each record is sealed once.
    sealed: BTreeMap<Position, BatchId>,
    fates: BTreeMap<BatchId, Fate>,
    redirected: BTreeMap<BatchId, String>,
    /// Records that are dead letters put back.
    lines: BTreeMap<Id, Line>,
    /// Where each of them is. Each is put back once.
    back: BTreeMap<Line, Position>,
}

/// A line of an object of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) object: u8,
    pub(super) ordinal: u32,
}

/// What is known of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The seal failed in a way that leaves it open.
    PerhapsSealed,
    Sealed,
    /// `Settled` was to be appended, and the answer was an error.
    PerhapsSettled,
    Settled,
}

impl Model {
    pub(super) fn new_record(&mut self) -> Id {
        self.ids += 1;
        self.ids
    }

    /// A record that is to be this dead letter.
    pub(super) fn new_redriven(&mut self, line: Line) -> Id {
        let id = self.new_record();
        self.lines.insert(id, line);
        id
    }

    /// The objects of which anything was to be put back.
    pub(super) fn objects(&self) -> BTreeSet<u8> {
        self.lines.values().map(|line| line.object).collect()
    }

    /// A record is in the log.
    fn is_at(&mut self, position: Position, id: Id) {
        if let Some(line) = self.lines.get(&id) {
            let before = self.back.insert(*line, position);
            assert!(before.is_none_or(|before| before == position), "{line:?} is put back twice");
        }
    }

    pub(super) fn new_batch(&mut self, records: &[(Position, Id)]) -> BatchId {
        self.batches += 1;
        let mut bytes = [0xb; 16];
        bytes[..8].copy_from_slice(&self.batches.to_be_bytes());
        let batch = BatchId::from_bytes(bytes);
        self.contents.insert(batch, records.to_vec());
        batch
    }

    /// Records were acknowledged at positions from `first` on.
    pub(super) fn acknowledged(&mut self, first: Position, ids: &[Id]) {
        for (at, id) in (first.get()..).zip(ids) {
            let above = self.records.keys().next_back().is_none_or(|highest| highest.get() < at);
            assert!(above, "position {at} was given before, or a higher one was");
            self.records.insert(Position::new(at), *id);
            self.is_at(Position::new(at), *id);
            self.acknowledged.insert(Position::new(at));
        }
    }

    /// A record was read from the log.
    pub(super) fn read(&mut self, position: Position, bytes: &[u8]) -> Id {
        let id = Id::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(bytes, payload(id), "record {position} has other bytes");
        if self.records.get(&position) != Some(&id) {
            assert!(self.unanswered.remove(&id), "record {id} at {position} was never accepted there");
            assert_eq!(self.records.insert(position, id), None, "position {position} has two records");
            self.is_at(position, id);
        }
        id
    }

    /// The log says that it cannot read records. They may have been readable for a while, when their request ended
    /// without an answer because a sync failed: what it did not keep can be read until the power fails.
    pub(super) fn lost(&mut self, span: Span) {
        let inside: Vec<Position> = self.records.range(span.first..span.end).map(|(position, _)| *position).collect();
        for position in inside.into_iter().filter(|position| !self.sealed.contains_key(position)) {
            assert!(!self.acknowledged.contains(&position), "record {position} is lost");
            self.records.remove(&position);
            self.back.retain(|_, at| *at != position);
        }
    }

    /// A batch lies in the outbox.
    pub(super) fn sealed(&mut self, batch: BatchId) {
        for (position, _) in &self.contents[&batch] {
            let before = self.sealed.insert(*position, batch);
            assert!(before.is_none_or(|before| before == batch), "record {position} is sealed twice");
        }
        self.fates.insert(batch, Fate::Sealed);
    }

    pub(super) fn perhaps_sealed(&mut self, batch: BatchId) {
        self.fates.insert(batch, Fate::PerhapsSealed);
    }

    pub(super) fn delivered(&self, batch: BatchId, bytes: &[u8]) {
        assert_eq!(bytes, body(&self.contents[&batch]), "batch {batch} has other bytes");
        assert_ne!(self.fates[&batch], Fate::Settled, "batch {batch} came back after it was settled");
    }

    pub(super) fn settled(&mut self, batch: BatchId) {
        self.fates.insert(batch, Fate::Settled);
    }

    pub(super) fn perhaps_settled(&mut self, batch: BatchId) {
        self.fates.insert(batch, Fate::PerhapsSettled);
    }

    pub(super) fn redirected(&mut self, batch: BatchId, key: &str) {
        self.redirected.insert(batch, key.to_owned());
    }

    /// After a start: which batches are owed, and where each goes.
    pub(super) fn recovered(&mut self, owed: &BTreeMap<BatchId, Option<String>>) {
        for (batch, fate) in self.fates.clone() {
            match (fate, owed.get(&batch)) {
                (Fate::Sealed, None) => panic!("batch {batch} was sealed and is gone"),
                (Fate::Settled, Some(_)) => panic!("batch {batch} was settled and is owed again"),
                (Fate::PerhapsSealed, None) => drop(self.fates.remove(&batch)),
                (Fate::PerhapsSettled, None) => self.settled(batch),
                (Fate::Sealed | Fate::PerhapsSealed | Fate::PerhapsSettled, Some(_)) => self.sealed(batch),
                (Fate::Settled, None) => {}
            }
        }
        for (batch, redirected) in owed {
            assert!(self.fates.contains_key(batch), "batch {batch} was never sealed");
            if let Some(key) = self.redirected.get(batch) {
                assert_eq!(redirected.as_ref(), Some(key), "batch {batch} was redirected for good");
            }
        }
    }

    /// What was acknowledged and lies in no settled batch.
    pub(super) fn owed(&self) -> BTreeMap<Position, Id> {
        let is_settled = |at| self.sealed.get(at).is_some_and(|batch| self.fates[batch] == Fate::Settled);
        let owed = self.records.iter().filter(|(at, _)| self.acknowledged.contains(at) && !is_settled(at));
        owed.map(|(at, id)| (*at, *id)).collect()
    }

    /// After everything was put back, sealed, delivered and settled; the objects have so many lines each.
    pub(super) fn finished(&self, lines: u32) {
        for object in self.objects() {
            let left = (0..lines).find(|ordinal| !self.back.contains_key(&Line { object, ordinal: *ordinal }));
            assert_eq!(left, None, "a line of {object} counts as put back and is not");
        }
        for (position, id) in &self.records {
            let batch = self.sealed.get(position).unwrap_or_else(|| panic!("record {id} at {position} is lost"));
            assert_eq!(self.fates[batch], Fate::Settled, "record {id} at {position} was not delivered");
        }
        assert!(self.sealed.keys().all(|position| self.records.contains_key(position)), "something was invented");
    }
}
