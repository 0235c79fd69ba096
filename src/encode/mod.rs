//! Object bytes and object names, pure: format x compression x names.
//!
//! In: the raw bytes of a sealed buffer and how its stream wants them. Out: the final bytes of an object, its key,
//! and, on the way back, the raw bytes again.
//!
//! ```text
//!   raw parts ── compress ──> object bytes ── decode ──> raw bytes
//!   prefix + moment + batch id ── name ──> object key
//! ```
//!
//! A dead letter is a line of its own kind: see [`letter`]. An object that is one as a whole says so beside it: see
//! [`intended`].
//!
//! Nothing here knows a store, a clock or a configuration file.

pub mod name;
mod pattern;
mod template;

pub mod compress;
mod gzip;
mod parts;
mod rows;
mod zstd;

pub mod decode;

pub mod letter;

pub mod intended;

pub use pattern::PatternError;
