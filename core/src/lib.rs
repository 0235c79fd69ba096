//! Vocabulary and contracts of Hydrant: the words that every other crate uses, and the promises that sinks and
//! transforms keep.
//!
//! Data walks one way. A *record* is accepted and gets a [`Position`] in its stream's log; processing makes
//! [`Piece`]s of it; pieces are buffered and sealed as a batch, named by a [`BatchId`]; a [`Sink`] answers for
//! each piece with a [`Verdict`].
//!
//! ```text
//!   record ── Position ──> pieces ── PieceId ──> batch ── BatchId ──> sink ── Verdict
//! ```
//!
//! This crate does no I/O, starts no task and reads no clock. Modules stand in the order in which a record meets
//! them; what plug-in configurations share comes last.

pub mod time;

pub mod position;

pub mod piece;

pub mod batch;

pub mod fault;

pub mod sink;

pub mod source;

pub mod transform;

pub mod compression;

pub mod delimiter;

pub mod duration;

pub mod entropy;

pub mod problem;

pub mod secret;

pub mod size;

pub use batch::{BatchId, Blob, Object};
pub use entropy::Entropy;
pub use fault::{Fault, FaultCode};
pub use piece::{PartitionKeys, Piece};
pub use position::{PieceId, Position, Span};
pub use sink::{Limits, ObjectSink, PieceSink, Report, Sink, Verdict};
pub use size::ByteSize;
pub use source::ObjectSource;
pub use time::{Clock, Timestamp};
