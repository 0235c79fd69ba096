//! Reads a folder back: files in the order of their keys, and one file's bytes.
//!
//! In: a prefix, or a key. Out: names, or a blob. Holds the names of one folder at a time for each level above it,
//! never those of the whole tree, and never follows a symbolic link or opens what is no file: an object is neither.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::source::{Listed, Stored};
use hydrant_core::{Blob, Fault, FaultCode, ObjectSource};
use rustix::io::Errno;

use crate::config::StoreConfig;
use crate::folder::{Threads, open_existing};
use crate::wire::{Layout, Metadata, OWN_FOLDER, check_key};

/// Most bytes of an object's metadata. The sink writes a few hundred.
const METADATA_BYTES_MAX: u64 = 1 << 20;

/// Reads what a [`FileSink`](crate::FileSink) placed.
#[derive(Clone, Debug)]
pub struct FileSource {
    layout: Layout,
    threads: Threads,
}

impl FileSource {
    /// The source for this folder. Touches nothing.
    pub fn new(config: &StoreConfig) -> Self {
        Self { layout: Layout::new(config.root()), threads: Threads::new() }
    }
}

#[async_trait]
impl ObjectSource for FileSource {
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault> {
        let root = self.layout.root().to_owned();
        let mut walk = Walk { prefix: prefix.to_owned(), after: after.map(str::to_owned), max, found: Vec::new() };
        let walked = self.threads.step("list folder", move || {
            walk.folder(&root, "")?;
            Ok(walk.found)
        });
        walked.await
    }

    async fn open(&self, key: &str) -> Result<Stored, Fault> {
        check_key(key).map_err(|reason| Fault::new(FaultCode::NotFound, reason))?;
        let (path, metadata) = (self.layout.object(key), self.layout.metadata(key));
        let opened = self.threads.step("open file", move || {
            let file = open_existing(&path)?.ok_or(Errno::NOENT)?;
            let len = file.metadata()?.len();
            Ok((file, len, read_metadata(&metadata)?))
        });
        let (file, len, kept) = opened.await?;
        Ok(Stored {
            content_type: kept.content_type,
            content_encoding: kept.content_encoding,
            metadata: kept.metadata,
            body: Arc::new(FileBlob { file: Arc::new(file), len, threads: self.threads.clone() }),
        })
    }
}

/// One walk through the tree, in the order of keys.
struct Walk {
    prefix: String,
    after: Option<String>,
    max: usize,
    found: Vec<Listed>,
}

impl Walk {
    /// Walks `folder`, whose entries have keys that start with `base`: empty, or with a slash at its end.
    fn folder(&mut self, folder: &Path, base: &str) -> io::Result<()> {
        for (key, is_folder) in entries(folder, base)? {
            if self.found.len() == self.max {
                return Ok(());
            }
            let path = folder.join(key.get(base.len()..).unwrap_or_default());
            if is_folder && self.may_hold(&key) {
                self.folder(&path, &key)?;
            } else if !is_folder
                && key.starts_with(&self.prefix)
                && self.after.as_ref().is_none_or(|after| key > *after)
            {
                let len = fs::symlink_metadata(&path)?.len();
                self.found.push(Listed { key, len });
            }
        }
        Ok(())
    }

    /// Whether keys that start with `base` can be wanted.
    fn may_hold(&self, base: &str) -> bool {
        let fits = base.starts_with(&self.prefix) || self.prefix.starts_with(base);
        // All of them come before `after` unless it lies among them or before them.
        let comes = self.after.as_ref().is_none_or(|after| after.as_str() < base || after.starts_with(base));
        fits && comes
    }
}

/// Keys of files, and of folders with a slash at the end, sorted: a folder stands where its keys stand, so `a-b`
/// comes before what lies in `a/`.
fn entries(folder: &Path, base: &str) -> io::Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A name that is not UTF-8 is no key.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() && !(base.is_empty() && name == OWN_FOLDER) {
            entries.push((format!("{base}{name}/"), true));
        } else if kind.is_file() {
            entries.push((format!("{base}{name}"), false));
        }
    }
    entries.sort();
    Ok(entries)
}

fn read_metadata(path: &Path) -> io::Result<Metadata> {
    let Some(file) = open_existing(path)? else { return Ok(Metadata::default()) };
    let mut bytes = Vec::new();
    file.take(METADATA_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// An open file. Files here are never written in place, so the handle holds one version.
#[derive(Debug)]
struct FileBlob {
    file: Arc<File>,
    len: u64,
    threads: Threads,
}

#[async_trait]
impl Blob for FileBlob {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut part = vec![0; len.min(left)];
            file.read_exact_at(&mut part, offset).map(|()| Bytes::from(part))
        };
        self.threads.run(read).await
    }
}
