//! The connection is cut behind each single byte of an attempt, in both directions, the answer to COMMIT included; then
//! the batch is tried again. Each row is there once.

use hydrant_kit::proxy::Fault;

use super::world::{Ground, attempt, deliver};

/// How the cuts of one direction went.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Cuts, until one was so late that the attempt heard of its success.
    cuts: u64,
    /// Cuts of which the sink did not know that they came behind the commit.
    unheard: u64,
}

async fn cut(ground: &Ground, seed: u64, fault: fn(u64) -> Fault) -> Tally {
    let mut tally = Tally::default();
    for bytes in 0..10_000 {
        let records =
            [format!(r#"{{"batch":{seed},"cut":{bytes}}}"#), format!(r#"{{"batch":{seed},"cut":{bytes},"b":"\n"}}"#)];
        let batch = ground.batch(seed * 100_000 + bytes, records);
        ground.proxy.choose(fault(bytes));
        let said = attempt(&ground.sink(&ground.config()), &batch).await;
        assert!(said.refused.is_empty(), "cut at {bytes}: {said:?}");
        if !said.delivered.is_empty() {
            return tally;
        }
        tally.cuts += 1;
        ground.proxy.choose(Fault::None);
        let refused = deliver(&ground.sink(&ground.config()), batch).await;
        assert_eq!(refused, [], "cut at {bytes}");
    }
    panic!("an attempt needs more than 10,000 bytes");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_cut_behind_any_byte_leaves_each_row_once() {
    let ground = Ground::new("data jsonb").await;
    // Makes the guard table, so that all attempts are alike.
    assert_eq!(deliver(&ground.sink(&ground.config()), ground.batch(1, ["{}"])).await, []);
    let requests = cut(&ground, 2, Fault::ResetRequestAfter).await;
    let answers = cut(&ground, 3, Fault::ResetAnswerAfter).await;
    println!("cut behind {} bytes of requests and {} bytes of answers", requests.cuts, answers.cuts);
    let rows = ground
        .one("SELECT data->>'batch', count(*), count(DISTINCT data) FROM events GROUP BY 1 ORDER BY 1 NULLS LAST");
    let expected = [(2, requests.cuts), (3, answers.cuts)].map(|(batch, cuts)| {
        let rows = 2 * (cuts + 1);
        format!("{batch}|{rows}|{rows}\n")
    });
    assert_eq!(rows, expected.concat() + "|1|1");
    assert!(requests.cuts > 1_000 && answers.cuts > 500, "{requests:?} {answers:?}");
}
