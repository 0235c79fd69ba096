//! The load of the demo: several connections put batches until every record is acknowledged.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use tokio::time::Instant;

use super::client::{Client, PutError};
use super::folder::Folder;
use super::records::record;
use crate::commands::Failure;

/// Connections that put at the same time.
const CONNECTIONS: usize = 8;

/// Records of a call; the service takes up to 500.
const BATCH: u32 = 250;

/// What the puts came to.
pub(super) struct Puts {
    /// Records that were acknowledged.
    pub(super) records: u32,
    /// Their bytes.
    pub(super) bytes: u64,
    /// From the first call to the last answer.
    pub(super) took: Duration,
    /// How long each call took, shortest first.
    calls: Vec<Duration>,
}

/// Puts records 0 to `records`, each once, and waits for their acknowledgement.
///
/// # Errors
/// When one is refused for good.
pub(super) async fn put_all(
    folder: &Folder,
    address: SocketAddr,
    records: u32,
    bar: &ProgressBar,
) -> Result<Puts, Failure> {
    let next = AtomicU32::new(0);
    let start = Instant::now();
    let shares = try_join_all((0..CONNECTIONS).map(|_| put_share(folder, address, records, &next, bar))).await;
    let shares = shares.map_err(|error| Failure::caused("put records", &error).at(folder.server_log().display()))?;
    let took = start.elapsed();
    let bytes = shares.iter().map(|share| share.bytes).sum();
    let mut calls: Vec<Duration> = shares.into_iter().flat_map(|share| share.calls).collect();
    calls.sort_unstable();
    Ok(Puts { records, bytes, took, calls })
}

#[derive(Default)]
struct Share {
    bytes: u64,
    calls: Vec<Duration>,
}

async fn put_share(
    folder: &Folder,
    address: SocketAddr,
    records: u32,
    next: &AtomicU32,
    bar: &ProgressBar,
) -> Result<Share, PutError> {
    let mut client = Client::connect(folder, address).await?;
    let mut share = Share::default();
    loop {
        let from = next.fetch_add(BATCH, Ordering::Relaxed);
        if from >= records {
            return Ok(share);
        }
        let batch: Vec<String> = (from..records.min(from + BATCH)).map(record).collect();
        let (count, bytes) = (batch.len() as u64, batch.iter().map(|record| record.len() as u64).sum::<u64>());
        let start = Instant::now();
        client.put(batch).await?;
        share.calls.push(start.elapsed());
        share.bytes += bytes;
        bar.inc(count);
    }
}

impl Puts {
    /// Acknowledged bytes of records per second, in 10^6.
    pub(super) fn megabytes_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let bytes = self.bytes as f64;
        bytes / 1e6 / self.took.as_secs_f64().max(1e-9)
    }

    /// How long the quickest `percent` of the calls took at most, by the nearest rank.
    pub(super) fn ack(&self, percent: usize) -> Duration {
        let rank = (self.calls.len() * percent).div_ceil(100).max(1);
        self.calls.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Puts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent| self.ack(percent).as_secs_f64() * 1000.0;
        write!(
            f,
            "{} records acknowledged on disk in {:.1} s: {:.0} MB/s over {CONNECTIONS} connections, {BATCH} records a \
             call, ack p50 {:.1} ms, p99 {:.1} ms",
            self.records,
            self.took.as_secs_f64(),
            self.megabytes_per_second(),
            millis(50),
            millis(99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        let puts = |calls: std::ops::RangeInclusive<u64>| Puts {
            records: 0,
            bytes: 0,
            took: Duration::ZERO,
            calls: calls.map(Duration::from_millis).collect(),
        };
        assert_eq!(puts(1..=100).ack(50), Duration::from_millis(50));
        assert_eq!(puts(1..=100).ack(99), Duration::from_millis(99));
        assert_eq!(puts(1..=1).ack(99), Duration::from_millis(1));
        #[expect(clippy::reversed_empty_ranges, reason = "no call at all")]
        let none = puts(1..=0);
        assert_eq!(none.ack(99), Duration::ZERO);
    }
}
