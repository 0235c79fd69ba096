//! Places objects as files: write under a temporary name, fsync, give it its name without taking anyone's, fsync the
//! folders.
//!
//! In: an object. Out: a verdict. An existing file of that name is this batch's if it has the same bytes, and is then
//! made durable and reported as delivered; other bytes under the name are somebody else's, stay as they are, and the
//! batch waits for an operator.
//!
//! ```text
//!   body ──> .hydrant/temporary/N ──fsync──> rename, never over another ──> ROOT/key ──fsync folders up to ROOT──> Delivered
//! ```
//!
//! Dropped at any await, an attempt leaves at most the file itself, complete: steps that have begun on the blocking
//! pool run to their end, and a temporary file is removed with the attempt that wrote it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::{ByteSize, Fault, FaultCode, Limits, Object, ObjectSink, Verdict};

use crate::config::StoreConfig;
use crate::folder::{Folder, Named, Temporary, Threads, open_existing};
use crate::wire::{Layout, Metadata, check_key};

/// How much of a body is read and written at once.
const PART_BYTES: usize = 1 << 20;

/// Objects of any size that a file system takes; the bound only keeps a mistake from filling a disk with one file.
const BODY_BYTES_MAX: ByteSize = ByteSize::gib(64);

/// Attempts at once. A disk gains nothing from more, and each holds a part in memory.
const ATTEMPTS_MAX: u32 = 4;

/// Places objects in a folder.
#[derive(Debug)]
pub struct FileSink {
    folder: Arc<Folder>,
    destination: String,
}

impl FileSink {
    /// The sink for this folder. Touches nothing: the folder is made when the first object comes.
    pub fn new(config: &StoreConfig) -> Self {
        // Falls back to the path as it is where the working directory is gone; the first attempt then says so.
        let root = std::path::absolute(config.root()).unwrap_or_else(|_| config.root());
        let destination = format!("file://{}", root.display());
        Self { folder: Arc::new(Folder::new(Layout::new(root))), destination }
    }

    /// The attempt, with every reason to try again as an error.
    async fn attempt(&self, object: &Object) -> Result<(), Fault> {
        let path = self.folder.layout().object(&object.key);
        if let Some(existing) = self.existing(&path).await? {
            return self.confirm(object, path, existing).await;
        }
        let (folder, batch) = (Arc::clone(&self.folder), object.batch);
        let temporary = self.threads().step("create temporary file", move || folder.temporary(batch)).await?;
        let temporary = Arc::new(temporary);
        write_body(object, &temporary, self.threads()).await?;
        let (folder, target, batch) = (Arc::clone(&self.folder), path.clone(), object.batch);
        let metadata = Metadata::of(object).map(|bytes| (folder.layout().metadata(&object.key), bytes));
        let named = self.threads().step("place file", move || {
            if let Some((path, bytes)) = metadata {
                folder.keep(batch, &path, &bytes)?;
            }
            folder.give_name(&temporary, &target)
        });
        match named.await? {
            Named::Ours => Ok(()),
            Named::Taken(existing) => self.confirm(object, path, existing).await,
        }
    }

    fn threads(&self) -> &Threads {
        self.folder.threads()
    }

    async fn existing(&self, path: &Path) -> Result<Option<File>, Fault> {
        let path = path.to_owned();
        self.threads().step("open file", move || open_existing(&path)).await
    }

    /// Checks that the file under the name is this batch's, and makes it durable: the attempt that wrote it may have
    /// ended between the rename and the fsync of a folder.
    async fn confirm(&self, object: &Object, path: PathBuf, existing: File) -> Result<(), Fault> {
        let existing = Arc::new(existing);
        if !has_same_bytes(object, &existing, self.threads()).await? {
            let message = "another file has the name of this object; it was left as it is";
            return Err(Fault::new(FaultCode::Conflict, message));
        }
        let folder = Arc::clone(&self.folder);
        self.threads().step("make existing file durable", move || folder.make_durable(&existing, &path)).await
    }
}

#[async_trait]
impl ObjectSink for FileSink {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: BODY_BYTES_MAX, pieces_max: u32::MAX, attempts_in_flight_max: ATTEMPTS_MAX }
    }

    fn destination(&self) -> String {
        self.destination.clone()
    }

    async fn place(&self, object: &Object) -> Verdict {
        if let Err(reason) = check_key(&object.key) {
            return Verdict::Refused(Fault::new(FaultCode::Invalid, reason));
        }
        match self.attempt(object).await {
            Ok(()) => Verdict::Delivered,
            Err(fault) => Verdict::Retry(fault),
        }
    }
}

async fn write_body(object: &Object, temporary: &Arc<Temporary>, threads: &Threads) -> Result<(), Fault> {
    let mut offset = 0;
    while offset < object.body.len() {
        let part = read_part(object, offset).await?;
        let next = offset + part.len() as u64;
        let temporary = Arc::clone(temporary);
        threads.step("write file", move || temporary.write_at(&part, offset)).await?;
        offset = next;
    }
    Ok(())
}

async fn has_same_bytes(object: &Object, existing: &Arc<File>, threads: &Threads) -> Result<bool, Fault> {
    let file = Arc::clone(existing);
    let len = threads.step("read existing file", move || file.metadata().map(|it| it.len())).await?;
    if len != object.body.len() {
        return Ok(false);
    }
    let mut offset = 0;
    while offset < len {
        let part = read_part(object, offset).await?;
        let next = offset + part.len() as u64;
        let existing = Arc::clone(existing);
        let is_same = threads.step("read existing file", move || {
            let mut stored = vec![0; part.len()];
            existing.read_exact_at(&mut stored, offset)?;
            Ok(stored == part)
        });
        if !is_same.await? {
            return Ok(false);
        }
        offset = next;
    }
    Ok(true)
}

/// A part of the body, never empty and never beyond its end.
async fn read_part(object: &Object, offset: u64) -> Result<Bytes, Fault> {
    let damaged = |reason: String| Fault::new(FaultCode::Damaged, format!("read batch {}: {reason}", object.batch));
    let part = object.body.read_at(offset, PART_BYTES).await.map_err(|error| damaged(error.to_string()))?;
    let fits = !part.is_empty() && offset + part.len() as u64 <= object.body.len();
    if fits { Ok(part) } else { Err(damaged("it is not as long as it says".to_owned())) }
}
