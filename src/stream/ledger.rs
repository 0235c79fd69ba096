//! Ledger arithmetic: which records of a lane lie in sealed batches, and below which the log may forget. Pure.
//!
//! In: spans of records as they are sealed, in any order, and spans that will never come (gaps, damage). Out: the
//! watermark; for a span, which of its records are not sealed yet.
//!
//! ```text
//!   sealed    sealed   open     sealed
//!  ─────────┬────────┬────────┬────────┐
//!           watermark: stops before the first record that lies in no batch
//! ```
//!
//! Never does I/O and never looks at a clock. Sealing a record twice is a bug and panics.

use std::collections::BTreeMap;

use hydrant_core::{Position, Span};

/// What is sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    watermark: Position,
    above: BTreeMap<Position, Position>,
}

impl Sealed {
    /// Everything below `watermark` is sealed, and these spans above it.
    pub fn new(watermark: Position, above: impl IntoIterator<Item = Span>) -> Self {
        let mut sealed = Self { watermark, above: BTreeMap::new() };
        for span in above {
            let first = span.first.max(sealed.watermark);
            if first < span.end {
                sealed.insert(Span { first, end: span.end });
            }
        }
        sealed
    }

    /// The lowest record that lies in no batch: the log may forget what is below.
    pub fn watermark(&self) -> Position {
        self.watermark
    }

    /// Adds a span.
    ///
    /// # Panics
    /// When one of its records is sealed already: it would be delivered twice.
    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let mut rest = self.missing(span);
        assert!(rest.next() == Some(span), "records {span} are sealed twice");
        drop(rest);
        let mut merged = span;
        if let Some((&first, &end)) = self.above.range(..span.first).next_back()
            && end == span.first
        {
            self.above.remove(&first);
            merged.first = first;
        }
        if let Some(end) = self.above.remove(&span.end) {
            merged.end = end;
        }
        if merged.first == self.watermark {
            self.watermark = merged.end;
        } else {
            self.above.insert(merged.first, merged.end);
        }
    }

    /// Takes records out again: the batch that held them is gone, and the log still has them.
    pub fn reopen(&mut self, span: Span) {
        let below = Span { first: span.first, end: self.watermark };
        let kept = self
            .above
            .iter()
            .map(|(&first, &end)| Span { first, end })
            .chain([Span { first: span.end, end: self.watermark }]);
        let kept: Vec<Span> = kept
            .flat_map(|old| {
                [
                    Span { first: old.first, end: old.end.min(span.first) },
                    Span { first: old.first.max(span.end), end: old.end },
                ]
            })
            .filter(|rest| !rest.is_empty())
            .collect();
        *self = Self::new(if below.is_empty() { self.watermark } else { span.first }, kept);
    }

    /// The records of `span` that lie in no batch, as ascending spans.
    pub fn missing(&self, span: Span) -> impl Iterator<Item = Span> {
        let mut from = span.first.max(self.watermark);
        let before = self.above.range(..=from).next_back();
        let mut sealed =
            before.into_iter().chain(self.above.range((std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded)));
        std::iter::from_fn(move || {
            while from < span.end {
                let (first, end) = match sealed.next() {
                    Some((&first, &end)) => (first.min(span.end), end),
                    None => (span.end, span.end),
                };
                let gap = Span { first: from, end: first };
                from = from.max(end);
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// Spans above the watermark, ascending.
    pub fn above(&self) -> impl Iterator<Item = Span> {
        self.above.iter().map(|(&first, &end)| Span { first, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u64, end: u64) -> Span {
        Span { first: Position::new(first), end: Position::new(end) }
    }

    #[test]
    fn the_watermark_stops_before_the_first_open_record() {
        let mut sealed = Sealed::new(Position::FIRST, []);
        sealed.insert(span(5, 8));
        assert_eq!(sealed.watermark(), Position::FIRST);
        sealed.insert(span(1, 3));
        assert_eq!(sealed.watermark(), Position::new(3));
        sealed.insert(span(3, 5));
        assert_eq!(sealed.watermark(), Position::new(8));
        assert_eq!(sealed.above().count(), 0);
    }

    #[test]
    #[should_panic(expected = "sealed twice")]
    fn sealing_twice_is_a_bug() {
        let mut sealed = Sealed::new(Position::FIRST, [span(5, 8)]);
        sealed.insert(span(7, 9));
    }

    #[test]
    fn reopened_records_are_missing_again() {
        let mut sealed = Sealed::new(Position::new(10), [span(12, 20)]);
        sealed.reopen(span(14, 16));
        assert_eq!(sealed.missing(span(1, 25)).collect::<Vec<_>>(), [span(10, 12), span(14, 16), span(20, 25)]);
        sealed.reopen(span(4, 6));
        assert_eq!(sealed.watermark(), Position::new(4));
        assert_eq!(
            sealed.missing(span(1, 25)).collect::<Vec<_>>(),
            [span(4, 6), span(10, 12), span(14, 16), span(20, 25)]
        );
    }

    #[test]
    fn what_a_checkpoint_held_below_its_watermark_is_ignored() {
        let sealed = Sealed::new(Position::new(10), [span(3, 6), span(8, 12), span(15, 20)]);
        assert_eq!(sealed.watermark(), Position::new(12));
        assert_eq!(sealed.above().collect::<Vec<_>>(), [span(15, 20)]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(order in Just((1_u64..40).collect::<Vec<_>>()).prop_shuffle(), upto in 0_usize..40, from in 1_u64..45, len in 0_u64..20) {
            let mut sealed = Sealed::new(Position::FIRST, []);
            let mut set = std::collections::BTreeSet::new();
            for &record in order.iter().take(upto) {
                sealed.insert(span(record, record + 1));
                set.insert(record);
            }
            prop_assert_eq!(sealed.watermark().get(), (1..=41).find(|record| !set.contains(record)).unwrap());
            let missing: Vec<u64> = sealed.missing(span(from, from + len)).flat_map(|gap| gap.first.get()..gap.end.get()).collect();
            let expected: Vec<u64> = (from..from + len).filter(|record| !set.contains(record)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
