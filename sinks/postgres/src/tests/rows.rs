//! What arrives: any bytes as they were, columns by their types, one row for a key; and what is kept beside the rows.

use hydrant_core::{FaultCode, PieceSink as _, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::password;
use super::world::{Ground, attempt, deliver, variable};
use crate::{PostgresSink, TlsMode};

/// Values in hexadecimal, as `psql` prints them.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(digit.into(), 16).unwrap())
        .collect()
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn any_bytes_and_any_text_are_read_back_as_they_were() {
    let ground = Ground::new("number bigserial, data bytea, words text").await;
    let all: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte; 3]).chain([(0..=255).collect(), vec![]]).collect();
    let bytea = ground.config_with(&json!({ "row": { "raw": { "type": "bytea" } } }));
    assert_eq!(deliver(&ground.sink(&bytea), ground.batch(1, &all)).await, []);
    let expected: Vec<String> = all.iter().map(|record| hex(record)).collect();
    assert_eq!(
        ground.one("SELECT encode(data, 'hex') FROM events ORDER BY number").split('\n').collect::<Vec<_>>(),
        expected
    );

    let strategy = proptest::collection::vec("\\PC*|[\\t\\n\\r\\\\.N\u{1}-\u{1f}]{0,9}|[a-z\\\\\\n]{30,70}", 400);
    let mut words = strategy.new_tree(&mut TestRunner::default()).unwrap().current();
    words.extend([r"\.".to_owned(), r"\N".to_owned(), "\\".to_owned(), "\n\\.\n".to_owned(), String::new()]);
    let text = ground.config_with(&json!({ "row": { "raw": { "column": "words", "type": "text" } } }));
    assert_eq!(deliver(&ground.sink(&text), ground.batch(2, &words)).await, []);
    let strings = ground.config_with(&json!({ "row": { "columns": [{ "name": "words" }] } }));
    let records = words.iter().map(|text| json!({ "words": text }).to_string());
    assert_eq!(deliver(&ground.sink(&strings), ground.batch(3, records)).await, []);
    let expected: Vec<String> = words.iter().chain(&words).map(|text| hex(text.as_bytes())).collect();
    let read = ground
        .one("SELECT encode(convert_to(words, 'UTF8'), 'hex') FROM events WHERE words IS NOT NULL ORDER BY number");
    assert_eq!(read.split('\n').collect::<Vec<_>>(), expected);
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_table_that_may_be_made_is_made_once_by_many() {
    let ground = Ground::new("unused text").await;
    let config = ground.config_with(&json!({
        "table": format!("{}.made", ground.name), "create_table": true, "connections": 8, "row": { "columns": [
            { "name": "id", "type": "bigint" }, { "name": "tag", "type": "varchar(9)", "default": "none" },
            { "name": "list", "type": "jsonb", "from": "$.a.list" }, { "name": "n", "type": "numeric(10,2)", "null_if": ["-"] },
        ] },
    }));
    let sink = std::sync::Arc::new(ground.sink(&config));
    let mut attempts = tokio::task::JoinSet::new();
    for seed in 0..8 {
        let (sink, batch) = (
            std::sync::Arc::clone(&sink),
            ground.batch(seed, [format!(r#"{{"id":{seed},"a":{{"list":[1]}},"n":"-"}}"#)]),
        );
        attempts.spawn(async move { deliver(&*sink, batch).await });
    }
    while let Some(refused) = attempts.join_next().await {
        assert_eq!(refused.unwrap(), []);
    }
    assert_eq!(ground.one("SELECT sum(id), min(tag), max(list::text), count(n) FROM made"), "28|none|[1]|0");
    assert_eq!(ground.one("SELECT count(*) FROM hydrant_guards"), "8");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn an_upsert_keeps_the_last_row_of_a_key_or_the_newest() {
    let ground = Ground::new("id bigint PRIMARY KEY, v text, at integer CHECK (at >= 0)").await;
    let row = json!({ "columns": [{ "name": "id" , "type": "bigint" }, { "name": "v" }, { "name": "at", "type": "integer" }] });
    let last = ground.sink(&ground.config_with(&json!({ "row": row, "upsert": { "key": ["id"] } })));
    let newest =
        ground.sink(&ground.config_with(&json!({ "row": row, "upsert": { "key": ["id"], "newer_by": "at" } })));
    let record = |id: u32, v: &str, at: i32| json!({ "id": id, "v": v, "at": at }).to_string();
    let all = || ground.one("SELECT id, v, at FROM events ORDER BY id");

    let first = ground.batch(1, [record(1, "a", 5), record(2, "b", 5), record(1, "c", 4)]);
    assert_eq!(deliver(&last, first.clone()).await, []);
    assert_eq!(all(), "1|c|4\n2|b|5");
    let second = ground.batch(2, [record(1, "d", 3), record(2, "e", 9), record(2, "f", 7), record(3, "g", 0)]);
    assert_eq!(deliver(&newest, second).await, []);
    assert_eq!(all(), "1|c|4\n2|e|9\n3|g|0");
    assert_eq!(deliver(&last, first).await, [], "a batch that comes again");
    assert_eq!(all(), "1|c|4\n2|e|9\n3|g|0", "changes nothing");

    let poison =
        ground.batch(3, [record(4, "h", 1), record(5, "i", -1), r#"{"id":"x"}"#.to_owned(), record(6, "j", 1)]);
    let refused = deliver(&last, poison).await;
    let codes: Vec<_> = refused.iter().map(|(ordinal, message)| (*ordinal, &message[..5])).collect();
    assert_eq!(codes, [(1, "23514"), (2, "22P02")]);
    assert_eq!(ground.one("SELECT count(*) FROM events"), "5");
}

const DAY_MS: u64 = 24 * 3_600 * 1_000;

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn guards_of_settled_batches_go_after_a_day_and_no_others() {
    let ground = Ground::new("data jsonb").await;
    let sink = ground.sink(&ground.config());
    let stranger = PostgresSink::new(&ground.config(), "another lane", &password(super::world::PASSWORD)).unwrap();
    let sealed = |seed: u64, at: u64| {
        let mut batch = ground.batch(seed, ["{}"]);
        batch.sealed_at = Timestamp::from_millis(at);
        batch
    };
    let (old, now) = (1_790_000_000_000, 1_790_000_000_000 + 3 * DAY_MS);
    for (sink, seed, at) in [(&sink, 1, old), (&sink, 2, old), (&stranger, 3, old), (&sink, 4, now)] {
        assert_eq!(deliver(sink, sealed(seed, at)).await, []);
    }
    assert_eq!(deliver(&sink, sealed(5, now)).await, []);
    assert_eq!(ground.one("SELECT count(*) FROM hydrant_guards"), "5", "nobody has said that any may go");
    let first = sealed(1, old).id;
    ground.one(&format!("UPDATE hydrant_guards SET delivered_at = now() - interval '2 days' WHERE batch <> '{first}'"));
    sink.forget_sealed_before(Timestamp::from_millis(now));
    assert_eq!(deliver(&sink, sealed(6, now)).await, []);
    let left = ground.one("SELECT count(*) FILTER (WHERE origin = 'another lane'), count(*) FROM hydrant_guards");
    assert_eq!(left, "1|5", "one of a day and two is gone: not the young one, the stranger's, or those sealed later");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_connection_is_used_again_and_replaced_when_it_is_gone() {
    let ground = Ground::new("data jsonb").await;
    let sink = ground.sink(&ground.config());
    for seed in 0..5 {
        assert_eq!(attempt(&sink, &ground.batch(seed, ["{}"])).await.delivered, [0]);
    }
    assert_eq!(ground.proxy.opened(), 1);
    let name = &ground.name;
    let ended = ground.one(&format!(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = '{name}' AND application_name = 'hydrant'"
    ));
    assert_eq!(ended, "1");
    sink.pool.sees_an_end().await;
    assert_eq!(attempt(&sink, &ground.batch(9, ["{}"])).await.delivered, [0], "it was seen to be gone");
    assert_eq!(ground.proxy.opened(), 2);
}

/// Durable when it says so, whatever the role's defaults are.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_commit_waits_for_the_disk_even_where_that_is_switched_off() {
    let ground = Ground::new("data jsonb, seen text DEFAULT current_setting('synchronous_commit')").await;
    let name = &ground.name;
    for (setting, seen) in [("off", "on"), ("remote_apply", "remote_apply")] {
        ground.one(&format!("ALTER ROLE {name} SET synchronous_commit = {setting}; TRUNCATE events; SELECT 1"));
        assert_eq!(deliver(&ground.sink(&ground.config()), ground.batch(seen.len() as u64, ["{}"])).await, []);
        assert_eq!(ground.one("SELECT seen FROM events"), seen);
    }
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn connections_are_encrypted_and_the_server_is_known_by_its_authority() {
    let ground = Ground::new("data jsonb").await;
    let ca = variable("HYDRANT_TEST_S3_TLS_CA");
    let cases = [
        (json!({ "tls": "disable" }), Some("f")),
        (json!({ "tls": "require" }), Some("t")),
        (json!({ "tls": "verify_full", "ca_file": ca }), Some("t")),
        (json!({ "tls": "verify_full" }), None),
        (json!({ "tls": "verify_full", "ca_file": ca, "host": "localhost" }), None),
    ];
    for ((change, encrypted), seed) in cases.into_iter().zip(1..) {
        let config = ground.config_with(&change);
        let sink = ground.sink(&config);
        let said = attempt(&sink, &ground.batch(seed, ["{}"])).await;
        let Some(encrypted) = encrypted else {
            assert!(said.again.iter().all(|(_, fault)| fault.code == FaultCode::Unreachable), "{change}: {said:?}");
            continue;
        };
        assert_eq!(said.delivered, [0], "{change}: {said:?}");
        let name = &ground.name;
        let seen = ground.one(&format!(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{name}' AND application_name = 'hydrant'"
        ));
        assert_eq!(seen, encrypted, "{change}");
    }
    assert_eq!(ground.config().tls_mode(), TlsMode::Disable, "the server of the tests is on this machine");
}
