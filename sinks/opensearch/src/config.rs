//! What a user writes about OpenSearch: where it is, who may write to it, and which index takes a stream's records.
//!
//! In: YAML, by way of serde. Out: problems with their place in the document. Never connects.

use std::net::IpAddr;
use std::time::Duration;

use hydrant_core::ByteSize;
use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use hydrant_outbound::Url;
use hydrant_outbound::aws::KeySource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name of an index, with what rotation appends. Source: `MetadataCreateIndexService.MAX_INDEX_NAME_BYTES`.
const INDEX_BYTES_MAX: usize = 255;

/// What no name of an index holds, beside control characters. Source: `Strings.INVALID_FILENAME_CHARS` and
/// `MetadataCreateIndexService.validateIndexOrAliasName`.
const INDEX_CHARS_FORBIDDEN: &[char] = &['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'];

/// Record bytes in a request: the service's own default for this destination.
const BODY_MAX: ByteSize = ByteSize::mib(5);

/// Bounds of the same. Above: with the longest action for each of 10,000 records a request is still below 100 MiB, the default
/// `http.max_content_length`. Below: less is no bulk.
const BODY_MAX_RANGE: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(64)..=ByteSize::mib(90);

/// Longest wait for progress. A `_bulk` waits for a primary shard that is not there for up to a minute by itself, and
/// a busy cluster takes seconds for 5 MiB.
const TIMEOUT: TimeSpan = TimeSpan(Duration::from_mins(1));

/// Bounds of the same. Below, a cluster that merges segments is taken for dead; above, a dead one for alive.
const TIMEOUT_RANGE: std::ops::RangeInclusive<TimeSpan> =
    TimeSpan(Duration::from_secs(1))..=TimeSpan(Duration::from_mins(10));

/// Records of a stream as documents in OpenSearch or Elasticsearch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OpenSearchSink", deny_unknown_fields)]
pub struct SinkConfig {
    /// The cluster's address, `https://`, with a path if a proxy asks for one.
    pub endpoint: String,
    /// The index or alias that takes the records; with a rotation, what its name starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The data stream that takes the records, instead of an index. Each document needs an `@timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_stream: Option<String>,
    /// How often a new index begins, by the arrival of a record, in UTC. A data stream has none of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Whether a record without `@timestamp` gets one, the time of its arrival.
    #[serde(default)]
    pub add_timestamp: bool,
    /// Who names documents.
    #[serde(default)]
    pub document_id: DocumentId,
    /// The type of documents, for Elasticsearch before 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// Who we are.
    #[serde(default)]
    pub login: Login,
    /// A PEM file of certificate authorities to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether an `http://` endpoint beyond this machine is allowed: records and credentials cross the network in the
    /// clear.
    #[serde(default)]
    pub allow_insecure: bool,
    /// Compression of requests.
    #[serde(default)]
    pub compression: Compression,
    /// Most bytes of records in one request, as they are before compression.
    #[serde(default = "body_max")]
    pub body_max: ByteSize,
    /// Longest time without progress, the answer's included.
    #[serde(default = "timeout")]
    pub timeout: TimeSpan,
}

/// How often a new index begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OpenSearchRotation")]
pub enum Rotation {
    /// Never: `web`.
    None,
    /// Each hour: `web-2026-11-21-13`.
    Hour,
    /// Each day: `web-2026-11-21`.
    #[default]
    Day,
    /// Each week, from Sunday: `web-2026-w47`.
    Week,
    /// Each month: `web-2026-11`.
    Month,
}

/// Who names documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OpenSearchDocumentId")]
pub enum DocumentId {
    /// We do, by batch and number, so a document that comes again is known again: exactly once.
    #[default]
    Stable,
    /// The cluster does, with less work. A document that comes again is a second one: at least once.
    Server,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OpenSearchCompression")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Gzip: less on the network, more work for the cluster.
    Gzip,
}

/// Who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OpenSearchLogin")]
pub enum Login {
    /// Nobody: the cluster asks for nothing.
    #[default]
    None,
    /// A user with a password.
    Basic(Basic),
    /// An API key of Elasticsearch: the `encoded` form, base64 of `id:api_key`.
    ApiKey(SecretRef),
    /// A key of AWS, for Amazon OpenSearch Service and Serverless.
    Sigv4(Sigv4),
}

/// A user with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OpenSearchBasic", deny_unknown_fields)]
pub struct Basic {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: SecretRef,
}

/// A key of AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OpenSearchSigv4", deny_unknown_fields)]
pub struct Sigv4 {
    /// The domain's region.
    pub region: String,
    /// Which service signatures are for.
    #[serde(default)]
    pub service: Service,
    /// The access key's public half. Absent, together with its secret: the environment, profiles, web identity,
    /// SSO, container and instance roles are asked, in the order of the AWS SDKs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<SecretRef>,
    /// The access key's secret half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<SecretRef>,
    /// The token that comes with temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretRef>,
    /// The profile of the shared AWS files to take credentials from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// Which service signatures are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OpenSearchService")]
pub enum Service {
    /// Domains of Amazon OpenSearch Service.
    #[default]
    Es,
    /// Collections of Amazon OpenSearch Serverless.
    Aoss,
}

fn body_max() -> ByteSize {
    BODY_MAX
}

fn timeout() -> TimeSpan {
    TIMEOUT
}

impl SinkConfig {
    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        self.validate_endpoint(&at.field("endpoint"), problems);
        self.validate_target(at, problems);
        self.login.validate(&at.field("login"), secrets, problems);
        if self.ca_file.as_deref() == Some("") {
            problems.add(at.field("ca_file"), "ca_file is empty");
        }
        problems.range(at.field("body_max"), self.body_max, BODY_MAX_RANGE);
        problems.range(at.field("timeout"), self.timeout, TIMEOUT_RANGE);
    }

    /// The name that documents are sent to, before any rotation.
    pub(crate) fn target(&self) -> &str {
        self.data_stream.as_deref().or(self.index.as_deref()).unwrap_or_default()
    }

    /// How often a new index begins.
    pub(crate) fn rotation(&self) -> Rotation {
        if self.data_stream.is_some() { Rotation::None } else { self.rotation.unwrap_or_default() }
    }

    fn validate_endpoint(&self, at: &DocPath, problems: &mut Problems) {
        match check_endpoint(&self.endpoint) {
            Err(reason) => problems.add_with_hint(
                at.clone(),
                format!("endpoint {reason}"),
                "write scheme, host and port, such as https://search.example.net:9200",
            ),
            Ok(url) if url.scheme() == "http" && !self.allow_insecure && !is_this_machine(&url) => {
                problems.add_with_hint(
                    at.clone(),
                    "records and credentials would cross the network in the clear",
                    "use https://, or say allow_insecure: true if that is what you want",
                );
            }
            Ok(_) => {}
        }
    }

    fn validate_target(&self, at: &DocPath, problems: &mut Problems) {
        match (&self.index, &self.data_stream) {
            (None, None) => {
                problems.add_with_hint(at.field("index"), "index is missing", "name an index or a data_stream");
            }
            (Some(_), Some(_)) => problems.add(at.field("data_stream"), "index and data_stream exclude each other"),
            (None, Some(name)) => {
                check_name(&at.field("data_stream"), name, Rotation::None, problems);
                if self.rotation.is_some_and(|rotation| rotation != Rotation::None) {
                    let hint = "leave rotation out: a data stream rolls over by its own policy";
                    problems.add_with_hint(at.field("rotation"), "a data stream has no rotation of ours", hint);
                }
                if self.type_name.is_some() {
                    problems.add(at.field("type_name"), "a data stream has no types");
                }
            }
            (Some(name), None) => check_name(&at.field("index"), name, self.rotation(), problems),
        }
        if let Some(name) = &self.type_name
            && (name.is_empty() || name.len() > 100 || name.chars().any(char::is_control))
        {
            problems.add_with_hint(
                at.field("type_name"),
                "type_name is no name",
                "1 to 100 characters, or leave it out",
            );
        }
    }
}

impl Login {
    fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        match self {
            Self::None => {}
            Self::Sigv4(config) => config.validate(&at.field("sigv4"), secrets, problems),
            Self::ApiKey(key) => check_secret(at.field("api_key"), key, secrets, problems),
            Self::Basic(Basic { username, password }) => {
                check_secret(at.field("basic").field("password"), password, secrets, problems);
                // RFC 7617: the name ends at the first colon.
                if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
                    let at = at.field("basic").field("username");
                    problems.add_with_hint(at, "username is no name", "1 or more characters, no colon among them");
                }
            }
        }
    }
}

fn check_secret(at: DocPath, reference: &SecretRef, secrets: &dyn Secrets, problems: &mut Problems) {
    match secrets.resolve(reference) {
        Err(reason) => problems.add(at, reason),
        Ok(secret) if secret.expose().is_empty() => problems.add(at, format!("{reference} is empty")),
        Ok(_) => {}
    }
}

impl Sigv4 {
    fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.region.is_empty() || !self.region.chars().all(is_word) {
            let message = format!("`{}` is not a region", self.region);
            problems.add_with_hint(at.field("region"), message, "such as eu-central-1");
        }
        self.key_source().validate(at, secrets, problems);
    }

    /// Where the key comes from that requests are signed with.
    pub(crate) fn key_source(&self) -> KeySource<'_> {
        KeySource {
            region: &self.region,
            access_key_id: self.access_key_id.as_ref(),
            secret_access_key: self.secret_access_key.as_ref(),
            session_token: self.session_token.as_ref(),
            profile: self.profile.as_deref(),
        }
    }
}

impl Service {
    /// Its name in signatures.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Es => "es",
            Self::Aoss => "aoss",
        }
    }
}

/// A URL with a host and perhaps a path, and nothing else: credentials would be logged.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<Url, &'static str> {
    let url = Url::parse(endpoint).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        Err("must begin with https:// or http://")
    } else if url.host_str().is_none_or(str::is_empty) {
        Err("names no host")
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("holds credentials, which belong in login")
    } else if url.query().is_some() || url.fragment().is_some() {
        Err("holds more than scheme, host, port and path")
    } else {
        Ok(url)
    }
}

/// Whether what is sent there stays here.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The rules for names of indices, which are those of data streams too.
fn check_name(at: &DocPath, name: &str, rotation: Rotation, problems: &mut Problems) {
    let is_forbidden = |c: char| c.is_control() || INDEX_CHARS_FORBIDDEN.contains(&c);
    let reason = if name.is_empty() || matches!(name, "." | "..") {
        Some("no index can be called that")
    } else if name.contains(is_forbidden) {
        Some("it holds a character that no index may have")
    } else if name.starts_with(['-', '_', '+']) {
        Some("it may not begin with -, _ or +")
    } else if name.to_lowercase() != name {
        Some("it must be in lower case")
    } else if name.len() + rotation.suffix_bytes() > INDEX_BYTES_MAX {
        Some("it is too long")
    } else {
        None
    };
    if let Some(reason) = reason {
        let hint =
            format!("lower-case letters, digits, dots and hyphens, at most {INDEX_BYTES_MAX} bytes with the date");
        problems.add_with_hint(at.clone(), format!("`{name}` is not a name of an index: {reason}"), hint);
    }
}

impl Rotation {
    /// How many bytes it appends to a name.
    const fn suffix_bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Hour => "-2026-11-21-13".len(),
            Self::Day => "-2026-11-21".len(),
            Self::Week => "-2026-w47".len(),
            Self::Month => "-2026-11".len(),
        }
    }
}
