//! Signatures: requests to Amazon OpenSearch Service and Serverless, by Signature Version 4.
//!
//! In: a request with all its headers. Out: the same with `Authorization` and what belongs to it, covering the hash of its
//! body. Keys come from the configuration or the AWS chain, when they are needed.

use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::Request;
use hydrant_core::secret::Secrets;
use hydrant_core::{Fault, FaultCode};
use hydrant_outbound::aws::Credentials;

use crate::config::{Service, Sigv4};

/// How much of a body is hashed before other tasks have their turn: a tenth of a millisecond or so.
const HASHED_BYTES: usize = 256 << 10;

/// Signs requests.
#[derive(Debug)]
pub(crate) struct Signing {
    credentials: Credentials,
    region: String,
    service: Service,
}

impl Signing {
    /// Prepares what `config` asks for. Asks nobody for a key.
    ///
    /// # Errors
    /// A sentence for the operator when a named secret is missing or cannot be sent.
    pub(crate) fn new(config: &Sigv4, secrets: &dyn Secrets) -> Result<Self, String> {
        let credentials = Credentials::new(&config.key_source(), secrets)?;
        Ok(Self { credentials, region: config.region.clone(), service: config.service })
    }

    /// Signs a request that carries `body`. Cancel safe: nothing is kept.
    ///
    /// # Errors
    /// When no key can be had.
    pub(crate) async fn sign<T>(&self, request: &mut Request<T>, body: &[Bytes]) -> Result<(), Fault> {
        let key = self.credentials.get().await;
        let identity = key.map_err(|error| Fault::new(FaultCode::Unauthenticated, error.to_string()))?.into();
        let mut settings = SigningSettings::default();
        // OpenSearch Serverless insists on it.
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        #[expect(clippy::disallowed_methods, reason = "a signature names the moment of the system's own clock")]
        let now = SystemTime::now();
        let unsigned = |_| Fault::new(FaultCode::Internal, "the request cannot be signed");
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service.as_str())
            .time(now)
            .settings(settings)
            .build()
            .map_err(|_| Fault::new(FaultCode::Internal, "the request cannot be signed"))?
            .into();
        let hash = hex(&hash(body).await);
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let uri = request.uri().to_string();
        let signable = SignableRequest::new(request.method().as_str(), uri, headers, SignableBody::Precomputed(hash));
        let signed = signable.and_then(|signable| sign(signable, &params)).map_err(unsigned)?;
        let (instructions, _signature) = signed.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// Forgets the key that was kept: the cluster does not accept it.
    pub(crate) async fn forget(&self) {
        self.credentials.forget().await;
    }
}

async fn hash(body: &[Bytes]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in body.iter().flat_map(|part| part.chunks(HASHED_BYTES)) {
        context.update(part);
        tokio::task::yield_now().await;
    }
    context.finish().as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
