//! The wire: what a bulk request looks like and what its answer means. Pure.
//!
//! ```text
//!   index    arrival time ──> name of the index
//!   request  batch ──> lines of actions and documents, and what can never be one
//!   answer   bytes, whoever sent them ──> a verdict for each document, or none for any
//!   reason   what OpenSearch says of a document, without what it quotes of it
//! ```

#![deny(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail by panicking"))]

mod index;

mod request;

mod answer;

mod reason;

pub(crate) use answer::{answer_bytes_max, unanswered, verdicts};
pub(crate) use request::Shape;

#[cfg(test)]
mod tests;
