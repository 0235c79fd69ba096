//! A bucket as sink and source share it: `object_store`'s client over our transport, and how long a request may take.
//!
//! In: what the user wrote. Out: a client that has connected to nothing yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::secret::Secrets;
use hydrant_outbound::aws::Credentials;
use hydrant_outbound::{Bounds, Client, Options, Url};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, RetryConfig};

use crate::config::{Sse, StoreConfig};
use crate::transport::Transport;
use crate::wire::encode;

/// A bucket and the way to it.
#[derive(Debug)]
pub(crate) struct Store {
    /// Shapes requests, reads answers.
    pub(crate) client: AmazonS3,
    /// What it sends them by.
    pub(crate) transport: Transport,
    /// Where the bucket is, without a slash at the end.
    base: String,
    /// What the requests are signed with.
    pub(crate) credentials: Arc<Credentials>,
    /// How long a request may take.
    pub(crate) patience: Patience,
    /// `s3://bucket`, with the endpoint if there is one.
    pub(crate) destination: String,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest wait for a connection.
    pub(crate) connect: Duration,
    /// Longest time without progress. S3 itself gives up on a sender that is silent for 20 s or so.
    pub(crate) stall: Duration,
    /// What any request may take, whatever its size.
    pub(crate) base: Duration,
    /// Fewest bytes a second, over the whole of a body. A line that does less cannot carry a stream.
    pub(crate) bytes_per_second_min: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Options::default().connect,
            stall: Duration::from_secs(30),
            base: Duration::from_mins(1),
            bytes_per_second_min: 128 << 10,
        }
    }
}

impl Patience {
    /// The bounds of a request that carries or fetches `len` bytes and whose answer may have `answer_bytes_max`.
    pub(crate) fn bounds(&self, len: u64, answer_bytes_max: usize) -> Bounds {
        let whole = self.base + Duration::from_secs(len / self.bytes_per_second_min.max(1));
        Bounds { stall: self.stall, whole, answer_bytes_max }
    }
}

impl Store {
    /// Prepares the way to the bucket that `config` names.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub(crate) fn new(
        config: &StoreConfig,
        sse: &Sse,
        secrets: &dyn Secrets,
        patience: Patience,
    ) -> Result<Self, String> {
        let credentials = Arc::new(Credentials::new(&config.key_source(), secrets)?);
        let ca_file = config.ca_file.as_ref().map(PathBuf::from);
        let options = Options { connect: patience.connect, ca_file, ..Options::default() };
        let transport = Transport {
            client: Client::new(&options).map_err(|error| with_causes(&error))?,
            credentials: Arc::clone(&credentials),
            region: config.region().into(),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(config.region())
            .with_virtual_hosted_style_request(!config.is_path_style())
            // The transport signs.
            .with_skip_signature(true)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 0,
                retry_timeout: Duration::ZERO,
            })
            .with_http_connector(transport.clone());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(bucket_endpoint(endpoint, config)?);
        }
        builder = match (config.customer_key(secrets)?, sse) {
            (Some(key), Sse::None) => builder.with_ssec_encryption(key),
            (Some(_), Sse::S3 | Sse::Kms(_)) => {
                return Err("a store with a customer key takes no other encryption".to_owned());
            }
            (None, Sse::None) => builder,
            (None, Sse::S3) => builder.with_config(encryption_key()?, "AES256"),
            (None, Sse::Kms(key)) => builder.with_sse_kms_encryption(key),
        };
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, transport, base: base(config)?, credentials, patience, destination: destination(config) })
    }

    /// The URL of an object, or of the bucket if the key is empty.
    pub(crate) fn url(&self, key: &str) -> String {
        let path: Vec<String> = key.split('/').map(encode).collect();
        format!("{}/{}", self.base, path.join("/"))
    }
}

/// The URL of the bucket, without a slash at the end.
fn base(config: &StoreConfig) -> Result<String, String> {
    let (bucket, region) = (&config.bucket, config.region());
    Ok(match &config.endpoint {
        Some(endpoint) if config.is_path_style() => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        Some(endpoint) => bucket_endpoint(endpoint, config)?,
        None if config.is_path_style() => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    })
}

/// The endpoint as `object_store` wants it: with the bucket in the host, unless it belongs in the path.
fn bucket_endpoint(endpoint: &str, config: &StoreConfig) -> Result<String, String> {
    if config.is_path_style() {
        return Ok(endpoint.to_owned());
    }
    let mut url = Url::parse(endpoint).map_err(|error| format!("endpoint: {error}"))?;
    let host = url.host_str().map(|host| format!("{}.{host}", config.bucket));
    url.set_host(host.as_deref()).map_err(|error| format!("endpoint: {error}"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// `object_store` keeps the type of this key to itself, but reads its name.
fn encryption_key() -> Result<AmazonS3ConfigKey, String> {
    "aws_server_side_encryption".parse().map_err(|error: object_store::Error| error.to_string())
}

fn destination(config: &StoreConfig) -> String {
    match &config.endpoint {
        Some(endpoint) => format!("s3://{} at {}", config.bucket, endpoint.trim_end_matches('/')),
        None => format!("s3://{}", config.bucket),
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
