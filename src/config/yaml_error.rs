//! Errors of the YAML reader in our own words, with their place.
//!
//! In: an error of the reader, and the document. Out: a problem. The reader repeats values in its texts; here only
//! plain words are left of them, because a secret may stand where anything else belongs.

use hydrant_core::problem::Problem;
use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use super::document::{Document, LineColumn};
use super::mask::{quoted, without_values};
use super::report::{Mark, Noted, Severity};

/// The problem that ended the reading.
pub(super) fn explain(error: &Error, document: &Document) -> Noted {
    let error = error.without_snippet();
    let place = error.location().map(|location| LineColumn {
        line: usize::try_from(location.line()).unwrap_or(usize::MAX),
        column: usize::try_from(location.column()).unwrap_or(usize::MAX),
    });
    let (message, hint) = match error {
        // Our own types say in one sentence what is wrong and what would be right.
        Error::Message { msg, .. } => match msg.split_once("; ") {
            Some((message, hint)) => (without_values(message), Some(without_values(hint))),
            None => (without_values(msg), None),
        },
        other => words(other),
    };
    let offset = place.filter(|place| place.line > 0).map_or(0, |place| document.offset(place));
    let (at, mark) = match kind(error) {
        Kind::Syntax => (document.path_at(offset), Mark::Exactly(offset, document.end_of_word(offset))),
        Kind::Value => (document.path_at(offset), Mark::Value),
        Kind::Missing => (document.collection_at(offset), Mark::Value),
    };
    Noted { severity: Severity::Error, problem: Problem { at, message, hint }, mark }
}

/// What an error is about, and so what is to be shown.
enum Kind {
    /// The text: the very place where reading stopped.
    Syntax,
    /// A value that is not of the right type. The place may be that of its key.
    Value,
    /// A mapping that lacks something.
    Missing,
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::SerdeMissingField { .. } => Kind::Missing,
        Error::Message { .. }
        | Error::Unexpected { .. }
        | Error::InvalidScalar { .. }
        | Error::InvalidBooleanStrict { .. }
        | Error::NullIntoString { .. }
        | Error::SerdeInvalidType { .. }
        | Error::SerdeInvalidValue { .. }
        | Error::SerdeInvalidLength { .. }
        | Error::SerdeUnknownVariant { .. }
        | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => Kind::Value,
        _ => Kind::Syntax,
    }
}

fn words(error: &Error) -> (String, Option<String>) {
    let remove_one = || Some("remove one of them".to_owned());
    match error {
        Error::Unexpected { expected, .. } => (format!("expected is a {expected}").replace(" start", ""), None),
        Error::InvalidScalar { ty, .. } => (format!("expected is a value of type {ty}"), None),
        Error::InvalidBooleanStrict { .. } => ("expected is true or false".to_owned(), None),
        Error::NullIntoString { .. } => ("nothing stands here, expected is a text".to_owned(), None),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("{} stands here, expected is {expected}", without_values(unexpected)), None)
        }
        Error::SerdeInvalidLength { expected, .. } => (format!("expected is {expected}"), None),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("{} is not known here; known are {}", quoted(variant), list(expected)), None)
        }
        Error::SerdeMissingField { field, .. } => (format!("`{field}` is missing"), None),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("{} stands here twice", quoted(key)), remove_one())
        }
        Error::DuplicateMappingKey { key: None, .. } => ("the same key stands here twice".to_owned(), remove_one()),
        Error::MergeKeyNotAllowed { .. } => (
            "merge keys (`<<`) are not read".to_owned(),
            Some("write the keys out, or use an alias for a whole value".to_owned()),
        ),
        Error::Budget { breach, .. } => beyond(breach),
        other => (without_values(&sentence(&other.to_string())), None),
    }
}

/// A document that is too large in one of several ways.
fn beyond(breach: &BudgetBreach) -> (String, Option<String>) {
    let what = match breach {
        BudgetBreach::Documents { .. } => {
            return ("a second document begins here".to_owned(), Some("one file holds one configuration".to_owned()));
        }
        BudgetBreach::Depth { .. } => "values are nested too deep",
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => "there are too many anchors or aliases",
        _ => "the document is too large",
    };
    (what.to_owned(), None)
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The reader's own text without the place, which is told apart from it.
fn sentence(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.rsplit_once(" at line ").map_or(line, |(words, _)| words).trim_end_matches('.').to_owned()
}
