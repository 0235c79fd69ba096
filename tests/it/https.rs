//! HTTPS against the real binary: unmodified clients, both protocols, and a certificate that is replaced while it runs.

use std::fs;
use std::process::Command;

use crate::server::{Server, objects_in, wait_until};
use crate::services::producer;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tls");

const INTO_A_FOLDER: &str = "stores:\n  main:\n    file: { path: $FOLDER/objects }\nstreams:\n  web:\n    \
                             hints: { size: 128MiB, interval: 900s }\n    sink: { file: { store: main } }\n";

/// A server that speaks HTTPS, with files that can be replaced.
fn start() -> Server {
    let mut server = Server::prepare(INTO_A_FOLDER, &[]);
    put_pair(&server, "one");
    server.use_https("server.crt", "server.key");
    server.run();
    server
}

fn put_pair(server: &Server, name: &str) {
    for end in ["crt", "key"] {
        fs::copy(format!("{GOLDEN}/{name}.{end}"), server.path(&format!("server.{end}"))).unwrap();
    }
}

/// What curl says of `/health`: the version of HTTP and the body. `None` when it does not trust the server.
fn curl(server: &Server, trusted: &str, options: &[&str]) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--write-out", "%{http_version}", "--cacert"]);
    command.arg(format!("{GOLDEN}/{trusted}.crt")).args(options).arg(format!("{}/health", server.endpoint()));
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn boto3_puts_over_https() {
    let server = start();
    let expected = server.path("expected");
    producer(&server, "put.py", &["bytes", "web", expected.to_str().unwrap()]);
    server.drain();
    let objects = objects_in(&server.path("objects"));
    let [(_, arrived)] = objects.as_slice() else { panic!("one object was expected, not {}", objects.len()) };
    assert!(*arrived == fs::read(expected).unwrap(), "other bytes arrived than were put");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn curl_speaks_both_protocols_and_a_new_certificate_needs_no_restart() {
    let server = start();
    assert_eq!(curl(&server, "one", &["--http1.1"]).as_deref(), Some("ok\n1.1"));
    assert_eq!(curl(&server, "one", &["--http2"]).as_deref(), Some("ok\n2"));
    assert_eq!(curl(&server, "two", &[]), None);

    // Half a pair changes nothing; the server says so and goes on.
    fs::copy(format!("{GOLDEN}/two.crt"), server.path("server.crt")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    wait_until("a word about the pair", || server.log().contains("the certificate was not replaced"));
    assert!(curl(&server, "one", &[]).is_some());

    put_pair(&server, "two");
    server.signal(rustix::process::Signal::HUP);
    wait_until("the new certificate", || curl(&server, "two", &[]).is_some());
    assert_eq!(curl(&server, "one", &[]), None);
}
