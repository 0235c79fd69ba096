//! Rows that the table does not take, among many that it does: exactly those are refused, each with PostgreSQL's own words
//! and without a byte of the record, and all others arrive.

use hydrant_core::{FaultCode, PieceSink, Verdict};
use serde_json::json;
use tokio::time::Instant;

use super::world::{Ground, Owed as _, attempt, deliver};

/// Stands in each bad value.
const CANARY: &str = "canary";

const TYPED: &str = "id bigint PRIMARY KEY, small smallint NOT NULL, at timestamptz, short varchar(8), \
                     even integer CONSTRAINT is_even CHECK (even % 2 = 0), doc jsonb, mood mood";

/// One row in a hundred is bad, in each way in turn.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn each_kind_of_poison_is_refused_and_all_else_arrives() {
    let ground = Ground::new("id bigint").await;
    let name = &ground.name;
    ground
        .psql(&format!(
            "SET search_path = {name}; SET ROLE {name}; CREATE TYPE mood AS ENUM ('good'); DROP TABLE events; \
             CREATE TABLE events ({TYPED}); INSERT INTO events VALUES (7, 1);"
        ))
        .unwrap();
    let column = |name: &str, r#type: &str| json!({ "name": name, "type": r#type });
    let config = ground.config_with(&json!({ "row": { "columns": [
        column("id", "bigint"), column("small", "smallint"), column("at", "timestamptz"), column("short", "varchar(8)"),
        column("even", "integer"), column("doc", "jsonb"), column("mood", "mood"),
    ] } }));
    let poison = [
        (json!({ "id": CANARY }), "22P02 invalid input syntax for type bigint: \"…\", column \"id\""),
        (json!({ "id": 1e30 }), "22P02 invalid input syntax for type bigint: \"…\", column \"id\""),
        (json!({ "id": 1, "small": 40_000 }), "22003 value \"…\" is out of range for type smallint, column \"small\""),
        (
            json!({ "id": 2 }),
            "23502 null value in column \"small\" of relation \"events\" violates not-null constraint",
        ),
        (
            json!({ "id": 3, "small": 1, "at": CANARY }),
            "22007 invalid input syntax for type timestamp with time zone: \"…\", column \"at\"",
        ),
        (
            json!({ "id": 4, "small": 1, "short": "canary canary" }),
            "22001 value too long for type character varying(8), column \"short\"",
        ),
        (
            json!({ "id": 5, "small": 1, "even": 3, "short": CANARY }),
            "23514 new row for relation \"events\" violates check constraint \"is_even\"",
        ),
        (
            json!({ "id": 7, "small": 1, "short": CANARY }),
            "23505 duplicate key value violates unique constraint \"events_pkey\"",
        ),
        (
            json!({ "id": 1000, "small": 2, "short": CANARY }),
            "23505 duplicate key value violates unique constraint \"events_pkey\"",
        ),
        (
            json!({ "id": 6, "small": 1, "mood": CANARY }),
            "22P02 invalid input value for enum mood: \"…\", column \"mood\"",
        ),
        (
            json!({ "id": 8, "small": 1, "doc": "canary\u{0}" }),
            "22P05 unsupported Unicode escape sequence, column \"doc\"",
        ),
        (
            json!({ "id": 9, "small": 1, "short": "\u{0}" }),
            "22P05 unsupported Unicode escape sequence, column \"short\"",
        ),
    ];
    let mut records: Vec<Vec<u8>> =
        (0..1_200).map(|id| json!({ "id": 1000 + id, "small": 1, "even": 2 * id }).to_string().into_bytes()).collect();
    let mut expected = Vec::new();
    for (number, (record, message)) in poison.iter().enumerate() {
        let at = 100 * number + 17;
        records.insert(at, record.to_string().into_bytes());
        expected.push((u32::try_from(at).unwrap(), (*message).to_owned()));
    }
    records.push(b"\xff".to_vec());
    expected.push((1_212, "22021 invalid byte sequence for encoding \"UTF8\"".to_owned()));

    let sink = ground.sink(&config);
    let mut owed = ground.batch(1, &records);
    let encoder = attempt(&sink, &owed).await;
    owed.keep(&encoder.again);
    let table = attempt(&sink, &owed).await;
    owed.keep(&table.again);
    let mut refused = [encoder.refused, table.refused].concat();
    refused.sort_unstable();
    assert_eq!(refused, expected, "{:?}", table.again.first());
    assert_eq!(owed.pieces.len(), 1_200);
    assert_eq!(ground.one("SELECT count(*) FROM events"), "1", "nothing is committed beside what is refused");
    assert_eq!(ground.one("SELECT count(*) FROM hydrant_guards"), "0");
    assert_eq!(attempt(&sink, &owed).await.delivered.len(), 1_200);
    assert_eq!(ground.one("SELECT count(*), sum(even), count(DISTINCT id) FROM events"), "1201|1438800|1201");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_batch_that_is_all_bad_ends_in_bounded_time() {
    let ground = Ground::new("data jsonb").await;
    let sink = ground.sink(&ground.config());
    let count = sink.limits().pieces_max.min(2_000); // for all that it takes: five times as long
    let batch = ground.batch(1, (0..count).map(|number| format!("{CANARY} {number}")));
    let start = Instant::now();
    let refused = deliver(&sink, batch).await;
    println!("{count} records, all bad: {:.1?}", start.elapsed());
    assert_eq!(refused.len(), usize::try_from(count).unwrap());
    assert!(
        refused.iter().all(|(_, message)| message.starts_with("22P02") && !message.contains(CANARY)),
        "{:?}",
        refused[0]
    );
    assert_eq!(ground.one("SELECT count(*) FROM events"), "0");
}

/// Every other row is bad in a way of which PostgreSQL does not name the row.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn rows_that_are_not_named_are_found_by_halves() {
    let ground = Ground::new(
        "data jsonb, id integer GENERATED ALWAYS AS ((data->>'id')::integer) STORED, \
                              UNIQUE (id) DEFERRABLE INITIALLY DEFERRED",
    )
    .await;
    let batch = ground.batch(1, (0..200).map(|number| format!(r#"{{"id":{}}}"#, number / 2)));
    let refused = deliver(&ground.sink(&ground.config()), batch).await;
    let ordinals: Vec<u32> = refused.iter().map(|(ordinal, _)| *ordinal).collect();
    assert_eq!(ordinals, (0..100).map(|pair| 2 * pair + 1).collect::<Vec<_>>(), "the later of two");
    assert!(refused[0].1.contains("\"events_id_key\""), "{refused:?}");
    assert_eq!(ground.one("SELECT count(*), count(DISTINCT id) FROM events"), "100|100");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_trigger_may_refuse_and_its_words_are_not_shown() {
    let ground = Ground::new("data jsonb").await;
    ground.one(
        "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF NEW.data ? 'bad' THEN RAISE EXCEPTION '%', NEW.data; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER judge BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION judge(); SELECT 1",
    );
    let batch = ground.batch(1, ["{}", r#"{"bad":"canary"}"#, "{}"]);
    let refused = deliver(&ground.sink(&ground.config()), batch).await;
    assert_eq!(refused, [(1, "P0001 refused by a function of the database".to_owned())]);
    assert_eq!(ground.one("SELECT count(*) FROM events"), "2");
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_missing_partition_is_the_operator_s_to_add() {
    let ground = Ground::new("at timestamptz, data jsonb) PARTITION BY RANGE (at").await;
    let config = ground.config_with(&json!({ "row": { "columns": [
        { "name": "at", "type": "timestamptz", "from": "arrived_at" }, { "name": "data", "type": "jsonb", "from": "$" },
    ] } }));
    let (sink, batch) = (ground.sink(&config), ground.batch(1, ["{}", "[]"]));
    let said = attempt(&sink, &batch).await;
    assert!(said.again.len() == 2 && said.again[0].1.code == FaultCode::NotFound, "{said:?}");
    ground.one("CREATE TABLE rest PARTITION OF events DEFAULT; SELECT 1");
    assert_eq!(attempt(&sink, &batch).await.delivered, [0, 1]);
    assert_eq!(
        ground.one("SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM rest LIMIT 1"),
        "2026-09-21 14:13:20"
    );
}

/// The search itself may end the attempt: an operator's fault in the middle of it blames nobody.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn what_else_goes_wrong_during_a_search_refuses_nothing() {
    let ground = Ground::new("data jsonb").await;
    ground.one(
        "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.data ? 'full' THEN RAISE EXCEPTION 'x' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER judge BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION judge(); SELECT 1",
    );
    let batch = ground.batch(1, ["{}", "canary", r#"{"full":1}"#]);
    let report = ground.sink(&ground.config());
    let encoded = report.encode(&batch);
    let hydrant_core::Report::All(Verdict::Retry(fault)) = report.deliver(&batch, &encoded).await else {
        panic!("one verdict for all");
    };
    assert_eq!(fault.code, FaultCode::Full);
}
