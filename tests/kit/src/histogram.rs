//! Latencies: counts in buckets whose width is 1/64 of their value, so that quantiles are right to 1.6 %.

use std::time::Duration;

/// Sub-buckets of each power of two.
const STEPS: u64 = 64;

/// How often each latency was seen, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Adds all that another one counted.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        millis(self.max)
    }

    /// The latency that `per_mille` of 1,000 did not exceed, in milliseconds; 0 when nothing was counted.
    pub fn quantile_ms(&self, per_mille: u64) -> f64 {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return millis(upper_end(bucket).min(self.max));
            }
        }
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "a latency of 285 years is not measured")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Values below `STEPS` have a bucket each; above, each power of two has `STEPS / 2` of them.
fn bucket_of(micros: u64) -> usize {
    let shift = u64::from((micros | (STEPS - 1)).ilog2()) - u64::from(STEPS.ilog2() - 1);
    let bucket = shift * (STEPS / 2) + (micros >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let half = STEPS / 2;
    let shift = (bucket / half).saturating_sub(1);
    let within = bucket - shift * half;
    ((within + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_and_buckets_are_narrow() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 12_345_678, 3_600_000_000]) {
            let bucket = bucket_of(micros);
            let end = upper_end(bucket);
            assert!(end >= micros, "{micros} above its bucket's end {end}");
            assert!(bucket == 0 || upper_end(bucket - 1) < micros, "{micros} below its bucket");
            assert!(end - micros <= micros / 32 + 1, "bucket of {micros} ends at {end}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        let near = |got: f64, want: f64| assert!((got - want).abs() <= want * 0.035, "{got} is not near {want}");
        near(histogram.quantile_ms(500), 500.0);
        near(histogram.quantile_ms(990), 990.0);
        near(histogram.max_ms(), 1000.0);
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn merged_histograms_count_together() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        one.add(Duration::from_micros(10));
        two.add(Duration::from_secs(2));
        one.merge(&two);
        assert_eq!(one.count(), 2);
        assert!(one.max_ms() >= 2000.0);
        assert!(Histogram::default().quantile_ms(500) <= 0.0);
    }
}
