//! Pieces: what processing makes of a record, one or several from each.

use std::sync::Arc;

use bytes::Bytes;

use crate::{PieceId, Timestamp};

/// One thing to deliver: what processing made of a record, or a share of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name: record, share, of how many shares.
    pub id: PieceId,
    /// When the record was accepted.
    pub arrived_at: Timestamp,
    /// Values that choose the destination's partition; empty unless a transform gave some.
    pub keys: PartitionKeys,
    /// The bytes to deliver. A slice of a larger buffer that lives as long as any piece of it.
    pub data: Bytes,
}

/// Partition values of a piece by name, sorted by name. Cheap to clone; the empty set allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKeys(Option<Arc<[(String, String)]>>);

impl PartitionKeys {
    /// The set of these pairs. Of pairs with the same name the last one counts.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let map: std::collections::BTreeMap<String, String> = pairs.into_iter().collect();
        if map.is_empty() { Self(None) } else { Self(Some(map.into_iter().collect())) }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Pairs in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter()).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
