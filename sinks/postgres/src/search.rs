//! The search for rows that a table does not take, among many that it does. Pure.
//!
//! ```text
//!   rows   0 1 2 3 4 5 6 7 8 9
//!          ─────── ─── x · · ·      ─ taken    x refused    · not tried yet
//!                      └── next: a window of those that are left
//! ```
//!
//! A window that is taken is followed by one twice as large. Where PostgreSQL names the row, it is refused and the rows before
//! it are tried; where it does not, half of the window is, and then half of what is still suspect. So a refused row costs
//! two tries, or as many as the window can be halved, and rows that are all bad cost one each. Rows are tried in order and behind those that were taken, so of two
//! that exclude each other the later is refused.

use std::collections::BTreeMap;

use hydrant_core::Fault;

/// What is known of the rows of a batch.
#[derive(Debug)]
pub(crate) struct Search {
    rows: usize,
    /// All rows before this one are taken or refused.
    first: usize,
    /// How many rows are tried next; at least 1.
    window: usize,
    /// Among so many rows that come next there is one at fault; nought if that is not known.
    suspect: usize,
    refused: BTreeMap<usize, Fault>,
}

impl Search {
    /// Nothing is known of so many rows; all of them are to be tried.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, first: 0, window: rows.max(1), suspect: 0, refused: BTreeMap::new() }
    }

    /// The rows to try next, ascending; none when all are taken or refused.
    pub(crate) fn next(&self) -> Vec<usize> {
        (self.first..self.rows).filter(|row| !self.refused.contains_key(row)).take(self.window).collect()
    }

    /// Those of [`next`](Self::next) were taken.
    pub(crate) fn taken(&mut self) {
        let tried = self.next();
        self.first = tried.last().map_or(self.rows, |last| last + 1);
        self.suspect = self.suspect.saturating_sub(tried.len());
        self.window = if self.suspect > 0 { (self.suspect / 2).max(1) } else { self.window.saturating_mul(2) };
        self.skip_refused();
    }

    /// Those of [`next`](Self::next) were not taken, for this reason; `line` is the one at fault, from 1, if it is known.
    pub(crate) fn refused(&mut self, line: Option<usize>, fault: Fault) {
        let tried = self.next();
        let line = line.filter(|line| (1..=tried.len()).contains(line)).or((tried.len() == 1).then_some(1));
        if let Some((line, row)) = line.and_then(|line| Some((line, tried.get(line - 1)?))) {
            self.refused.insert(*row, fault);
            (self.suspect, self.window) = (0, (line - 1).max(1));
            self.skip_refused();
        } else {
            (self.suspect, self.window) = (tried.len(), (tried.len() / 2).max(1));
        }
    }

    /// So that [`next`](Self::next) need not, each time.
    fn skip_refused(&mut self) {
        while self.refused.contains_key(&self.first) {
            self.first += 1;
        }
    }

    /// The rows refused so far, each with the reason.
    pub(crate) fn into_refused(self) -> BTreeMap<usize, Fault> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hydrant_core::FaultCode;
    use proptest::prelude::*;

    use super::*;

    /// Searches a table that refuses these rows, and names them or not. Gives what was found and the number of tries.
    fn search(rows: usize, bad: &BTreeSet<usize>, names_rows: bool) -> (BTreeSet<usize>, usize) {
        let (mut search, mut tries) = (Search::new(rows), 0);
        loop {
            let next = search.next();
            if next.is_empty() {
                return (search.into_refused().into_keys().collect(), tries);
            }
            tries += 1;
            match next.iter().position(|row| bad.contains(row)) {
                None => search.taken(),
                Some(at) => search.refused(names_rows.then_some(at + 1), Fault::new(FaultCode::Invalid, "bad")),
            }
        }
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_found(
            rows in 0..400_usize, bad in proptest::collection::btree_set(0..400_usize, 0..60), names_rows: bool,
        ) {
            let bad = bad.into_iter().filter(|row| *row < rows).collect();
            prop_assert_eq!(search(rows, &bad, names_rows).0, bad);
        }

        #[test]
        fn one_bad_row_among_many_costs_few_tries(bad in 0..10_000_usize) {
            let bad = BTreeSet::from([bad]);
            prop_assert!(search(10_000, &bad, true).1 <= 2 + 14);
            prop_assert!(search(10_000, &bad, false).1 <= 3 * 14);
        }
    }

    #[test]
    fn rows_that_are_all_bad_cost_one_try_each() {
        let bad = (0..1_000).collect();
        assert_eq!(search(1_000, &bad, true), (bad.clone(), 1_000));
        assert_eq!(search(1_000, &bad, false), (bad, 1_000 + 9));
    }

    #[test]
    fn a_row_that_was_not_tried_is_never_blamed() {
        let mut search = Search::new(8);
        for line in [0, 9, usize::MAX] {
            search.refused(Some(line), Fault::new(FaultCode::Invalid, "bad"));
        }
        assert_eq!(search.next(), [0]);
        assert!(search.into_refused().is_empty());
    }
}
