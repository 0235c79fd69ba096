//! Forged requests against the real binary: each is refused with a typed error, and nothing of it is stored.

use std::time::Duration;

use hydrant_kit::client::{Answer, Connection};
use hydrant_kit::signature::{Signer, Unsigned, amz_date, sha256_hex};

use crate::server::{ACCESS_KEY_ID, PATIENCE, SECRET, Server, objects_in};

/// A request: what is signed, and by whom, may differ from what is sent.
struct Forgery {
    key: &'static str,
    secret: &'static str,
    region: &'static str,
    service: &'static str,
    /// Seconds that the date lies ahead of the clock.
    ahead: i64,
    signed: Parts,
    sent: Parts,
    /// Headers that are not signed although they are sent.
    unsigned: &'static [&'static str],
    /// Headers that are signed and not sent.
    dropped: &'static [&'static str],
    /// Whether there is an `Authorization` header.
    authorized: bool,
}

#[derive(Clone, Copy)]
struct Parts {
    method: &'static str,
    path: &'static str,
    target: &'static str,
    /// Seconds added to the date.
    later: i64,
    data: &'static str,
}

const HONEST: Parts =
    Parts { method: "POST", path: "/", target: "Firehose_20150804.PutRecord", later: 0, data: "Z29vZA==" };

impl Forgery {
    /// Nothing is forged yet.
    fn none() -> Self {
        Self {
            key: ACCESS_KEY_ID,
            secret: SECRET,
            region: "us-east-1",
            service: "firehose",
            ahead: 0,
            signed: HONEST,
            sent: HONEST,
            unsigned: &[],
            dropped: &[],
            authorized: true,
        }
    }

    fn send(&self, server: &Server) -> Answer {
        let mut connection = Connection::to(&server.endpoint(), PATIENCE).unwrap();
        let host = connection.host().to_owned();
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(self.ahead);
        let headers = |parts: &Parts| {
            let date = amz_date(now + jiff::SignedDuration::from_secs(parts.later));
            [
                ("content-type", "application/x-amz-json-1.1".to_owned()),
                ("host", host.clone()),
                ("x-amz-date", date),
                ("x-amz-target", parts.target.to_owned()),
            ]
        };
        let stamped = headers(&self.signed);
        let stamped: Vec<(&str, &str)> = stamped
            .iter()
            .filter(|(name, _)| !self.unsigned.contains(name))
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let request = Unsigned {
            method: self.signed.method,
            path: self.signed.path,
            query: "",
            headers: &stamped,
            body_sha256: &sha256_hex(body(&self.signed).as_bytes()),
        };
        let mut signer = Signer::new(self.key, self.secret, self.region, self.service);
        let authorization = signer.authorization(&request, &amz_date(now));

        let body = body(&self.sent);
        let mut head =
            format!("{} {} HTTP/1.1\r\ncontent-length: {}\r\n", self.sent.method, self.sent.path, body.len());
        for (name, value) in headers(&self.sent).iter().filter(|(name, _)| !self.dropped.contains(name)) {
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        if self.authorized {
            head.push_str(&["authorization: ", &authorization, "\r\n"].concat());
        }
        head.push_str("\r\n");
        connection.send(head.as_bytes(), body.as_bytes()).unwrap()
    }
}

fn body(parts: &Parts) -> String {
    format!(r#"{{"DeliveryStreamName":"web","Record":{{"Data":"{}"}}}}"#, parts.data)
}

/// What each forgery must be answered with.
fn forgeries() -> Vec<(&'static str, &'static str, Forgery)> {
    let sent = |sent: Parts| Forgery { sent, ..Forgery::none() };
    let minutes = |minutes: i64| 60 * minutes;
    vec![
        ("wrong secret", "InvalidSignatureException", Forgery { secret: "it-secreT", ..Forgery::none() }),
        ("unknown key", "UnrecognizedClientException", Forgery { key: "somebody", ..Forgery::none() }),
        ("changed body", "InvalidSignatureException", sent(Parts { data: "ZXZpbA==", ..HONEST })),
        (
            "changed target",
            "InvalidSignatureException",
            sent(Parts { target: "Firehose_20150804.DescribeDeliveryStream", ..HONEST }),
        ),
        ("changed path", "InvalidSignatureException", sent(Parts { path: "/other", ..HONEST })),
        ("added query", "InvalidSignatureException", sent(Parts { path: "/?a=b", ..HONEST })),
        ("changed date", "InvalidSignatureException", sent(Parts { later: 1, ..HONEST })),
        ("old date", "InvalidSignatureException", Forgery { ahead: -minutes(6), ..Forgery::none() }),
        ("date to come", "InvalidSignatureException", Forgery { ahead: minutes(6), ..Forgery::none() }),
        ("other region", "InvalidSignatureException", Forgery { region: "eu-west-1", ..Forgery::none() }),
        ("other service", "InvalidSignatureException", Forgery { service: "s3", ..Forgery::none() }),
        (
            "signed header not sent",
            "InvalidSignatureException",
            Forgery { dropped: &["content-type"], ..Forgery::none() },
        ),
        ("unsigned target", "", Forgery { unsigned: &["x-amz-target"], ..Forgery::none() }),
        ("unsigned host", "", Forgery { unsigned: &["host"], ..Forgery::none() }),
        ("not signed at all", "", Forgery { authorized: false, ..Forgery::none() }),
    ]
}

#[test]
fn no_forged_request_stores_anything_and_honest_ones_before_and_after_are_taken() {
    let server = Server::start(
        "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    hints: { size: 128MiB, interval: 900s }\n    \
         sink:\n      file: { store: out }\n",
    );
    assert_eq!(Forgery::none().send(&server).status, 200);
    for (what, code, forgery) in forgeries() {
        let answer = forgery.send(&server);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!((400..500).contains(&answer.status), "{what}: {} {text}", answer.status);
        let error: serde_json::Value =
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{what}: {text}"));
        let named = error["__type"].as_str().unwrap_or_default();
        assert!(if code.is_empty() { !named.is_empty() } else { named == code }, "{what}: {text}");
        assert!(!text.contains(SECRET), "{what}: {text}");
        if what == "other region" {
            assert!(text.contains("us-east-1"), "the right region is named: {text}");
        }
    }
    // Near the border the clock may differ.
    let skewed = Forgery { ahead: -240, ..Forgery::none() }.send(&server);
    assert_eq!(skewed.status, 200, "four minutes are within the five allowed");

    server.drain();
    let objects = objects_in(&server.path("out"));
    let bytes: Vec<u8> = objects.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), "goodgood");
}

#[test]
fn a_body_that_ends_early_is_answered_or_hung_up_on_and_stores_nothing() {
    use std::io::{Read, Write};
    let server = Server::start(
        "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    hints: { size: 128MiB, interval: 900s }\n    \
         sink:\n      file: { store: out }\n",
    );
    let mut stream = std::net::TcpStream::connect(server.endpoint().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"Deliv").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(Forgery::none().send(&server).status, 200, "the server goes on");
    server.drain();
    assert_eq!(objects_in(&server.path("out")).len(), 1);
}
