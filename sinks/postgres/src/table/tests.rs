//! Statements, word for word.

use hydrant_core::BatchId;

use super::*;
use crate::config::{Column, Row};

fn config(table: &str) -> SinkConfig {
    serde_json::from_value(serde_json::json!({ "host": "h", "database": "d", "user": "u", "table": table })).unwrap()
}

fn columns() -> Row {
    let column =
        |name: &str, r#type: &str| Column { name: name.to_owned(), r#type: r#type.to_owned(), ..Column::default() };
    Row::Columns(vec![column("id", "bigint"), column("V", "text"), column("at", "timestamptz")])
}

fn upserting(newer_by: Option<&str>) -> Statements {
    let upsert = Upsert { key: vec!["id".to_owned()], newer_by: newer_by.map(str::to_owned) };
    Statements::new(&SinkConfig { row: columns(), upsert: Some(upsert), create_table: true, ..config("t") }, "o")
}

#[test]
fn a_batch_is_a_guard_and_a_copy() {
    let statements = Statements::new(&config("app.events"), "web'\\1");
    let batch = Batch {
        id: BatchId::from_bytes([1; 16]),
        sealed_at: Timestamp::from_millis(1_790_000_000_120),
        pieces: Vec::new(),
    };
    assert_eq!(
        statements.begin(&batch),
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 60000; SET LOCAL lock_timeout = 10000; \
         SET LOCAL idle_in_transaction_session_timeout = 60000; \
         SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
         SET CONSTRAINTS ALL IMMEDIATE; SELECT E'\"app\".\"events\"'::regclass; \
         INSERT INTO \"app\".\"hydrant_guards\" (batch, origin, sealed_at) VALUES \
         ('01010101-0101-0101-0101-010101010101', E'web''\\\\1', to_timestamp(1790000000.120)) ON CONFLICT DO NOTHING; \
         SAVEPOINT hydrant_rows",
    );
    assert_eq!(statements.copy, "COPY \"app\".\"events\" (\"data\") FROM STDIN (FORMAT text, ENCODING 'UTF8')");
    assert_eq!((statements.filled.as_str(), &statements.merge), ("events", &None));
    assert_eq!(statements.commit, "RELEASE SAVEPOINT hydrant_rows; SET LOCAL statement_timeout = 0; COMMIT");
    assert!(!statements.create.contains("\"events\""), "it may not be made: {}", statements.create);
    assert_eq!(
        statements.forget(Timestamp::from_millis(5)),
        "DELETE FROM \"app\".\"hydrant_guards\" WHERE origin = E'web''\\\\1' AND sealed_at < to_timestamp(0.005) \
         AND delivered_at < now() - interval '1 day'",
    );
}

#[test]
fn an_upsert_goes_through_a_stage() {
    let statements = upserting(None);
    assert_eq!(
        statements.copy,
        "COPY \"hydrant_stage\" (\"id\", \"V\", \"at\") FROM STDIN (FORMAT text, ENCODING 'UTF8')",
    );
    assert_eq!(statements.filled, "hydrant_stage");
    assert_eq!(
        statements.merge.unwrap(),
        "INSERT INTO \"t\" AS old (\"id\", \"V\", \"at\") \
         SELECT DISTINCT ON (\"id\") \"id\", \"V\", \"at\" FROM hydrant_stage ORDER BY \"id\", ctid DESC \
         ON CONFLICT (\"id\") DO UPDATE SET \"V\" = EXCLUDED.\"V\", \"at\" = EXCLUDED.\"at\"; DELETE FROM hydrant_stage",
    );
    let newer = upserting(Some("at")).merge.unwrap();
    assert!(newer.contains("ORDER BY \"id\", \"at\" DESC NULLS LAST, ctid DESC"), "{newer}");
    assert!(newer.contains("WHERE old.\"at\" IS NULL OR old.\"at\" < EXCLUDED.\"at\";"), "{newer}");
}

#[test]
fn a_table_is_made_as_its_columns_are() {
    let create = upserting(None).create;
    assert!(
        create.contains(
            "CREATE TABLE IF NOT EXISTS \"t\" (\"id\" bigint, \"V\" text, \"at\" timestamptz, PRIMARY KEY (\"id\"));"
        ),
        "{create}",
    );
}

#[test]
fn a_name_is_a_name_whatever_it_holds() {
    let statements = Statements::new(&config("a\"b.c; DROP"), "o");
    assert_eq!(statements.copy, "COPY \"a\"\"b\".\"c; DROP\" (\"data\") FROM STDIN (FORMAT text, ENCODING 'UTF8')");
}
