//! The log of accepted records.

use bytes::Bytes;
use hydrant_core::Span;

/// Records to store together, all or none: their payloads one after the other, and the length of each.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    /// All payloads, one after the other.
    pub data: Bytes,
    /// The length of each payload, in order; their sum is the length of `data`.
    pub lengths: Vec<u32>,
}

/// Why an append was refused. Nothing was stored, except perhaps after `Unknown`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The log holds as much as it may.
    #[error("log is full")]
    Full,
    /// Poisoned by an earlier error.
    #[error("log is poisoned by an earlier write error: {0}")]
    Poisoned(String),
    /// The outcome is not known.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The log was closed.
    #[error("log is closed")]
    Closed,
}

/// The log of one stream.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Stores records.
    pub async fn append(&self, _payloads: Payloads) -> Result<Span, AppendError> {
        std::future::ready(Err(AppendError::Closed)).await
    }
}
