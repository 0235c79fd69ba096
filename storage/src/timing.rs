//! Timings: how long something took, each time, as counts in fixed buckets. For fsyncs of the log and the outbox.
//!
//! Many threads record at once without a lock; a reading may miss what is recorded while it is taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds, inclusive; one more bucket is open above. Steps of 1, 2 and 5 from
/// well under one fsync on a fast disk to far over a hanging one.
pub const BOUNDS_MICROS: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Counts of durations, for many writers.
#[derive(Debug, Default)]
pub struct Timings {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Timings {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|&bound| bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|at| self.buckets.get(at).map_or(0, |count| count.load(Ordering::Relaxed))),
            sum: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)),
        }
    }
}

/// Counts of durations at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each bucket of [`BOUNDS_MICROS`], and above all of them.
    pub buckets: [u64; BUCKETS],
    /// All durations together.
    pub sum: Duration,
}

impl Histogram {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A duration that `percent` of those counted do not exceed: the upper end of the bucket in which that one
    /// lies. `None` when nothing was counted; [`Duration::MAX`] when it lies above all bounds.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(BOUNDS_MICROS.get(bucket).map_or(Duration::MAX, |&micros| Duration::from_micros(micros)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_reaches_it() {
        let timings = Timings::default();
        for micros in [0, 50, 51, 1_000, 11_000_000] {
            timings.record(Duration::from_micros(micros));
        }
        let read = timings.read();
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[4], read.buckets[17]), (2, 1, 1, 1));
        assert_eq!(read.count(), 5);
        assert_eq!(read.sum, Duration::from_micros(11_001_101));
    }

    #[test]
    fn percentiles_are_upper_ends_and_nothing_when_nothing_was_counted() {
        let timings = Timings::default();
        assert_eq!(timings.read().percentile(50), None);
        for _ in 0..99 {
            timings.record(Duration::from_micros(700));
        }
        timings.record(Duration::from_mins(1));
        let read = timings.read();
        assert_eq!(read.percentile(50), Some(Duration::from_millis(1)));
        assert_eq!(read.percentile(99), Some(Duration::from_millis(1)));
        assert_eq!(read.percentile(100), Some(Duration::MAX));
    }
}
