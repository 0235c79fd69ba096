//! What users write: problems with their place, defaults, and what a build makes of it.

use hydrant_core::PieceSink;
use hydrant_core::problem::{DocPath, Problems};
use serde_json::{Value, json};

use super::{Known, password};
use crate::{PostgresSink, SinkConfig, TlsMode};

fn config(change: &Value) -> SinkConfig {
    let mut config = json!({
        "host": "db.example.net", "database": "events", "user": "hydrant", "table": "app.events",
        "password": { "env": "PASSWORD" },
    });
    for (key, value) in change.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn problems(change: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    config(change).validate(&DocPath::root().field("postgres"), &password("hunter2"), &mut problems);
    problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect()
}

fn columns(columns: &Value) -> Value {
    json!({ "row": { "columns": columns } })
}

#[test]
fn each_problem_is_told_with_its_place() {
    let nothing: [&str; 0] = [];
    assert_eq!(problems(&json!({})), nothing);
    let cases = [
        (json!({ "host": "postgres://db" }), "postgres.host: `postgres://db` is not the name or address of a server"),
        (json!({ "port": 0 }), "postgres.port: 0 is not a port"),
        (json!({ "database": "" }), "postgres.database: database is empty or holds the character 0"),
        (json!({ "password": { "env": "OTHER" } }), "postgres.password: environment variable OTHER is not set"),
        (
            json!({ "tls": "require", "ca_file": "ca.pem" }),
            "postgres.ca_file: ca_file has no effect without verification",
        ),
        (json!({ "table": "a.b.c" }), "postgres.table: `a.b.c` is not the name of a table"),
        (json!({ "table": "" }), "postgres.table: `` is not the name of a table"),
        (json!({ "guard_table": "app.events" }), "postgres.guard_table: guard_table and table are the same"),
        (json!({ "connections": 0 }), "postgres.connections: 0 is out of range"),
        (json!({ "statement_timeout": "2h" }), "postgres.statement_timeout: 2h is out of range"),
        (json!({ "row": { "raw": { "type": "xml" } } }), "postgres.row.raw.type: `xml` cannot hold any record"),
        (columns(&json!([])), "postgres.row.columns: 0 columns"),
        (columns(&json!([{ "name": "" }])), "postgres.row.columns[0].name: `` is not the name of a column"),
        (
            columns(&json!([{ "name": "a" }, { "name": "a" }])),
            "postgres.row.columns[1].name: column `a` is there twice",
        ),
        (
            columns(&json!([{ "name": "a", "type": "int); DROP TABLE t; --" }])),
            "postgres.row.columns[0].type: `int); DROP TABLE t; --` is not the name of a type",
        ),
        (
            columns(&json!([{ "name": "a", "from": "user.id" }])),
            "postgres.row.columns[0].from: `user.id` is not a path",
        ),
        (
            columns(&json!([{ "name": "a", "required": true, "default": "0" }])),
            "postgres.row.columns[0].required: required has no effect beside a default",
        ),
        (json!({ "upsert": { "key": [] } }), "postgres.upsert.key: key is empty"),
        (json!({ "upsert": { "key": ["id"] } }), "postgres.upsert.key[0]: `id` is not a column of row"),
    ];
    for (change, problem) in cases {
        assert_eq!(problems(&change), [problem], "{change}");
    }
    assert_eq!(problems(&json!({ "host": "", "table": "", "connections": 65 })).len(), 3, "all come at once");
}

#[test]
fn types_are_what_postgresql_calls_them() {
    for name in ["bigint", "double precision", "numeric(10, 2)", "varchar(20)", "text[]", "app.mood", "timestamptz"] {
        let nothing: [&str; 0] = [];
        assert_eq!(problems(&columns(&json!([{ "name": "a", "type": name }]))), nothing, "{name}");
    }
    for name in ["", "int;", "int)", "numeric()", "numeric(a)", "a b)", "'x'", "int -- x"] {
        assert_eq!(problems(&columns(&json!([{ "name": "a", "type": name }]))).len(), 1, "{name}");
    }
}

#[test]
fn connections_are_encrypted_and_verified_unless_the_server_is_here() {
    for (host, mode) in [
        ("localhost", TlsMode::Disable),
        ("127.0.0.1", TlsMode::Disable),
        ("::1", TlsMode::Disable),
        ("10.0.0.7", TlsMode::VerifyFull),
        ("db.example.net", TlsMode::VerifyFull),
    ] {
        assert_eq!(config(&json!({ "host": host })).tls_mode(), mode, "{host}");
    }
    assert_eq!(config(&json!({ "host": "10.0.0.7", "tls": "disable" })).tls_mode(), TlsMode::Disable);
}

#[test]
fn a_build_connects_to_nothing_and_shows_no_secret() {
    let sink = PostgresSink::new(&config(&json!({ "tls": "disable" })), "web", &password("hunter2")).unwrap();
    assert_eq!(sink.destination(), "postgres://db.example.net:5432/events/app.events");
    assert_eq!(sink.limits().attempts_in_flight_max, 4);
    let missing = PostgresSink::new(&config(&json!({})), "web", &Known::default()).map(|_| ()).unwrap_err();
    assert_eq!(missing, "environment variable PASSWORD is not set");
    let config = config(&json!({ "ca_file": "/no/such/file" }));
    assert!(PostgresSink::new(&config, "web", &password("x")).is_err());
}

#[test]
fn a_literal_password_is_refused() {
    let mut written = serde_json::to_value(config(&json!({}))).unwrap();
    written["password"] = json!("hunter2");
    let error = serde_json::from_value::<SinkConfig>(written).unwrap_err().to_string();
    assert!(error.contains("env: NAME") && !error.contains("hunter2"), "{error}");
}
