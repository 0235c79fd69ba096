//! Object names: prefixes with expressions, and the part behind them.

/// What keys of data objects start with. Parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {}

/// What keys of dead letters start with. Parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPrefix {}
