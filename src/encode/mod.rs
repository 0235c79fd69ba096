//! Object bytes and object names, pure.

pub mod name;
