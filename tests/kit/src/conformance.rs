//! The conformance suite: one check for each promise that a sink makes, written once and run against each sink.
//!
//! In: a world, which is a destination with its sink, and ways to break it. Out: nothing, or the promise that was
//! broken. The promises are numbered as in `hydrant_core::sink`; [`object_sink_conformance!`](crate::object_sink_conformance) makes a test of
//! each. Promise 6 is about transactions, which object sinks do not have.
//!
//! The checks themselves are tested against a sink in memory with one flaw for each promise.

mod blobs;
mod objects;

pub use blobs::{MemoryBlob, StallingBlob, UnreadableBlob};
pub use objects::{
    Breakage, Effect, ObjectWorld, answers_for_every_outcome, confirms_before_it_says_so, folder,
    is_dropped_without_harm, keeps_secrets, makes_one_attempt, object, refuses_only_faults_of_the_record,
    repeats_without_effect, works_many_at_once,
};

/// Makes a test of each promise of an object sink: `object_sink_conformance!(world)`, or with attributes for each
/// test, `object_sink_conformance!(world, #[ignore = "reason"])`. The world is an expression whose value, once
/// awaited, is an [`ObjectWorld`](crate::conformance::ObjectWorld); each test makes its own.
#[macro_export]
macro_rules! object_sink_conformance {
    (@each $world:expr, [$($attribute:tt)*],) => {};
    (@each $world:expr, [$($attribute:tt)*], $name:ident: $check:ident, $($rest:tt)*) => {
        #[tokio::test]
        $($attribute)*
        async fn $name() {
            $crate::conformance::$check(&$world.await).await.unwrap();
        }
        $crate::object_sink_conformance! {@each $world, [$($attribute)*], $($rest)*}
    };
    ($world:expr $(, $($attribute:tt)*)?) => {
        $crate::object_sink_conformance! {@each $world, [$($($attribute)*)?],
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

#[cfg(test)]
mod tests;
