//! Records in requests to an HTTP endpoint: as Amazon Data Firehose sends them, or plain, for webhooks and receivers of
//! logs.
//!
//! A batch is one request. Its id is that of the batch, over all attempts and restarts, and so are its timestamp and its
//! records; a receiver that looks at the id takes each batch once. What is promised and when, is in this folder's
//! `README.md`.
//!
//! Limits: 64 MiB of body before compression, 10,000 records, and in the service's protocol 1,024,000 bytes a record.

pub mod config;

mod sink;

mod wire;

mod packer;

pub use config::{Format, Method, SinkConfig, Text};
pub use sink::HttpSink;

#[cfg(test)]
mod tests;
