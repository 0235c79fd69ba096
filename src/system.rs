//! The real edges of the program: this machine's clocks and its randomness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use hydrant_core::{Clock, Entropy, Timestamp};

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
