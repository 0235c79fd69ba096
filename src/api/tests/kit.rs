//! What the tests of the wire share: a signer that is not ours, and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{Method, Request};
use hydrant_core::secret::Secret;
use hydrant_core::{Clock, Timestamp};
use uuid::Uuid;

use crate::api::{Api, Edges, Limits, Settings};
use crate::config::spec::Credential;

pub(super) const KEY_ID: &str = "AKIDEXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const REGION: &str = "us-east-1";
/// 2026-08-30T12:36:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_788_093_360_000);
/// The day of [`NOW`].
pub(super) const DATE: &str = "20260830";

pub(super) fn credential(id: &str, secret: &str) -> Credential {
    Credential { access_key_id: id.to_owned(), secret_access_key: Secret::new(secret) }
}

/// A request, and how to sign it.
#[derive(Clone, Debug)]
pub(super) struct Signing<'a> {
    pub(super) method: Method,
    /// With the query.
    pub(super) path: &'a str,
    pub(super) target: &'a str,
    /// Beside host, content type and target.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    pub(super) key_id: &'a str,
    pub(super) secret: &'a str,
    pub(super) session_token: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: Timestamp,
    /// Whether to send `x-amz-content-sha256`.
    pub(super) payload_header: bool,
    /// A header that is sent but not signed.
    pub(super) leave_unsigned: Option<&'static str>,
}

impl Default for Signing<'_> {
    fn default() -> Self {
        Self {
            method: Method::POST,
            path: "/",
            target: "Firehose_20150804.PutRecord",
            headers: &[],
            body: br#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG8="}}"#,
            key_id: KEY_ID,
            secret: SECRET,
            session_token: None,
            region: REGION,
            service: "firehose",
            now: NOW,
            payload_header: false,
            leave_unsigned: None,
        }
    }
}

/// The request without any signature.
pub(super) fn unsigned(signing: &Signing<'_>) -> Request<Bytes> {
    let mut request = Request::builder()
        .method(signing.method.clone())
        .uri(signing.path)
        .header("host", "localhost:4573")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", signing.target);
    for (name, value) in signing.headers {
        request = request.header(*name, *value);
    }
    request.body(Bytes::copy_from_slice(signing.body)).unwrap()
}

/// The request as the SDK's signer signs it.
pub(super) fn request(signing: &Signing<'_>) -> Request<Bytes> {
    let mut request = unsigned(signing);
    let token = signing.session_token.map(str::to_owned);
    let identity = Credentials::new(signing.key_id, signing.secret, token, None, "test").into();
    let mut settings = SigningSettings::default();
    if signing.payload_header {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings.excluded_headers.get_or_insert_default().extend(signing.leave_unsigned.map(Into::into));
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(signing.region)
        .name(signing.service)
        .time(UNIX_EPOCH + Duration::from_millis(signing.now.as_millis()))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let url = format!("http://localhost:4573{}", signing.path);
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let signable =
        SignableRequest::new(signing.method.as_str(), url, headers, SignableBody::Bytes(signing.body)).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    instructions.apply_to_request_http1x(&mut request);
    request
}

/// A clock that stands still.
#[derive(Debug)]
pub(super) struct Stopped(pub(super) Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub(super) fn edges(now: Timestamp) -> Edges {
    let ids = AtomicU64::new(0);
    Edges {
        clock: Arc::new(Stopped(now)),
        request_ids: Arc::new(move || Uuid::from_u64_pair(0, ids.fetch_add(1, Relaxed))),
        metrics: Arc::new(|| "# EOF\n".to_owned()),
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        region: REGION.to_owned(),
        account: "000000000000".to_owned(),
        credentials: vec![credential(KEY_ID, SECRET)],
        limits: Limits::default(),
    }
}

pub(super) fn api_without_streams(now: Timestamp) -> Arc<Api> {
    Api::new(settings(), Arc::default(), edges(now))
}
