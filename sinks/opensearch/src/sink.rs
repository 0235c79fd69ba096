//! Delivers documents: one `_bulk` for each attempt, and what its answer means.
//!
//! In: a batch. Out: a verdict for each of its pieces.
//!
//! ```text
//!   lines ──> POST _bulk ──> 200, an item for each ──> 201, or 409 for a known id ──> Delivered
//!                       │                          ├─> 400: it does not fit the index ──> Refused
//!                       │                          └─> 429, 5xx, blocked, missing ─────> Retry
//!                       └─> anything else, or nothing ────────────────────────────────> Retry, all of them
//! ```

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hydrant_core::batch::Batch;
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::sink::{Encoded, Sent};
use hydrant_core::{BatchId, ByteSize, Fault, FaultCode, Limits, Piece, PieceSink, Report, Verdict};
use hydrant_outbound::{Body, Bounds, Client, Options};
use libdeflater::{CompressionLvl, Compressor};

use crate::config::{Basic, Compression, Login, SinkConfig, check_endpoint};
use crate::signing::Signing;
use crate::wire::{self, Shape};

/// Most documents in a request: what a cluster indexes in a second or so, and an answer of some MiB at worst.
const PIECES_MAX: u32 = 10_000;

/// Attempts at once. More do not make a cluster faster; each holds a request in memory.
const ATTEMPTS_MAX: u32 = 4;

/// Fewest bytes a second, over the whole of a request. A line that does less cannot carry a stream.
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// What the cluster tells of each item, and no more: an eighth of the bytes. Servers that do not know it tell all.
/// In the one spelling that a signature is made of.
const QUERY: &str = "filter_path=items.%2A._id%2Citems.%2A.status%2Citems.%2A.error.type%2Citems.%2A.error.reason\
                     %2Citems.%2A.error.caused_by.reason";

/// Delivers documents to an index or a data stream.
#[derive(Debug)]
pub struct OpenSearchSink {
    client: Client,
    shape: Shape,
    url: String,
    headers: HeaderMap,
    signing: Option<Signing>,
    compression: Compression,
    body_max: ByteSize,
    stall: Duration,
    destination: String,
}

impl OpenSearchSink {
    /// The sink for this cluster. Connects to nothing.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub fn new(config: &SinkConfig, secrets: &dyn Secrets) -> Result<Self, String> {
        check_endpoint(&config.endpoint).map_err(|reason| format!("endpoint {reason}"))?;
        let base = config.endpoint.trim_end_matches('/');
        let options = Options { ca_file: config.ca_file.as_ref().map(PathBuf::from), ..Options::default() };
        Ok(Self {
            client: Client::new(&options).map_err(|error| with_causes(&error))?,
            shape: Shape::new(config),
            // Half of our own patience, so that the cluster says what it waits for before we hang up.
            url: format!("{base}/_bulk?{QUERY}&timeout={}ms", config.timeout.0.as_millis() / 2),
            headers: headers(config, secrets)?,
            signing: match &config.login {
                Login::Sigv4(config) => Some(Signing::new(config, secrets)?),
                Login::None | Login::Basic(_) | Login::ApiKey(_) => None,
            },
            compression: config.compression,
            body_max: config.body_max,
            stall: config.timeout.0,
            destination: format!("{base}/{}", config.target()),
        })
    }

    async fn send(&self, encoded: &Encoded, answer_bytes_max: usize) -> Result<Response<Bytes>, Fault> {
        let body = Body::Parts(encoded.body.clone());
        let whole = self.stall + Duration::from_secs(body.len() / BYTES_PER_SECOND_MIN);
        let mut request = Request::post(&self.url)
            .body(body)
            .map_err(|_| Fault::new(FaultCode::Internal, "the request cannot be built"))?;
        *request.headers_mut() = self.headers.clone();
        if let Some(signing) = &self.signing {
            signing.sign(&mut request, &encoded.body).await?;
        }
        let bounds = Bounds { stall: self.stall, whole, answer_bytes_max };
        self.client.send(request, bounds).await.map_err(|error| wire::unanswered(&error))
    }

    /// Forgets the key that a request was signed with if it was for nothing.
    async fn forget_key(&self, verdicts: &[(u32, Verdict)]) {
        let (Some(signing), Some((_, Verdict::Retry(fault)))) = (&self.signing, verdicts.first()) else { return };
        if matches!(fault.code, FaultCode::Unauthenticated | FaultCode::Forbidden) {
            signing.forget().await;
        }
    }

    /// What became of the documents that were sent. A long answer takes milliseconds to read, so it is read apart.
    async fn judge(&self, answer: Response<Bytes>, batch: BatchId, sent: &[(u32, Piece)]) -> Vec<(u32, Verdict)> {
        let (pieces, ids) = (sent.to_vec(), self.shape.document_id());
        let reading = tokio::task::spawn_blocking(move || wire::verdicts(&answer, batch, &pieces, ids));
        let unread = |_| Err(Fault::new(FaultCode::Internal, "the answer could not be read"));
        let fault = match reading.await.unwrap_or_else(unread) {
            Ok(verdicts) => return verdicts,
            Err(fault) => fault,
        };
        // A request of one record that is too long: it is the record.
        let is_the_record = fault.code == FaultCode::TooLarge && sent.len() == 1;
        let verdict = if is_the_record { Verdict::Refused } else { Verdict::Retry };
        all(sent, &verdict(fault))
    }
}

#[async_trait]
impl PieceSink for OpenSearchSink {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: self.body_max, pieces_max: PIECES_MAX, attempts_in_flight_max: ATTEMPTS_MAX }
    }

    fn destination(&self) -> String {
        self.destination.clone()
    }

    /// The service's name for this destination that has no capitals. Source: object names of its older streams.
    fn error_type(&self) -> &'static str {
        "elasticsearch-failed"
    }

    fn known_as(&self, sent: Sent<'_>) -> Vec<(&'static str, String)> {
        self.shape.known_as(sent)
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let lines = self.shape.lines(batch);
        let bytes = match self.compression {
            _ if lines.bytes.is_empty() => return Encoded { body: Vec::new(), refused: lines.refused },
            Compression::None => lines.bytes,
            Compression::Gzip => gzip(&lines.bytes),
        };
        Encoded { body: vec![bytes.into()], refused: lines.refused }
    }

    async fn deliver(&self, batch: &Batch, encoded: &Encoded) -> Report {
        let (sent, later) = batch.pieces.split_at(self.shape.carried(batch));
        let mut verdicts = match self.send(encoded, wire::answer_bytes_max(sent)).await {
            Ok(answer) => self.judge(answer, batch.id, sent).await,
            Err(fault) => all(sent, &Verdict::Retry(fault)),
        };
        self.forget_key(&verdicts).await;
        verdicts.extend(all(later, &Verdict::Retry(Fault::new(FaultCode::Throttled, FOLLOWS))));
        Report::Each(verdicts)
    }
}

/// Why a record was not sent.
const FOLLOWS: &str = "a request holds fewer records than when this batch was sealed; it follows in another";

fn all(pieces: &[(u32, Piece)], verdict: &Verdict) -> Vec<(u32, Verdict)> {
    pieces.iter().map(|(ordinal, _)| (*ordinal, verdict.clone())).collect()
}

fn headers(config: &SinkConfig, secrets: &dyn Secrets) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if config.compression == Compression::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let resolve = |reference: &SecretRef| secrets.resolve(reference);
    let (scheme, credentials, reference) = match &config.login {
        Login::None | Login::Sigv4(_) => return Ok(headers),
        Login::Basic(Basic { username, password }) => {
            let pair = format!("{username}:{}", resolve(password)?.expose());
            ("Basic", Secret::new(base64_simd::STANDARD.encode_to_string(pair)), password)
        }
        Login::ApiKey(key) => ("ApiKey", resolve(key)?, key),
    };
    let mut value = HeaderValue::try_from(format!("{scheme} {}", credentials.expose()))
        .map_err(|_| format!("{reference} holds what cannot be sent in a header"))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

/// Compresses a request with the least work. The figures are in this folder's `README.md`.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "libdeflate's levels go from 0 to 12")]
    let mut compressor = Compressor::new(CompressionLvl::new(1).expect("a level of libdeflate"));
    let mut compressed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    #[expect(clippy::expect_used, reason = "libdeflate fails only when the output has less room than its bound")]
    let len = compressor.gzip_compress(bytes, &mut compressed).expect("room by the bound");
    compressed.truncate(len);
    compressed
}

/// An error with everything that caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
