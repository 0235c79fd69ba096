//! What a stream counts. Written by its stations, read by `/metrics` and by progress displays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hydrant_core::Timestamp;
use hydrant_storage::outbox::Outbox;
use hydrant_storage::timing::Histogram;

use super::buffer::Reason;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one stream, from the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records acknowledged.
    pub records_in: Count,
    /// Their bytes.
    pub bytes_in: Count,
    /// Records refused because there was no room.
    pub records_throttled: Count,
    /// Batches sealed, in the order of [`Reason::ALL`].
    pub batches_sealed: [Count; 6],
    /// Records that the destination confirmed.
    pub records_out: Count,
    /// Their bytes before compression.
    pub bytes_out: Count,
    /// Batches that the destination confirmed.
    pub batches_out: Count,
    /// Attempts that ended without a confirmation.
    pub attempts_failed: Count,
    /// Batches that were turned to the dead-letter store.
    pub batches_redirected: Count,
    /// Records in dead letters.
    pub records_refused: Count,
    /// Records that the destination did not take and that the configuration says to throw away.
    pub records_discarded: Count,
    /// Dead letters put back into the log.
    pub records_redriven: Count,
    /// Records that are gone for good, through damage or asked-for expiry.
    pub records_lost: Count,
    /// Batches waiting in the outbox.
    pub batches_waiting: Level,
    /// Refused records that lie in no batch of dead letters yet.
    pub letters_waiting: Level,
    /// When the oldest record in the outbox was accepted, in milliseconds since the epoch; 0 if it is empty.
    pub oldest_sealed_ms: Level,
    /// When the oldest record in an open buffer was accepted, in the same way.
    pub oldest_buffered_ms: Level,
    /// The outbox of the lane that runs now, which times its own fsyncs.
    outbox: Mutex<Option<Outbox>>,
}

impl Counters {
    /// Counts a sealed batch.
    pub fn sealed(&self, reason: Reason) {
        self.sealed_count(reason).add(1);
    }

    /// Batches sealed for this reason.
    pub fn sealed_for(&self, reason: Reason) -> u64 {
        self.sealed_count(reason).get()
    }

    /// Counts a batch of that many records and bytes before compression that is owed no more.
    pub fn settled(&self, records: u64, raw_bytes: u64, is_dead_letter: bool) {
        if is_dead_letter {
            self.records_refused.add(records);
        } else {
            self.records_out.add(records);
            self.bytes_out.add(raw_bytes);
            self.batches_out.add(1);
        }
    }

    /// Names the outbox of the lane that runs now.
    pub fn watch_outbox(&self, outbox: &Outbox) {
        *self.outbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(outbox.clone());
    }

    /// How long fsyncs of the outbox took, since the lane was last opened.
    pub fn outbox_fsyncs(&self) -> Histogram {
        self.outbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|outbox| outbox.usage().fsyncs)
            .unwrap_or_default()
    }

    /// When the oldest record was accepted that is sealed or buffered and not settled.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        let known = [self.oldest_sealed_ms.get(), self.oldest_buffered_ms.get()];
        known.into_iter().filter(|&ms| ms > 0).min().map(Timestamp::from_millis)
    }

    fn sealed_count(&self, reason: Reason) -> &Count {
        let [size, age, room, pressure, log_share, drain] = &self.batches_sealed;
        match reason {
            Reason::Size => size,
            Reason::Age => age,
            Reason::Room => room,
            Reason::Pressure => pressure,
            Reason::LogShare => log_share,
            Reason::Drain => drain,
        }
    }
}
