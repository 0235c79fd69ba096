//! Documents in OpenSearch and Elasticsearch: one `_bulk` request for each batch, one document for each record.
//!
//! ```text
//!   batch ──encode──> {"create":{"_index":"web-2026-11-21","_id":"BATCH-0000000"}}     one action,
//!                     {"what":"the record, as it came"}                                one document, for each record
//!         ──deliver─> POST /_bulk ──> an item for each ──> a verdict for each
//! ```
//!
//! A document's id is made of its batch's id and its number in the batch, so a document that comes again is known
//! again: OpenSearch answers 409, and that is done. What is promised and when, is in this folder's `README.md`.

pub mod config;

mod sink;

mod signing;

mod wire;

pub use config::{Basic, Compression, DocumentId, Login, Rotation, Service, Sigv4, SinkConfig};
pub use sink::OpenSearchSink;

#[cfg(test)]
mod tests;
