//! Transforms: what may change, split, drop or refuse a record on its way.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Fault, PartitionKeys, Piece};

/// Most pieces that one record may become. Source: the service's limit of sub-records per record.
pub const PIECES_PER_RECORD_MAX: usize = 500;

/// Changes records, several at a time.
#[async_trait]
pub trait Transform: Send + Sync {
    /// Answers for each piece, in the order given. Cancel safe: a dropped call has no effect.
    ///
    /// # Errors
    /// When the transform as a whole could not run (a trap, a time-out). The caller halves the pieces and tries
    /// again until it has found the guilty one.
    async fn apply(&self, pieces: &[Piece]) -> Result<Vec<Outcome>, Fault>;
}

/// What became of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on as these payloads, 1 to [`PIECES_PER_RECORD_MAX`] of them.
    Keep(Vec<(Bytes, PartitionKeys)>),
    /// It is not wanted. That settles it.
    Drop,
    /// It could not be processed and goes to the dead letters.
    Refuse(Fault),
}
