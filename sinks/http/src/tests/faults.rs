//! The connection cut at each byte, records refused by the endpoint, and batches that come again.

use std::time::Duration;

use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::{Fault, FaultCode, PieceSink, Report, Verdict};
use hydrant_kit::conformance::{PieceWorld, attempt, batch};
use hydrant_kit::proxy;
use hydrant_kit::receiver::{Answer, Script, refusal};

use super::world::World;
use crate::SinkConfig;

/// Longer than the requests and the answers below: a cut behind their end cuts nothing.
const REQUEST_BYTES_MAX: u64 = 1_200;
const ANSWER_BYTES_MAX: u64 = 250;

#[tokio::test]
async fn a_request_cut_at_any_byte_arrives_once_in_the_end() {
    let world = World::firehose(Compression::None).await;
    let mut whole = 0;
    for cut in 0..REQUEST_BYTES_MAX {
        let batch = batch(&world, cut, 3, 50);
        world.proxy.choose(proxy::Fault::ResetRequestAfter(cut));
        let first = attempt(&*world.sink(), &batch).await.unwrap();
        world.proxy.choose(proxy::Fault::None);
        match &first[&0] {
            Verdict::Delivered => whole += 1,
            Verdict::Retry(fault) if fault.code == FaultCode::Interrupted => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
        arrives_once(&world, &batch, cut).await;
    }
    assert!(whole > 0 && whole < REQUEST_BYTES_MAX, "cuts behind the end cut nothing: {whole}");
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_none_and_the_request_counts_once() {
    let world = World::firehose(Compression::Gzip(GzipLevel::Fast)).await;
    let mut heard = 0;
    for cut in 0..ANSWER_BYTES_MAX {
        let batch = batch(&world, cut, 3, 50);
        world.receiver.follow(Script::TakeThenCutAfter(usize::try_from(cut).unwrap()));
        let first = attempt(&*world.sink(), &batch).await.unwrap();
        world.receiver.follow(Script::Serve);
        match &first[&0] {
            Verdict::Delivered => heard += 1,
            Verdict::Retry(Fault { code: FaultCode::Interrupted | FaultCode::Protocol, .. }) => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
        arrives_once(&world, &batch, cut).await;
        assert_eq!(world.receiver.kept(&batch.id.to_string()).unwrap().times, 2, "cut at {cut}");
    }
    assert!(heard > 0 && heard < ANSWER_BYTES_MAX, "cuts behind the end cut nothing: {heard}");
}

/// Delivers what is whole again, and looks what came of both attempts.
async fn arrives_once(world: &World, batch: &hydrant_core::batch::Batch, cut: u64) {
    let again = attempt(&*world.sink(), batch).await.unwrap();
    assert!(again.values().all(|verdict| *verdict == Verdict::Delivered), "cut at {cut}, then {again:?}");
    assert_eq!(world.arrived(batch).await.unwrap(), [1, 1, 1], "cut at {cut}");
}

#[tokio::test]
async fn a_request_that_is_too_large_over_there_becomes_dead_letters_unless_something_else_is_asked_for() {
    let world = World::firehose(Compression::None).await;
    world.receiver.follow(Script::Answer(refusal(413, "too large")));
    let batch = batch(&world, 1, 3, 50);
    let deliver = async |sink: &dyn PieceSink| sink.deliver(&batch, &sink.encode(&batch)).await;
    let Report::All(Verdict::Refused(fault)) = deliver(&*world.sink()).await else { panic!("not refused") };
    assert_eq!(fault.code, FaultCode::TooLarge);
    let waits = world.sink_with(|config| SinkConfig { dead_letter_on: Vec::new(), ..config });
    let Report::All(Verdict::Retry(fault)) = deliver(&waits).await else { panic!("not to be tried again") };
    assert_eq!(fault.code, FaultCode::TooLarge);
    let discards = world.sink_with(|config| SinkConfig { dead_letter_on: Vec::new(), discard_on: vec![413], ..config });
    let Report::All(Verdict::Discarded(fault)) = deliver(&discards).await else { panic!("not thrown away") };
    assert_eq!(fault.code, FaultCode::TooLarge);
}

#[tokio::test]
async fn what_is_said_before_the_answer_is_none() {
    let world = World::firehose(Compression::None).await;
    let sink = world.sink();
    let before = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n";
    let answer = format!("{before}HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 3\r\n\r\n");
    world.receiver.follow(Script::Answer(Answer::garbage(answer)));
    let batch = batch(&world, 1, 3, 50);
    let report = sink.deliver(&batch, &sink.encode(&batch)).await;
    let Report::All(Verdict::Retry(fault)) = report else { panic!("{report:?}") };
    assert_eq!((fault.code, fault.retry_after), (FaultCode::Unavailable, Some(Duration::from_secs(3))));
}
