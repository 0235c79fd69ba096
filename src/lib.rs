//! The server: everything between the socket and the sinks.
//!
//! A record walks one way. It comes in through [`api`], lies in the log of its stream, walks through the stations
//! of [`stream`], lies as part of a sealed batch in the outbox, and goes out through a sink:
//!
//! ```text
//!  producer ── PutRecord / PutRecordBatch
//!     │
//!     v                   ┌───────────── packing loop ─────────────┐                ┌──── delivery loop ────┐
//!   append ──> [ log ] ──>│ read ─> process ─> route ─> buffer ─> seal │──> [ outbox ] ──>│ send (retry) ─> settle │──> destination
//!     ^          │  ^     └────────────────────────────────────────┘      │  ^     └───────────┬───────────┘
//!     └─ durable ┘  └──── positions: the log may forget ────────────────────┘  └── refused pieces: a dead-letter batch
//! ```
//!
//! Modules stand in reading order: what is declared, how it is put together, what comes in, how it walks, what its
//! bytes become.

pub mod config;

pub mod assemble;

pub mod tls;

pub mod api;

pub mod streams;

pub mod stream;

pub mod encode;

pub mod dead_letters;

pub mod blocks;

pub mod telemetry;

pub mod system;

pub mod control;

pub mod commands;
