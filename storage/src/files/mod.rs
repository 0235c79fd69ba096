//! The seam between storage and the disk. Everything that this crate does to files goes through [`Files`] and
//! [`File`], so that a test can tear writes, fail the n-th operation, forget what was not synced, and fill up.
//!
//! What is assumed of the disk stands in `docs/formats/disk.md`. In one line: what was written is durable after a
//! successful [`File::sync`], and a name is durable after a successful [`Files::sync_dir`] of its folder; before
//! that, anything may be kept, dropped or torn, and a length is never to be trusted.
//!
//! Calls block. They are made from storage's own threads or from a blocking pool, never from async code.

#![expect(clippy::missing_errors_doc, reason = "every call fails as the disk does; what matters stands at each")]

pub mod real;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system.
pub trait Files: Send + Sync + fmt::Debug {
    /// Makes a folder and those above it, and makes their names durable. An existing one is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names in a folder, sorted; files and folders alike. A missing folder is [`io::ErrorKind::NotFound`].
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a new file for reading and writing; an existing one is [`io::ErrorKind::AlreadyExists`]. Its name is
    /// durable after [`sync_dir`](Self::sync_dir).
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading only, as `log verify` does.
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in one step, over an existing one too. Durable after `sync_dir` of both folders.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after [`sync_dir`](Self::sync_dir).
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be allocated on the disk that holds this folder; as many as there can be if nobody knows.
    fn free(&self, dir: &Path) -> io::Result<u64>;

    /// Makes the names in a folder durable, as they stand now.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Offsets are explicit: there is no position to lose.
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait File: Send + Sync + fmt::Debug {
    /// The file's length now, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` as far as the file goes; returns how many bytes were read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `parts`, one after the other, from `offset` on. After an error anything may have been written.
    fn write_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()>;

    /// Makes sure that the first `len` bytes have room on the disk, and that the file is at least that long. What
    /// was never written reads as zeros. No room is [`io::ErrorKind::StorageFull`] and leaves the file as it was.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes. Durable after [`sync`](Self::sync).
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable (data, and the length needed to read it back).
    fn sync(&self) -> io::Result<()>;
}
