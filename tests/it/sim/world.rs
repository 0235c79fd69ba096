//! What outlives a simulated process, and what it takes from the machine: chance, time, and what producers were promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hydrant_core::{Clock, Entropy, Timestamp};

/// `SplitMix64`.
#[derive(Debug)]
pub(super) struct Random(AtomicU64);

impl Random {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }

    pub(super) fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&self, most: u64) -> u64 {
        self.next() % most
    }

    pub(super) fn one_in(&self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(super) fn millis(&self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

impl Entropy for Random {
    fn bytes(&self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes()
    }
}

/// The runtime's paused time, going on from life to life.
#[derive(Debug)]
pub(super) struct SimClock {
    pub(super) before: Duration,
    pub(super) started: tokio::time::Instant,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + u64::try_from(self.monotonic().as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.before + self.started.elapsed()
    }
}

/// What one record was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    Acknowledged,
    /// The answer was lost, or said that nobody knows.
    Open,
    /// It was said that it is not stored.
    Refused,
}

/// Everything that outlives a process.
#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Arc<Random>,
    /// Whether stores do as they please.
    pub(super) is_wild: AtomicBool,
    pub(super) promises: Mutex<BTreeMap<String, Promise>>,
    /// All that happened, as one number.
    pub(super) history: AtomicU64,
}

impl World {
    /// Something happened.
    pub(super) fn note(&self, what: impl AsRef<[u8]>) {
        let mut hash = self.history.load(Ordering::Relaxed);
        for byte in what.as_ref() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.history.store(hash, Ordering::Relaxed);
    }

    pub(super) fn promise(&self, record: &str, promise: Promise) {
        self.note(format!("{record} {promise:?}"));
        self.promises.lock().unwrap().insert(record.to_owned(), promise);
    }
}
