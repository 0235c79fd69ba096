//! Errors of the YAML reader in our own words, with their place.
//!
//! In: an error of the reader, and the document. Out: a problem. The reader repeats values in its texts; here only
//! plain words are left of them, because a secret may stand where anything else belongs.

use hydrant_core::problem::Problem;
use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::granit_parser::ErrorKind;

use super::document::{Broken, Document, LineColumn, NodeId};
use super::mask::{quoted, without_values};
use super::report::{Mark, Noted, Severity};

/// What ended a reading.
#[derive(Debug)]
pub(super) struct Fault {
    /// In words.
    pub(super) noted: Noted,
    /// The value that is wrong. `None` when it is not one value.
    pub(super) node: Option<NodeId>,
    /// Whether it is the document as a whole that cannot be read.
    pub(super) is_of_document: bool,
}

/// A value that its type refuses, or a document that is refused as a whole.
pub(super) fn explain(error: &Error, document: &Document) -> Fault {
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
    let offset = place.filter(|place| place.line > 0).map(|place| document.offset(place));
    let node = offset.filter(|_| is_of_value(error)).and_then(|offset| document.at(offset));
    let offset = offset.unwrap_or_default();
    let mark = if node.is_some() { Mark::Value } else { Mark::Exactly(offset, document.end_of_word(offset)) };
    let problem = Problem { at: document.path_at(offset), message, hint };
    let is_of_document = matches!(
        error,
        Error::Budget { .. }
            | Error::MultipleDocuments { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
    );
    Fault { noted: Noted { severity: Severity::Error, problem, mark }, node, is_of_document }
}

/// Whether an error is about one value, so that the others can be read.
fn is_of_value(error: &Error) -> bool {
    matches!(
        error,
        Error::Message { .. }
            | Error::Unexpected { .. }
            | Error::InvalidScalar { .. }
            | Error::InvalidBooleanStrict { .. }
            | Error::NullIntoString { .. }
            | Error::NonFiniteFloat { .. }
            | Error::SerdeInvalidType { .. }
            | Error::SerdeInvalidValue { .. }
            | Error::SerdeInvalidLength { .. }
            | Error::SerdeUnknownVariant { .. }
            | Error::SerdeMissingField { .. }
            | Error::DuplicateMappingKey { .. }
            | Error::MergeKeyNotAllowed { .. }
            | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
    )
}

/// Where the text stops being YAML, and what to do about it.
pub(super) fn explain_syntax(broken: &Broken, document: &Document) -> Noted {
    let (message, hint) = syntax(&broken.kind);
    let (start, end) = match &broken.kind {
        ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation | ErrorKind::TabNotAllowed => {
            let tab = document.tab_before(broken.offset);
            (tab, tab + 1)
        }
        _ => (broken.offset, document.end_of_word(broken.offset)),
    };
    let at = document.path_at(broken.offset);
    let problem = Problem { at, message, hint: hint.map(str::to_owned) };
    Noted { severity: Severity::Error, problem, mark: Mark::Exactly(start, end) }
}

/// The words for what people get wrong; the parser's own for the rest.
fn syntax(kind: &ErrorKind) -> (String, Option<&'static str>) {
    use ErrorKind as Kind;
    const COLUMN: &str = "keys of one mapping begin in the same column, and what is below a key in a deeper one";
    const QUOTES: &str = "put the whole value between quotes";
    let (message, hint) = match kind {
        Kind::TabInBlockIndentation | Kind::TabInIndentation | Kind::TabNotAllowed => {
            ("a tab stands where the line is indented", "YAML is indented by spaces: put some in the tab's place")
        }
        Kind::MappingValueNotAllowed => (
            "no key can stand here",
            "keys of one mapping begin in the same column; a text with a colon and a space in it goes between quotes",
        ),
        Kind::ExpectedBlockMappingKey | Kind::InvalidIndentation => ("nothing above begins in this column", COLUMN),
        Kind::BlockSequenceEntryNotAllowed | Kind::ExpectedBlockSequenceEntry => {
            ("no `- ` can stand here", "items of one list begin in the same column, below the list's key")
        }
        Kind::SimpleKeyExpected | Kind::InvalidSimpleKey => {
            ("a colon is missing", "write it as key, colon, space, value")
        }
        Kind::UnclosedFlowCollection { .. }
        | Kind::ExpectedFlowMappingSeparator
        | Kind::ExpectedFlowSequenceSeparator
        | Kind::UnexpectedEofFlowMapping
        | Kind::UnexpectedEofFlowSequence
        | Kind::UnexpectedEofImplicitFlowMapping
        | Kind::InvalidFlowScalarIndent => (
            "a bracket that was opened is not closed",
            "look for a `{` or `[` without its `}` or `]`, or for a comma that is missing between two values",
        ),
        Kind::MismatchedFlowCollectionEnd { .. } | Kind::MisplacedFlowCollectionEnd => {
            ("this bracket closes none that was opened", "each `{` wants a `}`, each `[` a `]`")
        }
        Kind::UnclosedQuotedScalar | Kind::InvalidQuotedScalarIndent | Kind::DocumentIndicatorInQuotedScalar => {
            ("a quote that was opened is not closed", "close it at the end of its value")
        }
        Kind::InvalidTrailingSingleQuotedScalar | Kind::InvalidTrailingDoubleQuotedScalar => {
            ("something follows the closing quote", QUOTES)
        }
        Kind::InvalidTagTerminator | Kind::MissingTagUri | Kind::UndeclaredTagHandle | Kind::InvalidTagEscape => {
            ("a value does not begin with `!` as it stands", "put it between quotes: \"!{timestamp:yyyy}/\"")
        }
        Kind::UnexpectedCharacter { .. } => ("no value begins with this character as it stands", QUOTES),
        Kind::UnknownAnchor | Kind::MissingAnchorOrAliasName => {
            ("a value that begins with `*` or `&` is about an anchor, and there is none of this name", QUOTES)
        }
        Kind::UnknownQuotedScalarEscape => ("this is no escape", "between single quotes a backslash is a backslash"),
        Kind::CommentNotSeparated => ("a comment begins too early", "put a space before the `#`"),
        other => return (without_values(&other.to_string()), None),
    };
    (message.to_owned(), Some(hint))
}

fn words(error: &Error) -> (String, Option<String>) {
    let remove_one = || Some("remove one of them".to_owned());
    match error {
        Error::Unexpected { expected: "string scalar", .. } => {
            ("expected is a text".to_owned(), Some("write one value, without brackets or braces".to_owned()))
        }
        Error::Unexpected { expected, .. } => (format!("expected is a {expected}").replace(" start", ""), None),
        Error::InvalidScalar { ty, .. } => match *ty {
            "f32" | "f64" => ("expected is a number".to_owned(), None),
            ty if ty.starts_with(['u', 'i']) => (
                "expected is a whole number".to_owned(),
                Some("digits only, without quotes and without a unit".to_owned()),
            ),
            ty => (format!("expected is a value of type {ty}"), None),
        },
        Error::InvalidBooleanStrict { .. } => {
            ("expected is true or false".to_owned(), Some("without quotes; `yes` and `no` are texts".to_owned()))
        }
        Error::NullIntoString { .. } => (
            "nothing stands here, expected is a text".to_owned(),
            Some("write one behind the colon, or remove the key to have its default".to_owned()),
        ),
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
