//! Secrets: the canary sits in every secret that a configuration names, and must not sing anywhere.

use hydrant_kit::load::put::{Producer, Put, Target};

use crate::server::{ACCESS_KEY_ID, Server, free_port, wait_until};

const CANARY: &str = "canary-7f3a9c";

/// A server with the canary in each secret, whose destination answers nothing, at the most talkative log level.
fn server() -> Server {
    let yaml = format!(
        "stores:\n  out:\n    s3: {{ bucket: nowhere, endpoint: \"http://127.0.0.1:{}\", region: us-east-1, path_style: true, \
         access_key_id: {{ env: CANARY_KEY }}, secret_access_key: {{ env: CANARY_SECRET }}, \
         session_token: {{ file: $FOLDER/token }} }}\nstreams:\n  web:\n    hints: {{ size: 1MiB, interval: 0s }}\n    \
         sink:\n      s3: {{ store: out }}\n",
        free_port()
    );
    let secret = format!("{CANARY}-caller");
    let store_secret = format!("{CANARY}-store");
    let mut server = Server::prepare(
        &yaml,
        &[
            ("HYDRANT_IT_SECRET", &secret),
            ("CANARY_KEY", "AKIDCANARY"),
            ("CANARY_SECRET", &store_secret),
            ("RUST_LOG", "trace"),
            ("HYDRANT_LOG", "trace"),
        ],
    );
    std::fs::write(server.path("token"), format!("{CANARY}-token\n")).unwrap();
    server.run();
    server
}

#[test]
fn no_secret_shows_in_logs_answers_metrics_errors_or_on_disk() {
    let mut server = server();
    let target = |secret: &str| Target {
        endpoint: server.endpoint(),
        region: "us-east-1".to_owned(),
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: secret.to_owned(),
    };
    let put = Put::single("web", b"record");
    let taken = Producer::new(&target(&format!("{CANARY}-caller"))).unwrap().send(&put).unwrap();
    let refused = Producer::new(&target("wrong")).unwrap().send(&put).unwrap();
    assert_eq!((taken.status, refused.status), (200, 403));
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");

    let mut said = vec![("refusal", refused.body)];
    for path in ["/ready", "/metrics", "/health"] {
        said.push((path, server.get(path).unwrap().body));
    }
    let check = server.command(&["check"]).arg(server.path("hydrant.yaml")).output().unwrap();
    said.extend([("check", check.stdout), ("check's errors", check.stderr)]);
    let (status, _) = server.terminate();
    assert!(status.success());
    let log = server.log();
    assert!(log.len() > 200, "there is a log to look at: {log}");
    said.push(("log", log.into_bytes()));
    for (file, bytes) in crate::server::objects_in(&server.data()) {
        assert!(!holds_canary(&bytes), "the canary lies in {file}");
    }
    for (what, bytes) in said {
        assert!(!holds_canary(&bytes), "the canary sings in {what}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_missing_secret_is_named_and_a_literal_one_is_refused_without_being_repeated() {
    let server = Server::prepare(
        &format!(
            "stores:\n  out:\n    s3: {{ bucket: b, region: us-east-1, access_key_id: {{ env: IT_ABSENT }}, \
             secret_access_key: {CANARY} }}\nstreams:\n  web:\n    sink:\n      s3: {{ store: out }}\n"
        ),
        &[],
    );
    for format in ["text", "json"] {
        let output = server.command(&["check", "--output", format]).arg(server.path("hydrant.yaml")).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(!holds_canary(&output.stderr) && !holds_canary(&output.stdout), "{output:?}");
    }
}

fn holds_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}
