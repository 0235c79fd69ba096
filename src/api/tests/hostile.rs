//! Clients that mean harm, on real sockets: requests within requests, every byte of a request changed, and more
//! connections than one client should have.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::connections::{Client, DEADLINE, is_typed_refusal, put, start};
use super::kit::{Signing, http1, request};
use crate::api::Limits;

/// The head of a signed put without its last line, and its body.
fn put_in_parts() -> (String, String) {
    let text = String::from_utf8(put()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("content-length")).collect();
    (head.join("\r\n"), body.to_owned())
}

/// Whatever is sent, the answer is one refusal, and the connection ends with it.
async fn check_refused(sent: &str) {
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    client.0.write_all(sent.as_bytes()).await.ok();
    let (said, _) = client.closed().await;
    assert!(is_typed_refusal(&said), "{sent:?}\nwas answered with {said:?}");
    assert!(running.stop().await.stored("web").is_empty(), "{sent:?}");
}

#[tokio::test]
async fn a_request_with_two_ends_is_refused_and_nothing_behind_it_is_read() {
    let (head, body) = put_in_parts();
    let hidden = String::from_utf8(put()).unwrap();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let (len, long) = (body.len(), body.len() + hidden.len());
    for framing in [
        format!("content-length: {len}\r\ncontent-length: {len}\r\n\r\n{body}"),
        format!("content-length: {len}\r\ncontent-length: {long}\r\n\r\n{body}"),
        format!("content-length: {len}, {len}\r\n\r\n{body}"),
        format!("content-length: {long}\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ncontent-length: {long}\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{chunked}"),
        format!("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: gzip, chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked, chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("transfer-encoding: xchunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: \"chunked\"\r\n\r\n{chunked}"),
        format!("transfer-encoding: \u{b}chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding : chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding\r\n : chunked\r\n\r\n{chunked}"),
        format!("content-length: +{len}\r\n\r\n{body}"),
        format!("content-length: {len}\r\n\x20\r\n\r\n{body}"),
    ] {
        check_refused(&format!("{head}\r\n{framing}{hidden}")).await;
    }
    // HTTP/1.0 knows no chunks.
    check_refused(&format!("POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{hidden}")).await;
}

#[tokio::test]
async fn a_chunked_put_is_taken_and_the_last_of_its_connection() {
    let (head, body) = put_in_parts();
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    let (front, back) = body.split_at(10);
    let chunks = format!("a;x=y\r\n{front}\r\n{:X}\r\n{back}\r\n0\r\ntrailer: x\r\n\r\n", back.len());
    let plain = String::from_utf8(put()).unwrap();
    client.send(format!("{plain}{head}\r\nTransfer-Encoding: Chunked\r\n\r\n{chunks}{plain}").as_bytes()).await;
    let (said, _) = client.closed().await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    assert_eq!(running.stop().await.stored("web").len(), 2, "what lay behind the chunks is no request");
}

#[tokio::test]
async fn chunks_that_are_none_store_nothing() {
    let (head, body) = put_in_parts();
    let (len, hidden) = (body.len(), String::from_utf8(put()).unwrap());
    let running = start(Limits::default()).await;
    for chunks in [
        format!("{len:x}\r\n{body}\r\n0\r\n"),
        format!("{len:x}\r\n{body}0\r\n\r\n"),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", len + 1),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", len - 1),
        format!("0x{len:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{len:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("\r\n{body}\r\n0\r\n\r\n"),
        format!("1{len:016x}\r\n{body}\r\n0\r\n\r\n"),
        "0\r\n\r\n".to_owned(),
    ] {
        let mut client = running.connect().await;
        client
            .0
            .write_all(format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{hidden}").as_bytes())
            .await
            .ok();
        client.0.shutdown().await.ok();
        let (said, _) = client.closed().await;
        assert!(!said.contains("HTTP/1.1 2"), "{chunks:?} was answered with {said}");
    }
    assert!(running.stop().await.stored("web").is_empty());
}

/// Goal: no byte that the signature covers can be changed on its way. Method: the request as it lies on the wire, with
/// each byte of method, target, signed headers, signature and body replaced by up to eight others, each sent over a
/// connection of its own. Left out is what means the same: the case of a header's name.
#[tokio::test]
async fn no_signed_byte_on_the_wire_can_be_changed() {
    let running = start(Limits::default()).await;
    let wire = http1(&request(&Signing { payload_header: true, ..Signing::default() }));
    let mut client = running.connect().await;
    client.send(&wire).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    let (mut changed, mut answered) = (0, 0);
    for (at, is_name) in signed_bytes(&wire) {
        let byte = wire[at];
        let values = [byte ^ 0x01, byte ^ 0x02, byte ^ 0x10, byte ^ 0x20, byte ^ 0x80, 0, b' ', b'\n'];
        for value in values.into_iter().filter(|value| *value != byte) {
            if is_name && value.eq_ignore_ascii_case(&byte) {
                continue;
            }
            let mut forged = wire.clone();
            forged[at] = value;
            let mut client = running.connect().await;
            client.0.write_all(&forged).await.ok();
            client.0.shutdown().await.ok();
            let (said, _) = client.closed().await;
            let is_refused = said.is_empty() || said.starts_with("HTTP/1.1 4");
            assert!(is_refused, "byte {at} as {value:#04x} was answered with {said}");
            changed += 1;
            answered += usize::from(!said.is_empty());
        }
    }
    println!("{changed} requests with one byte changed: 0 accepted, {answered} answered with an error");
    assert!(changed > 4000 && answered > changed / 2, "{changed} {answered}");
    assert_eq!(running.stop().await.stored("web").len(), 1, "only the first, which was whole");
}

/// Where bytes lie that the signature covers, and whether each belongs to a header's name. Not the version, line ends
/// and the length, which are the wire's own.
fn signed_bytes(wire: &[u8]) -> Vec<(usize, bool)> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in wire.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end().len();
        let name = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        match line {
            line if line.starts_with(b"POST ") => {
                found.extend((at..at + "POST /".len()).filter(|at| wire[*at] != b' ').map(|at| (at, false)));
            }
            line if line.starts_with(b"{") => found.extend((at..at + line.len()).map(|at| (at, false))),
            line if line.starts_with(b"content-length") => {}
            _ => {
                found.extend((at..at + name).map(|at| (at, true)));
                let value = (at + name + 2..at + text).filter(|at| wire[*at] != b' ');
                found.extend(value.map(|at| (at, false)));
            }
        }
        at += line.len();
    }
    found
}

#[tokio::test]
async fn a_put_that_ends_early_stores_nothing_wherever_it_ends() {
    let running = start(Limits::default()).await;
    let whole = put();
    for cut in 0..whole.len() {
        let mut client = running.connect().await;
        client.send(&whole[..cut]).await;
        client.0.shutdown().await.ok();
        let (said, _) = client.closed().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "after {cut} bytes: {said}");
    }
    assert!(running.stop().await.stored("web").is_empty());
}

/// A client at another loopback address, as if it were another machine.
async fn connect_from(host: u8, to: std::net::SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, host], 0).into()).unwrap();
    Client(socket.connect(to).await.unwrap())
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let running = start(Limits { connections_max: 8, connections_per_loopback: 3, ..Limits::default() }).await;
    let cut = put().len() - 5;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut client = connect_from(2, running.address).await;
        client.send(&put()[..cut]).await;
        busy.push(client);
    }
    let mut greedy = connect_from(2, running.address).await;
    assert!(greedy.closed().await.0.starts_with("HTTP/1.1 503"));
    let mut other = connect_from(3, running.address).await;
    other.send(&put()).await;
    assert!(other.answer().await.starts_with("HTTP/1.1 200"));
    for client in &mut busy {
        client.send(&put()[cut..]).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    }
    drop(busy);
    let again = async {
        loop {
            let mut client = connect_from(2, running.address).await;
            client.0.write_all(&put()).await.ok();
            if client.answer().await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("what one gives back, the same may have again");
    running.stop().await;
}

/// Newcomers wait for room each for itself: whoever comes behind forty of them is told as soon as they are.
#[tokio::test]
async fn nobody_waits_behind_those_who_wait_for_room() {
    let running = start(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut busy = running.connect().await;
    busy.send(&put()[..put().len() - 5]).await;
    let begun = Instant::now();
    let mut late = Vec::new();
    for _ in 0..40 {
        late.push(Client(TcpStream::connect(running.address).await.unwrap()));
    }
    for client in &mut late {
        assert!(client.closed().await.0.starts_with("HTTP/1.1 503"));
    }
    // One after the other they would take a minute.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    running.stop().await;
}
