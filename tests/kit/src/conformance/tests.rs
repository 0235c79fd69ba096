//! Each check must be able to fail: sinks in memory that keep every promise, and one flaw for each.

mod objects;
mod pieces;
