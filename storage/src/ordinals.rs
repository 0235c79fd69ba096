//! Ordinals: some of the pieces of one batch, by their place in it as sealed, counted from 0.
//!
//! Kept and written as runs: of ten thousand pieces mostly all but a few have the same fate. Pure.

use hydrant_core::{Position, Span};

use crate::fields::{Fields, Malformed, put_len, put_varint};
use crate::runs::Runs;

/// A set of ordinals. Two sets with the same ordinals are equal and encode alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordinals(Runs);

impl Ordinals {
    /// The set without any.
    pub const fn new() -> Self {
        Self(Runs::new())
    }

    /// The first `count`.
    pub fn all(count: u32) -> Self {
        Self([Span::new(place(0), u64::from(count))].into_iter().collect())
    }

    /// Adds one. One that is there already changes nothing.
    pub fn insert(&mut self, ordinal: u32) {
        self.0.push_span(Span::new(place(ordinal), 1));
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    /// Takes all of another set out; those it does not have change nothing.
    pub fn remove(&mut self, other: &Self) {
        self.0.remove(&other.0);
    }

    /// Whether this one is among them.
    pub fn contains(&self, ordinal: u32) -> bool {
        self.0.whole_run(place(ordinal)).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let numbers = self.0.spans().flat_map(|run| run.first.get()..run.end.get());
        numbers.filter_map(|number| u32::try_from(number).ok()) // all of them fit: they were put in as such
    }

    /// Appends its bytes: see `docs/formats/ledger.md`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.0.spans().count());
        let mut at = 0;
        for run in self.0.spans() {
            put_varint(out, run.first.get() - at);
            put_varint(out, run.count());
            at = run.end.get();
        }
    }

    /// Reads what [`encode`](Self::encode) wrote; anything else is malformed.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut runs = Runs::new();
        let mut at = 0_u64;
        for _ in 0..fields.count(2, "number of runs of ordinals")? {
            let gap = u64::from(fields.varint_u32("first ordinal of a run")?);
            let count = u64::from(fields.varint_u32("length of a run of ordinals")?);
            if count == 0 || (gap == 0 && !runs.is_empty()) || at + gap + count > u64::from(u32::MAX) + 1 {
                return Err(Malformed("run of ordinals"));
            }
            runs.push_span(Span::new(Position::new(at + gap), count));
            at += gap + count;
        }
        Ok(Self(runs))
    }
}

impl FromIterator<u32> for Ordinals {
    fn from_iter<I: IntoIterator<Item = u32>>(ordinals: I) -> Self {
        let mut set = Self::new();
        ordinals.into_iter().for_each(|ordinal| set.insert(ordinal));
        set
    }
}

/// A set of numbers is a set of numbers: runs of positions serve for ordinals too.
const fn place(ordinal: u32) -> Position {
    Position::new(ordinal as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_one_of_ten_thousand_take_a_few_bytes() {
        let set: Ordinals = (0..10_000).filter(|ordinal| *ordinal != 4_711).collect();
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        assert!(bytes.len() < 10, "{} bytes", bytes.len());
        assert_eq!(
            (set.len(), set.contains(4_711), set.contains(9_999), set.contains(10_000)),
            (9_999, false, true, false)
        );
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        for set in [vec![], vec![0], vec![0, 1, 2, 7], vec![u32::MAX - 1, u32::MAX]] {
            let set: Ordinals = set.into_iter().collect();
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let mut fields = Fields::new(&bytes);
            assert_eq!(Ordinals::decode(&mut fields), Ok(set));
            fields.end("end").unwrap();
        }
        for bad in [&[1, 0, 0][..], &[2, 0, 1, 0, 1], &[1, 5], &[2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 1]] {
            assert!(Ordinals::decode(&mut Fields::new(bad)).is_err(), "{bad:?}");
        }
    }
}
