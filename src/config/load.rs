//! From a file to a [`Spec`], or to everything that is wrong with it.
//!
//! ```text
//!   bytes ──> text ──> RawConfig ─────────────> Spec
//!        UTF-8?   read: syntax, shape, types     validate: ranges, references, rules
//!              └> Document: places  ───────────> Report: each problem with its lines
//! ```
//!
//! Everything that is wrong is reported in one go: what cannot be read does not keep the rest from being judged. Only
//! behind the point at which the text stops being YAML nothing can be said. Input is bounded before it is parsed: size,
//! nesting, aliases, values.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hydrant_core::problem::{DocPath, Problem};
use hydrant_core::secret::Secrets;

use super::document::{Document, LineColumn};
use super::raw::Findings;
use super::read::{Read as Reading, read};
use super::report::{Mark, Noted, Report, Severity};
use super::schema::Keys;
use super::spec::Spec;

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
    let bytes = read_file(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
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
    if document.is_empty() {
        return Err(Report::new(&document, vec![empty()], &secret_keys));
    }
    let Reading { raw, mut noted, unread } = read(&document, &keys);
    let mut found = Findings::default();
    let spec = raw.and_then(|raw| raw.validate(data, secrets, &unread, &mut found));
    let add = |severity| move |problem| Noted { severity, problem, mark: Mark::Value };
    let problems = found.problems.into_vec().into_iter().filter(|problem| !unread.explains(problem, &document));
    noted.extend(problems.map(add(Severity::Error)));
    // What is missing of a document may be what they ask for.
    let warnings = found.warnings.into_vec().into_iter().filter(|_| unread.is_empty());
    noted.extend(warnings.map(add(Severity::Warning)));
    let wrong = noted.iter().any(|noted| noted.severity == Severity::Error);
    let report = Report::new(&document, noted, &secret_keys);
    match spec {
        Some(spec) if !wrong => Ok(Loaded { spec, warnings: report }),
        _ => Err(report),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn empty() -> Noted {
    let problem = Problem {
        at: DocPath::root(),
        message: "the document is empty".to_owned(),
        hint: Some("`hydrant init` writes one to start from".to_owned()),
    };
    Noted { severity: Severity::Error, problem, mark: Mark::Exactly(0, 0) }
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
