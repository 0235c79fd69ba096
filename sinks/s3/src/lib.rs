//! Objects in S3, MinIO and other stores that speak its protocol: one `PutObject` for each, or one upload in parts for
//! a large one, which a store takes whole or not at all.
//!
//! [`S3Sink`] places, [`S3Source`] reads back. `object_store` shapes the requests; they are signed and sent by
//! `transport`, through the one client of `hydrant-outbound`, which neither retries nor follows redirects. What is
//! promised and when, is in this folder's `README.md`.
//!
//! Limits: an object has at most 5 GiB.

pub mod config;

mod sink;

mod multipart;

mod source;

mod store;

mod transport;

mod wire;

pub use config::{CustomerEncryption, SinkConfig, Sse, StoreConfig};
pub use sink::S3Sink;
pub use source::S3Source;

#[cfg(test)]
mod tests;
