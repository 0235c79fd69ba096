//! Configuration: what YAML says, and what is true.

pub mod spec;
