//! What the tests of the wire share: a signer that is not ours, requests, and an API over real logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hydrant_core::compression::{Compression, GzipLevel, ZstdLevel};
use hydrant_core::secret::Secret;
use hydrant_core::{ByteSize, Clock, Position, Timestamp};
use hydrant_sinks::{Encryption, StoreConfig};
use hydrant_storage::buffers::Buffers;
use hydrant_storage::files::real::RealFiles;
use hydrant_storage::log::{self, Committers, Log};
use hydrant_storage::space::Space;
use hyper::body::Body;
use tempfile::TempDir;
use uuid::Uuid;

use crate::api::{Api, Audience, Edges, Limits, Settings};
use crate::config::spec::{
    Credential, DeadLetterSpec, Delimiter, Hints, ObjectsSpec, RetryFor, SinkSpec, StoreSpec, StreamSpec,
};
use crate::encode::name::{ErrorPrefix, Prefix};
use crate::streams::{Identity, LiveStream, Streams};

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

/// The request as HTTP/1.1 writes it.
pub(super) fn http1(request: &Request<Bytes>) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", request.body().len()).as_bytes());
    bytes.extend(request.body());
    bytes
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
        buffers: Buffers::default(),
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

/// An API over real logs in a temporary folder.
pub(super) struct Stand {
    pub(super) api: Arc<Api>,
    pub(super) logs: BTreeMap<&'static str, Log>,
    _committers: Committers,
    _folder: TempDir,
}

/// An answer, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Stand {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    /// Streams: `web` and others like it into S3, each described in its own way; `folder` into a folder; `full` whose
    /// log takes nothing; `closed` whose log is closed.
    pub(super) fn with(settings: Settings) -> Self {
        let folder = TempDir::new().unwrap();
        let committers = Committers::start(1).unwrap();
        let space = Space::new(ByteSize::gib(1));
        let mut logs = BTreeMap::new();
        let mut streams = Vec::new();
        for (index, spec) in specs().into_iter().enumerate() {
            let name = ["closed", "folder", "full", "web", "web-kms", "web-zstd"][index];
            assert_eq!(spec.name, name);
            let room = if name == "full" { ByteSize::bytes(1) } else { ByteSize::gib(1) };
            let incarnation = 0x0123_4567_89ab_cdef + index as u64;
            let clock = Arc::new(Stopped(NOW));
            let files = Arc::new(RealFiles);
            let options = log::Options::new(incarnation);
            let dir = folder.path().join(name);
            let share = space.share(room);
            let log = Log::open(&dir, &options, files, clock, Arc::clone(&share), &committers).unwrap().log;
            if name == "closed" {
                log.close();
            }
            let identity = Identity {
                incarnation,
                version: if name == "web-kms" { 3 } else { 1 },
                created_at: Timestamp::from_millis(1_517_595_920_596),
                updated_at: (name == "web-kms").then_some(Timestamp::from_millis(1_517_595_999_000)),
            };
            logs.insert(name, log.clone());
            streams.push(LiveStream::new(spec, identity, log, share));
        }
        let api = Api::new(settings, Arc::new(Streams::new(streams)), edges(NOW));
        Self { api, logs, _committers: committers, _folder: folder }
    }

    /// Answers a request that has all of its body.
    pub(super) async fn call(&self, request: Request<Bytes>) -> Answer {
        self.call_with_body(request.map(Full::new)).await
    }

    pub(super) async fn call_with_body<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        Answer::of(self.api.answer(Audience::Everybody, request).await).await
    }

    /// Calls an operation, signed as it should be.
    pub(super) async fn operation(&self, name: &str, body: impl AsRef<[u8]>) -> Answer {
        let target = format!("Firehose_20150804.{name}");
        self.call(request(&Signing { target: &target, body: body.as_ref(), ..Signing::default() })).await
    }

    /// All records of a stream, read back from its log.
    pub(super) fn stored(&self, stream: &str) -> Vec<Vec<u8>> {
        let mut reader = self.logs[stream].reader(Position::FIRST);
        let mut records = Vec::new();
        loop {
            let slice = reader.next(1 << 20).unwrap();
            assert!(slice.lost.is_empty());
            if slice.frames.is_empty() {
                return records;
            }
            for frame in &slice.frames {
                records.extend(frame.records().map(|(_, record)| record.to_vec()));
            }
        }
    }
}

impl Answer {
    pub(super) async fn of<B>(response: Response<B>) -> Self
    where
        B: Body<Data = Bytes, Error: std::fmt::Debug>,
    {
        let (parts, body) = response.into_parts();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// The code of an error; in the body and in the header alike.
    pub(super) fn code(&self) -> &str {
        let code = self.headers.get("x-amzn-errortype").map_or("", String::as_str);
        assert!(self.body.starts_with(&format!(r#"{{"__type":"{code}","message":"#)) || code.is_empty(), "{self:?}");
        code
    }
}

fn specs() -> Vec<StreamSpec> {
    let bucket: StoreConfig = serde_json::from_str(r#"{"s3":{"bucket":"events"}}"#).unwrap();
    let folder: StoreConfig = serde_json::from_str(r#"{"file":{"path":"./out"}}"#).unwrap();
    let hints = |mib, seconds| Hints { size: ByteSize::mib(mib), interval: Duration::from_secs(seconds) };
    let spec = |name: &str, config: &StoreConfig| StreamSpec {
        name: name.to_owned(),
        hints: hints(5, 300),
        retry_for: RetryFor::Forever,
        sink: SinkSpec::Objects(ObjectsSpec {
            kind: config.kind(),
            store: StoreSpec { name: "main".to_owned(), config: config.clone() },
            prefix: Prefix::parse("logs/").unwrap(),
            compression: Compression::Gzip(GzipLevel::DEFAULT),
            delimiter: Delimiter::None,
            encryption: Encryption::StoreDefault,
        }),
        dead_letter: DeadLetterSpec {
            store: StoreSpec { name: "main".to_owned(), config: config.clone() },
            error_prefix: ErrorPrefix::parse("errors/").unwrap(),
            hints: hints(5, 60),
        },
        definition: String::new(),
    };
    let mut kms = spec("web-kms", &bucket);
    let SinkSpec::Objects(objects) = &mut kms.sink else { unreachable!("made above") };
    objects.encryption = Encryption::SseKms { key: "1234".to_owned() };
    objects.delimiter = Delimiter::Newline;
    objects.compression = Compression::None;
    kms.hints = Hints { size: ByteSize::kib(1537), interval: Duration::ZERO };
    let mut zstd = spec("web-zstd", &bucket);
    let SinkSpec::Objects(objects) = &mut zstd.sink else { unreachable!("made above") };
    objects.compression = Compression::Zstd(ZstdLevel::DEFAULT);
    vec![spec("closed", &bucket), spec("folder", &folder), spec("full", &bucket), spec("web", &bucket), kms, zstd]
}
