//! What commands say to people and to programs, and with which exit code they end.

use std::fs;
use std::process::Output;

use crate::server::{Server, free_port, wait_until};

/// A stream into a folder; nothing is sealed for a quarter of an hour.
const PATIENT: &str = "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    \
    hints: { size: 128MiB, interval: 900s }\n    sink:\n      file: { store: out }\n";

/// A stream whose batches nobody takes.
fn owing() -> String {
    format!(
        "stores:\n  lake:\n    s3: {{ bucket: nowhere, endpoint: \"http://127.0.0.1:{}\", access_key_id: {{ env: HYDRANT_IT_SECRET }}, \
         secret_access_key: {{ env: HYDRANT_IT_SECRET }} }}\nstreams:\n  web:\n    hints: {{ interval: 0 }}\n    sink:\n      \
         s3: {{ store: lake, prefix: logs/ }}\n",
        free_port()
    )
}

fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn a_drain_that_is_given_up_says_which_streams_still_owe_how_much_and_why() {
    let server = Server::start(&owing());
    server.put("web", &[b"one", b"two"]);
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    let drain = |more: &[&str]| {
        let output = server.command(&["drain", "--timeout", "8s", "--data"]).arg(server.data()).args(more).output();
        said(&output.unwrap())
    };
    let (out, err, code) = drain(&[]);
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    let owes = "web: 2 records waiting, 1 batch sealed; store `lake` (s3://nowhere at http://127.0.0.1:";
    assert!(err.contains(", prefix logs/): "), "{err}");
    // Once while it waits, as nobody looks at a terminal here, and once in the end.
    assert!(err.matches(owes).count() >= 2 && err.contains("the time is over"), "{err}");

    let (out, err, code) = drain(&["--output", "json"]);
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    let told: serde_json::Value = serde_json::from_str(&err).expect("one JSON value and nothing else");
    assert_eq!(told["error"]["code"], "timeout", "{told}");
    let waiting = &told["error"]["waiting"][0];
    assert_eq!((&waiting["stream"], &waiting["records"], &waiting["batches"]), (&"web".into(), &2.into(), &1.into()));
}

#[test]
fn a_drain_without_a_server_says_so() {
    let server = Server::prepare(PATIENT, &[]);
    for (data, text) in [("nowhere", "no server runs on this data directory"), (".", "no server runs on this")] {
        let (_, err, code) = said(&server.command(&["drain", "--data", data]).output().unwrap());
        assert!(err.contains(text) && code == Some(1), "{err}");
    }
}

/// Goal: a stream that was taken out of the file is not forgotten silently, and not nagged about when nothing is owed.
#[test]
fn a_stream_that_left_the_file_is_told_of_with_what_it_owes_and_not_when_it_owes_nothing() {
    let warning = "no longer declared";
    let mut server = Server::start(PATIENT);
    server.put("web", &[b"one", b"two", b"three"]);
    server.terminate();
    let declared = fs::read_to_string(server.path("hydrant.yaml")).unwrap();
    fs::write(server.path("hydrant.yaml"), declared.replace("  web:\n", "  app:\n")).unwrap();
    server.run();
    let log = server.log();
    let line = log.lines().find(|line| line.contains(warning)).unwrap_or_else(|| panic!("no warning:\n{log}"));
    assert!(line.contains("stream=\"web\"") && line.contains("records=3 batches=0"), "{line}");

    server.terminate();
    fs::write(server.path("hydrant.yaml"), &declared).unwrap();
    server.run();
    server.drain();
    server.terminate();
    fs::write(server.path("hydrant.yaml"), declared.replace("  web:\n", "  app:\n")).unwrap();
    server.run();
    assert_eq!(server.log().matches(warning).count(), 1, "{}", server.log());
}

#[test]
fn a_folder_that_is_none_is_told_of_at_the_first_attempt_with_store_and_address() {
    let mut server = Server::prepare(&PATIENT.replace("900s", "0"), &[]);
    fs::write(server.path("out"), "a file where the folder should be").unwrap();
    server.run();
    server.put("web", &[b"one"]);
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    let state = server.state_of("web");
    let place = format!("store `out` (file://{}): ", server.path("out").display());
    assert_eq!(state["code"], "not-found", "{state}");
    assert!(state["message"].as_str().unwrap().starts_with(&place), "{state}");
    assert!(server.log().contains("attempts=1 "), "{}", server.log());
    fs::remove_file(server.path("out")).unwrap();
    wait_until("healthy", || server.state_of("web")["state"] == "healthy");
}

#[test]
fn verify_says_what_a_folder_is_that_holds_no_data() {
    let mut server = Server::start(PATIENT);
    server.put("web", &[b"one"]);
    server.terminate();
    for (path, file) in [("empty", None), ("foreign", Some("thesis.tex")), ("file", None)] {
        if path == "file" {
            fs::write(server.path(path), "").unwrap();
        } else {
            fs::create_dir(server.path(path)).unwrap();
        }
        if let Some(file) = file {
            fs::write(server.path(path).join(file), "").unwrap();
        }
    }
    let verify = |path: &str| {
        let (out, err, code) = said(&server.command(&["log", "verify", path]).output().unwrap());
        (out + &err, code)
    };
    for (path, text) in [
        ("nowhere", "error: nowhere holds no data: it is not there; name the directory of `server.data`\n"),
        ("empty", "error: empty holds no data: it is empty; name the directory of `server.data`\n"),
        ("file", "error: file holds no data: it is no directory; name that of `server.data`\n"),
        (
            "foreign",
            "error: foreign holds other files and is no data directory (found \"thesis.tex\"); name an empty or a new one\n",
        ),
    ] {
        assert_eq!(verify(path), (text.to_owned(), Some(1)));
    }
    let (text, code) = verify("data");
    assert!(text.contains("web: 1 record in 1 segment whole, 0 batches owed") && code == Some(0), "{text}");
    assert!(text.ends_with("\n1 stream, no damage\n"), "{text}");
    let format = server.data().join("format");
    fs::write(&format, "hydrant data 2\n").unwrap();
    let (text, code) = verify("data");
    assert!(text.contains("which another version wrote") && code == Some(1), "{text}");
    fs::write(&format, "hydr").unwrap();
    let (text, code) = verify("data");
    assert!(text.contains("data/format: it does not say \"hydrant data 1\"") && code == Some(4), "{text}");
}

#[test]
fn no_help_and_no_error_has_colours_where_nobody_sees_them() {
    let server = Server::prepare(PATIENT, &[]);
    for words in [
        &["--help"][..],
        &["help", "run"],
        &["check", "--help"],
        &["log", "verify", "-h"],
        &["--version"],
        &["chek"],
        &[],
        &["check", "nowhere.yaml"],
    ] {
        let mut command = server.command(words);
        command.env("CLICOLOR_FORCE", "1").env("TERM", "xterm-256color");
        let (out, err, _) = said(&command.output().unwrap());
        assert!(!(out + &err).contains('\u{1b}'), "{words:?}");
    }
}
