//! Runs: a set of pieces of one stream, kept as what it mostly is: long runs of whole records.
//!
//! ```text
//!   whole records   10..500  502..731  …        sorted, disjoint, not adjacent
//!   shares          501: 0..2 of 3     …        what became of a record that was split, in part
//! ```
//!
//! Batches name their pieces with it, the ledger what was sealed. Pieces come mostly in order, which is cheap; any
//! order is right. Pure.

use hydrant_core::{PieceId, Position, Span};

use crate::fields::{Fields, Malformed, put_len, put_varint};

#[cfg(test)]
mod tests;

/// A set of pieces. Two sets with the same pieces are equal and encode alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Records that are one piece: sorted, disjoint, not adjacent, none empty.
    whole: Vec<Span>,
    /// Shares of records that are several: sorted, disjoint, not adjacent, none empty.
    shares: Vec<ShareRun>,
}

/// Shares `first..end` of the `of` shares of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShareRun {
    position: Position,
    of: u32,
    first: u32,
    end: u32,
}

impl ShareRun {
    const fn record(&self) -> (Position, u32) {
        (self.position, self.of)
    }
}

impl Runs {
    /// The set without pieces.
    pub const fn new() -> Self {
        Self { whole: Vec::new(), shares: Vec::new() }
    }

    /// Adds a piece. One that is there already changes nothing.
    ///
    /// # Panics
    /// When the piece names a share that its record does not have: a bug of the caller.
    pub fn push(&mut self, piece: PieceId) {
        assert!(piece.sub < piece.of, "piece {piece} lies outside its record");
        if piece.of == 1 {
            self.push_span(Span::new(piece.position, 1));
        } else {
            let PieceId { position, sub, of } = piece;
            self.push_shares(ShareRun { position, of, first: sub, end: sub + 1 });
        }
    }

    /// Adds whole records. An empty span adds nothing.
    pub fn push_span(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let from = self.whole.partition_point(|run| run.end < span.first);
        let to = self.whole.partition_point(|run| run.first <= span.end);
        let merged = self
            .whole
            .drain(from..to)
            .fold(span, |all, run| Span { first: all.first.min(run.first), end: all.end.max(run.end) });
        self.whole.insert(from, merged);
    }

    fn push_shares(&mut self, added: ShareRun) {
        let from = self.shares.partition_point(|run| (run.record(), run.end) < (added.record(), added.first));
        let to = self.shares.partition_point(|run| (run.record(), run.first) <= (added.record(), added.end));
        let merged = self.shares.drain(from..to).fold(added, |all, run| ShareRun {
            first: all.first.min(run.first),
            end: all.end.max(run.end),
            ..all
        });
        self.shares.insert(from, merged);
    }

    /// Adds all pieces of another set.
    pub fn add(&mut self, other: &Self) {
        other.whole.iter().for_each(|&span| self.push_span(span));
        other.shares.iter().for_each(|&run| self.push_shares(run));
    }

    /// Takes all pieces of another set out; those it does not have change nothing.
    pub fn remove(&mut self, other: &Self) {
        for &gone in &other.whole {
            let from = self.whole.partition_point(|run| run.end <= gone.first);
            let to = self.whole.partition_point(|run| run.first < gone.end);
            let rest: Vec<Span> = self
                .whole
                .drain(from..to)
                .flat_map(|run| [Span { end: gone.first, ..run }, Span { first: gone.end, ..run }])
                .filter(|run| !run.is_empty())
                .collect();
            self.whole.splice(from..from, rest);
        }
        for gone in &other.shares {
            let from = self.shares.partition_point(|run| (run.record(), run.end) <= (gone.record(), gone.first));
            let to = self.shares.partition_point(|run| (run.record(), run.first) < (gone.record(), gone.end));
            let rest: Vec<ShareRun> = self
                .shares
                .drain(from..to)
                .flat_map(|run| [ShareRun { end: gone.first, ..run }, ShareRun { first: gone.end, ..run }])
                .filter(|run| run.first < run.end)
                .collect();
            self.shares.splice(from..from, rest);
        }
    }

    /// Takes out every piece of a record below `position`.
    pub fn forget_below(&mut self, position: Position) {
        let gone = self.whole.partition_point(|run| run.end <= position);
        self.whole.drain(..gone);
        if let Some(first) = self.whole.first_mut() {
            first.first = first.first.max(position);
        }
        let gone = self.shares.partition_point(|run| run.position < position);
        self.shares.drain(..gone);
    }

    /// Whether it has this piece.
    pub fn contains(&self, piece: PieceId) -> bool {
        if piece.of == 1 {
            return self.whole_run(piece.position).is_some();
        }
        let after =
            self.shares.partition_point(|run| (run.record(), run.first) <= ((piece.position, piece.of), piece.sub));
        let run = after.checked_sub(1).and_then(|at| self.shares.get(at));
        run.is_some_and(|run| run.record() == (piece.position, piece.of) && piece.sub < run.end)
    }

    /// Whether it has the whole of this record: as one piece, or all shares of one way to split it.
    pub fn completes(&self, position: Position) -> bool {
        self.whole_run(position).is_some()
            || self.shares_of(position).iter().any(|run| run.first == 0 && run.end == run.of)
    }

    /// Whether it has some piece of this record.
    pub fn touches(&self, position: Position) -> bool {
        self.whole_run(position).is_some() || !self.shares_of(position).is_empty()
    }

    /// One past the last record of the run of whole records that `position` lies in, if it lies in one.
    pub fn whole_run(&self, position: Position) -> Option<Position> {
        let at = self.whole.partition_point(|run| run.end <= position);
        self.whole.get(at).filter(|run| run.contains(position)).map(|run| run.end)
    }

    fn shares_of(&self, position: Position) -> &[ShareRun] {
        let from = self.shares.partition_point(|run| run.position < position);
        let to = self.shares.partition_point(|run| run.position <= position);
        self.shares.get(from..to).unwrap_or_default()
    }

    /// The runs of whole records, ascending.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.whole.iter().copied()
    }

    /// The shares of records that were split, ascending.
    pub fn shares(&self) -> impl Iterator<Item = PieceId> {
        self.shares
            .iter()
            .flat_map(|run| (run.first..run.end).map(|sub| PieceId { position: run.position, sub, of: run.of }))
    }

    /// All pieces in the order of their names, which is that of the pieces in a batch.
    pub fn in_order(&self) -> impl Iterator<Item = PieceId> {
        let whole = self.spans().flat_map(|run| run.first.get()..run.end.get());
        let mut whole = whole.map(|position| PieceId::whole(Position::new(position))).peekable();
        let mut shares = self.shares().peekable();
        std::iter::from_fn(move || match (whole.peek(), shares.peek()) {
            (Some(piece), Some(share)) if share < piece => shares.next(),
            (Some(_), _) => whole.next(),
            (None, _) => shares.next(),
        })
    }

    /// How many pieces it has.
    pub fn len(&self) -> u64 {
        let whole: u64 = self.whole.iter().map(|run| run.count()).sum();
        let shares: u64 = self.shares.iter().map(|run| u64::from(run.end - run.first)).sum();
        whole.saturating_add(shares)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.shares.is_empty()
    }

    /// From the lowest record that it names to the highest, gaps included; empty when it has no pieces.
    pub fn hull(&self) -> Span {
        let firsts = self.whole.first().map(|run| run.first).into_iter();
        let first = firsts.chain(self.shares.first().map(|run| run.position)).min();
        let ends = self.whole.last().map(|run| run.end).into_iter();
        let end = ends.chain(self.shares.last().map(|run| run.position.plus(1))).max();
        Span { first: first.unwrap_or_default(), end: end.unwrap_or_default() }
    }

    /// Appends its bytes: see `docs/formats/outbox.md`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.whole.len());
        let mut at = 0;
        for run in &self.whole {
            put_varint(out, run.first.get() - at);
            put_varint(out, run.count());
            at = run.end.get();
        }
        put_len(out, self.shares.len());
        let mut at = 0;
        for run in &self.shares {
            put_varint(out, run.position.get() - at);
            put_varint(out, u64::from(run.of));
            put_varint(out, u64::from(run.first));
            put_varint(out, u64::from(run.end - run.first));
            at = run.position.get();
        }
    }

    /// Reads what [`encode`](Self::encode) wrote. Anything that is not sorted, disjoint and inside its record is
    /// malformed.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut runs = Self::new();
        let mut at = 0_u64;
        for _ in 0..fields.count(2, "number of runs")? {
            let gap = fields.varint("first record of a run")?;
            let count = fields.varint("length of a run")?;
            let first = at.checked_add(gap).ok_or(Malformed("first record of a run"))?;
            at = first.checked_add(count).ok_or(Malformed("length of a run"))?;
            if count == 0 || (gap == 0 && !runs.whole.is_empty()) {
                return Err(Malformed("run of records"));
            }
            let end = Position::read(at).ok_or(Malformed("length of a run"))?;
            runs.whole.push(Span { first: Position::new(first), end });
        }
        let mut at = 0_u64;
        for _ in 0..fields.count(4, "number of share runs")? {
            let gap = fields.varint("record of a share")?;
            at = at.checked_add(gap).ok_or(Malformed("record of a share"))?;
            let of = fields.varint_u32("number of shares")?;
            let first = fields.varint_u32("first share")?;
            let count = fields.varint_u32("count of shares")?;
            let end = first.checked_add(count).ok_or(Malformed("count of shares"))?;
            let position = Position::read(at).ok_or(Malformed("record of a share"))?;
            let run = ShareRun { position, of, first, end };
            let sorted = runs.shares.last().is_none_or(|last| (last.record(), last.end) < (run.record(), run.first));
            if of < 2 || end > of || count == 0 || !sorted {
                return Err(Malformed("run of shares"));
            }
            runs.shares.push(run);
        }
        Ok(runs)
    }
}

impl FromIterator<Span> for Runs {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut runs = Self::new();
        spans.into_iter().for_each(|span| runs.push_span(span));
        runs
    }
}

impl FromIterator<PieceId> for Runs {
    fn from_iter<I: IntoIterator<Item = PieceId>>(pieces: I) -> Self {
        let mut runs = Self::new();
        pieces.into_iter().for_each(|piece| runs.push(piece));
        runs
    }
}
