//! Positions: the number of a record in its stream's log, runs of them, and the name of a piece made from one.

use std::fmt;

/// Sequence number of a record in one stream's log.
///
/// Increasing in the order of acknowledgement and never used again; gaps exist only where a log was reopened. The
/// first record of a stream has position 1, so 0 can say "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Before every record.
    pub const ZERO: Self = Self(0);
    /// The first record of a stream.
    pub const FIRST: Self = Self(1);

    /// The position with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A position that somebody else wrote; none for one that no log of ours can have reached: 2^60 records are a
    /// million a second for 36,000 years. What is below leaves room for [`plus`](Self::plus).
    pub const fn read(number: u64) -> Option<Self> {
        if number < 1 << 60 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `count` records later.
    ///
    /// # Panics
    /// When 2^64 records have been written, which at a million a second takes half a million years.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        let (number, overflowed) = self.0.overflowing_add(count);
        assert!(!overflowed, "positions are used up");
        Self(number)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Records `first`, `first + 1`, … `end - 1` of one stream. May be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first record.
    pub first: Position,
    /// One past the last record.
    pub end: Position,
}

impl Span {
    /// The span of `count` records that starts at `first`.
    pub const fn new(first: Position, count: u64) -> Self {
        Self { first, end: first.plus(count) }
    }

    /// How many records it names.
    pub const fn count(self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    /// Whether it names none.
    pub const fn is_empty(self) -> bool {
        self.end.0 <= self.first.0
    }

    /// Whether it names `position`.
    pub const fn contains(self, position: Position) -> bool {
        self.first.0 <= position.0 && position.0 < self.end.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// The name of a piece: which record it was made of, and which share of it.
///
/// A record that was delivered as it came is piece 0 of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId {
    /// The record.
    pub position: Position,
    /// Which share, from 0.
    pub sub: u32,
    /// Of how many shares; at least 1.
    pub of: u32,
}

impl PieceId {
    /// The one piece of an undivided record.
    pub const fn whole(position: Position) -> Self {
        Self { position, sub: 0, of: 1 }
    }
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of == 1 { self.position.fmt(f) } else { write!(f, "{}/{}of{}", self.position, self.sub, self.of) }
    }
}
