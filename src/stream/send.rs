//! Send: the whole policy of delivery, read top to bottom. Pure.
//!
//! One attempt at a batch ends in a verdict; what then happens depends on the verdict, on how long the batch has
//! been failing, and on nothing else:
//!
//! | verdict | then |
//! |---|---|
//! | delivered | settle it |
//! | retry, and `retry_for` is not over | wait with full jitter, then the same bytes again |
//! | retry, and `retry_for` is over | turn it to the dead-letter store, for good |
//! | refused, or discarded, which no store says | turn it to the dead-letter store, for good |
//! | retry or refused by the dead-letter store itself | wait, then again, for ever |
//!
//! Where each piece has its verdict, the pieces that are left when some were settled decide:
//!
//! | left | then |
//! |---|---|
//! | none | settle the batch, once those that were refused lie in a batch of dead letters |
//! | some, and others were refused or discarded | these again, without a wait: the destination answers |
//! | some, and `retry_for` is not over | wait with full jitter, then these again |
//! | some, and `retry_for` is over | all of them are refused, with the last fault |
//!
//! A destination whose last attempt failed is *failing*: it gets one attempt at a time, in turn over its batches,
//! until one succeeds. So a dead destination costs one request per wait, whatever the backlog.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hydrant_core::{BatchId, Fault, Verdict};

use super::answers::Heard;
use super::retry;
use crate::config::spec::RetryFor;

/// What is to be done after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is owed any more.
    Settle,
    /// Try the same bytes again when the wait is over.
    Again(Fault),
    /// The batch goes to the dead-letter store from now on.
    Redirect(Fault),
}

/// What is to be done with the pieces of a batch that an attempt left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There are none.
    Nothing,
    /// Try them again now.
    AtOnce,
    /// Try them again when the wait is over.
    Again(Fault),
    /// Their time is over.
    GivenUp(Fault),
}

/// How often a batch has failed at its destination, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failed attempts.
    pub failed: u32,
    /// When the first of them ended, by the monotonic clock.
    pub failing_since: Option<Duration>,
    /// Whether one of them may have stored something all the same.
    pub outcome_unknown: bool,
}

impl Tries {
    /// None so far, of a batch that was there at the start: an earlier process may have sent it and not lived to hear, or
    /// to write down, what came of it.
    pub fn of_a_batch_found() -> Self {
        Self { outcome_unknown: true, ..Self::default() }
    }

    /// Counts an attempt that ended at `now` with `verdict`, and says what follows.
    pub fn after(&mut self, verdict: Verdict, now: Duration, retry_for: RetryFor) -> Next {
        match verdict {
            Verdict::Delivered => Next::Settle,
            Verdict::Refused(fault) | Verdict::Discarded(fault) => {
                self.failed += 1;
                Next::Redirect(fault)
            }
            Verdict::Retry(fault) => {
                self.failed += 1;
                self.outcome_unknown |= fault.code.outcome_unknown();
                let since = *self.failing_since.get_or_insert(now);
                match retry_for {
                    RetryFor::AtMost(limit) if now.saturating_sub(since) >= limit => Next::Redirect(fault),
                    RetryFor::AtMost(_) | RetryFor::Forever => Next::Again(fault),
                }
            }
        }
    }

    /// Counts an attempt at separate pieces that ended at `now` with these answers, and says what follows for those that
    /// it left.
    pub fn after_answers(&mut self, heard: &Heard, now: Duration, retry_for: RetryFor) -> Rest {
        let Some(fault) = heard.left.clone() else { return Rest::Nothing };
        if !heard.refused.is_empty() || !heard.discarded.is_empty() {
            return Rest::AtOnce;
        }
        match self.after(Verdict::Retry(fault.clone()), now, retry_for) {
            Next::Redirect(fault) => Rest::GivenUp(fault),
            Next::Again(_) | Next::Settle => Rest::Again(fault),
        }
    }
}

/// The turns of one destination's batches: which may be tried, and when.
#[derive(Debug, Default)]
pub struct Turns {
    ready: VecDeque<BatchId>,
    waiting: BTreeMap<(Duration, u64), BatchId>,
    drawn: u64,
    in_flight: usize,
    failures: u32,
    failing_since: Option<Duration>,
    not_before: Duration,
}

impl Turns {
    /// Adds a batch at the end of the line.
    pub fn add(&mut self, batch: BatchId) {
        self.ready.push_back(batch);
    }

    /// Takes the next batch to be tried at `now`, if one may be: at most `most` at once, one while failing.
    pub fn next(&mut self, now: Duration, most: usize) -> Option<BatchId> {
        self.next_of(now, most, |_| true)
    }

    /// The same, of the batches that are `wanted`.
    pub fn next_of(&mut self, now: Duration, most: usize, wanted: impl Fn(&BatchId) -> bool) -> Option<BatchId> {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= now
        {
            self.ready.push_back(entry.remove());
        }
        let most = if self.is_failing() { 1 } else { most };
        if self.in_flight >= most || now < self.not_before {
            return None;
        }
        let at = self.ready.iter().position(wanted)?;
        let batch = self.ready.remove(at)?;
        self.in_flight += 1;
        Some(batch)
    }

    /// When [`next`](Self::next) might have something that it does not have now, if only time is missing.
    pub fn wake_at(&self, most: usize) -> Option<Duration> {
        let most = if self.is_failing() { 1 } else { most };
        if self.in_flight >= most {
            return None;
        }
        let first = if self.ready.is_empty() {
            self.waiting.first_key_value().map(|((due, _), _)| *due)?
        } else {
            Duration::ZERO
        };
        Some(first.max(self.not_before))
    }

    /// An attempt succeeded, or ended the batch's time here.
    pub fn ended(&mut self, success: bool) {
        self.in_flight -= 1;
        if success {
            self.failures = 0;
            self.failing_since = None;
            self.not_before = Duration::ZERO;
        }
    }

    /// An attempt at `batch` failed at `now` and is to be repeated. `fraction` is drawn evenly from `0.0..1.0`.
    pub fn again(&mut self, batch: BatchId, tries: Tries, fault: &Fault, now: Duration, fraction: f64) {
        self.ended(false);
        self.wait(batch, tries, fault, now, fraction);
    }

    /// An attempt at `batch` has [`ended`](Self::ended), and another is made after a wait from `now` on.
    pub fn wait(&mut self, batch: BatchId, tries: Tries, fault: &Fault, now: Duration, fraction: f64) {
        self.drawn += 1;
        self.waiting.insert((now + retry::wait(tries.failed, fraction, fault.retry_after), self.drawn), batch);
    }

    /// The destination failed at `now`: it is left alone for a while. Not once it has failed for longer than
    /// batches are retried at all: each then has one attempt, in turn, and goes to the dead letters.
    pub fn failed(&mut self, fault: &Fault, now: Duration, retry_for: RetryFor, fraction: f64) {
        if self.is_failing() && now < self.not_before {
            return; // it flew beside the attempt that made us leave the destination alone
        }
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let is_over = matches!(retry_for, RetryFor::AtMost(limit) if now.saturating_sub(since) >= limit);
        let wait = if is_over {
            fault.retry_after.unwrap_or_default()
        } else {
            retry::wait(self.failures, fraction, fault.retry_after)
        };
        self.not_before = now + wait.min(Duration::from_hours(1));
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Failed attempts in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when it has been failing, by the monotonic clock.
    pub fn failing_since(&self) -> Option<Duration> {
        self.failing_since
    }

    /// Whether nothing waits and nothing flies.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty() && self.in_flight == 0
    }

    /// Whether a batch sealed now could be sent at once.
    pub fn has_room(&self, most: usize) -> bool {
        !self.is_failing() && self.ready.is_empty() && self.in_flight < most
    }
}

#[cfg(test)]
mod tests {
    use hydrant_core::FaultCode;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn batch(number: u8) -> BatchId {
        BatchId::from_bytes([number; 16])
    }

    fn fault() -> Fault {
        Fault::new(FaultCode::Unavailable, "down")
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_batch_is_tried_until_its_time_is_over() {
        let mut tries = Tries::default();
        let retry_for = RetryFor::AtMost(MINUTE);
        assert_eq!(tries.after(Verdict::Retry(fault()), at(100), retry_for), Next::Again(fault()));
        assert_eq!(tries.after(Verdict::Retry(fault()), at(159), retry_for), Next::Again(fault()));
        assert_eq!(tries.after(Verdict::Retry(fault()), at(160), retry_for), Next::Redirect(fault()));
        assert_eq!(tries.after(Verdict::Delivered, at(170), retry_for), Next::Settle);
    }

    #[test]
    fn zero_means_one_attempt_and_forever_means_forever() {
        let once = RetryFor::AtMost(Duration::ZERO);
        assert_eq!(Tries::default().after(Verdict::Retry(fault()), at(5), once), Next::Redirect(fault()));
        let mut tries = Tries::default();
        for day in 0..1_000 {
            assert_eq!(tries.after(Verdict::Retry(fault()), at(day * 86_400), RetryFor::Forever), Next::Again(fault()));
        }
    }

    #[test]
    fn a_refused_batch_is_redirected_at_once() {
        for verdict in [Verdict::Refused(fault()), Verdict::Discarded(fault())] {
            assert_eq!(Tries::default().after(verdict, at(0), RetryFor::Forever), Next::Redirect(fault()));
        }
    }

    #[test]
    fn pieces_that_are_left_wait_unless_others_were_refused() {
        let left = Heard { left: Some(fault()), ..Heard::default() };
        let refused = Heard { refused: [(3, fault())].into(), ..left.clone() };
        let discarded = Heard { discarded: [(3, fault())].into(), ..left.clone() };
        let mut tries = Tries::default();
        let retry_for = RetryFor::AtMost(MINUTE);
        assert_eq!(tries.after_answers(&Heard::default(), at(0), retry_for), Rest::Nothing);
        assert_eq!(tries.after_answers(&refused, at(0), retry_for), Rest::AtOnce);
        assert_eq!(tries.after_answers(&discarded, at(0), retry_for), Rest::AtOnce);
        assert_eq!(tries, Tries::default(), "the destination does not fail");
        assert_eq!(tries.after_answers(&left, at(100), retry_for), Rest::Again(fault()));
        assert_eq!(tries.after_answers(&refused, at(200), retry_for), Rest::AtOnce);
        assert_eq!(tries.after_answers(&left, at(160), retry_for), Rest::GivenUp(fault()));
        assert_eq!((tries.failed, tries.outcome_unknown), (2, true));
    }

    #[test]
    fn a_failing_destination_gets_one_attempt_at_a_time_in_turn() {
        let mut turns = Turns::default();
        for number in 1..=3 {
            turns.add(batch(number));
        }
        let mut tries = Tries::default();
        assert_eq!(
            (turns.next(at(0), 2), turns.next(at(0), 2), turns.next(at(0), 2)),
            (Some(batch(1)), Some(batch(2)), None)
        );
        tries.after(Verdict::Retry(fault()), at(1), RetryFor::Forever);
        for number in [1, 2] {
            turns.again(batch(number), tries, &fault(), at(1), 0.5);
            turns.failed(&fault(), at(1), RetryFor::Forever, 0.5);
        }
        assert_eq!(turns.next(at(1), 2), None, "it is left alone for a while");
        assert_eq!(
            turns.wake_at(2),
            Some(Duration::from_millis(1_500)),
            "failures that flew beside each other count once"
        );
        assert_eq!(turns.next(at(2), 2), Some(batch(3)), "who has not been tried comes first");
        assert_eq!(turns.next(at(2), 2), None, "one at a time");
        turns.ended(true);
        assert_eq!((turns.next(at(2), 2), turns.next(at(2), 2)), (Some(batch(1)), Some(batch(2))), "all is well again");
    }

    #[test]
    fn a_batch_that_is_wanted_does_not_wait_for_those_that_are_not() {
        let mut turns = Turns::default();
        (1..=3).for_each(|number| turns.add(batch(number)));
        assert_eq!(turns.next_of(at(0), 4, |_| false), None);
        assert_eq!(turns.next_of(at(0), 4, |wanted| *wanted == batch(2)), Some(batch(2)));
        assert_eq!((turns.next(at(0), 4), turns.next(at(0), 4)), (Some(batch(1)), Some(batch(3))));
        turns.add(batch(4));
        assert_eq!(turns.next_of(at(0), 3, |_| true), None, "three are under way");
    }

    #[test]
    fn once_the_time_of_retries_is_over_batches_go_through_without_waiting() {
        let mut turns = Turns::default();
        let retry_for = RetryFor::AtMost(MINUTE);
        turns.failed(&fault(), at(0), retry_for, 1.0);
        assert_eq!(turns.not_before, at(1));
        turns.failed(&fault(), at(60), retry_for, 1.0);
        assert_eq!(turns.not_before, at(60));
    }

    #[test]
    fn there_is_room_only_while_nothing_waits_and_nothing_fails() {
        let mut turns = Turns::default();
        assert!(turns.has_room(1));
        turns.add(batch(1));
        assert!(!turns.has_room(1));
        turns.next(at(0), 1);
        assert!(!turns.has_room(1) && turns.has_room(2));
        turns.failed(&fault(), at(0), RetryFor::Forever, 0.0);
        assert!(!turns.has_room(2));
    }
}
