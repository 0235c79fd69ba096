//! What lies on disk: the log of accepted records, the outbox of sealed batches, the ledger of what was sealed and
//! settled. Knows nothing of HTTP, sinks or YAML.
//!
//! ```text
//!   append ──> log ──cursor──> (packing) ──seal──> outbox ──> (delivery) ──settle──> ledger
//!               ^                                                                     │
//!               └───────────────────────── forget ────────────────────────────────────┘
//! ```
//!
//! The layout of every file is in `docs/formats/`.

// Bytes from a disk are not to be trusted with a panic.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice, reason = "a test may fail by panicking"))]

pub mod files;

pub mod log;

pub mod outbox;

pub mod ledger;

pub mod runs;

pub mod ordinals;

pub mod redriven;

pub mod space;

pub mod buffers;

pub mod timing;

pub mod catalog;

pub mod verify;

pub mod crash;

mod fields;

mod folder;

mod poison;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
