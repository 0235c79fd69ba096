//! The list of sinks: one feature, one variant and its arms for each.

use std::sync::Arc;

use hydrant_core::ObjectSink;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::Secrets;
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
    S3(hydrant_sink_s3::StoreConfig),
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
                    Encryption::StoreDefault => hydrant_sink_s3::Sse::StoreDefault,
                    Encryption::SseS3 => hydrant_sink_s3::Sse::S3,
                    Encryption::SseKms { key } => hydrant_sink_s3::Sse::Kms { key: key.clone() },
                };
                Ok(Arc::new(hydrant_sink_s3::S3Sink::new(config, sse, secrets)?))
            }
        }
    }
}
