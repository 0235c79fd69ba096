//! Back-off: how long to wait before the next attempt. Pure.
//!
//! Exponential with full jitter: the n-th wait is drawn evenly from zero to 1 s × 2^(n-1), at most 60 s, and is
//! never shorter than what the destination asked for. Full jitter spreads the retries of many streams over the
//! whole span, so a destination that comes back is not met by all of them at once.

use std::time::Duration;

/// Upper bound of the first wait.
const FIRST: Duration = Duration::from_secs(1);
/// Upper bound of every wait that we choose ourselves.
const LONGEST: Duration = Duration::from_mins(1);
/// Longest wait that a destination can ask for; a larger wish is cut to this.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// The wait after `failures` failed attempts in a row, with `fraction` drawn evenly from `0.0..1.0`.
pub fn wait(failures: u32, fraction: f64, asked: Option<Duration>) -> Duration {
    let bound = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    bound.mul_f64(fraction).max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_a_minute() {
        let bounds: Vec<u64> = (1..=9).map(|failures| wait(failures, 1.0, None).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait(u32::MAX, 1.0, None), LONGEST);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(wait(4, 0.0, None), Duration::ZERO);
        assert_eq!(wait(4, 0.5, None), Duration::from_secs(4));
    }

    #[test]
    fn the_destination_s_wish_counts_up_to_an_hour() {
        assert_eq!(wait(1, 0.5, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(wait(1, 0.5, Some(Duration::MAX)), LONGEST_ASKED);
    }
}
