//! The certificate of the HTTPS listener: from two PEM files to what a handshake needs, and again when they change.
//!
//! In: where certificate and key are. Out: the server's side of TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN. A
//! pair that cannot be used is told by the file that is at fault, and never replaces one that can.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hydrant_core::secret::{Secret, Secrets};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::spec::TlsSpec;

/// Most bytes of a file of certificates. A chain of four is some 8 KiB.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;

/// Protocols, by preference. Source: the registry of ALPN protocol ids.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificate and key cannot be used. Holds nothing of either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The file of certificates.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The key, or the two do not belong together.
    #[error("key: {0}")]
    Key(String),
}

/// The certificate in force.
#[derive(Debug)]
pub struct Tls {
    spec: TlsSpec,
    current: Mutex<Loaded>,
}

/// What was read, to tell a change by, and what was made of it.
#[derive(Clone, Debug)]
struct Loaded {
    certificates: Vec<u8>,
    key: Secret,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate and key for the first time. Blocks.
    ///
    /// # Errors
    /// When one of them cannot be read or is not what it should be, or they do not belong together.
    pub fn load(spec: &TlsSpec, secrets: &dyn Secrets) -> Result<Self, TlsError> {
        let (certificates, key) = read(spec, secrets)?;
        let config = Arc::new(configure(&certificates, &key)?);
        Ok(Self { spec: spec.clone(), current: Mutex::new(Loaded { certificates, key, config }) })
    }

    /// Reads them again and takes what changed, for connections from now on. Says whether something had. Blocks.
    ///
    /// # Errors
    /// As [`load`](Self::load); then the ones in force stay. A pair that is being replaced file by file fails in between.
    pub fn reload(&self, secrets: &dyn Secrets) -> Result<bool, TlsError> {
        let (certificates, key) = read(&self.spec, secrets)?;
        let in_force = self.current();
        if in_force.certificates == certificates && in_force.key == key {
            return Ok(false);
        }
        let config = Arc::new(configure(&certificates, &key)?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Loaded { certificates, key, config };
        Ok(true)
    }

    /// Makes handshakes with the certificate that is in force now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    fn current(&self) -> Loaded {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(spec: &TlsSpec, secrets: &dyn Secrets) -> Result<(Vec<u8>, Secret), TlsError> {
    let certificates = read_certificates(&spec.certificate)
        .map_err(|why| TlsError::Certificate(format!("{} {why}", spec.certificate.display())))?;
    let key = secrets.resolve(&spec.key).map_err(TlsError::Key)?;
    Ok((certificates, key))
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(CERTIFICATES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > CERTIFICATES_BYTES_MAX {
        return Err(format!("is larger than {CERTIFICATES_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// The server's side of TLS with this certificate chain and key, both PEM.
fn configure(certificates: &[u8], key: &Secret) -> Result<ServerConfig, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Certificate("the file is not PEM".to_owned()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("the file holds no certificate".to_owned()));
    }
    // The parser's own words might repeat a part of the key.
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| TlsError::Key("this is no unencrypted private key in PEM".to_owned()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Certificate(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(explain)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn explain(error: Error) -> TlsError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Key("the key does not belong to the first certificate of the file".to_owned())
        }
        Error::InvalidCertificate(why) => TlsError::Certificate(format!("the certificate cannot be used: {why}")),
        error => TlsError::Key(format!("the key cannot be used: {error}")),
    }
}

#[cfg(test)]
mod tests;
