//! Reserve: a file that is allocated while there is room, so that a batch of dead letters can still be sealed when
//! the disk is full. Dead letters are what lets a stuck batch go; without them a full disk could stay full.
//!
//! ```text
//!   nothing owed        a batch of records is about to be sealed            all batches gone
//!   64 KiB ───────────> room for what it may give as dead letters ────────> 64 KiB
//! ```
//!
//! It is as large as the dead letters of the largest batch that waits may be, so an idle stream costs next to nothing,
//! and no batch of records is sealed whose dead letters would have no room. The reserve *becomes* the batch: it is
//! renamed, written and cut to length, so at no moment is its room free for somebody else to take. It is made again
//! when something was removed, or before the next batch of records.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SealError;
use crate::crash::{self, Point};
use crate::files::File;
use crate::folder::Folder;
use crate::space::{BLOCK_BYTES, Claim, Share, is_full, on_disk};

pub(super) const NAME: &str = "reserve";

/// Size while nothing waits, and the least ever.
const BYTES_MIN: u64 = 64 << 10;

/// Largest reserve: 5 MiB of records by the default hints, and what base64 and the envelope add. Larger batches of dead
/// letters are not sealed while the disk is full.
const BYTES_MAX: u64 = 8 << 20;

/// Part of the stream's limit that a reserve may take: half of what is kept for what is owed.
const PART_OF_LIMIT: u64 = 32;

#[derive(Debug)]
pub(super) struct Reserve {
    share: Arc<Share>,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    /// Bytes allocated on the disk; none when there is no reserve now.
    bytes: Option<u64>,
    /// Bytes that there should be.
    wanted: u64,
}

impl Reserve {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self { share, stock: Mutex::default() }
    }

    /// Takes over the reserve that an earlier process left.
    pub(super) fn adopt(&self, folder: &Folder) -> io::Result<()> {
        let bytes = folder.files.open(&folder.path(NAME))?.len()?;
        self.share.occupy(on_disk(bytes));
        self.stock().bytes = Some(on_disk(bytes));
        Ok(())
    }

    /// Makes sure that there is a reserve for what a batch of `bytes` records may give as dead letters.
    pub(super) fn provide(&self, folder: &Folder, bytes: u64) -> Result<(), SealError> {
        let mut stock = self.stock();
        stock.wanted = stock.wanted.max(self.size_for(bytes));
        self.grow(&mut stock, folder)
    }

    /// Makes the reserve again if there is none and there is room, which is no error; or smaller, if nothing waits.
    pub(super) fn restock(&self, folder: &Folder, is_idle: impl FnOnce() -> bool) {
        let mut stock = self.stock();
        if is_idle() {
            stock.wanted = self.size_for(0);
        }
        let outcome = if stock.bytes.is_some_and(|bytes| bytes > stock.wanted) {
            self.shrink(&mut stock, folder)
        } else {
            self.grow(&mut stock, folder).map_err(io::Error::other)
        };
        if let Err(error) = outcome {
            tracing::debug!(dir = %folder.dir.display(), %error, "the outbox's reserve could not be brought to size");
        }
    }

    /// The reserve as a file of this name and length, if it is there and large enough.
    pub(super) fn turn_into(
        &self,
        folder: &Folder,
        name: &str,
        bytes: u64,
    ) -> Result<Option<Arc<dyn File>>, SealError> {
        let mut stock = self.stock();
        let Some(rest) = stock.bytes.and_then(|there| there.checked_sub(on_disk(bytes))) else {
            return Ok(None);
        };
        let file = folder.files.open(&folder.path(NAME)).map_err(SealError::NotCreated)?;
        folder.rename(NAME, name).map_err(SealError::Poisoned)?;
        crash::reach(Point::ReserveTurned);
        stock.bytes = None;
        folder.poison.guard(file.truncate(bytes)).map_err(SealError::Poisoned)?;
        self.share.give(rest);
        Ok(Some(file))
    }

    /// Half more than the records, which base64 and envelope may add, in few sizes, so that it rarely changes.
    fn size_for(&self, bytes: u64) -> u64 {
        let needed = bytes.saturating_add(bytes / 2).clamp(BYTES_MIN, BYTES_MAX).next_power_of_two();
        let most = self.share.limit().get() / PART_OF_LIMIT / BLOCK_BYTES * BLOCK_BYTES;
        needed.min(most)
    }

    fn grow(&self, stock: &mut Stock, folder: &Folder) -> Result<(), SealError> {
        let there = stock.bytes.unwrap_or(0);
        let more = stock.wanted.saturating_sub(there);
        if more == 0 {
            return Ok(());
        }
        self.share.take(more, Claim::Owed)?;
        match allocate(folder, stock.bytes.is_some(), stock.wanted) {
            Ok(()) => {
                crash::reach(Point::ReserveGrown);
                stock.bytes = Some(stock.wanted);
                Ok(())
            }
            Err(error) => {
                self.share.give(more);
                Err(if is_full(&error) { self.share.disk_full(more).into() } else { SealError::NotCreated(error) })
            }
        }
    }

    fn shrink(&self, stock: &mut Stock, folder: &Folder) -> io::Result<()> {
        folder.files.open(&folder.path(NAME))?.truncate(stock.wanted)?;
        crash::reach(Point::ReserveShrunk);
        self.share.give(stock.bytes.replace(stock.wanted).unwrap_or(0) - stock.wanted);
        Ok(())
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserve {
    /// The file stays; only the count of it ends with this handle.
    fn drop(&mut self) {
        let bytes = self.stock().bytes.unwrap_or(0);
        self.share.give(bytes);
    }
}

fn allocate(folder: &Folder, is_there: bool, bytes: u64) -> io::Result<()> {
    if is_there {
        return folder.files.open(&folder.path(NAME))?.allocate(bytes);
    }
    let allocated = folder.create(NAME)?.allocate(bytes);
    if allocated.is_err() {
        folder.remove(NAME)?;
    }
    allocated
}
