//! Rows in PostgreSQL: a batch is one COPY in one transaction, with a row that says that the batch has been delivered.
//!
//! [`PostgresSink`] makes rows of records (`wire`), takes or opens a session (`connection`) and makes one attempt
//! (`transaction`), which looks for the rows at fault (`search`) if the table does not take them all. What is promised and
//! when, is in this folder's `README.md`.
//!
//! Limits: a batch has at most 10,000 records and 16 MiB.

pub mod config;

mod sink;

mod transaction;

mod search;

mod connection;

mod table;

#[deny(clippy::indexing_slicing, clippy::string_slice)]
mod wire;

pub use config::{Column, RawColumn, Row, SinkConfig, TlsMode, Upsert};
pub use sink::PostgresSink;

#[cfg(test)]
mod tests;
