//! The conformance suite: one check for each promise that a sink makes, written once and run against each sink.
//!
//! In: a world, which is a destination with its sink, and ways to break it. Out: nothing, or the promise that was
//! broken. The promises are numbered as in `hydrant_core::sink`; [`object_sink_conformance!`](crate::object_sink_conformance)
//! and [`piece_sink_conformance!`](crate::piece_sink_conformance) make a test of each. Promise 6 is about batches of which
//! a part is refused, which object sinks do not have.
//!
//! The checks themselves are tested against sinks in memory with one flaw for each promise.

mod blobs;
mod breakage;
mod objects;
mod pieces;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hydrant_core::Verdict;

pub use blobs::{MemoryBlob, StallingBlob, UnreadableBlob};
pub use breakage::{Breakage, Effect};
pub use objects::{
    ObjectWorld, answers_for_every_outcome, confirms_before_it_says_so, folder, is_dropped_without_harm, keeps_secrets,
    makes_one_attempt, object, refuses_only_faults_of_the_record, repeats_without_effect, works_many_at_once,
};
pub use pieces::{
    PieceWorld, answers_for_every_piece, attempt, batch, commits_all_or_nothing, confirms_each_piece_before_it_says_so,
    delivers_twice_as_once, drops_an_attempt_without_harm, keeps_secrets_of_pieces, makes_one_attempt_at_a_batch, of,
    refuses_only_faults_of_a_piece, works_on_many_batches_at_once,
};

/// Found in all that the checks deliver: never to be seen in a fault.
pub const RECORD_CANARY: &str = "canary-of-a-record";

/// Longest time that one attempt may take in a world of tests.
const ATTEMPT_MAX: Duration = Duration::from_mins(1);

/// Longest time of a check as a whole.
const CHECK_MAX: Duration = Duration::from_mins(3);

async fn within(check: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(CHECK_MAX, check).await.with_context(|| format!("the check took longer than {CHECK_MAX:?}"))?
}

/// Promise 9 of one verdict.
fn shows_nothing_of(secrets: &[String], name: &str, verdict: &Verdict) -> Result<()> {
    let (Verdict::Retry(fault) | Verdict::Refused(fault) | Verdict::Discarded(fault)) = verdict else { return Ok(()) };
    let shown = format!("{fault} {fault:?}");
    match secrets.iter().find(|secret| shown.contains(secret.as_str())) {
        Some(secret) => bail!("promise 9, {name}: {shown:?} shows {secret:?}"),
        None => Ok(()),
    }
}

/// Makes a test of each promise of an object sink: `object_sink_conformance!(world)`, or with attributes for each
/// test, `object_sink_conformance!(world, #[ignore = "reason"])`. The world is an expression whose value, once
/// awaited, is an [`ObjectWorld`](crate::conformance::ObjectWorld); each test makes its own.
#[macro_export]
macro_rules! object_sink_conformance {
    ($world:expr $(, $($attribute:tt)*)?) => {
        $crate::sink_conformance! {@each $world, [$($($attribute)*)?],
            promise_1_one_call_is_one_attempt: makes_one_attempt,
            promise_2_an_unknown_outcome_is_tried_again: answers_for_every_outcome,
            promise_3_what_is_delivered_is_there: confirms_before_it_says_so,
            promise_4_a_dropped_attempt_leaves_nothing: is_dropped_without_harm,
            promise_5_twice_is_once: repeats_without_effect,
            promise_7_many_attempts_at_once: works_many_at_once,
            promise_8_only_faults_of_a_record_are_refused: refuses_only_faults_of_the_record,
            promise_9_faults_carry_no_secrets: keeps_secrets,
        }
    };
}

/// Makes a test of each promise of a piece sink, as [`object_sink_conformance!`](crate::object_sink_conformance) does for
/// object sinks: the world is a [`PieceWorld`](crate::conformance::PieceWorld).
#[macro_export]
macro_rules! piece_sink_conformance {
    ($world:expr $(, $($attribute:tt)*)?) => {
        $crate::sink_conformance! {@each $world, [$($($attribute)*)?],
            promise_1_one_call_is_one_attempt: makes_one_attempt_at_a_batch,
            promise_2_each_piece_has_its_verdict: answers_for_every_piece,
            promise_3_what_is_delivered_is_there: confirms_each_piece_before_it_says_so,
            promise_4_a_dropped_attempt_leaves_nothing: drops_an_attempt_without_harm,
            promise_5_twice_is_once: delivers_twice_as_once,
            promise_6_all_or_nothing_or_as_it_says: commits_all_or_nothing,
            promise_7_many_attempts_at_once: works_on_many_batches_at_once,
            promise_8_only_faults_of_a_record_are_refused: refuses_only_faults_of_a_piece,
            promise_9_faults_carry_no_secrets: keeps_secrets_of_pieces,
        }
    };
}

/// A test for each name and check. Not for use from outside.
#[doc(hidden)]
#[macro_export]
macro_rules! sink_conformance {
    (@each $world:expr, [$($attribute:tt)*],) => {};
    (@each $world:expr, [$($attribute:tt)*], $name:ident: $check:ident, $($rest:tt)*) => {
        #[tokio::test]
        $($attribute)*
        async fn $name() {
            $crate::conformance::$check(&$world.await).await.unwrap();
        }
        $crate::sink_conformance! {@each $world, [$($attribute)*], $($rest)*}
    };
}

#[cfg(test)]
mod tests;
