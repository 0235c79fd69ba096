//! Delivers pieces: one batch, one request, and what the answer means for all of it.
//!
//! ```text
//!   pieces ──wire: form──> body ──packer: gzip──> POST, request id = batch id ──> taken ────────────────> Delivered
//!                                                                            ├─> the records' own fault > Refused, Discarded
//!                                                                            └─> anything else ─────────> Retry
//! ```
//!
//! An endpoint takes a request whole or not at all, so all pieces of a batch have the same verdict.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use hydrant_core::batch::Batch;
use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::secret::{Secret, Secrets};
use hydrant_core::sink::Encoded;
use hydrant_core::{ByteSize, Fault, FaultCode, Limits, PieceSink, Report, Verdict};
use hydrant_outbound::{Body, Bounds, Client, Options, Url};

use crate::config::{self, Format, Method, SinkConfig, Text};
use crate::packer::Packer;
use crate::wire::{self, Form, Rules, Success};

/// Most bytes of an answer. Source: the service's specification of an endpoint.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Fewest bytes a second, over the whole of a body. A line that does less cannot carry a stream.
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// A record costs at least so many bytes of a body, as far as the number of records is concerned: a body that is
/// smaller than the longest row of records allows holds fewer of them.
const BYTES_PER_RECORD_MIN: u64 = 64;

/// What the service calls itself. Some receivers look at it.
const FIREHOSE_USER_AGENT: HeaderValue = HeaderValue::from_static("Amazon Kinesis Data Firehose Agent/1.0");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-firehose-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Delivers to an endpoint.
#[derive(Debug)]
pub struct HttpSink {
    client: Client,
    /// May hold a secret.
    url: Secret,
    destination: String,
    method: http::Method,
    /// Those that each request has.
    headers: HeaderMap,
    form: Form,
    gzip: Option<GzipLevel>,
    rules: Rules,
    timeout: Duration,
    body_bytes_max: ByteSize,
    limits: Limits,
}

impl HttpSink {
    /// The sink for this endpoint. `source` is the ARN of the stream that the records come from, which the service's
    /// protocol names in each request. Connects to nothing.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub fn new(config: &SinkConfig, source: &str, secrets: &dyn Secrets) -> Result<Self, String> {
        let url = config.address(secrets)?;
        let options = Options { ca_file: config.ca_file.as_ref().map(PathBuf::from), ..Options::default() };
        let (form, success) = match config.format {
            Format::Firehose => (Form::Firehose, Success::Acknowledged),
            Format::Ndjson => (Form::Ndjson, statuses(&config.success)),
            Format::JsonArray => (Form::JsonArray, statuses(&config.success)),
            Format::Raw => (Form::Raw(config.delimiter.as_bytes()), statuses(&config.success)),
        };
        Ok(Self {
            client: Client::new(&options).map_err(|error| with_causes(&error))?,
            destination: destination(&config.url, &url),
            url: Secret::new(url.as_str()),
            method: match config.method {
                Method::Post => http::Method::POST,
                Method::Put => http::Method::PUT,
                Method::Patch => http::Method::PATCH,
            },
            headers: headers(config, source, secrets)?,
            form,
            gzip: match config.compression {
                Compression::Gzip(level) => Some(level),
                Compression::None | Compression::Zstd(_) => None,
            },
            rules: Rules { success, refusals: config.dead_letter_on.clone(), discards: config.discard_on.clone() },
            timeout: config.timeout.0,
            body_bytes_max: config.body_max,
            limits: limits(config, form),
        })
    }

    fn request(&self, batch: &Batch, encoded: &Encoded) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder().method(self.method.clone()).uri(self.url.expose());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
            let id = HeaderValue::try_from(batch.id.to_string())?;
            if self.form == Form::Firehose {
                headers.insert(REQUEST_ID, id);
                headers.insert(TRACE_ID, HeaderValue::try_from(wire::trace_id(batch.id, batch.sealed_at))?);
            } else {
                headers.insert(IDEMPOTENCY_KEY, id);
            }
        }
        request.body(Body::Parts(encoded.body.clone()))
    }

    async fn attempt(&self, batch: &Batch, encoded: &Encoded) -> Verdict {
        let Ok(request) = self.request(batch, encoded) else {
            return Verdict::Retry(Fault::new(FaultCode::Internal, "the request cannot be put together"));
        };
        let transfer = Duration::from_secs(request.body().len() / BYTES_PER_SECOND_MIN);
        let whole = self.timeout + transfer;
        let bounds = Bounds { stall: self.timeout, whole, answer_bytes_max: ANSWER_BYTES_MAX };
        match self.client.send(request, bounds).await {
            Ok(answer) => self.rules.judge(&answer, batch.id),
            Err(error) => Verdict::Retry(wire::unanswered(&error)),
        }
    }
}

#[async_trait]
impl PieceSink for HttpSink {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn destination(&self) -> String {
        self.destination.clone()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let refused = self.form.refusals(batch, self.body_bytes_max.get());
        if !refused.is_empty() {
            return Encoded { body: Vec::new(), refused }; // nothing is sent before those are gone
        }
        let mut packer = Packer::new(self.gzip);
        self.form.write(batch, &mut packer);
        Encoded { body: packer.finish(), refused }
    }

    async fn deliver(&self, batch: &Batch, encoded: &Encoded) -> Report {
        Report::All(self.attempt(batch, encoded).await)
    }

    fn error_type(&self) -> &'static str {
        "http-endpoint-failed"
    }
}

fn statuses(success: &[u16]) -> Success {
    if success.is_empty() { Success::Any } else { Success::Statuses(success.to_vec()) }
}

fn limits(config: &SinkConfig, form: Form) -> Limits {
    let body_bytes_max = config.body_max.get();
    let records = u32::try_from(body_bytes_max / BYTES_PER_RECORD_MIN).unwrap_or(u32::MAX);
    let pieces_max = config.records_max.min(records).max(1);
    Limits {
        body_bytes_max: ByteSize::bytes(form.records_bytes_max(body_bytes_max, pieces_max)),
        pieces_max,
        attempts_in_flight_max: config.requests_in_flight,
    }
}

/// The headers that each request has.
fn headers(config: &SinkConfig, source: &str, secrets: &dyn Secrets) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let content_type = match config.format {
        Format::Firehose | Format::JsonArray => "application/json",
        Format::Ndjson => "application/x-ndjson",
        Format::Raw => "application/octet-stream",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if matches!(config.compression, Compression::Gzip(_)) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if config.format == Format::Firehose {
        headers.extend(firehose_headers(config, source, secrets)?);
    }
    for (name, value) in &config.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))?;
        let value = match value {
            Text::Plain(text) => HeaderValue::from_str(text).map_err(|_| format!("header {name} cannot be sent"))?,
            Text::Secret(reference) => config::header_value(&config::resolve(reference, secrets)?, reference)?,
        };
        headers.insert(name, value);
    }
    Ok(headers)
}

fn firehose_headers(config: &SinkConfig, source: &str, secrets: &dyn Secrets) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, FIREHOSE_USER_AGENT);
    headers.insert("x-amz-firehose-protocol-version", HeaderValue::from_static("1.0"));
    let source = HeaderValue::from_str(source).map_err(|_| format!("`{source}` is no ARN"))?;
    headers.insert("x-amz-firehose-source-arn", source);
    if let Some(reference) = &config.access_key {
        let key = config::header_value(&config::resolve(reference, secrets)?, reference)?;
        headers.insert("x-amz-firehose-access-key", key);
    }
    if !config.common_attributes.is_empty() {
        let attributes = wire::common_attributes(&config.common_attributes);
        let value = HeaderValue::from_str(&attributes).map_err(|_| "common attributes cannot be sent")?;
        headers.insert("x-amz-firehose-common-attributes", value);
    }
    Ok(headers)
}

/// The address without what may be a secret: its query; and all but scheme, host and port if it comes from one.
fn destination(text: &Text, url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    match text {
        Text::Plain(_) => origin + url.path(),
        Text::Secret(_) => origin + "/***",
    }
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
