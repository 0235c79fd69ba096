//! Connections: both protocols on one port, clients that are slow, mute or many, and stopping.
//!
//! Real sockets and real time, with limits short enough for a test. What must happen is awaited with a deadline.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::kit::{Answer, Signing, Stand, http1, request, settings};
use crate::api::server::{Entrance, serve};
use crate::api::{Audience, Limits, Settings};
use crate::tls::Tls;

/// Longer than anything here takes on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Running {
    pub(super) stand: Stand,
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) async fn start(limits: Limits) -> Running {
    start_with_grace(limits, DEADLINE).await
}

async fn start_with_grace(limits: Limits, grace: Duration) -> Running {
    start_for(Audience::Everybody, None, limits, grace).await
}

pub(super) async fn start_for(audience: Audience, tls: Option<Arc<Tls>>, limits: Limits, grace: Duration) -> Running {
    let stand = Stand::with(Settings { limits, ..settings() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let entrance = Entrance { listener, audience, tls };
    let task = tokio::spawn(serve(entrance, Arc::clone(&stand.api), stop.clone(), grace));
    Running { stand, address, stop, task }
}

impl Running {
    pub(super) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// A client whose first bytes are there before the server sees it, however slow this machine is.
    fn connect_and_send(&self, bytes: &[u8]) -> Client {
        let mut socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.write_all(bytes).unwrap();
        socket.set_nonblocking(true).unwrap();
        Client(TcpStream::from_std(socket).unwrap())
    }

    pub(super) async fn stop(self) -> Stand {
        self.stop.cancel();
        timeout(DEADLINE, self.task).await.expect("the server stops in time").unwrap();
        self.stand
    }
}

/// A client that speaks whatever bytes it is given.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Head and body of the next answer.
    pub(super) async fn answer(&mut self) -> String {
        let read = async {
            let mut text = String::new();
            let mut chunk = [0; 4096];
            loop {
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let head = head.to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                        return text;
                    }
                }
                let len = self.0.read(&mut chunk).await.unwrap();
                assert!(len > 0, "closed after {text:?}");
                text += &String::from_utf8_lossy(&chunk[..len]);
            }
        };
        timeout(DEADLINE, read).await.expect("an answer in time")
    }

    /// Waits until the server closes the connection; gives back what it said before, and how long it took.
    pub(super) async fn closed(&mut self) -> (String, Duration) {
        let start = Instant::now();
        let mut bytes = Vec::new();
        // A reset closes as well as anything.
        timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await.expect("closed in time").ok();
        (String::from_utf8_lossy(&bytes).into_owned(), start.elapsed())
    }
}

pub(super) fn put() -> Vec<u8> {
    http1(&request(&Signing::default()))
}

/// One answer in full, with a status of the client's fault, its type in header and body, and an end of the connection.
pub(super) fn is_typed_refusal(said: &str) -> bool {
    let Some((head, body)) = said.split_once("\r\n\r\n") else { return false };
    let code = head.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or("none");
    head.starts_with("HTTP/1.1 4")
        && head.contains("connection: close")
        && body.starts_with(&format!(r#"{{"__type":"{code}","message":""#))
        && body.ends_with("\"}")
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    for _ in 0..2 {
        client.send(&put()).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    }
    // Two requests at once, and both are answered in their order.
    client.send(&[put(), put()].concat()).await;
    for _ in 0..2 {
        assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    }

    let socket = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let send = |sender: &mut http2::SendRequest<Full<Bytes>>| {
        let (mut parts, body) = request(&Signing::default()).into_parts();
        parts.headers.remove("host");
        parts.uri = "http://localhost:4573/".parse().unwrap();
        parts.version = Version::HTTP_2;
        sender.send_request(Request::from_parts(parts, Full::new(body)))
    };
    let answers = futures_util::future::join_all((0..50).map(|_| send(&mut sender))).await;
    for answer in answers {
        let answer = Answer::of(answer.unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop(sender);
    timeout(DEADLINE, connection).await.unwrap().unwrap().unwrap();
    assert_eq!(running.stop().await.stored("web").len(), 54);
}

#[tokio::test]
async fn an_sdk_that_is_refused_before_its_body_was_read_still_sees_why() {
    let running = start(Limits { body_bytes_max: 1 << 20, ..Limits::default() }).await;
    let body = vec![b' '; 1_500_000];
    for (signing, code) in [
        (Signing { body: &body, ..Signing::default() }, "RequestEntityTooLargeException"),
        (Signing { body: &body[..1 << 20], region: "eu-west-1", ..Signing::default() }, "InvalidSignatureException"),
    ] {
        let mut client = running.connect().await;
        client.send(&http1(&request(&signing))).await;
        let answer = client.answer().await;
        assert!(answer.contains(&format!("x-amzn-errortype: {code}")), "{answer}");
    }
    running.stop().await;
}

/// A client that was refused and has 64 MiB to send. `reads_first` waits for the answer in the middle of them, as
/// clients do that read while they write; the other kind reads when everything is sent.
async fn send_too_much(running: &Running, reads_first: bool) -> String {
    let head = put();
    let head = String::from_utf8_lossy(&head);
    let fields = head.lines().filter(|line| !line.starts_with("content-length") && !line.is_empty());
    let fields: Vec<&str> = fields.take_while(|line| !line.starts_with('{')).collect();
    let mut client = running.connect().await;
    let len = 64 << 20;
    client.send(format!("{}\r\ncontent-length: {len}\r\n\r\n", fields.join("\r\n")).as_bytes()).await;
    let mut said = String::new();
    let piece = vec![b' '; 1 << 20];
    for sent in 0..64 {
        if reads_first && sent == 1 {
            said = client.answer().await;
        }
        client.0.write_all(&piece).await.expect("nothing is reset while the client sends");
    }
    if !reads_first {
        said = client.answer().await;
    }
    client.0.shutdown().await.unwrap();
    assert_eq!(client.closed().await.0, "");
    said
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_at_once_and_its_sender_can_send_on_and_read_why() {
    let running = start(Limits { body_bytes_max: 1 << 20, ..Limits::default() }).await;
    for reads_first in [true, false] {
        let said = send_too_much(&running, reads_first).await;
        assert!(is_typed_refusal(&said) && said.starts_with("HTTP/1.1 413"), "{said}");
    }
    assert!(running.stop().await.stored("web").is_empty());
}

/// Clients keep connections; whoever was refused before the body was read uses the same one again.
#[tokio::test]
async fn after_a_refusal_of_a_small_body_the_connection_goes_on() {
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    for _ in 0..2 {
        client.send(&http1(&request(&Signing { region: "eu-west-1", ..Signing::default() }))).await;
        let said = client.answer().await;
        assert!(said.starts_with("HTTP/1.1 403") && !said.contains("connection: close"), "{said}");
    }
    client.send(&put()).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    running.stop().await;
}

#[tokio::test]
async fn malformed_http_is_refused_and_the_next_client_is_served() {
    let running = start(Limits::default()).await;
    let long = format!("POST / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
    let longest = format!("POST /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(70 << 10));
    let many = format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let corpus: [&[u8]; 18] = [
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost h\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\n folded: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: x\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nhost: h\0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 this is how TLS begins, more or less",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frames follow this preface, only words",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        longest.as_bytes(),
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in corpus {
        let mut client = running.connect().await;
        client.0.write_all(bytes).await.ok();
        client.0.shutdown().await.ok();
        let (said, _) = client.closed().await;
        // What breaks off, or turns out to be another protocol, gets no answer.
        let refused = said.is_empty() || !said.starts_with("HTTP/") || is_typed_refusal(&said);
        assert!(refused, "{:.100} was answered with {said}", bytes.escape_ascii());
        let mut healthy = running.connect().await;
        healthy.send(&put()).await;
        assert!(healthy.answer().await.starts_with("HTTP/1.1 200"), "after {:.100}", bytes.escape_ascii());
    }
    assert_eq!(running.stop().await.stored("web").len(), corpus.len());
}

#[tokio::test]
async fn a_body_that_never_ends_stores_nothing() {
    let running = start(Limits::default()).await;
    for cut in [put().len() - 1, put().len() - 30] {
        let mut client = running.connect().await;
        client.send(&put()[..cut]).await;
        client.0.shutdown().await.unwrap();
        client.closed().await;
    }
    assert!(running.stop().await.stored("web").is_empty());
}

#[tokio::test]
async fn a_head_must_be_complete_in_time_and_others_do_not_wait_for_it() {
    let limits = Limits { header_within: Duration::from_secs(2), ..Limits::default() };
    let running = start(limits).await;
    let mut slow = running.connect().await;
    // A byte now and then keeps nobody waiting for longer.
    let drip = async {
        let head = b"POST / HTTP/1.1\r\nhost: localhost\r\nx-long: ".iter().chain(std::iter::repeat(&b'a'));
        for byte in head {
            slow.send(&[*byte]).await;
            if let Ok(said) = timeout(Duration::from_millis(50), slow.answer()).await {
                return said;
            }
        }
        unreachable!("the head has no end")
    };
    let healthy = async {
        for _ in 0..20 {
            let mut client = running.connect().await;
            client.send(&put()).await;
            assert!(client.answer().await.starts_with("HTTP/1.1 200"));
        }
    };
    let start = Instant::now();
    let ((), said) = tokio::join!(healthy, timeout(DEADLINE, drip));
    let said = said.expect("the slow client is told");
    assert!(is_typed_refusal(&said) && said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(start.elapsed() >= limits.header_within);
    assert_eq!(slow.closed().await.0, "");
    running.stop().await;
}

#[tokio::test]
async fn who_never_ends_a_head_is_told_whatever_part_of_it_came() {
    let limits = Limits { header_within: Duration::from_millis(500), ..Limits::default() };
    let running = start(limits).await;
    for begun in ["PO", "POST / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nhost: h\r\nx: "] {
        let mut client = running.connect().await;
        client.send(begun.as_bytes()).await;
        let (said, _) = client.closed().await;
        assert!(is_typed_refusal(&said) && said.starts_with("HTTP/1.1 408"), "{begun:?}: {said}");
    }
    // A client of the other protocol would take it for noise.
    let mut client = running.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n").await;
    assert_eq!(client.closed().await.0, "");
    running.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let idle = Duration::from_secs(2);
    let running = start(Limits { idle, ..Limits::default() }).await;
    let (mut mute, mut busy) = (running.connect().await, running.connect().await);
    for _ in 0..6 {
        busy.send(&put()).await;
        assert!(busy.answer().await.starts_with("HTTP/1.1 200"));
        sleep(idle / 4).await;
    }
    assert_eq!(mute.closed().await.0, "");
    let (said, after) = busy.closed().await;
    assert_eq!(said, "");
    assert!(after >= idle / 2, "closed after {after:?}");
    running.stop().await;
}

#[tokio::test]
async fn when_all_connections_are_taken_idle_ones_make_room() {
    let limits = Limits { connections_max: 4, idle_when_full: Duration::from_millis(300), ..Limits::default() };
    let running = start(limits).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = running.connect_and_send(&put());
        client.answer().await;
        idle.push(client);
    }
    let mut late = running.connect_and_send(&put());
    assert!(late.answer().await.starts_with("HTTP/1.1 200"));
    // As many as there was need of: others may stay, whichever they are.
    let (closed, _, _) =
        futures_util::future::select_all(idle.iter_mut().map(|client| Box::pin(client.closed()))).await;
    assert_eq!(closed.0, "");
    running.stop().await;
}

#[tokio::test]
async fn when_all_connections_are_busy_one_more_is_told_to_slow_down() {
    let running = start(Limits { connections_max: 2, ..Limits::default() }).await;
    let cut = put().len() - 5;
    let mut busy = [running.connect().await, running.connect().await];
    for client in &mut busy {
        client.send(&put()[..cut]).await;
    }
    let mut late = running.connect().await;
    let answer = late.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with(r#""message":"Slow down."}"#), "{answer}");
    for client in &mut busy {
        client.send(&put()[cut..]).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_open_and_takes_nothing_new() {
    let running = start(Limits::default()).await;
    let (mut idle, mut open) = (running.connect().await, running.connect().await);
    idle.send(&put()).await;
    idle.answer().await;
    let bytes = put();
    open.send(&bytes[..bytes.len() - 5]).await;
    let mut probe = running.connect().await;
    probe.send(b"GET /ready HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(probe.answer().await.starts_with("HTTP/1.1 200"), "the open request has arrived by now");

    running.stop.cancel();
    assert_eq!(idle.closed().await.0, "");
    timeout(DEADLINE, async { while TcpStream::connect(running.address).await.is_ok() {} })
        .await
        .expect("not listening");
    open.send(&bytes[bytes.len() - 5..]).await;
    assert!(open.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(running.stop().await.stored("web").len(), 2);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_longer_than_its_grace() {
    let running = start_with_grace(Limits::default(), Duration::from_millis(300)).await;
    let mut open = running.connect().await;
    open.send(&put()[..put().len() - 5]).await;
    // An HTTP/2 request that never ends, too.
    let socket = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let (parts, _) = request(&Signing::default()).into_parts();
    let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<hyper::body::Frame<Bytes>, std::io::Error>,
    >());
    let mut hanging = Request::from_parts(parts, never);
    *hanging.uri_mut() = "http://localhost:4573/".parse().unwrap();
    let hanging = tokio::spawn(async move { sender.send_request(hanging).await });
    sleep(Duration::from_millis(100)).await;

    let begun = Instant::now();
    assert!(running.stop().await.stored("web").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    open.closed().await;
    assert!(timeout(DEADLINE, hanging).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn operators_see_how_the_server_is() {
    use hydrant_core::Timestamp;

    use crate::streams::{Ailment, State};

    let running = start(Limits::default()).await;
    let get = async |path: &str| {
        let mut client = running.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await;
        client.answer().await
    };
    assert!(get("/health").await.ends_with("\r\n\r\nok\n"));
    assert!(get("/metrics").await.ends_with("# EOF\n"));
    let ailment = Ailment {
        since: Timestamp::from_millis(1_788_093_360_000),
        code: "forbidden",
        message: "access denied".to_owned(),
        is_final: false,
    };
    let streams = Arc::clone(&running.stand.api.streams);
    streams.get("web").unwrap().health().set(State::Degraded(ailment.clone()));
    let ready = get("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let entry = r#"{"stream":"web","state":"degraded","since":"2026-08-30T12:36:00.000Z","code":"forbidden","message":"access denied"}"#;
    assert!(ready.contains(entry) && ready.contains(r#"{"stream":"folder","state":"healthy"}"#), "{ready}");
    for stream in streams.list(None) {
        stream.health().set(State::Failed(ailment.clone()));
    }
    assert!(get("/ready").await.starts_with("HTTP/1.1 503"), "no stream takes records");
    running.stop().await;
}

#[tokio::test]
async fn operators_may_have_a_door_of_their_own() {
    for (audience, served) in [
        (Audience::Clients, ["200", "40", "40", "200"]),
        (Audience::Operators, ["200", "503", "200", "404"]),
        (Audience::Everybody, ["200", "200", "200", "200"]),
    ] {
        let running = start_for(audience, None, Limits::default(), DEADLINE).await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").into_bytes();
        let asked = [get("/health"), get("/ready"), get("/metrics"), put()];
        for (bytes, status) in asked.iter().zip(served) {
            let mut client = running.connect().await;
            client.send(bytes).await;
            let said = client.answer().await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{audience:?}: {said}");
        }
        running.stop().await;
    }
}
