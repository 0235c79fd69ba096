//! Objects in S3, MinIO and other stores that speak its protocol: one `PutObject` for each, which a store takes
//! whole or not at all.
//!
//! [`S3Sink`] places, [`S3Source`] reads back. `object_store` shapes the requests; they are signed and sent by
//! `transport`, through the one client of `hydrant-outbound`, which neither retries nor follows redirects. What is
//! promised and when, is in this folder's `README.md`.
//!
//! Limits: an object has at most 5 GiB, S3's own limit for one request. There is no multipart upload.

pub mod config;

mod sink;

mod source;

mod store;

mod transport;

mod credentials;

mod wire;

pub use config::{SinkConfig, Sse, StoreConfig};
pub use sink::S3Sink;
pub use source::S3Source;

#[cfg(test)]
mod tests;
