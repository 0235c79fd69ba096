//! Fuzz targets of Hydrant, a workspace of its own because they need a nightly compiler.

mod targets;

pub use targets::*;
