//! Time as the rest of the program sees it: a wall-clock [`Timestamp`] that is stored and shown, and a monotonic
//! reading that measures waits. Both come from a [`Clock`], so a test can hold them.

use std::fmt;
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock.
///
/// Wall clocks jump. Anything that measures a wait (retry, age of a buffer, retention) uses
/// [`Clock::monotonic`] instead; a timestamp only names a moment in keys, headers and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this moment is; zero when the wall clock went backwards between them.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Where time comes from. One implementation reads the system, tests hold their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock: what is written down.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; never goes back, whatever the wall clock does.
    fn monotonic(&self) -> Duration;
}
