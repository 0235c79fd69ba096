//! What a user writes about folders: the store's own settings and a stream's choice of names and bytes.
//!
//! In: YAML, by way of serde. Out: problems with their place in the document. Never touches the disk: a folder that
//! is missing now may be mounted before the first object comes.

use std::path::{Component, Path, PathBuf};

use hydrant_core::compression::Compression;
use hydrant_core::delimiter::Delimiter;
use hydrant_core::problem::{DocPath, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A folder that holds objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FileStore", deny_unknown_fields)]
pub struct StoreConfig {
    /// The folder. Relative to the server's working directory; created with its parents when the first object comes.
    pub path: String,
}

/// Records of a stream as objects in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FileSink", deny_unknown_fields)]
pub struct SinkConfig {
    /// The store's name under `stores`.
    pub store: String,
    /// What object keys start with; may hold the service's expressions, such as `!{timestamp:yyyy/MM/dd/}`.
    #[serde(default)]
    pub prefix: String,
    /// Compression of each object.
    #[serde(default)]
    pub compression: Compression,
    /// What is put behind each record.
    #[serde(default)]
    pub delimiter: Delimiter,
}

impl StoreConfig {
    /// Adds what is wrong with it: an empty path, one with a zero byte, or the file system's root.
    pub fn validate(&self, at: &DocPath, problems: &mut Problems) {
        let at = at.field("path");
        if self.path.is_empty() {
            problems.add_with_hint(at, "path is empty", "name a folder, such as ./objects");
        } else if self.path.contains('\0') {
            problems.add(at, "path holds a zero byte");
        } else if Path::new(&self.path).components().all(|part| part == Component::RootDir) {
            problems.add_with_hint(at, "path is the root of the file system", "name a folder below it");
        }
    }

    /// The folder as a path.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(&self.path)
    }
}

impl SinkConfig {
    /// Adds what is wrong with it. Whether the store is declared is known only to whoever sees the whole document.
    pub fn validate(&self, at: &DocPath, problems: &mut Problems) {
        if self.store.is_empty() {
            problems.add_with_hint(at.field("store"), "store is empty", "name an entry of stores");
        }
    }
}
