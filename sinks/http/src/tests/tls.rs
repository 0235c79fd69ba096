//! Over TLS: an authority of our own is trusted when it is named, and nobody else is.

use std::net::SocketAddr;
use std::sync::Arc;

use hydrant_core::compression::Compression;
use hydrant_core::{FaultCode, PieceSink, Report, Verdict};
use hydrant_kit::conformance::batch;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::world::World;
use crate::SinkConfig;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tls");

/// Speaks TLS with `one.crt`, which is for `localhost` and `127.0.0.1`, and passes on what it hears.
async fn terminator(to: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let file = |name: &str| format!("{GOLDEN}/{name}");
    let chain = vec![CertificateDer::from_pem_file(file("one.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("one.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    };
    (address, tokio::spawn(accepting))
}

#[tokio::test]
async fn an_endpoint_must_prove_to_be_who_it_is_called() {
    let world = World::firehose(Compression::None).await;
    let (address, accepting) = terminator(world.receiver.address()).await;
    let named = |host: &str| format!("https://{host}:{}/", address.port());
    let (one, two) = (format!("{GOLDEN}/one.crt"), format!("{GOLDEN}/two.crt"));
    for (seed, url, ca_file, is_trusted) in [
        (1, named("localhost"), Some(&one), true),
        (2, named("127.0.0.1"), Some(&one), true),
        (3, named("localhost"), None, false),
        (4, named("localhost"), Some(&two), false),
        (5, named("127.0.0.2"), Some(&one), false),
        (6, named("[::ffff:127.0.0.1]"), Some(&one), false),
    ] {
        let sink = world.sink_with(|config| SinkConfig {
            url: SinkConfig::to(url.clone()).url,
            ca_file: ca_file.cloned(),
            ..config
        });
        let batch = batch(&world, seed, 3, 50);
        match sink.deliver(&batch, &sink.encode(&batch)).await {
            Report::All(Verdict::Delivered) => assert!(is_trusted, "{url} {ca_file:?}"),
            Report::All(Verdict::Retry(fault)) => {
                assert!(!is_trusted && fault.code == FaultCode::Unreachable, "{url} {ca_file:?}: {fault}");
            }
            other => panic!("{url} {ca_file:?}: {other:?}"),
        }
    }
    assert_eq!(world.receiver.ids(), 2);
    accepting.abort();
}
