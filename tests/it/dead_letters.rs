//! Objects that their store does not take: for a while, for good, or until somebody mends it.

use std::fs;

use crate::server::{Server, wait_until};
use crate::services::{bucket, bucket_as, own_prefix, python, read_bucket, variable};

/// A user of this test's own in MinIO, whose rights the test may change.
struct User {
    name: String,
    bucket: String,
}

impl User {
    const SECRET: &str = "it-user-secret";

    /// A user who may not write to this bucket.
    fn denied(test: &str, bucket: &str) -> Self {
        let user = Self { name: format!("it-{test}-{}", std::process::id()), bucket: bucket.to_owned() };
        user.set("no");
        user
    }

    /// Gives the user the right to write.
    fn mend(&self) {
        self.set("yes");
    }

    fn set(&self, may_write: &str) {
        python("store.py", &["user", &self.name, Self::SECRET, &self.bucket, may_write]);
    }
}

/// A stream whose primary bucket denies writing, with its dead letters in the spare bucket.
fn denied_server(user: &User, prefix: &str, retry_for: &str) -> Server {
    let yaml = format!(
        "stores:\n{}{}streams:\n  web:\n    hints: {{ size: 1MiB, interval: 1s }}\n    retry_for: {retry_for}\n    sink:\n      \
         s3: {{ store: main, prefix: \"{prefix}\", compression: gzip }}\n    \
         dead_letter: {{ store: spare, error_prefix: \"{prefix}\" }}\n",
        bucket_as("main", &user.bucket, "HYDRANT_IT_USER", "HYDRANT_IT_USER_SECRET"),
        bucket("spare", &variable("S3_BUCKET_SPARE")),
    );
    Server::start_with(&yaml, &[("HYDRANT_IT_USER", &user.name), ("HYDRANT_IT_USER_SECRET", User::SECRET)])
}

/// The records of all objects below a prefix, decompressed; by key.
fn records_in(server: &Server, bucket: &str, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let folder = server.path(&format!("read-{bucket}"));
    let stored = read_bucket(bucket, prefix, &folder);
    let plain = server.path("plain");
    stored
        .into_iter()
        .map(|object| {
            python("gunzip.py", &[&object.file, plain.to_str().unwrap()]);
            (object.key, fs::read(&plain).unwrap())
        })
        .collect()
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn with_a_short_retry_denied_objects_move_whole_to_the_dead_letter_store() {
    let (main, spare) = (variable("S3_BUCKET"), variable("S3_BUCKET_SPARE"));
    let user = User::denied("moved", &main);
    let prefix = own_prefix("moved");
    let server = denied_server(&user, &prefix, "2s");
    server.put("web", &[b"one,", b"two,", b"three"]);

    let mut moved = Vec::new();
    wait_until("the object in the dead-letter store", || {
        moved = read_bucket(&spare, &prefix, &server.path("moved"));
        !moved.is_empty()
    });
    let [object] = moved.as_slice() else { panic!("one object was expected: {moved:?}") };
    assert_eq!(object.content_encoding.as_deref(), Some("gzip"));
    let plain = server.path("plain");
    python("gunzip.py", &[&object.file, plain.to_str().unwrap()]);
    assert_eq!(fs::read(plain).unwrap(), b"one,two,three");
    // Where it was meant to go stands with it, so that it can be placed there.
    let told = |name: &str| object.metadata.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", object.metadata));
    assert!(told("hydrant-intended-key").starts_with(&prefix), "{:?}", object.metadata);
    assert!(told("hydrant-intended-store").contains(&main), "{:?}", object.metadata);
    assert!(read_bucket(&main, &prefix, &server.path("main")).is_empty());
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn an_object_that_moved_is_placed_where_it_was_meant_to_go_when_its_store_is_mended_and_once() {
    let (main, spare) = (variable("S3_BUCKET"), variable("S3_BUCKET_SPARE"));
    let user = User::denied("placed", &main);
    let prefix = own_prefix("placed");
    let mut server = denied_server(&user, &prefix, "1s");
    server.put("web", &[b"one,", b"two,", b"three"]);
    server.drain();
    let moved = read_bucket(&spare, &prefix, &server.path("moved"));
    let redrive = |server: &Server| {
        let mut command = server.command(&["dlq", "redrive", "web", "--output", "json", "--data"]);
        let output = command.arg(server.data()).output().unwrap();
        let told = if output.status.success() { &output.stdout } else { &output.stderr };
        serde_json::from_slice::<serde_json::Value>(told).unwrap()
    };
    let denied = redrive(&server);
    assert_eq!(denied["error"]["code"], "not_placed", "{denied}");
    assert_eq!(denied["error"]["tally"]["placed"], 0, "{denied}");

    user.mend();
    let done = redrive(&server);
    assert_eq!((&done["placed"], &done["records"]), (&1.into(), &0.into()), "{done}");
    let placed = read_bucket(&main, &prefix, &server.path("placed"));
    let ([from], [to]) = (moved.as_slice(), placed.as_slice()) else { panic!("{moved:?} {placed:?}") };
    assert_eq!(to.key, from.metadata["hydrant-intended-key"]);
    assert_eq!(
        (to.bytes(), &to.content_encoding, &to.content_type),
        (from.bytes(), &from.content_encoding, &from.content_type)
    );
    assert!(to.metadata.is_empty(), "{:?}", to.metadata);

    server.kill();
    server.run();
    let again = redrive(&server);
    assert_eq!((&again["placed"], &again["earlier"]), (&0.into(), &1.into()), "{again}");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn with_an_endless_retry_a_denied_stream_keeps_everything_and_goes_on_when_mended() {
    let (main, spare) = (variable("S3_BUCKET"), variable("S3_BUCKET_SPARE"));
    let user = User::denied("mended", &main);
    let prefix = own_prefix("mended");
    let mut server = denied_server(&user, &prefix, "forever");
    server.put("web", &[b"before,"]);
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    let state = server.state_of("web");
    assert!(state["code"].as_str().is_some_and(|code| !code.is_empty()), "{state}");
    assert!(state["message"].as_str().is_some_and(|message| !message.is_empty()), "{state}");
    assert!(state["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{state}");
    assert_eq!(server.get("/ready").unwrap().status, 200, "it still takes records");
    let metrics = String::from_utf8(server.get("/metrics").unwrap().body).unwrap();
    assert!(metrics.contains("hydrant_stream_degraded{stream=\"web\"} 1"), "{metrics}");

    // Still taken, and kept over a crash.
    server.put("web", &[b"during,"]);
    server.kill();
    server.run();
    server.put("web", &[b"after"]);
    wait_until("degraded again", || server.state_of("web")["state"] == "degraded");

    user.mend();
    let mut arrived = Vec::new();
    wait_until("everything in its place", || {
        arrived = records_in(&server, &main, &prefix);
        arrived.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= "before,during,after".len()
    });
    let mut bytes: Vec<String> = arrived
        .iter()
        .flat_map(|(_, bytes)| {
            String::from_utf8(bytes.clone()).unwrap().split_inclusive(',').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    bytes.sort();
    assert_eq!(bytes, ["after", "before,", "during,"]);
    wait_until("healthy", || server.state_of("web")["state"] == "healthy");
    assert!(read_bucket(&spare, &prefix, &server.path("spare")).is_empty(), "nothing is a dead letter");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn a_bucket_that_is_missing_is_waited_for() {
    let bucket_name = format!("it-missing-{}", std::process::id());
    let yaml = format!(
        "stores:\n{}streams:\n  web:\n    hints: {{ size: 1MiB, interval: 1s }}\n    sink:\n      s3: {{ store: main }}\n",
        bucket("main", &bucket_name)
    );
    let server = Server::start(&yaml);
    server.put("web", &[b"early"]);
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    python("store.py", &["make", &bucket_name]);
    wait_until("the object", || {
        let stored = read_bucket(&bucket_name, "", &server.path("read"));
        stored.len() == 1 && stored[0].bytes() == b"early"
    });
    wait_until("healthy", || server.state_of("web")["state"] == "healthy");
}
