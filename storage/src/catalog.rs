//! Catalog: the data directory, who holds it, and which streams live in it.
//!
//! ```text
//!   DATA/                  mode 0700
//!   ├── lock               held by flock while a process uses the directory
//!   ├── format             which layout this is, so that an older program does not guess
//!   ├── catalog.json       streams by name; replaced whole
//!   └── streams/
//!       └── web-6b1f…/     name and incarnation: a stream made again has another folder
//!           ├── log/  outbox/  ledger/
//! ```
//!
//! In: what is declared at a start. Out: each stream's identity and folder, or why it may not run as declared. A
//! stream that is known but has lost its folder is an error, never made again empty. Nothing here deletes data:
//! streams that are declared no more stay, and are told of.

mod format;
mod lock;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_core::Timestamp;

pub use self::format::StreamEntry;

use self::lock::Lock;
use crate::files::Files;
use crate::poison::Poison;
use crate::space::is_full;
use crate::verify::{self, Owed};

/// What `DATA/format` says. Another layout of any file below gets another number.
const FORMAT: &str = "hydrant data 1\n";
const FORMAT_FILE: &str = "format";
const CATALOG_FILE: &str = "catalog.json";
const STREAMS: &str = "streams";

/// Folders of a stream.
const PARTS: [&str; 3] = ["log", "outbox", "ledger"];

/// Largest catalog that is read: 10,000 streams with definitions of 6 KiB.
const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// Longest stream name. Source: the service's limit.
const NAME_BYTES_MAX: usize = 64;

/// A data directory in use. Dropping it lets another process have it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    files: Arc<dyn Files>,
    streams: BTreeMap<String, StreamEntry>,
    poison: Poison,
    _lock: Option<Lock>,
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else uses it.
    #[error("data directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds files, but none that say what it is.
    #[error("{} holds other files and is no data directory (found {found:?}); name an empty or a new one", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// There is nothing of ours.
    #[error("{} holds no data: {why}", path.display())]
    NoData {
        /// The directory.
        path: PathBuf,
        /// Why, and what to name instead.
        why: &'static str,
    },
    /// Another version of this program wrote it.
    #[error("data directory {} has the format {found:?}, which another version wrote; this program reads {:?}", path.display(), FORMAT.trim_end())]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// The format file or the catalog is missing or not what was written.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The disk refused.
    #[error("open data directory {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// A stream as it is declared now.
#[derive(Clone, Copy, Debug)]
pub struct Declaration<'a> {
    /// Its name: letters, digits, `_`, `-` and `.`, at most 64 of them.
    pub name: &'a str,
    /// Its definition in one canonical form; another text is another version.
    pub definition: &'a str,
    /// Kind of its sink: `s3`, `file`.
    pub sink_kind: &'a str,
}

/// Why a stream may not run as declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The name cannot name a stream.
    #[error("{0:?} is not a stream name")]
    BadName(String),
    /// The stream is known, and its data is gone.
    #[error("stream {name} has lost its data: {} is missing; put it back, or declare the stream under another name", path.display())]
    DirectoryVanished {
        /// The stream.
        name: String,
        /// What is missing.
        path: PathBuf,
    },
    /// Batches are owed to a sink of another kind.
    #[error("stream {name} still owes {batches} batches to its {from} sink; drain it before its sink becomes {to}")]
    SinkKindChanged {
        /// The stream.
        name: String,
        /// The kind that the batches were sealed for.
        from: String,
        /// The kind declared now.
        to: String,
        /// How many batch files there are.
        batches: usize,
    },
    /// The disk refused. Nothing was declared.
    #[error("declare stream {name} in {}: {source}", path.display())]
    Io {
        /// The stream.
        name: String,
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// A stream that is known and not declared any more. Its data is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeclared {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// How much lies there, in bytes, as far as it can be read.
    pub bytes: u64,
    /// What of it is still owed. `None` when that cannot be read.
    pub owed: Option<Owed>,
}

impl DataDir {
    /// Opens a data directory on this machine's disk, or makes one with mode 0700, and takes its lock.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, files: Arc<dyn Files>) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), source };
        lock::make_private_dir(path, &*files).map_err(fail)?;
        let lock = Lock::take(path).map_err(fail)?.ok_or_else(|| OpenError::InUse { path: path.to_owned() })?;
        Ok(Self { _lock: Some(lock), ..Self::open_without_lock(path, files)? })
    }

    /// As [`open`](Self::open), for a disk that no other process can see: a simulated one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_without_lock(path: &Path, files: Arc<dyn Files>) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), source };
        files.create_dir_all(path).map_err(fail)?;
        let streams = if has_format(path, &*files)? {
            read_catalog(path, &*files)?
        } else {
            replace(path, &*files, FORMAT_FILE, FORMAT.as_bytes()).map_err(fail)?;
            BTreeMap::new()
        };
        // What an earlier process could not make durable is acted on only after this.
        files.sync_dir(path).map_err(fail)?;
        Ok(Self { path: path.to_owned(), files, streams, poison: Poison::default(), _lock: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The streams it knows, by name.
    pub fn streams(&self) -> &BTreeMap<String, StreamEntry> {
        &self.streams
    }

    /// Finds the stream, or makes it with `incarnation_if_new`; another definition than last time is its next
    /// version. Gives its identity and the folder that holds `log`, `outbox` and `ledger`. Durable on return.
    ///
    /// # Errors
    /// See [`DeclareError`]. Nothing is changed then.
    pub fn declare(
        &mut self,
        declared: Declaration<'_>,
        now: Timestamp,
        incarnation_if_new: u64,
    ) -> Result<(StreamEntry, PathBuf), DeclareError> {
        let name = declared.name;
        if !is_stream_name(name) {
            return Err(DeclareError::BadName(name.to_owned()));
        }
        let entry = match self.streams.get(name) {
            None => self.make(declared, now, incarnation_if_new)?,
            Some(known) => {
                self.check_parts(name, known)?;
                self.check_sink(declared, known)?;
                known.redeclared(declared, now)
            }
        };
        let path = folder(&self.path, name, entry.incarnation);
        if self.streams.get(name) != Some(&entry) {
            let mut streams = self.streams.clone();
            streams.insert(name.to_owned(), entry.clone());
            self.store(streams).map_err(|source| DeclareError::Io {
                name: name.to_owned(),
                path: path.clone(),
                source,
            })?;
        }
        Ok((entry, path))
    }

    /// Streams that are known and not among `declared`.
    pub fn undeclared(&self, declared: &BTreeSet<&str>) -> Vec<Undeclared> {
        let gone = self.streams.iter().filter(|(name, _)| !declared.contains(name.as_str()));
        gone.map(|(name, entry)| {
            let path = folder(&self.path, name, entry.incarnation);
            let bytes = PARTS.iter().map(|part| bytes_in(&*self.files, &path.join(part))).sum();
            let owed = verify::owed(&path, entry.incarnation, &*self.files);
            Undeclared { name: name.clone(), path, bytes, owed }
        })
        .collect()
    }

    /// Makes the folders of a new stream. They come before the catalog names them, so that a named one that is
    /// missing was there once.
    fn make(&self, declared: Declaration<'_>, now: Timestamp, incarnation: u64) -> Result<StreamEntry, DeclareError> {
        let path = folder(&self.path, declared.name, incarnation);
        let made = match self.files.list(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                PARTS.iter().try_for_each(|part| self.files.create_dir_all(&path.join(part)))
            }
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        };
        made.map_err(|source| DeclareError::Io { name: declared.name.to_owned(), path, source })?;
        Ok(StreamEntry {
            incarnation,
            version: 1,
            definition: declared.definition.to_owned(),
            sink_kind: declared.sink_kind.to_owned(),
            created_at: now,
            updated_at: None,
        })
    }

    /// A known stream has all its folders.
    fn check_parts(&self, name: &str, known: &StreamEntry) -> Result<(), DeclareError> {
        let root = folder(&self.path, name, known.incarnation);
        for path in PARTS.iter().map(|part| root.join(part)) {
            self.files.list(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => DeclareError::DirectoryVanished { name: name.to_owned(), path },
                _ => DeclareError::Io { name: name.to_owned(), path, source },
            })?;
        }
        Ok(())
    }

    /// Batches that were sealed for one kind of sink are not sent to another.
    fn check_sink(&self, declared: Declaration<'_>, known: &StreamEntry) -> Result<(), DeclareError> {
        if known.sink_kind == declared.sink_kind {
            return Ok(());
        }
        let path = folder(&self.path, declared.name, known.incarnation).join("outbox");
        match self.files.list(&path).map(|names| names.iter().filter(|name| crate::outbox::is_batch(name)).count()) {
            Ok(0) => Ok(()),
            Ok(batches) => Err(DeclareError::SinkKindChanged {
                name: declared.name.to_owned(),
                from: known.sink_kind.clone(),
                to: declared.sink_kind.to_owned(),
                batches,
            }),
            Err(source) => Err(DeclareError::Io { name: declared.name.to_owned(), path, source }),
        }
    }

    fn store(&mut self, streams: BTreeMap<String, StreamEntry>) -> io::Result<()> {
        self.poison.check().map_err(io::Error::other)?;
        let bytes = format::encode(&streams);
        match replace(&self.path, &*self.files, CATALOG_FILE, &bytes) {
            // The old catalog is untouched, and the next try makes the temporary file anew.
            Err(error) if is_full(&error) => return Err(error),
            stored => self.poison.guard(stored).map_err(io::Error::other)?,
        }
        self.streams = streams;
        Ok(())
    }
}

/// The streams of a data directory, by name, each with its folder. Takes no lock and writes nothing.
///
/// # Errors
/// See [`OpenError`]; one that holds nothing of ours is [`OpenError::NoData`].
pub fn read(path: &Path, files: &dyn Files) -> Result<BTreeMap<String, (StreamEntry, PathBuf)>, OpenError> {
    let none = |why| OpenError::NoData { path: path.to_owned(), why };
    match has_format(path, files) {
        Ok(true) => {}
        Ok(false) => return Err(none("it is empty; name the directory of `server.data`")),
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(none("it is not there; name the directory of `server.data`"));
        }
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(none("it is no directory; name that of `server.data`"));
        }
        Err(error) => return Err(error),
    }
    let streams = read_catalog(path, files)?;
    let with_folder = |(name, entry): (String, StreamEntry)| {
        let at = folder(path, &name, entry.incarnation);
        (name, (entry, at))
    };
    Ok(streams.into_iter().map(with_folder).collect())
}

/// Whether this is a data directory of our format, rather than an empty one.
fn has_format(path: &Path, files: &dyn Files) -> Result<bool, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    match read_small(files, &path.join(FORMAT_FILE), 1 << 10).map_err(fail)? {
        Some(found) if found == FORMAT.as_bytes() => Ok(true),
        Some(found) => match std::str::from_utf8(&found) {
            Ok(text) if is_format(text) => {
                Err(OpenError::OtherFormat { path: path.to_owned(), found: text.trim_end().to_owned() })
            }
            _ => {
                let why = format!("it does not say {:?}, and nothing else we write looks so", FORMAT.trim_end());
                Err(OpenError::Damaged { path: path.join(FORMAT_FILE), why })
            }
        },
        None => {
            let names = files.list(path).map_err(fail)?;
            match names.into_iter().find(|name| !may_precede_format(name)) {
                Some(found) => Err(OpenError::Foreign { path: path.to_owned(), found }),
                None => Ok(false),
            }
        }
    }
}

/// Whether a format file of any version says this.
fn is_format(text: &str) -> bool {
    let number = text.strip_prefix("hydrant data ").and_then(|rest| rest.strip_suffix('\n'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a directory may hold before it has a format file: what we make first, what a file system makes itself.
fn may_precede_format(name: &str) -> bool {
    name == lock::NAME || name == "format.tmp" || name == "lost+found" || name.starts_with('.')
}

fn read_catalog(path: &Path, files: &dyn Files) -> Result<BTreeMap<String, StreamEntry>, OpenError> {
    let file = path.join(CATALOG_FILE);
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let damaged = |why: String| OpenError::Damaged { path: file.clone(), why };
    match read_small(files, &file, CATALOG_BYTES_MAX).map_err(fail)? {
        Some(bytes) => format::decode(&bytes).map_err(|error| damaged(error.to_string())),
        None => match files.list(&path.join(STREAMS)) {
            Ok(names) if names.is_empty() => Ok(BTreeMap::new()),
            // A crash between the first stream's folders and the catalog leaves empty ones; they hold nothing.
            Ok(names) if names.iter().all(|name| is_empty_stream(files, &path.join(STREAMS).join(name))) => {
                Ok(BTreeMap::new())
            }
            Ok(_) => Err(damaged("missing, although there are streams".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(fail(error)),
        },
    }
}

fn is_empty_stream(files: &dyn Files, path: &Path) -> bool {
    PARTS.iter().all(|part| files.list(&path.join(part)).map_or(true, |names| names.is_empty()))
}

/// The whole of a small file; `None` when there is none.
fn read_small(files: &dyn Files, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open_read_only(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = file.len()?;
    let len = usize::try_from(len).ok().filter(|_| len <= bytes_max).ok_or(io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Puts a file in the place of another in one step. Durable on return.
fn replace(dir: &Path, files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    match files.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let file = files.create(&temporary)?;
    file.allocate(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync()?;
    files.rename(&temporary, &dir.join(name))?;
    files.sync_dir(dir)
}

fn bytes_in(files: &dyn Files, dir: &Path) -> u64 {
    let names = files.list(dir).unwrap_or_default();
    names.iter().filter_map(|name| files.open_read_only(&dir.join(name)).and_then(|file| file.len()).ok()).sum()
}

fn folder(data: &Path, name: &str, incarnation: u64) -> PathBuf {
    data.join(STREAMS).join(format!("{name}-{incarnation:016x}"))
}

/// Whether a stream may be called so. The name becomes part of a folder's name.
fn is_stream_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}
