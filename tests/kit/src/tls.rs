//! TLS in front of a server that speaks none: it proves itself with the certificate of the tests and passes on what it
//! hears.
//!
//! ```text
//!   client ──TLS──> [ terminator: one.crt ] ──in the clear──> server
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The certificate that is shown, its own authority; for `localhost` and `127.0.0.1`.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/tls/one.crt");

/// The certificate of somebody else.
pub const OTHER_CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/tls/two.crt");

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/tls/one.key");

/// A running terminator. Stops when dropped.
#[derive(Debug)]
pub struct Terminator {
    address: SocketAddr,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

impl Terminator {
    /// Starts one on a free port of the loopback interface, in front of the server there.
    ///
    /// # Errors
    /// When the port cannot be opened, or the certificate not be used.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let chain = vec![CertificateDer::from_pem_file(CERTIFICATE).map_err(io::Error::other)?];
        let key = PrivateKeyDer::from_pem_file(KEY).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), server));
        Ok(Self { address, _tasks: tasks })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // What ends a connection does not matter: either side sees it end.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
