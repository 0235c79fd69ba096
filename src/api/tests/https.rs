//! HTTPS: both protocols behind a handshake, handshakes that never end, and a certificate that changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hydrant_core::secret::SecretRef;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connections::{DEADLINE, Running, put, start_for};
use super::kit::{Answer, Signing, request};
use crate::api::{Audience, Limits};
use crate::config::LocalSecrets;
use crate::config::spec::TlsSpec;
use crate::tls::Tls;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tls");

/// A copy of a golden pair that can be changed.
struct Pair(tempfile::TempDir);

impl Pair {
    fn of(name: &str) -> Self {
        let pair = Self(tempfile::tempdir().unwrap());
        pair.put(name);
        pair
    }

    fn put(&self, name: &str) {
        for end in ["crt", "key"] {
            std::fs::copy(format!("{GOLDEN}/{name}.{end}"), self.path(end)).unwrap();
        }
    }

    fn path(&self, end: &str) -> PathBuf {
        self.0.path().join(end)
    }

    fn tls(&self) -> Arc<Tls> {
        let key = SecretRef::File(self.path("key").display().to_string());
        Arc::new(Tls::load(&TlsSpec { certificate: self.path("crt"), key }, &LocalSecrets).unwrap())
    }
}

/// A connection of a client that trusts only this certificate and speaks only this protocol.
async fn connect(running: &Running, name: &str, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{GOLDEN}/{name}.crt")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(running.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

async fn start(tls: Arc<Tls>, limits: Limits) -> Running {
    start_for(Audience::Everybody, Some(tls), limits, DEADLINE).await
}

/// The first line of the answer to a put.
async fn put_over(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(&put()).await.unwrap();
    let mut answer = [0; 15];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls_and_nothing_without_it() {
    let pair = Pair::of("one");
    let running = start(pair.tls(), Limits::default()).await;
    let mut stream = connect(&running, "one", b"http/1.1").await.unwrap();
    assert_eq!(put_over(&mut stream).await, "HTTP/1.1 200 OK");

    let stream = connect(&running, "one", b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (mut parts, body) = request(&Signing::default()).into_parts();
    parts.headers.remove("host");
    parts.uri = "https://localhost:4573/".parse().unwrap();
    parts.version = Version::HTTP_2;
    let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await.unwrap();
    assert_eq!(Answer::of(answer).await.status, 200);
    drop(sender);
    connection.await.unwrap().unwrap();

    let mut plain = running.connect().await;
    plain.send(&put()).await;
    assert!(!plain.closed().await.0.contains("HTTP/"), "no answer without TLS");
    assert_eq!(running.stop().await.stored("web").len(), 2);
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection_and_must_end_in_time() {
    let limits = Limits { connections_max: 1, header_within: Duration::from_secs(3), ..Limits::default() };
    let pair = Pair::of("one");
    let running = start(pair.tls(), limits).await;
    let mut mute = running.connect().await;
    mute.send(b"\x16\x03\x01\x02\0\x01").await;
    let mut late = running.connect().await;
    assert!(late.closed().await.0.starts_with("HTTP/1.1 503"), "the one place is taken");
    let (said, _) = mute.closed().await;
    assert_eq!(said, "");
    let mut stream = connect(&running, "one", b"http/1.1").await.unwrap();
    assert_eq!(put_over(&mut stream).await, "HTTP/1.1 200 OK");
    running.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() {
    let pair = Pair::of("one");
    let tls = pair.tls();
    let running = start(Arc::clone(&tls), Limits::default()).await;
    let mut old = connect(&running, "one", b"http/1.1").await.unwrap();
    pair.put("two");
    assert_eq!(tls.reload(&LocalSecrets), Ok(true));
    assert!(connect(&running, "one", b"http/1.1").await.is_err());
    let mut new = connect(&running, "two", b"http/1.1").await.unwrap();
    for stream in [&mut old, &mut new] {
        assert_eq!(put_over(stream).await, "HTTP/1.1 200 OK");
    }
    running.stop().await;
}
