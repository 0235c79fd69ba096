//! What a receiver remembers: the digests of the records of each request id, and in a folder their bytes.
//!
//! In: requests that break no rule. Out: whether each is new, or the same as before; everything else is a violation.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest as sha};

use super::protocol::Request;

/// SHA-256 of a record.
pub type Digest = [u8; 32];

/// What came under one request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When it was made, as it says.
    pub timestamp: Option<u64>,
    /// Of its records, in order.
    pub digests: Vec<Digest>,
    /// How often it came.
    pub times: u64,
}

/// The digest of a record.
pub fn digest(record: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(sha(&SHA256, record).as_ref());
    out
}

#[derive(Debug, Default)]
pub(super) struct Keep {
    folder: Option<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: BTreeMap<String, Kept>,
    violations: Vec<String>,
}

impl Keep {
    pub(super) fn open(folder: Option<PathBuf>) -> io::Result<Self> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { folder, seen: Mutex::default() })
    }

    /// Takes a request, for the first time or again.
    ///
    /// # Errors
    /// When the same id came with other records, or its file cannot be written.
    pub(super) fn take(&self, request: &Request) -> Result<()> {
        let digests: Vec<Digest> = request.records.iter().map(|record| digest(record)).collect();
        let mut seen = self.lock();
        if let Some(known) = seen.requests.get_mut(&request.id) {
            let is_same = known.digests == digests && known.timestamp == request.timestamp;
            ensure!(is_same, "request {} came again with other records", request.id);
            known.times += 1;
            return Ok(());
        }
        if let Some(folder) = &self.folder {
            write(folder, request).with_context(|| format!("keep request {}", request.id))?;
        }
        seen.requests.insert(request.id.clone(), Kept { timestamp: request.timestamp, digests, times: 1 });
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Option<Kept> {
        self.lock().requests.get(id).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    pub(super) fn violation(&self, broken: &str) {
        self.lock().violations.push(broken.to_owned());
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the records one behind the other to a file of the request's name, durable before this returns. A file of
/// that name, from an earlier life of the receiver, must hold the same.
fn write(folder: &Path, request: &Request) -> Result<()> {
    let (name, bytes) = (folder.join(&request.id), request.records.concat());
    if name.try_exists()? {
        ensure!(fs::read(&name)? == bytes, "request {} came again with other records", request.id);
        return Ok(());
    }
    let temporary = folder.join(format!(".{}", request.id));
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, &name)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
