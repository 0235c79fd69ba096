//! The client against a server that follows a script and a proxy that misbehaves: bounds are kept, and each way to fail
//! has its own name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hydrant_core::Blob;
use hydrant_kit::conformance::{MemoryBlob, UnreadableBlob};
use hydrant_kit::proxy::{Fault, Proxy};
use hydrant_kit::s3::{Answer, Script, ScriptedS3};

use super::*;
use crate::body::PART_BYTES;

const BOUNDS: Bounds = Bounds { stall: Duration::from_secs(2), whole: Duration::from_secs(20), answer_bytes_max: 1000 };

struct World {
    server: ScriptedS3,
    proxy: Proxy,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let server = ScriptedS3::start().await.unwrap();
        let proxy = Proxy::start(server.address()).await.unwrap();
        Self { server, proxy, client: Client::new(&Options::default()).unwrap() }
    }

    async fn put(&self, body: Body, bounds: Bounds) -> Result<Response<Bytes>, SendError> {
        let url = format!("http://{}/events/key", self.proxy.address());
        self.client.send(Request::put(url).body(body).unwrap(), bounds).await
    }
}

/// As many bytes as it is asked for, and a count of how far they were read.
#[derive(Debug)]
struct Endless {
    len: u64,
    read: Arc<AtomicU64>,
}

#[async_trait]
impl Blob for Endless {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.read.fetch_max(offset + len as u64, Ordering::Relaxed);
        Ok(vec![0; len].into())
    }
}

fn blob(len: usize) -> Body {
    Body::Blob(Arc::new(MemoryBlob(vec![7; len].into())))
}

#[tokio::test]
async fn a_body_of_any_length_arrives_as_it_is() {
    let world = World::start().await;
    world.server.follow(Script::Answer(Answer::status(204)));
    for len in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
        let answer = world.put(blob(len), BOUNDS).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{len}");
    }
    assert_eq!(world.server.uploads(), 6);
    assert_eq!(world.proxy.opened(), 1, "connections are used again");
}

#[tokio::test]
async fn a_body_in_parts_arrives_in_a_row() {
    let world = World::start().await;
    world.server.follow(Script::Echo);
    let parts = vec![Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"two")];
    let answer = world.put(Body::Parts(parts), BOUNDS).await.unwrap();
    let quoted = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(quoted.contains("content-length: 7;") && quoted.contains("one two"), "{quoted}");

    // The answer comes when as many bytes came as were announced.
    world.server.follow(Script::Answer(Answer::status(204)));
    let parts = [0, 1, 2 * PART_BYTES + 3, 0, PART_BYTES].map(|len| Bytes::from(vec![7; len]));
    assert_eq!(world.put(Body::Parts(parts.to_vec()), BOUNDS).await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_policy_holds_for_names_addresses_and_every_spelling_of_them() {
    let world = World::start().await;
    let port = world.proxy.address().port();
    let guarded = Options { addresses: AddressPolicy::PublicOnly, ..Options::default() };
    let guarded = Client::new(&guarded).unwrap();
    let hosts =
        ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "017700000001", "127.1", "[::1]", "[::ffff:127.0.0.1]"];
    for host in hosts {
        let request = || Request::put(format!("http://{host}:{port}/events/key")).body(blob(1)).unwrap();
        let error = guarded.send(request(), BOUNDS).await.unwrap_err();
        let is_refused = matches!(&error, SendError::Unreachable(reason) if reason.contains("may be connected to"));
        assert!(is_refused, "{host}: {error}");
    }
    assert_eq!(world.proxy.opened(), 0, "a refused address was dialled");
    for host in ["localhost", "127.0.0.1", "2130706433"] {
        let request = Request::put(format!("http://{host}:{port}/events/key")).body(blob(1)).unwrap();
        world.client.send(request, BOUNDS).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_of_a_body_is_read_than_the_other_side_takes() {
    let world = World::start().await;
    world.proxy.choose(Fault::StallRequestAfter(1000));
    let read = Arc::new(AtomicU64::new(0));
    let body = Body::Blob(Arc::new(Endless { len: 128 << 20, read: Arc::clone(&read) }));
    let error = world.put(body, BOUNDS).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut(_)), "{error}");
    // What the kernel buffers on both sides of the proxy, and a few parts.
    assert!(read.load(Ordering::Relaxed) < 32 << 20, "{} bytes were read ahead", read.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_from_a_connection_that_broke() {
    let world = World::start().await;
    for reads in [0, 1, 3] {
        let bytes = Bytes::from(vec![0; 4 * PART_BYTES]);
        let body = Body::Blob(Arc::new(UnreadableBlob::after(reads, bytes)));
        let error = world.put(body, BOUNDS).await.unwrap_err();
        assert!(matches!(&error, SendError::Unreadable(reason) if reason == "checksum differs"), "{reads}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let world = World::start().await;
    let elsewhere = format!("http://{}/events/other", world.proxy.address());
    for status in [301, 302, 307, 308] {
        world.server.follow(Script::Answer(Answer::status(status).header("location", &elsewhere)));
        assert_eq!(world.put(blob(10), BOUNDS).await.unwrap().status().as_u16(), status);
    }
    assert_eq!(world.server.uploads(), 4);
}

#[tokio::test]
async fn an_answer_longer_than_allowed_is_not_read_to_its_end() {
    let world = World::start().await;
    for (len, fits) in [(1000, true), (1001, false), (50 << 20, false)] {
        world.server.follow(Script::Answer(Answer::status(500).body(vec![b'x'; len])));
        match world.put(blob(10), BOUNDS).await {
            Ok(answer) => assert!(fits && answer.body().len() == len, "{len}"),
            Err(error) => assert!(!fits && matches!(error, SendError::AnswerTooLong(1000)), "{len}: {error}"),
        }
    }
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_name_and_one_attempt() {
    type Name = fn(&SendError) -> bool;
    let cases: [(Fault, Script, Name); 7] = [
        (Fault::ResetRequestAfter(10), Script::Serve, |error| matches!(error, SendError::Interrupted)),
        (Fault::ResetAnswerAfter(0), Script::Serve, |error| matches!(error, SendError::Interrupted)),
        (Fault::ResetAnswerAfter(20), Script::Serve, |error| matches!(error, SendError::Interrupted)),
        (Fault::StallAnswer, Script::Serve, |error| matches!(error, SendError::TimedOut(_))),
        (Fault::TrickleAnswer(Duration::from_secs(6)), Script::Serve, |error| matches!(error, SendError::TimedOut(_))),
        (Fault::None, Script::Reset, |error| matches!(error, SendError::Interrupted)),
        (Fault::None, Script::Answer(Answer::garbage("no HTTP\r\n\r\n")), |error| {
            matches!(error, SendError::Malformed)
        }),
    ];
    for (fault, script, is_named) in cases {
        let world = World::start().await;
        world.proxy.choose(fault);
        world.server.follow(script.clone());
        let error = world.put(blob(1000), BOUNDS).await.unwrap_err();
        assert!(is_named(&error), "{fault:?} {script:?}: {error}");
        assert_eq!(world.proxy.opened(), 1, "{fault:?} {script:?} was tried again");
    }
}

#[tokio::test]
async fn progress_holds_off_the_stall_and_nothing_holds_off_the_end() {
    let world = World::start().await;
    world.server.follow(Script::StoreThenAnswer(Answer::status(200).body("0123456789")));
    // Some sixty bytes, one each 10 ms.
    world.proxy.choose(Fault::TrickleAnswer(Duration::from_millis(10)));
    let bounds = Bounds { stall: Duration::from_secs(5), ..BOUNDS };
    assert_eq!(world.put(blob(1), bounds).await.unwrap().body().len(), 10);

    let world = World::start().await;
    world.proxy.choose(Fault::StallAnswer);
    let bounds = Bounds { stall: Duration::from_mins(1), whole: Duration::from_millis(200), ..BOUNDS };
    let error = world.put(blob(1), bounds).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut(after) if after == bounds.whole), "{error}");
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_unreachable_and_the_reason_is_told() {
    let client = Client::new(&Options::default()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let request = Request::put(format!("http://{address}/canary")).body(blob(1)).unwrap();
    let error = client.send(request, BOUNDS).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("refused") && !text.contains("canary"), "{text}");
}

#[test]
fn authorities_that_cannot_be_used_are_named() {
    let with = |path: &std::path::Path| {
        let options = Options { ca_file: Some(path.to_owned()), ..Options::default() };
        Client::new(&options).map(|_| ()).unwrap_err()
    };
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(with(&home.path().join("missing")), BuildError::CaFile { .. }));
    let empty = home.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    assert!(matches!(with(&empty), BuildError::NoCertificate(path) if path == empty));
}

#[tokio::test]
async fn a_stream_is_open_or_the_reason_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert!(
        connect("127.0.0.1", address.port(), AddressPolicy::Anything, BOUNDS.whole).await.unwrap().nodelay().unwrap()
    );
    drop(listener);
    let error = connect("localhost", address.port(), AddressPolicy::PublicOnly, BOUNDS.whole).await.unwrap_err();
    assert!(error.to_string().contains("may be connected to"), "{error}");
    let error = connect("127.0.0.1", address.port(), AddressPolicy::Anything, BOUNDS.whole).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so() {
    let world = World::start().await;
    let tcp = connect("127.0.0.1", world.server.address().port(), AddressPolicy::Anything, BOUNDS.whole).await.unwrap();
    let wrapped = tokio::time::timeout(BOUNDS.whole, Tls::unverified().unwrap().wrap("127.0.0.1", tcp)).await;
    assert!(wrapped.expect("within the bounds").is_err());
    let missing = Tls::verified(Some(std::path::Path::new("/no/such/file"))).map(|_| ()).unwrap_err();
    assert!(matches!(missing, BuildError::CaFile { .. }), "{missing}");
}
