//! Configuration: what YAML says, and what is true.
//!
//! ```text
//!   hydrant.yaml ──> raw ──────────> spec
//!                    what YAML says   what is true
//! ```
//!
//! In: one file. Out: a [`spec::Spec`] that cannot be wrong, or a [`Report`] of everything that is wrong with it, each
//! problem with file, line, column, the line itself and a hint. Secrets are read by reference only, and whatever
//! stands where one belongs is never shown.

mod raw;

pub mod spec;

pub mod defaults;

mod load;

mod read;

mod shape;

mod yaml_error;

mod document;

mod mask;

mod nearest;

mod report;

mod schema;

mod definition;

mod secrets;

pub use load::{DOCUMENT_BYTES_MAX, LoadError, Loaded, load, parse};
pub use report::{Finding, Look, Report, Severity};
pub use schema::{schema, schema_text};
pub use secrets::{AnySecrets, LocalSecrets};
