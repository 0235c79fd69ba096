//! Space: how many bytes log, outbox and ledger may lie on, for each stream and for the whole process.
//!
//! In: claims before a file is allocated, and returns after one was removed.
//! Out: yes, or [`NoSpace`]; a wake-up for those who wait.
//!
//! What frees space must not itself be stopped by a full disk, so it runs out in this order:
//!
//! ```text
//!   0 ───────────────────────────────┬───────────────────┬──────── limit
//!     appends, seals, owed           │ seals, owed       │ owed
//!     (a producer is told to         │ (packing moves    │ (dead letters, ledger: they
//!      slow down at the first line)  │  the log out)     │  let batches be removed)
//! ```
//!
//! The process has the same lines, and one more below them: past three quarters of what appends may fill, streams
//! that use more than an equal part of it are refused. So one stream with a dead destination leaves room for the
//! others.
//!
//! The disk may have less room than was declared, or others may fill it. Then what is in use and what is free is all there
//! is, and a segment of the log must leave as much of that as it would of the declared limit ([`Share::take_segment`]).
//! Else the log would take each byte that a delivered batch gives back, and no seal would ever find room.
//!
//! Counts only; it never touches a disk.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_core::ByteSize;
use tokio::sync::Notify;

/// Most that is kept back from appends, so that packing can move a full log out. Four of the largest batches there
/// are (128 MiB, the service's largest buffering hint).
const KEPT_FOR_SEALS_MAX: u64 = 512 << 20;

/// Most that is kept back from data seals, for dead letters and the ledger: a dead-letter buffer for each of a few
/// lanes, and the largest ledger.
const KEPT_FOR_OWED_MAX: u64 = 64 << 20;

/// What the bytes are for. The order is the one in which space runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A segment of the log.
    Append,
    /// A batch of records on their way to their destination.
    DataSeal,
    /// What must be written so that something can be let go: a batch of dead letters, the ledger.
    Owed,
}

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The stream's share.
    Stream,
    /// The process.
    Process,
    /// The disk: others fill it too.
    Disk,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "the stream",
            Self::Process => "all streams together",
            Self::Disk => "the disk is full, although this stream",
        })
    }
}

/// A claim that does not fit. Nothing was taken. [`Share::freed`] tells when to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no space for {wanted} more bytes: {owner} may use {limit} and {used} bytes of it are in use")]
pub struct NoSpace {
    /// How much was asked for, in bytes.
    pub wanted: u64,
    /// How much was in use, in bytes.
    pub used: u64,
    /// The whole limit; the claim may have had to stop short of it.
    pub limit: ByteSize,
    /// Whose limit it is.
    pub owner: Owner,
}

/// The unit in which file systems give room: ext4, xfs and btrfs by default.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// What a file of this length takes on the disk.
pub(crate) const fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Whether an error says that the disk, or what this user may have of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The disk space of the process. Shared by all streams.
#[derive(Debug)]
pub struct Space {
    limit: u64,
    counts: Mutex<Counts>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Counts {
    used: u64,
    shares: u64,
}

impl Space {
    /// Space for `limit` bytes, none of them in use.
    pub fn new(limit: ByteSize) -> Arc<Self> {
        Arc::new(Self { limit: limit.get(), counts: Mutex::default(), freed: Arc::default() })
    }

    /// A stream's share: at most `limit` bytes. Dropping it gives back what it holds.
    pub fn share(self: &Arc<Self>, limit: ByteSize) -> Arc<Share> {
        self.counts().shares += 1;
        Arc::new(Share { space: Arc::clone(self), limit: limit.get(), used: AtomicU64::new(0) })
    }

    /// Bytes in use by all streams.
    pub fn used(&self) -> u64 {
        self.counts().used
    }

    /// The whole limit.
    pub fn limit(&self) -> ByteSize {
        ByteSize::bytes(self.limit)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing between lock and unlock can panic, so a poisoned lock holds right numbers.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's share of the space.
#[derive(Debug)]
pub struct Share {
    space: Arc<Space>,
    limit: u64,
    /// Written only under the lock of the space.
    used: AtomicU64,
}

impl Share {
    /// Takes `bytes`, or nothing.
    ///
    /// # Errors
    /// [`NoSpace`] when the stream or the process is past the line for this kind of claim.
    pub fn take(&self, bytes: u64, claim: Claim) -> Result<(), NoSpace> {
        let mut counts = self.space.counts();
        let used = self.used();
        let refuse = |used, limit, owner| {
            let limit = ByteSize::bytes(limit);
            Err(NoSpace { wanted: bytes, used, limit, owner })
        };
        let (share_after, all_after) = (used.saturating_add(bytes), counts.used.saturating_add(bytes));
        if share_after > line(self.limit, claim) {
            return refuse(used, self.limit, Owner::Stream);
        }
        let line_of_all = line(self.space.limit, claim);
        let crowded = claim == Claim::Append
            && all_after > line_of_all / 4 * 3
            && share_after > line_of_all / counts.shares.max(1);
        if crowded || all_after > line_of_all {
            return refuse(counts.used, self.space.limit, Owner::Process);
        }
        counts.used = all_after;
        self.used.store(share_after, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `bytes` for a segment of the log, or nothing, on a disk where `free` more can be allocated.
    ///
    /// # Errors
    /// [`NoSpace`] as for [`take`](Self::take) with [`Claim::Append`], or when too little of the disk would be left for seals.
    pub fn take_segment(&self, bytes: u64, free: u64) -> Result<(), NoSpace> {
        let used = self.space.used();
        let there_is = used.saturating_add(free).min(self.space.limit);
        if used.saturating_add(bytes) > line(there_is, Claim::Append) && there_is < self.space.limit {
            return Err(self.disk_full(bytes));
        }
        self.take(bytes, Claim::Append)
    }

    /// What to answer when `wanted` bytes were taken and given back because the disk itself has no room.
    pub(crate) fn disk_full(&self, wanted: u64) -> NoSpace {
        NoSpace { wanted, used: self.used(), limit: self.limit(), owner: Owner::Disk }
    }

    /// Counts bytes that lie on the disk already, whatever the limits: what an open finds.
    pub fn occupy(&self, bytes: u64) {
        let mut counts = self.space.counts();
        counts.used = counts.used.saturating_add(bytes);
        self.used.store(self.used().saturating_add(bytes), Ordering::Relaxed);
    }

    /// Gives `bytes` back and wakes who waits on [`freed`](Self::freed). More than is held counts as all of it.
    pub fn give(&self, bytes: u64) {
        {
            let mut counts = self.space.counts();
            let given = bytes.min(self.used());
            counts.used = counts.used.saturating_sub(given);
            self.used.store(self.used() - given, Ordering::Relaxed);
        }
        self.space.freed.notify_waiters();
    }

    /// Bytes in use by this stream.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The whole limit of this stream.
    pub fn limit(&self) -> ByteSize {
        ByteSize::bytes(self.limit)
    }

    /// Ends when some stream has given something back after this call. Make it before the claim that may be
    /// refused, so that nothing is missed between the two. Cancel safe: it holds nothing.
    ///
    /// Space that others free on the same disk wakes nobody; wait for it with a deadline and try again.
    pub fn freed(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.space.freed).notified_owned()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give(u64::MAX);
        let mut counts = self.space.counts();
        counts.shares = counts.shares.saturating_sub(1);
    }
}

/// How far a claim may fill a limit.
fn line(limit: u64, claim: Claim) -> u64 {
    let owed = (limit / 16).min(KEPT_FOR_OWED_MAX);
    let seals = (limit / 4).min(KEPT_FOR_SEALS_MAX);
    match claim {
        Claim::Append => limit - seals - owed,
        Claim::DataSeal => limit - owed,
        Claim::Owed => limit,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(all: u64, one: u64) -> (Arc<Space>, Arc<Share>) {
        let space = Space::new(ByteSize::bytes(all));
        let share = space.share(ByteSize::bytes(one));
        (space, share)
    }

    /// How much of one kind of claim fits.
    fn fill(share: &Share, claim: Claim) -> u64 {
        let before = share.used();
        let mut step = 1 << 40;
        while step > 0 {
            if share.take(step, claim).is_err() {
                step /= 2;
            }
        }
        share.used() - before
    }

    #[test]
    fn appends_stop_first_then_seals_then_what_lets_go() {
        let (space, share) = space(1 << 40, 64 * MIB);
        assert_eq!(fill(&share, Claim::Append), 44 * MIB);
        assert_eq!(fill(&share, Claim::DataSeal), 16 * MIB);
        assert_eq!(fill(&share, Claim::Owed), 4 * MIB);
        let refused = share.take(1, Claim::Owed).unwrap_err();
        assert_eq!(refused.owner, Owner::Stream);
        assert_eq!(space.used(), 64 * MIB);
    }

    #[test]
    fn what_is_kept_back_from_a_large_share_has_a_bound() {
        let (_space, share) = space(1 << 50, 1 << 40);
        fill(&share, Claim::Append);
        assert_eq!((1 << 40) - share.used(), KEPT_FOR_SEALS_MAX + KEPT_FOR_OWED_MAX);
    }

    #[test]
    fn in_a_crowded_process_only_the_streams_above_an_equal_part_are_refused() {
        let (space, greedy) = space(64 * MIB, 1 << 40);
        let modest = space.share(ByteSize::gib(1));
        greedy.take(32 * MIB, Claim::DataSeal).unwrap();
        assert_eq!(greedy.take(2 * MIB, Claim::Append).unwrap_err().owner, Owner::Process);
        modest.take(12 * MIB, Claim::Append).unwrap();
        assert_eq!(modest.take(1, Claim::Append).unwrap_err().owner, Owner::Process);
        greedy.give(12 * MIB);
        greedy.take(2 * MIB, Claim::Append).unwrap();
        greedy.take(1, Claim::Append).unwrap_err();
        assert_eq!(space.used(), 34 * MIB);
    }

    #[test]
    fn on_a_disk_smaller_than_declared_appends_leave_room_for_seals() {
        let (_space, share) = space(1 << 40, 1 << 40);
        let disk = 64 * MIB;
        while share.take_segment(MIB, disk - share.used()).is_ok() {}
        assert_eq!(share.used(), 44 * MIB, "as on a share of that size");
        assert_eq!(share.take_segment(MIB, disk - share.used()).unwrap_err().owner, Owner::Disk);
        share.take(16 * MIB, Claim::DataSeal).unwrap();
        share.give(40 * MIB);
        share.take_segment(MIB, disk - share.used()).unwrap();
        share.take_segment(MIB, u64::MAX).unwrap();
    }

    #[test]
    fn a_refused_claim_takes_nothing() {
        let (space, share) = space(MIB, MIB);
        share.take(2 * MIB, Claim::Owed).unwrap_err();
        share.take(u64::MAX, Claim::Owed).unwrap_err();
        assert_eq!((space.used(), share.used()), (0, 0));
    }

    #[test]
    fn what_an_open_finds_counts_even_above_the_limit() {
        let (space, share) = space(MIB, MIB);
        share.occupy(3 * MIB);
        assert_eq!(space.used(), 3 * MIB);
        share.take(1, Claim::Owed).unwrap_err();
        share.give(3 * MIB);
        share.take(1, Claim::Append).unwrap();
    }

    #[test]
    fn a_dropped_share_gives_everything_back() {
        let (space, share) = space(MIB, MIB);
        share.take(1000, Claim::Append).unwrap();
        drop(share);
        assert_eq!(space.used(), 0);
    }

    #[tokio::test]
    async fn one_who_waits_hears_of_space_given_by_another_stream_even_before_the_first_poll() {
        let (space, share) = space(MIB, MIB);
        let other = space.share(ByteSize::mib(1));
        other.take(1000, Claim::Append).unwrap();
        let mut freed = pin!(share.freed());
        let pending = poll_fn(|cx| Poll::Ready(freed.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
        let early = share.freed();
        other.give(1000);
        freed.await;
        early.await;
    }
}
