//! Prefixes as templates: literal text with expressions of the form `!{namespace:value}` in it.
//!
//! In: what a user wrote, and which of the two prefixes it is. Out: a template that prints any moment, or the
//! service's own words for what is wrong. What this program cannot evaluate is refused here, not at the first
//! object.

use std::fmt;

use super::pattern::{Moment, Pattern, PatternError};

/// Which of the two prefixes a text is. Printed as the service calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// What keys of data objects start with.
    Prefix,
    /// What keys of dead letters start with.
    ErrorPrefix,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "Prefix",
            Self::ErrorPrefix => "ErrorOutputPrefix",
        })
    }
}

/// Why a text is not a prefix. Where the service has words for it, these are its words, because clients match on
/// them; [`hint`](Self::hint) says more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Longer than the service takes, before any evaluation.
    #[error("{0} is longer than {LENGTH_MAX} characters")]
    TooLong(Field),
    /// `!{` that does not begin an expression.
    #[error("Invalid expression usage")]
    StrayExpression,
    /// A namespace that nobody knows.
    #[error("Namespace to the left of colon ({0}) is an invalid keyword!")]
    UnknownNamespace(String),
    /// A date pattern that does not work.
    #[error("Invalid conversion character used in the value of the expression in {field}")]
    BadPattern {
        /// Where it stands.
        field: Field,
        /// What is wrong with it.
        why: PatternError,
    },
    /// An unknown value in the `firehose` namespace.
    #[error("Invalid conversion character used in the value of the expression in {field}")]
    UnknownValue {
        /// Where it stands.
        field: Field,
        /// The value.
        value: String,
    },
    /// The service has random strings, this program does not.
    #[error("!{{firehose:random-string}} is not supported in {0}")]
    RandomString(Field),
    /// Partition keys in a stream without partitioning.
    #[error(
        "Dynamic Partitioning Namespaces can only be part of a prefix expression when Dynamic Partitioning is enabled."
    )]
    PartitionKey,
    /// Partition keys where there is no partition.
    #[error("Dynamic Partitioning Namespaces can't be part of an error prefix expression")]
    PartitionKeyInErrorPrefix,
    /// The error type in the wrong prefix.
    #[error("Prefix must not contain any occurrence of !{{firehose:error-output-type}}")]
    ErrorTypeInPrefix,
    /// An error prefix that would mix all kinds of dead letters.
    #[error("ErrorOutputPrefix must contain at least one occurrence of !{{firehose:error-output-type}}")]
    ErrorTypeMissing,
    /// A prefix with expressions needs an error prefix beside it.
    #[error("ErrorOutputPrefix cannot be null or empty when Prefix contains expressions")]
    ErrorPrefixMissing,
    /// Too long once evaluated.
    #[error("Length of evaluated {} cannot be greater than {EVALUATED_LENGTH_MAX}", evaluated(*.0))]
    EvaluatedTooLong(Field),
    /// The longest key that it leads to is longer than a store takes.
    #[error("{field} leads to keys of {bytes} bytes; a store takes at most {} bytes", super::name::KEY_BYTES_MAX)]
    KeyTooLong {
        /// Which prefix.
        field: Field,
        /// Bytes in the longest key.
        bytes: usize,
    },
    /// A character that keys cannot have.
    #[error("{field} leads to keys with the control character {character:?}")]
    ControlCharacter {
        /// Which prefix.
        field: Field,
        /// The character.
        character: char,
    },
    /// Empty, `.` or `..` between two slashes, or a slash in front: no folder can have such a name, and not every
    /// store keeps such a key.
    #[error("{field} leads to keys with the path segment `{segment}`")]
    PathSegment {
        /// Which prefix.
        field: Field,
        /// What stands between the slashes.
        segment: String,
    },
}

/// The service's own text for too long evaluations writes one of the fields in lower case.
fn evaluated(field: Field) -> &'static str {
    match field {
        Field::Prefix => "prefix",
        Field::ErrorPrefix => "ErrorOutputPrefix",
    }
}

impl PrefixError {
    /// What would be right, if the message does not say it.
    pub fn hint(&self) -> Option<String> {
        const WORKS: &str = "literal text and !{timestamp:PATTERN} work; an error prefix also takes \
                             !{firehose:error-output-type}";
        match self {
            Self::StrayExpression => Some("an expression is written !{namespace:value}".to_owned()),
            Self::BadPattern { why, .. } => Some(why.to_string()),
            Self::UnknownValue { value, .. } => Some(format!("`{value}` is not a value of this namespace; {WORKS}")),
            Self::UnknownNamespace(_) | Self::RandomString(_) | Self::PartitionKey => Some(WORKS.to_owned()),
            Self::ErrorPrefixMissing => Some("for example errors/!{firehose:error-output-type}/".to_owned()),
            Self::PathSegment { .. } => {
                Some("a key starts without a slash and has no empty, `.` or `..` parts between slashes".to_owned())
            }
            _ => None,
        }
    }
}

/// Most characters of a prefix as written. Source: the service's API model.
pub(super) const LENGTH_MAX: usize = 1024;

/// Most characters of a prefix once evaluated. Source: the service's guide on prefixes.
pub(super) const EVALUATED_LENGTH_MAX: usize = 512;

/// A parsed prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Time(Pattern),
    ErrorType,
}

impl Template {
    /// Reads a prefix.
    ///
    /// # Errors
    /// See [`PrefixError`]; the first one found, from left to right.
    pub(super) fn parse(source: &str, field: Field) -> Result<Self, PrefixError> {
        if source.chars().count() > LENGTH_MAX {
            return Err(PrefixError::TooLong(field));
        }
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, behind)) = rest.split_once("!{") {
            let (expression, behind) = behind.split_once('}').ok_or(PrefixError::StrayExpression)?;
            parts.push(Part::Text(text.to_owned()));
            parts.push(parse_expression(expression, field)?);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { source: source.to_owned(), parts })
    }

    /// As it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether anything in it is evaluated.
    pub(super) fn has_expressions(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Text(_)))
    }

    /// Whether the error type is in it.
    pub(super) fn has_error_type(&self) -> bool {
        self.parts.contains(&Part::ErrorType)
    }

    /// Its text up to the first date: what it prints at any moment starts with this.
    pub(super) fn beginning(&self, error_type: &str) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::ErrorType => out.push_str(error_type),
                Part::Time(_) => break,
            }
        }
        out
    }

    /// Its text at this moment.
    pub(super) fn print(&self, moment: Moment, error_type: &str) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Time(pattern) => pattern.print(moment, &mut out),
                Part::ErrorType => out.push_str(error_type),
            }
        }
        out
    }
}

/// Reads what stands between `!{` and `}`.
fn parse_expression(expression: &str, field: Field) -> Result<Part, PrefixError> {
    let (namespace, value) = expression.split_once(':').ok_or(PrefixError::StrayExpression)?;
    if expression.contains("!{") {
        return Err(PrefixError::StrayExpression);
    }
    match (namespace, value, field) {
        ("timestamp", pattern, _) => {
            Pattern::parse(pattern).map(Part::Time).map_err(|why| PrefixError::BadPattern { field, why })
        }
        ("firehose", "error-output-type", Field::ErrorPrefix) => Ok(Part::ErrorType),
        ("firehose", "error-output-type", Field::Prefix) => Err(PrefixError::ErrorTypeInPrefix),
        ("firehose", "random-string", _) => Err(PrefixError::RandomString(field)),
        ("firehose", value, _) => Err(PrefixError::UnknownValue { field, value: value.to_owned() }),
        ("partitionKeyFromQuery" | "partitionKeyFromLambda", _, Field::Prefix) => Err(PrefixError::PartitionKey),
        ("partitionKeyFromQuery" | "partitionKeyFromLambda", _, Field::ErrorPrefix) => {
            Err(PrefixError::PartitionKeyInErrorPrefix)
        }
        (other, ..) => Err(PrefixError::UnknownNamespace(other.to_owned())),
    }
}
