//! The list of sinks: one feature, one variant and its arms for each.
//!
//! Sinks that write objects do so into a store, which is declared apart, so that several streams and dead letters can
//! share it. Sinks of separate pieces say themselves where their pieces go.

use std::sync::Arc;

use hydrant_core::compression::Compression;
use hydrant_core::delimiter::Delimiter;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::Secrets;
use hydrant_core::{ObjectSink, ObjectSource, PieceSink};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A store: a place for objects, named under `stores:` so that several streams can share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreConfig {
    /// A folder on this machine.
    #[cfg(feature = "file")]
    File(hydrant_sink_file::StoreConfig),
    /// S3, MinIO and others that speak its protocol.
    #[cfg(feature = "s3")]
    S3(Box<hydrant_sink_s3::StoreConfig>),
}

/// How the store encrypts objects at rest, asked for with each object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the store does by default.
    #[default]
    StoreDefault,
    /// SSE-S3: the store's own keys.
    SseS3,
    /// SSE-KMS with this key.
    SseKms {
        /// Key id, alias or ARN.
        key: String,
    },
}

/// Where a stream's records go and as what: the value of `sink:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkConfig {
    /// Objects in a folder of this machine.
    #[cfg(feature = "file")]
    File(hydrant_sink_file::SinkConfig),
    /// Objects in S3 or a store that speaks its protocol.
    #[cfg(feature = "s3")]
    S3(hydrant_sink_s3::SinkConfig),
    /// Rows in a table of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<hydrant_sink_postgres::SinkConfig>),
    /// Requests to an HTTP endpoint, as the service sends them or plain.
    #[cfg(feature = "http")]
    Http(Box<hydrant_sink_http::SinkConfig>),
    /// Documents in OpenSearch or Elasticsearch.
    #[cfg(feature = "opensearch")]
    #[serde(rename = "opensearch")]
    OpenSearch(Box<hydrant_sink_opensearch::SinkConfig>),
}

/// What sinks that write objects have in common, as written. The prefix is not parsed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectOptions<'a> {
    /// The store's name under `stores`.
    pub store: &'a str,
    /// What object keys start with.
    pub prefix: &'a str,
    /// Compression of each object.
    pub compression: Compression,
    /// What is put behind each record.
    pub delimiter: Delimiter,
}

/// Whose pieces a sink takes, as far as destinations are told. Empty where a sink is made only to be asked what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The ARN of the stream, for protocols that name it.
    pub arn: &'a str,
    /// The lane among all that write to the destination, for sinks that leave marks of their own there.
    pub lane: &'a str,
}

impl SinkConfig {
    /// The kind as declared: `file`, `s3`, `postgres`, `http`, `opensearch`. One that writes objects names a store of the
    /// same kind.
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "file")]
            Self::File(_) => "file",
            #[cfg(feature = "s3")]
            Self::S3(_) => "s3",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "http")]
            Self::Http(_) => "http",
            #[cfg(feature = "opensearch")]
            Self::OpenSearch(_) => "opensearch",
        }
    }

    /// Adds what is wrong with it, as far as it shows without the rest of the document. `at` is the place of `sink`.
    /// Secrets are resolved once, so that a missing one is found here.
    #[allow(unused_variables, reason = "without the feature of any sink that has secrets of its own")]
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        let at = at.field(self.kind());
        match self {
            #[cfg(feature = "file")]
            Self::File(config) => config.validate(&at, problems),
            #[cfg(feature = "s3")]
            Self::S3(config) => config.validate(&at, problems),
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => config.validate(&at, secrets, problems),
            #[cfg(feature = "http")]
            Self::Http(config) => config.validate(&at, secrets, problems),
            #[cfg(feature = "opensearch")]
            Self::OpenSearch(config) => config.validate(&at, secrets, problems),
        }
    }

    /// What it has in common with other sinks that write objects; `None` for one of separate pieces.
    pub fn objects(&self) -> Option<ObjectOptions<'_>> {
        match self {
            #[cfg(feature = "file")]
            Self::File(hydrant_sink_file::SinkConfig { store, prefix, compression, delimiter }) => {
                Some(ObjectOptions { store, prefix, compression: *compression, delimiter: *delimiter })
            }
            #[cfg(feature = "s3")]
            Self::S3(hydrant_sink_s3::SinkConfig { store, prefix, compression, delimiter, sse: _ }) => {
                Some(ObjectOptions { store, prefix, compression: *compression, delimiter: *delimiter })
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
            #[cfg(feature = "http")]
            Self::Http(_) => None,
            #[cfg(feature = "opensearch")]
            Self::OpenSearch(_) => None,
        }
    }

    /// Makes the sink, if it is one of separate pieces: `None` for one that writes objects, which its store makes. Never
    /// connects: a destination that is down does not stop the start.
    ///
    /// # Errors
    /// A sentence for the operator; none is expected after [`validate`](Self::validate) found nothing.
    #[allow(unused_variables, reason = "without the feature of any sink of separate pieces")]
    pub fn build(&self, origin: Origin<'_>, secrets: &dyn Secrets) -> Result<Option<Arc<dyn PieceSink>>, String> {
        match self {
            #[cfg(feature = "file")]
            Self::File(_) => Ok(None),
            #[cfg(feature = "s3")]
            Self::S3(_) => Ok(None),
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => {
                Ok(Some(Arc::new(hydrant_sink_postgres::PostgresSink::new(config, origin.lane, secrets)?)))
            }
            #[cfg(feature = "http")]
            Self::Http(config) => Ok(Some(Arc::new(hydrant_sink_http::HttpSink::new(config, origin.arn, secrets)?))),
            #[cfg(feature = "opensearch")]
            Self::OpenSearch(config) => {
                Ok(Some(Arc::new(hydrant_sink_opensearch::OpenSearchSink::new(config, secrets)?)))
            }
        }
    }

    /// The encryption to ask for with each object.
    pub fn encryption(&self) -> Encryption {
        match self {
            #[cfg(feature = "s3")]
            Self::S3(config) => match &config.sse {
                hydrant_sink_s3::Sse::None => Encryption::StoreDefault,
                hydrant_sink_s3::Sse::S3 => Encryption::SseS3,
                hydrant_sink_s3::Sse::Kms(key) => Encryption::SseKms { key: key.clone() },
            },
            #[allow(unreachable_patterns, reason = "without the feature of any other sink")]
            _ => Encryption::StoreDefault,
        }
    }
}

impl StoreConfig {
    /// The kind as declared: `file`, `s3`.
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "file")]
            Self::File(_) => "file",
            #[cfg(feature = "s3")]
            Self::S3(_) => "s3",
        }
    }

    /// Whether objects here are encrypted with a key of ours, so that a sink can ask for no other encryption.
    pub fn has_customer_key(&self) -> bool {
        match self {
            #[cfg(feature = "file")]
            Self::File(_) => false,
            #[cfg(feature = "s3")]
            Self::S3(config) => config.encryption.is_some(),
        }
    }

    /// The bucket, if it is one.
    pub fn bucket(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "file")]
            Self::File(_) => None,
            #[cfg(feature = "s3")]
            Self::S3(config) => Some(&config.bucket),
        }
    }

    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        match self {
            #[cfg(feature = "file")]
            Self::File(config) => config.validate(&at.field("file"), problems),
            #[cfg(feature = "s3")]
            Self::S3(config) => config.validate(&at.field("s3"), secrets, problems),
        }
    }

    /// Makes the sink that places objects here. Never connects: a store that is down does not stop the start.
    ///
    /// # Errors
    /// A sentence for the operator; none is expected after [`validate`](Self::validate) found nothing.
    pub fn build(&self, encryption: &Encryption, secrets: &dyn Secrets) -> Result<Arc<dyn ObjectSink>, String> {
        match self {
            #[cfg(feature = "file")]
            Self::File(config) => Ok(Arc::new(hydrant_sink_file::FileSink::new(config))),
            #[cfg(feature = "s3")]
            Self::S3(config) => {
                let sse = match encryption {
                    Encryption::StoreDefault => hydrant_sink_s3::Sse::None,
                    Encryption::SseS3 => hydrant_sink_s3::Sse::S3,
                    Encryption::SseKms { key } => hydrant_sink_s3::Sse::Kms(key.clone()),
                };
                Ok(Arc::new(hydrant_sink_s3::S3Sink::new(config, &sse, secrets)?))
            }
        }
    }

    /// Makes the reader of objects that lie here. Never connects.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn open(&self, secrets: &dyn Secrets) -> Result<Arc<dyn ObjectSource>, String> {
        match self {
            #[cfg(feature = "file")]
            Self::File(config) => Ok(Arc::new(hydrant_sink_file::FileSource::new(config))),
            #[cfg(feature = "s3")]
            Self::S3(config) => Ok(Arc::new(hydrant_sink_s3::S3Source::new(config, secrets)?)),
        }
    }
}
