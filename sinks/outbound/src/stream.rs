//! Streams: TCP connections, and TLS over them, for protocols that are not HTTP.
//!
//! ```text
//!   host, port ──resolve──> addresses ──connect──> TcpStream ──(the protocol's own greeting)──> Tls::wrap ──> TlsStream
//! ```
//!
//! Trusts whom the HTTP client trusts: the system's certificate authorities and those of a PEM file.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::AddressPolicy;
use crate::client::BuildError;

/// Opens a TCP connection to the first of the host's addresses that is allowed and takes it. Small writes are sent at
/// once.
///
/// # Errors
/// When the name does not resolve or to nothing that is allowed, nothing listens, or `within` is over. Cancel safe: a
/// dropped call closes what it opened.
pub async fn connect(host: &str, port: u16, addresses: AddressPolicy, within: Duration) -> io::Result<TcpStream> {
    let open = async {
        let allowed = addresses.resolve(host, port).await?;
        let stream = TcpStream::connect(&allowed[..]).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    tokio::time::timeout(within, open).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// TLS with a server that proves to be the host it is called by: to authorities of the system or of this PEM file.
    ///
    /// # Errors
    /// [`BuildError`], by cause.
    pub fn verified(ca_file: Option<&Path>) -> Result<Self, BuildError> {
        let extra = ca_file.map_or_else(|| Ok(Vec::new()), read_authorities)?;
        let verifier =
            Verifier::new_with_extra_roots(extra, provider()).map_err(|error| BuildError::Tls(error.to_string()))?;
        Self::with(Arc::new(verifier))
    }

    /// TLS with whoever answers. Keeps out those who listen, and not those who pose as the server.
    ///
    /// # Errors
    /// [`BuildError::Tls`]; none is expected.
    pub fn unverified() -> Result<Self, BuildError> {
        Self::with(Arc::new(AnyServer(provider())))
    }

    fn with(verifier: Arc<dyn ServerCertVerifier>) -> Result<Self, BuildError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Agrees on TLS over an open connection with the server called `host`, a name or an address.
    ///
    /// # Errors
    /// When the other side speaks no TLS, or does not prove to be `host`, or the connection ends. Cancel safe: a
    /// dropped call closes the connection.
    pub async fn wrap<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::CaFile { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| BuildError::NoCertificate(path.to_owned()))
}

/// Takes any certificate, and still asks for proof that the other side holds its key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
