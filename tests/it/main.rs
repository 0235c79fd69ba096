//! End to end: the real binary on free loopback ports, foreign clients in, foreign readers out.
//!
//! | module | asks |
//! |---|---|
//! | `producers` | do unmodified clients get what they expect, and arrives what they put, byte for byte and in order? |
//! | `objects` | can everybody read the objects, and are they stored as was asked? |
//! | `forged` | is each forgery refused, with nothing stored? |
//! | `https` | do unmodified clients speak HTTPS, and does a new certificate need no restart? |
//! | `idle` | what does a crowd that says nothing cost the others? |
//! | `dead_letters` | what becomes of objects that their store does not take? |
//! | `search` | what becomes of records on their way into OpenSearch? |
//! | `endpoint` | what becomes of records on their way to an HTTP endpoint? |
//! | `redrive` | do dead letters arrive once when they are put back? |
//! | `commands` | what do commands say to people and programs, and how do they end? |
//! | `life` | starting, stopping, crashing, a second process, every file in `config/` |
//! | `demo` | does the tour end well, and can its lines be pasted? |
//! | `mutation` | can anything that is read from a client, a disk or a person bring the program down? |
//! | `secrets` | does any secret show anywhere? |
//! | `sim` | does each record arrive once, whatever the disk, the stores and the process do? |
//!
//! Tests that need servers are ignored unless `cargo xtask test` runs them; it says by `HYDRANT_TEST_*` where they are.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and it waits for other processes on the real clock"
)]

mod commands;
mod dead_letters;
mod demo;
mod endpoint;
mod forged;
mod https;
mod idle;
mod life;
mod mutation;
mod objects;
mod producers;
mod redrive;
mod search;
mod secrets;
mod server;
mod services;
mod sim;
