//! What tests of several modules share: a clock that stands still, a disk with one stream's share of it.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{ByteSize, Clock, Timestamp};

use crate::space::{Share, Space};

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct StillClock;

impl StillClock {
    pub(crate) fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// A stream's share of a process that has `bytes` for it, and no other streams.
pub(crate) fn share(bytes: ByteSize) -> Arc<Share> {
    Space::new(bytes).share(bytes)
}

/// Bytes as golden files show them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut line, byte| {
        write!(line, "{byte:02x}").expect("a text takes everything");
        line
    })
}
