//! The test kit: everything that speaks a protocol but is not the server.
//!
//! Two processes are made of it. `hydrant-load` ([`load`]) is the producer: it signs ([`signature`]) and sends
//! ([`client`]) records: log lines for a bench ([`lines`]), or records that name themselves, of any bytes ([`frame`]) or JSON
//! ([`document`]).
//! `hydrant-oracle` ([`oracle`]) is the witness: it knows what was issued and promised, reads what arrived by its own
//! readers, and judges. Neither shares code with the server, so that a mistake there is not made twice.
//!
//! Tests of the sinks take the rest: the [`conformance`] suite, and what it breaks them with: a [`proxy`] that resets,
//! stalls and trickles, and servers that follow a script: [`s3`], [`opensearch`], and a [`receiver`] of the HTTP endpoint
//! protocol, which is a process too: `hydrant-receiver`; and what speaks [`tls`] for those that do not.

pub mod signature;

pub mod client;

pub mod random;

pub mod lines;

pub mod frame;

pub mod document;

pub mod histogram;

pub mod load;

pub mod oracle;

pub mod proxy;

pub mod http;

pub mod s3;

pub mod opensearch;

pub mod receiver;

pub mod tls;

pub mod conformance;
