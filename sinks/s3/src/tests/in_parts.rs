//! Large objects, which go in parts: the same promises, with everything that can fail at the completion, and what can
//! fail before it.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{FaultCode, Object, Verdict};
use hydrant_kit::conformance::{ObjectWorld, StallingBlob, object};
use hydrant_kit::object_sink_conformance;
use hydrant_kit::s3::{Answer, Script, Step};

use super::scripted::Scripted;

object_sink_conformance!(Scripted::in_parts());

/// Three parts, the last of them short.
fn large(seed: u64) -> Object {
    object(0, seed, 700_000)
}

async fn bytes_of(object: &Object) -> bytes::Bytes {
    object.body.read_at(0, usize::MAX).await.unwrap()
}

/// Waits until no upload is left open.
async fn is_tidy(world: &Scripted) {
    let tidy = async {
        while world.server.open_uploads() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), tidy).await.expect("what was begun is aborted");
}

#[tokio::test]
async fn an_object_in_parts_is_whole_and_comes_with_all_that_belongs_to_it() {
    let world = Scripted::in_parts().await;
    let metadata = vec![("intended-key".to_owned(), "a/b".to_owned())];
    let object = Object { metadata, ..large(1) };
    assert_eq!(world.sink().place(&object).await, Verdict::Delivered);
    let stored = world.server.object(&object.key).unwrap();
    assert!(stored.bytes == bytes_of(&object).await && stored.writes == 1);
    for (name, value) in [
        ("content-type", Some("application/octet-stream")),
        ("content-encoding", Some("gzip")),
        ("x-amz-meta-intended-key", Some("a/b")),
    ] {
        assert_eq!(stored.header(name), value, "{name}");
    }
    assert_eq!((world.server.uploads(), world.server.open_uploads()), (1, 0));
}

#[tokio::test]
async fn whatever_fails_before_the_completion_ends_the_attempt_and_leaves_nothing() {
    let cases = [
        (Script::Answer(Answer::error(503, "SlowDown")), FaultCode::Throttled),
        (Script::Answer(Answer::error(403, "AccessDenied")), FaultCode::Forbidden),
        (Script::Answer(Answer::error(404, "NoSuchUpload")), FaultCode::Interrupted),
        (Script::Answer(Answer::error(412, "PreconditionFailed")), FaultCode::Protocol),
        (Script::Answer(Answer::status(200).body("<html>welcome")), FaultCode::Protocol),
        (Script::Answer(Answer::status(200).header("etag", "\"<a&b>\"")), FaultCode::Protocol),
        (Script::Reset, FaultCode::Interrupted),
        (Script::StoreThenReset, FaultCode::Interrupted),
        (Script::Stall, FaultCode::TimedOut),
        (Script::StoreThenAnswer(Answer::error(500, "InternalError")), FaultCode::Unavailable),
        (Script::Echo, FaultCode::Forbidden),
    ];
    for step in [Step::Begin, Step::Part] {
        for ((script, code), seed) in cases.iter().zip(1..) {
            let world = Scripted::in_parts().await;
            world.server.follow_at(step, script.clone());
            let verdict = world.sink().place(&large(seed)).await;
            assert!(
                matches!(&verdict, Verdict::Retry(fault) if fault.code == *code),
                "{step:?} {script:?}: {verdict:?}"
            );
            assert!(world.server.keys().is_empty(), "{step:?} {script:?}");
            // An upload whose id was never heard of is found by the next attempt.
            let unheard = step == Step::Begin && matches!(script, Script::StoreThenReset | Script::StoreThenAnswer(_));
            assert_eq!(world.server.open_uploads(), usize::from(unheard), "{step:?} {script:?}");
            world.server.follow(Script::Serve);
            assert_eq!(world.sink().place(&large(seed)).await, Verdict::Delivered, "{step:?} {script:?}");
            assert_eq!(world.server.open_uploads(), 0, "{step:?} {script:?}");
        }
    }
}

#[tokio::test]
async fn a_success_that_turns_out_to_be_a_failure_is_one() {
    let world = Scripted::in_parts().await;
    let document = "\n  \n<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    world.server.follow_at(Step::Complete, Script::Answer(Answer::status(200).body(document)));
    let verdict = world.sink().place(&large(1)).await;
    assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Unavailable), "{verdict:?}");
    assert_eq!(world.server.open_uploads(), 0);
}

#[tokio::test]
async fn a_conflict_is_uploaded_again_and_a_lost_answer_makes_no_second_object() {
    let conflict = Script::Answer(Answer::error(409, "ConditionalRequestConflict"));
    for script in [conflict, Script::StoreThenReset, Script::StoreThenAnswer(Answer::error(500, "InternalError"))] {
        let world = Scripted::in_parts().await;
        world.server.follow_at(Step::Complete, script.clone());
        assert!(matches!(world.sink().place(&large(1)).await, Verdict::Retry(_)), "{script:?}");
        world.server.follow(Script::Serve);
        assert_eq!(world.sink().place(&large(1)).await, Verdict::Delivered, "{script:?}");
        let stored = world.server.object(&large(1).key).unwrap();
        assert!(stored.writes == 1 && stored.bytes == bytes_of(&large(1)).await, "{script:?}");
        assert_eq!((world.server.keys().len(), world.server.open_uploads()), (1, 0), "{script:?}");
    }
}

#[tokio::test]
async fn a_dropped_attempt_aborts_what_it_began() {
    for reads in [1, 2, 4, 5] {
        let world = Scripted::in_parts().await;
        let blob = Arc::new(StallingBlob::after(reads, bytes_of(&large(1)).await));
        let stalling = Object { body: Arc::<StallingBlob>::clone(&blob), ..large(1) };
        let sink = world.sink();
        tokio::select! {
            verdict = sink.place(&stalling) => panic!("{reads} reads: {verdict:?}"),
            () = blob.stalled() => {}
        }
        is_tidy(&world).await;
        assert!(world.server.keys().is_empty());
    }
}

#[tokio::test]
async fn what_a_dead_process_left_is_aborted_by_the_next_attempt_and_nothing_else_is() {
    let world = Scripted::in_parts().await;
    for key in [&large(1).key, &large(1).key, &large(2).key] {
        world.server.leave_upload(key);
    }
    assert_eq!(world.sink().place(&large(1)).await, Verdict::Delivered);
    assert_eq!(world.server.open_uploads(), 1, "that of another key");
}

#[tokio::test]
async fn a_store_without_conditional_completions_is_found_out_by_itself() {
    let world = Scripted::in_parts().await;
    world.server.follow_at(Step::Complete, Script::Unconditional);
    let sink = world.sink();
    assert!(matches!(sink.place(&large(1)).await, Verdict::Retry(_)));
    assert_eq!(sink.place(&large(1)).await, Verdict::Delivered);
    assert_eq!(sink.place(&object(0, 2, 10)).await, Verdict::Delivered);
    let small = world.server.object(&object(0, 2, 10).key).unwrap();
    assert_eq!(small.header("if-none-match"), Some("*"), "objects in one request are another matter");
}
