//! Dead letters as a queue: refused rows are listed, the table is mended, and they are put back, whatever crashes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::server::Server;
use crate::services::{bucket, finish, own_prefix, variable};

/// A schema of its own in PostgreSQL, asked by `psql`, which shares no code with the sink.
struct Schema(String);

impl Schema {
    /// With a table `events` whose ids are numbers.
    fn new(test: &str) -> Self {
        let schema = Self(format!("it_{test}_{}", std::process::id()));
        psql(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.events (id bigint)", schema.0));
        schema
    }

    fn ids(&self) -> Vec<String> {
        psql(&format!("SELECT id FROM {}.events ORDER BY id::text", self.0))
    }

    /// Ids may be anything from now on.
    fn mend(&self) {
        psql(&format!("ALTER TABLE {}.events ALTER COLUMN id TYPE text", self.0));
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if !thread::panicking() {
            psql(&format!("DROP SCHEMA {} CASCADE", self.0));
        }
    }
}

/// What PostgreSQL answers, a row in each line.
fn psql(statement: &str) -> Vec<String> {
    let mut psql = Command::new("psql");
    psql.args(["-h", &variable("POSTGRES_HOST"), "-p", &variable("POSTGRES_PORT"), "-U", &variable("POSTGRES_USER")]);
    psql.args(["-d", &variable("POSTGRES_DATABASE"), "-v", "ON_ERROR_STOP=1", "-XAtqc", statement]);
    psql.env("PGPASSWORD", variable("POSTGRES_PASSWORD"));
    let output = finish(&mut psql);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A stream into the table, with its dead letters in MinIO.
fn server(schema: &Schema, prefix: &str) -> Server {
    let yaml = format!(
        "stores:\n{}streams:\n  web:\n    hints: {{ size: 1MiB, interval: 0s }}\n    sink:\n      postgres:\n        host: {}\n        \
         port: {}\n        database: {}\n        user: {}\n        password: {{ env: HYDRANT_TEST_POSTGRES_PASSWORD }}\n        \
         table: {}.events\n        row: {{ columns: [{{ name: id, type: text }}] }}\n    \
         dead_letter: {{ store: spare, error_prefix: \"{prefix}\", hints: {{ size: 1MiB, interval: 1s }} }}\n",
        bucket("spare", &variable("S3_BUCKET_SPARE")),
        variable("POSTGRES_HOST"),
        variable("POSTGRES_PORT"),
        variable("POSTGRES_DATABASE"),
        variable("POSTGRES_USER"),
        schema.0,
    );
    Server::start(&yaml)
}

/// Every second record is poison, as long as ids are numbers.
fn records(range: std::ops::Range<u32>) -> Vec<String> {
    let letter = |number: u32| if number.is_multiple_of(2) { "" } else { "x" };
    range.map(|number| format!("{{\"id\":\"{}{number}\"}}", letter(number))).collect()
}

/// What a command says to programs, a value in each line.
#[track_caller]
fn told(command: &mut Command) -> Vec<Value> {
    let output = finish(command.args(["--output", "json"]));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn redrive(server: &Server) -> Command {
    let mut command = server.command(&["dlq", "redrive", "web", "--data"]);
    command.arg(server.data());
    command
}

fn listed(server: &Server, words: &[&str]) -> Vec<Value> {
    let (word, more) = words.split_first().unwrap();
    told(server.command(&["dlq", word, "web", "--config", "hydrant.yaml"]).args(more))
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn refused_rows_are_listed_and_when_the_table_is_mended_each_arrives_once_whatever_is_killed() {
    let (schema, prefix) = (Schema::new("redrive"), own_prefix("redrive"));
    let mut server = server(&schema, &prefix);
    for part in 0..6 {
        let records = records(part * 500..(part + 1) * 500);
        server.put("web", &records.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    server.drain();
    assert_eq!(schema.ids().len(), 1500, "what is not poison is there");

    // Listed, by a program that needs no server.
    let all = listed(&server, &["ls", "--limit", "0"]);
    assert_eq!(all.len(), 1500);
    for letter in &all {
        assert_eq!((&letter["code"], &letter["stage"]), (&"invalid".into(), &"deliver".into()), "{letter}");
        assert!(letter["object"].as_str().unwrap().starts_with(&prefix), "{letter}");
    }
    assert_eq!(listed(&server, &["ls"]).len(), 100);
    let shown = listed(&server, &["show", "--match", "\"x17\""]);
    let [letter] = shown.as_slice() else { panic!("one was expected: {shown:?}") };
    let data = base64_simd::STANDARD.decode_to_vec(letter["data"].as_str().unwrap()).unwrap();
    assert_eq!(data, b"{\"id\":\"x17\"}");
    assert!(letter["message"].as_str().unwrap().contains("bigint"), "{letter}");
    let text = server.command(&["dlq", "ls", "web", "--config", "hydrant.yaml", "--limit", "3"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("  LINE  REFUSED") && text.contains(" deliver  invalid "), "{text}");

    // Mended, and put back by calls of which most are cut off, with the server or alone.
    assert_eq!(told(redrive(&server).arg("--dry-run"))[0]["records"], 1500);
    schema.mend();
    assert_eq!(told(redrive(&server).args(["--match", "\"x17\""]))[0]["records"], 1);
    for cut in 0..6_u64 {
        let mut command = redrive(&server);
        let mut job = command.args(["--limit", "200"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // At another moment each time; how far it comes does not matter.
        thread::sleep(Duration::from_millis(8 * cut * cut));
        if cut % 3 == 0 {
            job.kill().unwrap();
        }
        server.kill();
        job.wait().unwrap();
        server.run();
    }
    let rest = &told(&mut redrive(&server))[0];
    let count = |member: &str| rest[member].as_u64().unwrap();
    assert_eq!(count("records") + count("earlier"), 1500, "{rest}");
    assert!(count("earlier") > 1, "{rest}");
    server.drain();
    assert_once(&schema.ids());

    // Nothing more, not even after a restart.
    for _ in 0..2 {
        let again = &told(&mut redrive(&server))[0];
        assert_eq!((&again["records"], &again["earlier"]), (&0.into(), &1500.into()), "{again}");
        server.terminate();
        server.run();
    }
    server.drain();
    assert_once(&schema.ids());
    verify(&mut server);
}

#[track_caller]
fn assert_once(ids: &[String]) {
    let mut expected: Vec<String> =
        records(0..3000).iter().map(|record| record[7..record.len() - 2].to_owned()).collect();
    expected.sort();
    let mut ids = ids.to_vec();
    ids.sort();
    let twice: Vec<&String> = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "{} rows are there twice, as {:?}", twice.len(), &twice[..twice.len().min(5)]);
    assert!(ids == expected, "{} of {} rows are there", ids.len(), expected.len());
}

#[track_caller]
fn verify(server: &mut Server) {
    server.terminate();
    let verified = server.verify();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_redrive_without_a_server_or_of_an_unknown_stream_says_so() {
    let yaml =
        "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    sink:\n      file: { store: out }\n";
    let server = Server::start(yaml);
    fs::create_dir(server.path("out")).unwrap();
    let failed = |stream: &str, data: &Path| {
        let output =
            server.command(&["dlq", "redrive", stream, "--output", "json", "--data"]).arg(data).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        (error["error"]["code"].as_str().unwrap().to_owned(), error["error"]["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(failed("web", &server.path("out")).0, "no_server");
    let (_, message) = failed("app", &server.data());
    assert_eq!(message, "no stream `app` is declared");
    let nothing = redrive(&server).output().unwrap();
    assert_eq!(String::from_utf8(nothing.stdout).unwrap(), "0 records (0 bytes) put back\n", "{:?}", nothing.stderr);
}
