//! The outbox of a lane.
