//! Starting, stopping, crashing, and what the configurations in `config/` do.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::server::{PATIENCE, Server, free_port, objects_in, wait_until};

/// A stream into a folder; nothing is sealed for a quarter of an hour.
const PATIENT: &str = "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    \
    hints: { size: 128MiB, interval: 900s }\n    sink:\n      file: { store: out }\n";

/// The bytes of all objects together.
fn arrived(server: &Server) -> String {
    let objects = objects_in(&server.path("out"));
    String::from_utf8(objects.into_iter().flat_map(|(_, bytes)| bytes).collect()).unwrap()
}

#[test]
fn sigterm_ends_with_success_and_what_was_only_buffered_comes_with_the_next_start() {
    let mut server = Server::start(PATIENT);
    server.put("web", &[b"kept"]);
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(10), "within the grace of 5 s and a little: {took:?}");
    assert_eq!(arrived(&server), "", "a stop flushes nothing");
    server.run();
    server.drain();
    assert_eq!(arrived(&server), "kept");
}

#[test]
fn sigterm_with_a_dead_destination_ends_within_the_grace_and_keeps_what_is_owed() {
    let yaml = format!(
        "stores:\n  out:\n    s3: {{ bucket: nowhere, endpoint: \"http://127.0.0.1:{}\", region: us-east-1, path_style: true, \
         access_key_id: {{ env: HYDRANT_IT_SECRET }}, secret_access_key: {{ env: HYDRANT_IT_SECRET }} }}\nstreams:\n  web:\n    \
         hints: {{ size: 1MiB, interval: 0s }}\n    sink:\n      s3: {{ store: out }}\n",
        free_port()
    );
    let mut server = Server::start(&yaml);
    server.put("web", &[b"owed"]);
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(10), "within the grace of 5 s and what a busy machine adds: {took:?}");
    let verified = server.verify();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_crash_loses_nothing_that_was_answered() {
    let mut server = Server::start(PATIENT);
    let mut expected = String::new();
    for round in 0..5 {
        let record = format!("[{round}]");
        server.put("web", &[record.as_bytes()]);
        expected.push_str(&record);
        server.kill();
        server.run();
    }
    server.drain();
    assert_eq!(arrived(&server), expected);
}

/// Whether it lets nobody in any more, or says that it is not ready.
fn stops(server: &Server) -> bool {
    server.get("/ready").is_none_or(|answer| answer.status == 503)
}

#[test]
fn while_it_stops_it_is_not_ready_and_refuses_new_connections() {
    let mut server = Server::start(PATIENT);
    // A request whose body is still to come holds the stop up.
    let mut slow = std::net::TcpStream::connect(server.endpoint().trim_start_matches("http://")).unwrap();
    let put = hydrant_kit::load::put::Put::single("web", b"late");
    let head = server.producer().head(&put);
    let (first, rest) = put.body().split_at(10);
    std::io::Write::write_all(&mut slow, &[head.as_bytes(), first].concat()).unwrap();
    wait_until("the request is under way", || server.get("/health").is_some());
    server.ask_to_stop();
    wait_until("it stops", || stops(&server));
    std::io::Write::write_all(&mut slow, rest).unwrap();
    let mut answer = Vec::new();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Read::read_to_end(&mut slow, &mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "an open request is answered: {}", String::from_utf8_lossy(&answer));
    assert_eq!(server.wait_for_end().code(), Some(0), "{}", server.log());
    server.run();
    server.drain();
    assert_eq!(arrived(&server), "late");
}

#[test]
fn a_second_sigterm_ends_it_at_once_and_loses_nothing_that_was_answered() {
    let mut server = Server::start(PATIENT);
    server.put("web", &[b"kept"]);
    // A request whose body never comes holds the first stop up.
    let mut open = std::net::TcpStream::connect(server.endpoint().trim_start_matches("http://")).unwrap();
    std::io::Write::write_all(&mut open, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").unwrap();
    wait_until("it answers", || server.get("/health").is_some());
    server.ask_to_stop();
    wait_until("it stops", || stops(&server));
    let start = Instant::now();
    server.ask_to_stop();
    let status = server.wait_for_end();
    assert!(start.elapsed() < Duration::from_secs(4), "at once, not after the grace of 5 s: {:?}", start.elapsed());
    assert_eq!(status.code(), Some(1), "{}", server.log());
    server.run();
    server.drain();
    assert_eq!(arrived(&server), "kept");
}

#[test]
fn a_second_process_on_the_same_data_directory_is_refused() {
    let mut server = Server::start(PATIENT);
    let yaml = fs::read_to_string(server.path("hydrant.yaml")).unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.to_owned();
    let second = server.path("second.yaml");
    fs::write(&second, yaml.replace(&port, &free_port().to_string())).unwrap();
    let output = server.command(&["run"]).arg(&second).arg("--data").arg(server.data()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("data"), "says which directory is taken: {said}");
    assert!(server.is_running());
    server.put("web", &[b"still"]);
    server.drain();
    assert_eq!(arrived(&server), "still");
}

#[test]
fn a_stale_lock_of_a_killed_process_does_not_keep_the_next_one_out() {
    let mut server = Server::start(PATIENT);
    server.kill();
    server.run();
}

#[test]
fn a_wrong_configuration_ends_with_code_3_and_starts_nothing() {
    let mut server = Server::prepare("stores: {}\nstreams:\n  web:\n    sink:\n      file: { store: absent }\n", &[]);
    let output = server.command(&["run"]).arg(server.path("hydrant.yaml")).arg("--data").arg(server.data()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("absent") && said.contains("hydrant.yaml"), "{said}");
    assert!(!server.data().try_exists().unwrap(), "nothing was made");
    assert!(!server.is_running());
}

/// Each starts as it is, except for its port, and with some value in each environment variable that it names.
#[test]
fn every_file_in_config_is_a_configuration_that_starts_and_stops() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut started = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let yaml = fs::read_to_string(&file).unwrap();
        let variables: Vec<&str> = yaml
            .split("env: ")
            .skip(1)
            .filter_map(|rest| rest.split(|end: char| !end.is_ascii_alphanumeric() && end != '_').next())
            .collect();
        let variables: Vec<(&str, &str)> = variables.into_iter().map(|name| (name, "some-value")).collect();
        let mut server = Server::prepare("", &variables);
        server.use_configuration(&yaml);
        server.run_until_healthy();
        let (status, _) = server.terminate();
        assert_eq!(status.code(), Some(0), "{}: {}", file.display(), server.log());
        started += 1;
    }
    assert!(started > 0, "there are configurations");
}
