//! What YAML says: the types that read the document, as wide as the document may be, and the judgement that makes
//! [`Spec`] of it or says all that is wrong.
//!
//! In: the document, deserialized. Out: a [`Spec`], problems and warnings, each with its path. Reads no file but
//! those that secrets are in, and connects to nothing. Never stops at the first problem.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::Secrets;
use hydrant_sinks::StoreConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use super::mask::quoted;
use super::nearest::nearest;
use super::read::Unread;
use super::spec::{Spec, StoreSpec, StreamSpec};

pub(super) mod server;

pub(super) mod stream;

use server::RawServer;
use stream::RawStream;

/// The configuration of a Hydrant server: itself, the stores it may use, and the streams it delivers.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "Hydrant configuration")]
pub(super) struct RawConfig {
    /// The server itself. Everything in it has a default.
    server: Option<RawServer>,
    /// Places for objects, by a name of your choice. Streams refer to them by it.
    stores: Option<BTreeMap<String, StoreConfig>>,
    /// Delivery streams, by the name that producers put to: 1 to 64 letters, digits, `_`, `.` or `-`.
    streams: Option<BTreeMap<String, RawStream>>,
}

/// What was found besides the specification.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What must be mended.
    pub(super) problems: Problems,
    /// What works, and is probably not what was meant.
    pub(super) warnings: Problems,
}

/// The stores that streams may refer to.
pub(super) struct Stores<'a> {
    declared: BTreeMap<String, StoreConfig>,
    /// What may be declared, too.
    unread: &'a Unread,
}

impl RawConfig {
    /// Makes a specification of it, with `data` instead of its own data directory. `None` after a problem was found,
    /// here or when the document was read; warnings do not prevent it. What was not read is judged by nobody.
    pub(super) fn validate(
        self,
        data: Option<&Path>,
        secrets: &dyn Secrets,
        unread: &Unread,
        found: &mut Findings,
    ) -> Option<Spec> {
        let root = DocPath::root();
        let server = self.server.unwrap_or_default();
        let folder = server.data_folder(data);
        let stores = Stores::validate(self.stores.unwrap_or_default(), secrets, unread, found);
        if data.is_some() || !unread.touches(&root.field("server").field("data")) {
            stores.keep_apart_from(&folder, &mut found.problems);
        }
        let server = server.validate(&root.field("server"), folder, secrets, unread, &mut found.problems);
        let at = root.field("streams");
        let declared = self.streams.unwrap_or_default();
        if declared.is_empty() {
            found.warnings.add_with_hint(
                at.clone(),
                "no stream is declared, so nothing can be put",
                "`hydrant init -` prints a document with one",
            );
        }
        let count = declared.len();
        let streams: BTreeMap<String, StreamSpec> = declared
            .into_iter()
            .filter_map(|(name, raw)| {
                let at = at.field(name.as_str());
                raw.validate(name, &at, &stores, secrets, &mut found.problems)
                    .map(|stream| (stream.name.clone(), stream))
            })
            .collect();
        if count == streams.len() {
            stores.warn_of_unused(&streams, &mut found.warnings);
        }
        let server = server.filter(|_| count == streams.len() && found.problems.is_empty())?;
        Some(Spec { server, streams })
    }
}

impl<'a> Stores<'a> {
    fn validate(
        declared: BTreeMap<String, StoreConfig>,
        secrets: &dyn Secrets,
        unread: &'a Unread,
        found: &mut Findings,
    ) -> Self {
        let at = DocPath::root().field("stores");
        let mut folders: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for (name, config) in &declared {
            let at = at.field(name.as_str());
            check_name(name, "store", &at, &mut found.problems);
            config.validate(&at, secrets, &mut found.problems);
            let Some(folder) = folder(config) else { continue };
            if let Some(other) = folders.insert(folder, name) {
                found.problems.add_with_hint(
                    at.field("file").field("path"),
                    format!("store `{other}` has the same folder"),
                    format!("refer to `{other}` in both places, or give this store a folder of its own"),
                );
            }
        }
        Self { declared, unread }
    }

    /// The store of this name; a problem at `at` if there is none.
    pub(super) fn get(&self, name: &str, at: &DocPath, problems: &mut Problems) -> Option<StoreSpec> {
        let Some(config) = self.declared.get(name) else {
            if self.unread.touches(&DocPath::root().field("stores").field(name)) {
                return None;
            }
            let known: Vec<&str> = self.declared.keys().map(String::as_str).collect();
            let hint = match (nearest(name, known.iter().copied()), known.as_slice()) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, []) => "declare it under `stores`".to_owned(),
                (None, known) => format!("declared under `stores`: {}", known.join(", ")),
            };
            problems.add_with_hint(at.clone(), format!("there is no store `{name}`"), hint);
            return None;
        };
        Some(StoreSpec { name: name.to_owned(), config: config.clone() })
    }

    /// Objects between our own files would be taken for them, and the other way round.
    fn keep_apart_from(&self, data_folder: &Path, problems: &mut Problems) {
        let data = plain(data_folder);
        for (name, config) in &self.declared {
            let Some(folder) = folder(config) else { continue };
            if folder.starts_with(&data) || data.starts_with(&folder) {
                problems.add_with_hint(
                    DocPath::root().field("stores").field(name.as_str()).field("file").field("path"),
                    format!("this folder and the data directory {} lie one in the other", data_folder.display()),
                    "give the store a folder beside it",
                );
            }
        }
    }

    fn warn_of_unused(&self, streams: &BTreeMap<String, StreamSpec>, warnings: &mut Problems) {
        let used = |name: &str| streams.values().flat_map(StreamSpec::stores).any(|store| store.name == name);
        for name in self.declared.keys().filter(|name| !used(name)) {
            warnings.add_with_hint(
                DocPath::root().field("stores").field(name.as_str()),
                format!("no stream uses store `{name}`"),
                "remove it, or name it in a `sink` or a `dead_letter`",
            );
        }
    }
}

/// Adds a problem unless `name` is 1 to 64 of `[a-zA-Z0-9_.-]`, as the service wants the names of streams. Names of
/// dots alone lead to other places where they become part of a path.
fn check_name(name: &str, of: &str, at: &DocPath, problems: &mut Problems) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 64 || !name.chars().all(allowed) || name.chars().all(|c| c == '.') {
        problems.add_with_hint(
            at.clone(),
            format!("{} cannot be the name of a {of}", quoted(name)),
            "allowed are 1 to 64 letters, digits, `_`, `.` and `-`, not dots alone",
        );
    }
}

/// The folder of a store that is one.
fn folder(config: &StoreConfig) -> Option<PathBuf> {
    match config {
        StoreConfig::File(file) => Some(plain(Path::new(&file.path))),
        StoreConfig::S3(_) => None,
    }
}

/// A path without detours, as far as can be told without looking: relative to the working directory, `.` and `..`
/// resolved. Symbolic links are not followed.
fn plain(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
