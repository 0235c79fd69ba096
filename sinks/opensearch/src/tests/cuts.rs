//! The connection is cut after byte k of a request, and after byte k of its answer, for all k: each document is there
//! once in the end, and nothing is taken for delivered that is not there.

use hydrant_core::Verdict;
use hydrant_core::batch::Batch;
use hydrant_kit::conformance::{PieceWorld, attempt, batch};
use hydrant_kit::proxy::Fault;

use super::owed;
use super::scripted::Scripted;
use crate::OpenSearchSink;

/// The scripted world, with a sink for each kind of connection: one that was opened under a fault keeps it.
struct Cuts {
    world: Scripted,
    cut: OpenSearchSink,
    whole: OpenSearchSink,
}

impl Cuts {
    async fn start() -> Self {
        let world = Scripted::start().await;
        Self { cut: world.new_sink(), whole: world.new_sink(), world }
    }

    /// One attempt under `fault` and one without. Says whether the first one ended as if nothing had been cut.
    async fn is_whole(&self, fault: Fault, batch: &Batch) -> bool {
        self.world.proxy.choose(fault);
        let first = attempt(&self.cut, batch).await.unwrap();
        let arrived = self.world.arrived(batch).await.unwrap();
        for (verdict, count) in first.values().zip(arrived) {
            assert!(count == 1 || *verdict != Verdict::Delivered, "{fault:?}: not there: {verdict:?}");
            assert!(!matches!(verdict, Verdict::Refused(_)), "{fault:?}: {verdict:?}");
        }
        self.world.proxy.choose(Fault::None);
        let mut rest = batch.clone();
        rest.pieces.retain(|(ordinal, _)| owed(&first).contains(ordinal));
        let last = attempt(&self.whole, &rest).await.unwrap();
        assert_eq!(owed(&last), [0; 0], "{fault:?}");
        let arrived = self.world.arrived(batch).await.unwrap();
        assert!(arrived.iter().all(|count| *count == 1), "{fault:?}: {arrived:?}");
        owed(&first).is_empty()
    }

    /// All cuts, from the first byte to the last. Says how many there were.
    async fn all(&self, fault: fn(u64) -> Fault) -> u64 {
        for bytes in 0.. {
            let batch = batch(&self.world, bytes, 2, 50);
            if self.is_whole(fault(bytes), &batch).await {
                return bytes;
            }
        }
        u64::MAX
    }
}

#[tokio::test]
async fn a_request_cut_anywhere_leaves_each_document_once() {
    let cuts = Cuts::start().await.all(Fault::ResetRequestAfter).await;
    assert!(cuts > 400, "a request has more than {cuts} bytes");
}

#[tokio::test]
async fn an_answer_cut_anywhere_leaves_each_document_once() {
    let cuts = Cuts::start().await.all(Fault::ResetAnswerAfter).await;
    assert!(cuts > 200, "an answer has more than {cuts} bytes");
}
