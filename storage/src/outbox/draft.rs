//! Draft: a batch file that is written while its body comes into being, so that none of it waits in memory.
//!
//! ```text
//!   append:  take space ─> allocate ─> write at the end           (space in growing steps, an fsync now and then)
//!   seal:    the same for table and header ─> write head ─> cut to length ─> fsync ─> rename ─> fsync folder
//!   drop:    unlink, give the space back
//! ```
//!
//! A draft is nothing yet: it has a temporary name, its head is zeros, and an open removes it. The records in it lie
//! in the log as before.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::BatchId;

use super::format::{BODY_AT, BlockCrcs, HEADER_BYTES_MAX, Head, as_u64};
use super::header::Header;
use super::{Inner, SealError, temporary_name};
use crate::crash::{self, Point};
use crate::files::File;
use crate::space::{Claim, is_full, on_disk};

/// How much space is taken at a time: as much again as the draft has, within these bounds. Many drafts that stay small
/// waste little, and a large one is allocated in few steps.
const STEP_BYTES_MIN: u64 = 256 << 10;
const STEP_BYTES_MAX: u64 = 8 << 20;

/// After how many bytes a draft is synced though nobody relies on it yet, so that its seal never has more than this
/// to write: an fsync of more would hold up those of the log.
const SYNC_BYTES: u64 = 8 << 20;

/// A batch file under way. Calls block. Dropping it removes the file, unless it was sealed.
#[derive(Debug)]
pub struct Draft {
    outbox: Arc<Inner>,
    batch: BatchId,
    claim: Claim,
    file: Option<Arc<dyn File>>,
    /// Where the next byte goes.
    end: u64,
    allocated: u64,
    synced: u64,
    crcs: BlockCrcs,
}

impl Draft {
    pub(super) fn new(outbox: Arc<Inner>, batch: BatchId, claim: Claim) -> Self {
        Self { outbox, batch, claim, file: None, end: BODY_AT, allocated: 0, synced: 0, crcs: BlockCrcs::new() }
    }

    /// Adds `body` to its end. Not durable before the seal.
    ///
    /// # Errors
    /// See [`SealError`]. The draft is of no use any more and should be dropped.
    pub fn append(&mut self, body: &[Bytes]) -> Result<(), SealError> {
        for part in body {
            self.crcs.add(part);
        }
        let parts: Vec<IoSlice<'_>> = body.iter().map(|part| IoSlice::new(part)).collect();
        let file = self.write(&parts)?;
        crash::reach(Point::DraftWritten);
        if self.end - self.synced >= SYNC_BYTES {
            self.outbox.folder.sync_file(&*file).map_err(SealError::Poisoned)?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Seals the batch: on return its file is durable and may be sent. The header may only now be known.
    ///
    /// # Errors
    /// See [`SealError`].
    ///
    /// # Panics
    /// When the header names another batch: a bug of the caller.
    pub fn seal(mut self, header: &Header) -> Result<(), SealError> {
        assert!(header.batch == self.batch, "the draft of {} is not batch {}", self.batch, header.batch);
        let header_bytes = header.encode();
        if header_bytes.len() > HEADER_BYTES_MAX {
            return Err(SealError::HeaderTooLarge { bytes: header_bytes.len() });
        }
        let head = Head::new(&header_bytes, self.end - BODY_AT);
        let table = head.table(&std::mem::replace(&mut self.crcs, BlockCrcs::new()).finish());
        self.outbox.provide(header.raw_bytes.max(head.file_bytes()), self.claim)?;
        let file = self.write(&[IoSlice::new(&table), IoSlice::new(&header_bytes)])?;
        let outbox = Arc::clone(&self.outbox);
        let guard = |result| outbox.folder.poison.guard(result);
        let durable = || {
            guard(file.write_at(0, &[IoSlice::new(&head.encode())]))?;
            crash::reach(Point::DraftHeaded);
            guard(file.truncate(self.end))?;
            crash::reach(Point::SealWritten);
            outbox.make_durable(&*file, self.batch, self.claim)
        };
        let sealed = durable();
        self.file = None; // from here on it is no draft any more, whatever it is
        outbox.share.give(on_disk(self.allocated) - on_disk(self.end));
        let mut counts = outbox.held();
        counts.sealing -= 1;
        match &sealed {
            Ok(()) => counts.insert(self.batch, on_disk(self.end)),
            Err(_) => counts.stray += on_disk(self.end), // what lies there now stays until the next open
        }
        drop(counts);
        sealed.map_err(SealError::Poisoned)
    }

    /// Writes at the end, with the space allocated first.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<Arc<dyn File>, SealError> {
        self.outbox.folder.poison.check().map_err(SealError::Poisoned)?;
        let upto = self.end + parts.iter().map(|part| as_u64(part.len())).sum::<u64>();
        let file = self.allocate(upto)?;
        match file.write_at(self.end, parts) {
            // As in a seal: nothing relies on this file yet, so this is no poison.
            Err(error) if is_full(&error) => return Err(self.outbox.share.disk_full(upto - self.end).into()),
            written => self.outbox.folder.poison.guard(written).map_err(SealError::Poisoned)?,
        }
        self.end = upto;
        Ok(file)
    }

    /// The file, with room for `upto` bytes.
    fn allocate(&mut self, upto: u64) -> Result<Arc<dyn File>, SealError> {
        if let Some(file) = self.file.as_ref().filter(|_| upto <= self.allocated) {
            return Ok(Arc::clone(file));
        }
        let step = (upto - self.allocated).max(self.allocated.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX));
        let more = on_disk(self.allocated + step) - on_disk(self.allocated);
        self.outbox.share.take(more, self.claim)?;
        let file = self.file().and_then(|file| {
            let failed = |error| self.outbox.not_created(error, step);
            file.allocate(self.allocated + step).map(|()| file).map_err(failed)
        });
        match &file {
            Ok(_) => {
                crash::reach(Point::DraftAllocated);
                self.allocated += step;
            }
            Err(_) => self.outbox.share.give(more),
        }
        file
    }

    /// The file, made if there is none.
    fn file(&mut self) -> Result<Arc<dyn File>, SealError> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        self.outbox.begin(self.claim)?;
        match self.outbox.folder.create(&temporary_name(self.batch)) {
            Ok(file) => {
                self.file = Some(Arc::clone(&file));
                Ok(file)
            }
            Err(error) => {
                self.outbox.held().sealing -= 1;
                Err(self.outbox.not_created(error, 0))
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.outbox.held().sealing -= 1;
            self.outbox.discard(&temporary_name(self.batch), self.allocated);
        }
    }
}

#[cfg(test)]
mod tests;
