//! Reserve: a file that is allocated while there is room, so that a batch of dead letters can still be sealed when
//! the disk is full. Dead letters are what lets a stuck batch go; without them a full disk could stay full.
//!
//! The reserve *becomes* the batch: it is renamed, written and cut to length, so at no moment is its room free for
//! somebody else to take. It is made again when something was removed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::SealError;
use crate::files::File;
use crate::folder::Folder;
use crate::space::{Claim, Share};

pub(super) const NAME: &str = "reserve";

/// Room for one batch of dead letters: 5 MiB of records by the default hints, and what base64 and the envelope add.
const RESERVE_BYTES: u64 = 8 << 20;

/// Part of the stream's limit that a reserve may take: half of what is kept for what is owed.
const PART_OF_LIMIT: u64 = 32;

#[derive(Debug)]
pub(super) struct Reserve {
    share: Arc<Share>,
    /// Bytes allocated on the disk; none when there is no reserve now.
    stocked: Mutex<Option<u64>>,
}

impl Reserve {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self { share, stocked: Mutex::default() }
    }

    /// Makes the reserve if there is none and there is room. Not having one is no error.
    pub(super) fn stock(&self, folder: &Folder) {
        let mut stocked = self.stocked();
        let bytes = RESERVE_BYTES.min(self.share.limit().get() / PART_OF_LIMIT);
        if stocked.is_some() || self.share.take(bytes, Claim::Owed).is_err() {
            return;
        }
        match allocate(folder, bytes) {
            Ok(()) => *stocked = Some(bytes),
            Err(error) => {
                self.share.give(bytes);
                tracing::debug!(dir = %folder.dir.display(), %error, "no room for the outbox's reserve");
            }
        }
    }

    /// The reserve as a file of this name and length, if it is there and large enough.
    pub(super) fn turn_into(
        &self,
        folder: &Folder,
        name: &str,
        bytes: u64,
    ) -> Result<Option<Arc<dyn File>>, SealError> {
        let mut stocked = self.stocked();
        let Some(rest) = stocked.and_then(|stocked| stocked.checked_sub(bytes)) else {
            return Ok(None);
        };
        let file = folder.files.open(&folder.path(NAME)).map_err(SealError::NotCreated)?;
        folder.rename(NAME, name).map_err(SealError::Poisoned)?;
        *stocked = None;
        folder.poison.guard(file.truncate(bytes)).map_err(SealError::Poisoned)?;
        self.share.give(rest);
        Ok(Some(file))
    }

    fn stocked(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.stocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let bytes = self.stocked().unwrap_or(0);
        self.share.give(bytes);
    }
}

fn allocate(folder: &Folder, bytes: u64) -> io::Result<()> {
    let allocated = folder.create(NAME)?.allocate(bytes);
    if allocated.is_err() {
        folder.remove(NAME)?;
    }
    allocated
}
