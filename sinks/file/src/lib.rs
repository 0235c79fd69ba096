//! Objects in a folder of this machine: one file for each, complete or not there at all.
//!
//! ```text
//!   ROOT/
//!   ├── 2026/11/21/13/web-1-…-ID.gz     objects, named by their keys
//!   └── .hydrant/
//!       ├── temporary/                  files being written; left by a crash, removed when they are a day old
//!       └── metadata/<key>              JSON, only beside objects that carry metadata (redirected dead letters)
//! ```
//!
//! [`FileSink`] places, [`FileSource`] reads back. What is promised and when, is in this folder's `README.md`.

pub mod config;

mod folder;

mod sink;

mod source;

mod wire;

pub use config::{SinkConfig, StoreConfig};
pub use sink::FileSink;
pub use source::FileSource;

#[cfg(test)]
mod tests;
