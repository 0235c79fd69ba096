//! Poison: after a failed write or fsync, what was written since the last good fsync is unknown, and a later fsync
//! that succeeds proves nothing. So the place it happened in takes nothing more in this process, and the fsync is
//! never tried again.

use std::io;
use std::sync::{Arc, OnceLock};

/// Remembers the first error of a place.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<Arc<io::Error>>);

impl Poison {
    /// Ok as long as nothing failed.
    pub(crate) fn check(&self) -> Result<(), Arc<io::Error>> {
        self.0.get().map_or(Ok(()), |first| Err(Arc::clone(first)))
    }

    /// Passes a success on; a failure poisons the place. The error given back is the first one.
    pub(crate) fn guard<T>(&self, result: io::Result<T>) -> Result<T, Arc<io::Error>> {
        result.map_err(|error| Arc::clone(self.0.get_or_init(|| Arc::new(error))))
    }
}
