//! Tests of the wire.

#![allow(
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a test that slips fails"
)]

mod kit;

mod wire;

mod record_id;

mod signatures;

mod requests;

mod golden;

mod connections;

mod hostile;

mod https;

mod figures;
