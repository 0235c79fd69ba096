//! The real edges of the program: this machine's clocks and its randomness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use hydrant_core::{Clock, Entropy, Timestamp};
use uuid::{Builder, Uuid};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Clocks whose monotonic reading starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "the one place where the program reads the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the program reads the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The randomness of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::expect_used,
        reason = "a machine without randomness can promise nothing; the generator was seeded at start"
    )]
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the system gives random bytes");
        bytes
    }
}

/// Ids of requests: different ones, in every process others, and no secret. Drawn from the machine they would cost as
/// much as the check of a signature.
#[derive(Debug)]
pub struct RequestIds {
    start: [u64; 2],
    drawn: AtomicU64,
}

impl RequestIds {
    /// Ids of this process.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let random = u128::from_le_bytes(entropy.bytes());
        let halves = [random, random >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        Self { start: halves, drawn: AtomicU64::new(0) }
    }

    /// The next one.
    pub fn next(&self) -> Uuid {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.start.map(|start| mixed(start.wrapping_add(number)));
        Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): another number for each number, which looks like none of its neighbours.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_request_has_an_id_of_its_own_also_in_another_process() {
        let processes = [RequestIds::new(&SystemEntropy), RequestIds::new(&SystemEntropy)];
        let ids: BTreeSet<Uuid> = processes.iter().flat_map(|ids| (0..10_000).map(|_| ids.next())).collect();
        assert_eq!(ids.len(), 20_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
