//! Tests of the wire.

mod kit;

mod record_id;
mod signatures;
mod wire;
