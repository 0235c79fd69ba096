//! What a user writes about an endpoint: where it is, how it wants its records, and who we say we are.
//!
//! In: YAML, by way of serde. Out: problems with their place in the document. Never connects, and asks for secrets only to
//! see whether they are there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use hydrant_core::ByteSize;
use hydrant_core::compression::Compression;
use hydrant_core::delimiter::Delimiter;
use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{LITERAL_SECRET, SecretRef, Secrets};
use hydrant_outbound::Url;
use schemars::JsonSchema;
use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

/// Most bytes of a body before compression. Source: the service's schema of a request.
pub(crate) const BODY_BYTES_MAX: ByteSize = ByteSize::mib(64);

/// Fewest that can be asked for: what is smaller would be all frame and no record.
const BODY_BYTES_MIN: ByteSize = ByteSize::kib(4);

/// Most records of a request. Source: the service's schema of a request.
pub(crate) const RECORDS_MAX: u32 = 10_000;

/// Attempts at once, unless it is said: each holds a batch and its body in memory.
const ATTEMPTS: u32 = 4;

/// Most attempts at once that can be asked for, as for other sinks.
const ATTEMPTS_MAX: u32 = 32;

/// How long an endpoint may take to answer. Source: the service's specification.
const TIMEOUT: TimeSpan = TimeSpan(Duration::from_mins(3));

/// Stands for an address that is not known. Source: RFC 6761, names that never resolve.
const ADDRESS_OF_NOTHING: &str = "https://secret.invalid/";

/// Bounds of common attributes. Source: the service's API reference.
const ATTRIBUTES_MAX: usize = 50;
const ATTRIBUTE_NAME_CHARS_MAX: usize = 256;
const ATTRIBUTE_VALUE_CHARS_MAX: usize = 1024;

/// Statuses that can mean that a record is at fault. The others are faults that somebody can mend, or pass by themselves.
const OF_RECORDS: [u16; 8] = [400, 406, 409, 412, 413, 414, 415, 422];

/// Headers that we write ourselves, or that belong to the connection.
const OWN_HEADERS: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-amzn-trace-id",
    "accept-encoding",
];

/// Words in names of headers and of parameters that tell of a secret.
const TELLING: [&str; 14] = [
    "authorization",
    "auth",
    "cookie",
    "key",
    "apikey",
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "credential",
    "credentials",
    "signature",
    "sig",
];

/// Records in requests to an HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "HttpSink", deny_unknown_fields)]
pub struct SinkConfig {
    /// Where requests go: `https://`, host, port, path and query. If a secret is part of it, where the whole is to be found.
    pub url: Text,
    /// How records lie in a request.
    #[serde(default)]
    pub format: Format,
    /// The key that comes with each request. Only with the format `firehose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretRef>,
    /// Names and values that come with each request. Only with the format `firehose`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub common_attributes: BTreeMap<String, String>,
    /// The method of a request. With the format `firehose` it is `post`.
    #[serde(default)]
    pub method: Method,
    /// More headers of each request. Those that hold a secret say where it is to be found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Text>,
    /// What is put behind each record. Only with the format `raw`.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// Statuses that mean success. By default any from 200 to 299; with the format `firehose` it is 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<u16>,
    /// Statuses that mean that the records are at fault: they become dead letters, and are not sent again.
    #[serde(default = "default_refusals")]
    pub dead_letter_on: Vec<u16>,
    /// Statuses that mean the same, where the records are thrown away and counted instead. `[413]` is what the service does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard_on: Vec<u16>,
    /// Compression of each request: `none`, or gzip.
    #[serde(default)]
    pub compression: Compression,
    /// How long the endpoint may take to answer.
    #[serde(default = "default_timeout")]
    pub timeout: TimeSpan,
    /// Most bytes of a body before compression, base64 included.
    #[serde(default = "default_body_max")]
    pub body_max: ByteSize,
    /// Most records of a request.
    #[serde(default = "default_records_max")]
    pub records_max: u32,
    /// Most requests under way at once.
    #[serde(default = "default_attempts")]
    pub requests_in_flight: u32,
    /// A PEM file of certificate authorities to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether requests may cross a network in the clear. Without it `http://` is for this machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_insecure: bool,
}

/// How records lie in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HttpFormat")]
pub enum Format {
    /// As Amazon Data Firehose sends them, with its headers and its rules for answers.
    #[default]
    Firehose,
    /// JSON texts, each on a line of its own.
    Ndjson,
    /// A JSON array of them.
    JsonArray,
    /// As they are, one behind the other.
    Raw,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HttpMethod")]
pub enum Method {
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
}

/// A text as it stands, or where it is to be found: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    /// As it stands.
    Plain(String),
    /// A secret.
    Secret(SecretRef),
}

impl<'de> Deserialize<'de> for Text {
    /// Refuses everything else, with a text that does not repeat what was written.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, deny_unknown_fields)]
        enum Written {
            Plain(String),
            Env { env: String },
            File { file: String },
            Else(IgnoredAny),
        }
        match Written::deserialize(deserializer)? {
            Written::Plain(text) => Ok(Self::Plain(text)),
            Written::Env { env } => Ok(Self::Secret(SecretRef::Env(env))),
            Written::File { file } => Ok(Self::Secret(SecretRef::File(file))),
            Written::Else(IgnoredAny) => {
                let expected = "expected is a text, or where it is to be found: { env: NAME } or { file: PATH }";
                Err(serde::de::Error::custom(expected))
            }
        }
    }
}

impl fmt::Debug for Text {
    /// A text as it stands is not shown: it may be a secret that stands where none should.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("***"),
            Self::Secret(reference) => fmt::Display::fmt(reference, f),
        }
    }
}

impl Text {
    /// What it says.
    ///
    /// # Errors
    /// A sentence for the operator: the secret is not there, or there is nothing in it.
    pub(crate) fn resolve(&self, secrets: &dyn Secrets) -> Result<String, String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Secret(reference) => resolve(reference, secrets),
        }
    }
}

/// The value of a secret that must not be empty.
pub(crate) fn resolve(reference: &SecretRef, secrets: &dyn Secrets) -> Result<String, String> {
    let value = secrets.resolve(reference)?;
    if value.expose().is_empty() { Err(format!("{reference} is empty")) } else { Ok(value.expose().to_owned()) }
}

fn default_refusals() -> Vec<u16> {
    vec![413]
}

fn default_timeout() -> TimeSpan {
    TIMEOUT
}

fn default_body_max() -> ByteSize {
    BODY_BYTES_MAX
}

fn default_records_max() -> u32 {
    RECORDS_MAX
}

fn default_attempts() -> u32 {
    ATTEMPTS
}

impl SinkConfig {
    /// The sink for this address, everything else by default.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: Text::Plain(url.into()),
            format: Format::default(),
            access_key: None,
            common_attributes: BTreeMap::new(),
            method: Method::default(),
            headers: BTreeMap::new(),
            delimiter: Delimiter::default(),
            success: Vec::new(),
            dead_letter_on: default_refusals(),
            discard_on: Vec::new(),
            compression: Compression::default(),
            timeout: TIMEOUT,
            body_max: BODY_BYTES_MAX,
            records_max: RECORDS_MAX,
            requests_in_flight: ATTEMPTS,
            ca_file: None,
            allow_insecure: false,
        }
    }

    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        self.validate_url(&at.field("url"), secrets, problems);
        self.validate_format(at, problems);
        self.validate_access_key(&at.field("access_key"), secrets, problems);
        self.validate_attributes(&at.field("common_attributes"), problems);
        self.validate_headers(&at.field("headers"), secrets, problems);
        self.validate_statuses(at, problems);
        self.validate_bounds(at, problems);
        if self.ca_file.as_deref() == Some("") {
            problems.add(at.field("ca_file"), "ca_file is empty");
        }
    }

    /// The address, as it is sent to. Where secrets are made up, so is an address that is one.
    ///
    /// # Errors
    /// A sentence for the operator that repeats nothing of the address.
    pub(crate) fn address(&self, secrets: &dyn Secrets) -> Result<Url, String> {
        let text = self.url.resolve(secrets)?;
        let is_made_up = matches!(self.url, Text::Secret(_)) && !secrets.are_real();
        let text = if is_made_up { ADDRESS_OF_NOTHING } else { &text };
        check_url(text).map_err(|reason| format!("the address {reason}"))
    }

    fn validate_url(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        let url = match self.address(secrets) {
            Ok(url) => url,
            Err(reason) => {
                let hint = "write https://, host, port, path and query, such as https://logs.example.net/ingest";
                return problems.add_with_hint(at.clone(), reason, hint);
            }
        };
        if url.scheme() == "http" && !self.allow_insecure && !is_this_machine(&url) {
            problems.add_with_hint(
                at.clone(),
                "records would cross the network in the clear",
                "use https://, or say allow_insecure: true if that is what you want",
            );
        }
        let telling = url.query_pairs().find(|(name, _)| is_telling(name)).map(|(name, _)| name.into_owned());
        if let (Text::Plain(_), Some(name)) = (&self.url, telling) {
            problems.add_with_hint(
                at.clone(),
                format!("the parameter `{name}` looks like a secret, and {LITERAL_SECRET}"),
                "put the whole address there: url: { env: NAME }",
            );
        }
    }

    /// What belongs to one format only.
    fn validate_format(&self, at: &DocPath, problems: &mut Problems) {
        let is_firehose = self.format == Format::Firehose;
        let misplaced = [
            ("access_key", !is_firehose && self.access_key.is_some(), "belongs to the format firehose"),
            ("common_attributes", !is_firehose && !self.common_attributes.is_empty(), "belong to the format firehose"),
            ("method", is_firehose && self.method != Method::Post, "is post in the format firehose"),
            ("success", is_firehose && !self.success.is_empty(), "is 200 in the format firehose"),
            ("delimiter", self.format != Format::Raw && self.delimiter != Delimiter::None, "belongs to the format raw"),
        ];
        for (name, is_misplaced, why) in misplaced {
            if is_misplaced {
                problems.add(at.field(name), format!("{name} {why}"));
            }
        }
        if matches!(self.compression, Compression::Zstd(_)) {
            problems.add_with_hint(at.field("compression"), "requests are not compressed by zstd", "use gzip");
        }
    }

    fn validate_access_key(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        if let Some(reference) = &self.access_key
            && let Err(reason) = resolve(reference, secrets).and_then(|key| header_value(&key, reference))
        {
            problems.add(at.clone(), reason);
        }
    }

    fn validate_attributes(&self, at: &DocPath, problems: &mut Problems) {
        if self.common_attributes.len() > ATTRIBUTES_MAX {
            problems.add(at.clone(), format!("there are more than {ATTRIBUTES_MAX}"));
        }
        for (name, value) in &self.common_attributes {
            if name.trim().is_empty() || name.chars().count() > ATTRIBUTE_NAME_CHARS_MAX {
                problems.add(at.field(name), format!("a name has 1 to {ATTRIBUTE_NAME_CHARS_MAX} characters"));
            }
            if value.chars().count() > ATTRIBUTE_VALUE_CHARS_MAX {
                problems.add(at.field(name), format!("a value has at most {ATTRIBUTE_VALUE_CHARS_MAX} characters"));
            }
        }
    }

    fn validate_headers(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        for (name, value) in &self.headers {
            let at = at.field(name);
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                problems.add(at, format!("`{name}` is no name of a header"));
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let is_own = OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-amz-firehose-");
            let is_of_firehose = matches!(lower.as_str(), "content-type" | "user-agent");
            if is_own || self.format == Format::Firehose && is_of_firehose {
                problems.add(at, format!("{name} is not for you to write: it comes with the request itself"));
                continue;
            }
            let checked = match value {
                Text::Plain(_) if is_telling(name) => Err(LITERAL_SECRET.to_owned()),
                Text::Plain(text) => {
                    HeaderValue::from_str(text).map(drop).map_err(|_| format!("{name} cannot be sent with this value"))
                }
                Text::Secret(reference) => {
                    resolve(reference, secrets).and_then(|text| header_value(&text, reference)).map(drop)
                }
            };
            if let Err(reason) = checked {
                problems.add(at, reason);
            }
        }
        let distinct: std::collections::BTreeSet<_> =
            self.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
        if distinct.len() < self.headers.len() {
            problems.add(at.clone(), "a header stands here twice, in different letters");
        }
    }

    fn validate_statuses(&self, at: &DocPath, problems: &mut Problems) {
        for (number, status) in self.success.iter().enumerate() {
            if !(200..=299).contains(status) {
                let at = at.field("success").item(number);
                problems.add_with_hint(at, format!("{status} is no status of success"), "allowed is 200 to 299");
            }
        }
        for (name, statuses) in [("dead_letter_on", &self.dead_letter_on), ("discard_on", &self.discard_on)] {
            for (number, status) in statuses.iter().enumerate().filter(|(_, status)| !OF_RECORDS.contains(status)) {
                let at = at.field(name).item(number);
                let message = format!("{status} is not the fault of a record, and is tried again until it is mended");
                problems.add_with_hint(at, message, format!("allowed are {OF_RECORDS:?}"));
            }
        }
        for (number, status) in self.discard_on.iter().enumerate() {
            if self.dead_letter_on.contains(status) {
                let at = at.field("discard_on").item(number);
                let message = format!("records are either thrown away on {status} or become dead letters");
                problems.add_with_hint(
                    at,
                    message,
                    "take it out of dead_letter_on, which holds 413 unless it is written",
                );
            }
        }
    }

    fn validate_bounds(&self, at: &DocPath, problems: &mut Problems) {
        let seconds = |seconds| TimeSpan(Duration::from_secs(seconds));
        let _checked = problems.range(at.field("timeout"), self.timeout, seconds(1)..=seconds(600));
        let _checked = problems.range(at.field("body_max"), self.body_max, BODY_BYTES_MIN..=BODY_BYTES_MAX);
        let _checked = problems.range(at.field("records_max"), self.records_max, 1..=RECORDS_MAX);
        let _checked = problems.range(at.field("requests_in_flight"), self.requests_in_flight, 1..=ATTEMPTS_MAX);
    }
}

/// The value of a header that comes from a secret.
pub(crate) fn header_value(value: &str, reference: &SecretRef) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("{reference} holds what no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An address that requests can go to. The text repeats nothing of it.
fn check_url(url: &str) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        Err("does not begin with https://")
    } else if url.host_str().is_none_or(str::is_empty) {
        Err("names no host")
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("holds credentials, which belong in headers")
    } else if url.fragment().is_some() {
        Err("holds a fragment, which is never sent")
    } else {
        Ok(url)
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a name tells of a secret by one of its words.
fn is_telling(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.split(['-', '_', '.']).any(|word| TELLING.contains(&word))
}
