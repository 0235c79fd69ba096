//! The ledger of a lane.
