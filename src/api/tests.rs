//! Tests of the wire.

mod kit;

mod figures;

mod record_id;
mod signatures;
mod wire;
