//! Randomness as the rest of the program sees it, so that a simulation can repeat a run from its seed.

use std::fmt;

/// Where random bits come from. One implementation asks the system, tests bring a seed.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Sixteen bytes that nobody could have foretold.
    fn bytes(&self) -> [u8; 16];

    /// A number that nobody could have foretold.
    fn number(&self) -> u64 {
        let bytes = u128::from_le_bytes(self.bytes());
        u64::try_from(bytes & u128::from(u64::MAX)).unwrap_or_default()
    }

    /// A number in `0.0..1.0`, evenly spread over 2^53 values.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    fn fraction(&self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
