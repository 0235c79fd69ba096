//! From a file to a [`Spec`], or to everything that is wrong with it.
//!
//! ```text
//!   bytes ──> text ──> RawConfig ──────> Spec
//!        UTF-8?   serde: syntax, types    validate: ranges, references, rules
//!              └> Document: places  ────> Report: each problem with its lines
//! ```
//!
//! A syntax or type error ends the reading, because nothing reliable can be said behind it. Everything else, unknown
//! keys included, is reported in one go. Input is bounded before it is parsed: size, nesting, aliases, values.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hydrant_core::problem::{DocPath, Problem, Step};
use hydrant_core::secret::Secrets;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy};

use super::document::{DEPTH_MAX, Document, LineColumn, NODES_MAX};
use super::nearest::nearest;
use super::raw::{Findings, RawConfig};
use super::report::{FINDINGS_MAX, Mark, Noted, Report, Severity};
use super::schema::Keys;
use super::spec::Spec;
use super::yaml_error;

/// Largest document. A stream takes some 300 bytes, so this is thousands of streams.
pub const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// A document that was read without problems.
#[derive(Debug)]
pub struct Loaded {
    /// What is true.
    pub spec: Spec,
    /// What works, and is probably not what was meant.
    pub warnings: Report,
}

/// Why there is no specification.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is wrong with what it says.
    #[error("{}", .0.summary())]
    Invalid(Report),
}

/// Reads the file at `path`; `secrets` resolves what it refers to. `data` is the data directory, instead of
/// `server.data`, so that every rule about it holds for the one that is used.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path, data: Option<&Path>, secrets: &dyn Secrets) -> Result<Loaded, LoadError> {
    let bytes = read(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    read_document(&path.display().to_string(), &bytes, data, secrets).map_err(LoadError::Invalid)
}

/// Reads a document that is at hand; `name` is what the report calls it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, bytes: &[u8], secrets: &dyn Secrets) -> Result<Loaded, Report> {
    read_document(name, bytes, None, secrets)
}

fn read_document(name: &str, bytes: &[u8], data: Option<&Path>, secrets: &dyn Secrets) -> Result<Loaded, Report> {
    let keys = Keys::new();
    let secret_keys = keys.secrets();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(error) => return Err(not_text(name, bytes, error.valid_up_to(), &secret_keys)),
    };
    let document = Document::new(name, text);
    let mut noted = Vec::new();
    let spec = match deserialize(&document, &keys, &mut noted) {
        Ok(raw) => {
            let mut found = Findings::default();
            let spec = raw.validate(data, secrets, &mut found);
            let add = |severity| move |problem| Noted { severity, problem, mark: Mark::Value };
            noted.extend(found.problems.into_vec().into_iter().map(add(Severity::Error)));
            noted.extend(found.warnings.into_vec().into_iter().map(add(Severity::Warning)));
            spec
        }
        Err(error) => {
            // What stands behind the error was not read, so nothing is known of keys there.
            noted.push(error);
            None
        }
    };
    let wrong = noted.iter().any(|noted| noted.severity == Severity::Error);
    let report = Report::new(&document, noted, &secret_keys);
    match spec {
        Some(spec) if !wrong => Ok(Loaded { spec, warnings: report }),
        _ => Err(report),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads the document, and notes each key that no type knows.
fn deserialize(document: &Document, keys: &Keys, noted: &mut Vec<Noted>) -> Result<RawConfig, Noted> {
    if document.is_empty() {
        let problem = Problem {
            at: DocPath::root(),
            message: "the document is empty".to_owned(),
            hint: Some("`hydrant init` writes one to start from".to_owned()),
        };
        return Err(Noted { severity: Severity::Error, problem, mark: Mark::Exactly(0, 0) });
    }
    let mut unknown: Vec<DocPath> = Vec::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(document.text(), options(), |deserializer| {
        serde_ignored::deserialize(deserializer, |path| {
            if unknown.len() <= FINDINGS_MAX {
                unknown.push(doc_path(&path, document));
            }
        })
    });
    noted.extend(unknown.into_iter().map(|at| unknown_key(at, keys)));
    read.map_err(|error| yaml_error::explain(&error, document))
}

/// The document is the operator's own, but an accident with anchors should cost a message and not the memory.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_merge_keys: 0,
        },
        alias_limits: alias_limits(),
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

fn alias_limits() -> AliasLimits {
    serde_saphyr::alias_limits! { max_total_replayed_events: 100_000, max_replay_stack_depth: 8 }
}

fn unknown_key(at: DocPath, keys: &Keys) -> Noted {
    let (parent, key) = match at.steps().split_last() {
        Some((Step::Key(key), above)) => (above.iter().cloned().collect(), key.clone()),
        _ => (DocPath::root(), String::new()),
    };
    let known = keys.at(&parent);
    let hint = match nearest(&key, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    };
    let problem = Problem { at, message: "unknown key".to_owned(), hint: Some(hint) };
    Noted { severity: Severity::Error, problem, mark: Mark::Key }
}

/// The path as [`serde_ignored`] tells it. It does not tell the key of an enum; such a mapping has one key only.
fn doc_path(path: &serde_ignored::Path<'_>, document: &Document) -> DocPath {
    use serde_ignored::Path;
    match path {
        Path::Root => DocPath::root(),
        Path::Map { parent, key } => doc_path(parent, document).field(key.as_str()),
        Path::Seq { parent, index } => doc_path(parent, document).item(*index),
        Path::Some { parent } | Path::NewtypeStruct { parent } => doc_path(parent, document),
        Path::NewtypeVariant { parent } => {
            let at = doc_path(parent, document);
            let variant = document.only_key(&at).cloned();
            at.steps().iter().cloned().chain(variant).collect()
        }
    }
}

fn not_text(name: &str, bytes: &[u8], valid: usize, secret_keys: &[String]) -> Report {
    let document = Document::new(name, String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()).into_owned());
    let LineColumn { line, column } = document.line_column(valid);
    let problem = Problem {
        at: DocPath::root(),
        message: format!("the document is not UTF-8 text: byte {valid}, line {line}, column {column}"),
        hint: Some("save it as UTF-8".to_owned()),
    };
    let noted = Noted { severity: Severity::Error, problem, mark: Mark::Exactly(valid, valid) };
    Report::new(&document, vec![noted], secret_keys)
}

#[cfg(test)]
mod tests;
