//! Reads a folder back: files in the order of their keys, and one file's bytes.
//!
//! In: a prefix, or a key. Out: names, or a blob. Holds the names of one folder at a time for each level above it,
//! never those of the whole tree, and never follows a symbolic link to a folder, which might lead in a circle.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::source::{Listed, Stored};
use hydrant_core::{Blob, Fault, FaultCode, ObjectSource};

use crate::config::StoreConfig;
use crate::folder::blocking;
use crate::wire::{Layout, Metadata, OWN_FOLDER, check_key};

/// Reads what a [`FileSink`](crate::FileSink) placed.
#[derive(Clone, Debug)]
pub struct FileSource {
    layout: Layout,
}

impl FileSource {
    /// The source for this folder. Touches nothing.
    pub fn new(config: &StoreConfig) -> Self {
        Self { layout: Layout::new(config.root()) }
    }
}

#[async_trait]
impl ObjectSource for FileSource {
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault> {
        let root = self.layout.root().to_owned();
        let mut walk = Walk { prefix: prefix.to_owned(), after: after.map(str::to_owned), max, found: Vec::new() };
        blocking("list folder", move || {
            walk.folder(&root, "")?;
            Ok(walk.found)
        })
        .await
    }

    async fn open(&self, key: &str) -> Result<Stored, Fault> {
        check_key(key).map_err(|reason| Fault::new(FaultCode::NotFound, reason))?;
        let (path, metadata) = (self.layout.object(key), self.layout.metadata(key));
        blocking("open file", move || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            let kept = read_metadata(&metadata)?;
            Ok(Stored {
                content_type: kept.content_type,
                content_encoding: kept.content_encoding,
                metadata: kept.metadata,
                body: Arc::new(FileBlob { file: Arc::new(file), len }),
            })
        })
        .await
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
                let len = fs::metadata(&path)?.len();
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
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Metadata::default()),
        Err(error) => Err(error),
    }
}

/// An open file. Files here are never written in place, so the handle holds one version.
#[derive(Debug)]
struct FileBlob {
    file: Arc<File>,
    len: u64,
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
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}
