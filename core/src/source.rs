//! Reading stores back: what `hydrant cat`, a redrive of dead letters and the tests need of a place that sinks write
//! to. Small on purpose: names in order, and one object's bytes as a [`Blob`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Blob, Fault};

/// A store of named objects, to be read.
#[async_trait]
pub trait ObjectSource: Send + Sync {
    /// Up to `max` objects whose keys start with `prefix` and come after `after`, ascending by the bytes of their
    /// keys. Fewer than `max` only when there are no more. Cancel safe.
    ///
    /// # Errors
    /// As a sink would report them: missing bucket, wrong credentials, no connection.
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault>;

    /// The object under `key`. Its bytes are read when the blob is asked for them, and are those of one version of
    /// the object: should it be overwritten meanwhile, reading fails. Cancel safe.
    ///
    /// # Errors
    /// [`NotFound`](crate::FaultCode::NotFound) when there is none, else as for [`list`](Self::list).
    async fn open(&self, key: &str) -> Result<Stored, Fault>;
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its full key.
    pub key: String,
    /// Its length in bytes, as stored.
    pub len: u64,
}

/// An object in its store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The `Content-Type` it was stored with, where the store keeps one.
    pub content_type: Option<String>,
    /// The `Content-Encoding` it was stored with, where the store keeps one. The body is as stored, not unpacked.
    pub content_encoding: Option<String>,
    /// What else was stored with it, sorted by name.
    pub metadata: Vec<(String, String)>,
    /// Its bytes.
    pub body: Arc<dyn Blob>,
}
