//! What a user writes about S3: where a bucket is and who may write to it, and a stream's choice of names and bytes.
//!
//! In: YAML, by way of serde. Out: problems with their place in the document. Never connects and never asks for
//! credentials beyond looking whether a named secret is there.

use hydrant_core::compression::Compression;
use hydrant_core::delimiter::Delimiter;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use hydrant_outbound::aws::KeySource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where requests go when a custom endpoint names no region. Stores that are not AWS accept any; this is the one
/// their own documentation uses.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// Length of a customer's key. Source: Amazon S3 User Guide, "Using server-side encryption with customer-provided
/// keys": AES-256 is the only cipher.
const CUSTOMER_KEY_BYTES: usize = 32;

/// A bucket in S3 or a store that speaks its protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "S3Store", deny_unknown_fields)]
pub struct StoreConfig {
    /// The bucket's name.
    pub bucket: String,
    /// The store's address, `http://` or `https://`. Absent: AWS, in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket's region. Needed for AWS; with an `endpoint` it is `us-east-1` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket is named in the path of a URL rather than in its host. By default only with an `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
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
    /// A PEM file of certificate authorities to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Encryption by the store with a key that it does not keep (SSE-C). Needs https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<CustomerEncryption>,
}

/// Encryption by the store with a key that comes with each request and that it does not keep. Without the key nobody
/// reads the objects again, the store's owner included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CustomerEncryption {
    /// The key: 32 bytes, in base64.
    pub customer_key: SecretRef,
}

/// Records of a stream as objects in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "S3Sink", deny_unknown_fields)]
pub struct SinkConfig {
    /// The store's name under `stores`.
    pub store: String,
    /// What object keys start with; may hold the service's expressions, such as `!{timestamp:yyyy/MM/dd/}`.
    #[serde(default)]
    pub prefix: String,
    /// Compression of each object.
    #[serde(default)]
    pub compression: Compression,
    /// What is put behind each record.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// Server-side encryption asked for with each object.
    #[serde(default)]
    pub sse: Sse,
}

/// Server-side encryption asked for with each object: `none`, `s3`, or `kms` with a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sse {
    /// Nothing is asked for: the bucket's default holds.
    #[default]
    None,
    /// SSE-S3: the store's own keys.
    S3,
    /// SSE-KMS with the key of this id, alias or ARN.
    Kms(String),
}

impl StoreConfig {
    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        self.validate_bucket(&at.field("bucket"), problems);
        self.validate_address(at, problems);
        self.key_source().validate(at, secrets, problems);
        self.validate_encryption(&at.field("encryption").field("customer_key"), secrets, problems);
        if self.ca_file.as_deref() == Some("") {
            problems.add(at.field("ca_file"), "ca_file is empty");
        }
    }

    /// The key that the store encrypts with, in base64, if it does so with one of ours.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn customer_key(&self, secrets: &dyn Secrets) -> Result<Option<String>, String> {
        let Some(CustomerEncryption { customer_key }) = &self.encryption else { return Ok(None) };
        let secret = secrets.resolve(customer_key)?;
        let key = base64_simd::STANDARD.decode_to_vec(secret.expose()).unwrap_or_default();
        if key.len() == CUSTOMER_KEY_BYTES {
            Ok(Some(secret.expose().to_owned()))
        } else {
            Err(format!("{customer_key} does not hold {CUSTOMER_KEY_BYTES} bytes in base64"))
        }
    }

    /// The region that requests are signed for.
    pub(crate) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(REGION_OF_ENDPOINTS)
    }

    /// Whether the bucket is named in the path of a URL.
    pub(crate) fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    fn validate_bucket(&self, at: &DocPath, problems: &mut Problems) {
        if let Err(reason) = check_bucket_name(&self.bucket) {
            problems.add_with_hint(
                at.clone(),
                format!("`{}` is not a bucket name: {reason}", self.bucket),
                "3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends",
            );
        } else if !self.is_path_style() && self.bucket.contains('.') {
            problems.add_with_hint(
                at.clone(),
                format!("`{}` holds a dot, which no certificate covers in a host name", self.bucket),
                "set path_style: true",
            );
        }
    }

    fn validate_address(&self, at: &DocPath, problems: &mut Problems) {
        if let Some(endpoint) = &self.endpoint
            && let Err(reason) = check_endpoint(endpoint)
        {
            problems.add_with_hint(
                at.field("endpoint"),
                format!("endpoint {reason}"),
                "write scheme, host and port only, such as https://s3.example.net or http://127.0.0.1:9000",
            );
        }
        match self.region.as_deref() {
            None if self.endpoint.is_none() => {
                problems.add_with_hint(at.field("region"), "region is missing", "name the region of the bucket");
            }
            Some(region) if !is_region(region) => {
                problems.add_with_hint(
                    at.field("region"),
                    format!("`{region}` is not a region"),
                    "such as eu-central-1",
                );
            }
            _ => {}
        }
    }

    fn validate_encryption(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        if let Err(reason) = self.customer_key(secrets) {
            problems.add_with_hint(at.clone(), reason, "make one with: head -c 32 /dev/urandom | base64");
        }
        let is_plain = self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.starts_with("https://"));
        if self.encryption.is_some() && is_plain {
            problems.add_with_hint(
                at.clone(),
                "the key would cross the network in the clear",
                "use an endpoint with https://",
            );
        }
    }

    /// Where the key comes from that requests are signed with.
    pub(crate) fn key_source(&self) -> KeySource<'_> {
        KeySource {
            region: self.region(),
            access_key_id: self.access_key_id.as_ref(),
            secret_access_key: self.secret_access_key.as_ref(),
            session_token: self.session_token.as_ref(),
            profile: self.profile.as_deref(),
        }
    }
}

impl SinkConfig {
    /// Adds what is wrong with it. Whether the store is declared is known only to whoever sees the whole document.
    pub fn validate(&self, at: &DocPath, problems: &mut Problems) {
        if self.store.is_empty() {
            problems.add_with_hint(at.field("store"), "store is empty", "name an entry of stores");
        }
        if let Sse::Kms(key) = &self.sse
            && (key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            problems.add_with_hint(
                at.field("sse").field("kms"),
                format!("`{key}` is not a key"),
                "an id, alias/NAME or an ARN",
            );
        }
    }
}

/// The rules for names of general purpose buckets, which other stores share or widen. Source: Amazon S3 User Guide,
/// "General purpose bucket naming rules".
fn check_bucket_name(name: &str) -> Result<(), &'static str> {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        Err("it must have 3 to 63 characters")
    } else if !bytes.iter().all(|byte| is_edge(Some(byte)) || matches!(byte, b'.' | b'-')) {
        Err("only lower-case letters, digits, dots and hyphens are allowed")
    } else if !is_edge(bytes.first()) || !is_edge(bytes.last()) {
        Err("it must begin and end with a letter or digit")
    } else if name.contains("..") {
        Err("two dots may not stand side by side")
    } else if name.parse::<std::net::Ipv4Addr>().is_ok() {
        Err("it may not look like an IP address")
    } else {
        Ok(())
    }
}

/// Scheme, host and port, and nothing else: a path would become part of every key, credentials would be logged.
fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let url = hydrant_outbound::Url::parse(endpoint).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        Err("must begin with http:// or https://")
    } else if url.host_str().is_none_or(str::is_empty) {
        Err("names no host")
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("holds credentials, which belong in access_key_id and secret_access_key")
    } else if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        Err("holds more than scheme, host and port")
    } else {
        Ok(())
    }
}

/// Letters, digits and hyphens: it becomes part of a host name and of each signature.
fn is_region(region: &str) -> bool {
    !region.is_empty() && region.len() <= 64 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
