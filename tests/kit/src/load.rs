//! The load generator: signed puts over kept connections.
//!
//! [`mod@bench`] sends log records as fast as one connection allows and measures; its bodies and their hashes are made
//! before the clock starts, so that what is measured is the server. [`witnessed`] sends records that the oracle gave
//! names to, and tells the oracle what was answered. [`idle`] holds connections and says nothing.

pub mod bench;
pub mod idle;
mod line;
pub mod put;
pub mod witnessed;

#[cfg(test)]
mod tests;
