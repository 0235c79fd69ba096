//! Constraints of the service's model, and the text in which it says that members break them.
//!
//! In: values of members, with their paths. Out: one [`ServiceError::Validation`] that names all of them. Pure.

use std::fmt;

use super::error::ServiceError;

/// Longest name of a stream. Source: service API reference, `DeliveryStreamName`.
const NAME_LEN_MAX: usize = 64;

/// What a member must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Constraint<'a> {
    /// There.
    NotNull,
    /// At least this long.
    LenAtLeast(usize),
    /// At most this long.
    LenAtMost(usize),
    /// At least this much.
    AtLeast(i64),
    /// At most this much.
    AtMost(i64),
    /// Of this form.
    Pattern(&'a str),
    /// One of these words.
    OneOf(&'a str),
}

impl fmt::Display for Constraint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNull => f.write_str("Member must not be null"),
            Self::LenAtLeast(least) => write!(f, "Member must have length greater than or equal to {least}"),
            Self::LenAtMost(most) => write!(f, "Member must have length less than or equal to {most}"),
            Self::AtLeast(least) => write!(f, "Member must have value greater than or equal to {least}"),
            Self::AtMost(most) => write!(f, "Member must have value less than or equal to {most}"),
            Self::Pattern(pattern) => write!(f, "Member must satisfy regular expression pattern: {pattern}"),
            Self::OneOf(words) => write!(f, "Member must satisfy enum value set: [{words}]"),
        }
    }
}

/// Members that break a constraint, collected, so that a client learns of all at once. Values are not repeated.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<String>,
}

impl Violations {
    /// Adds one. `path` is as the service writes it: members start in lower case, lists count from 1.
    pub(super) fn add(&mut self, path: &str, constraint: Constraint<'_>) {
        self.found.push(format!("Value at '{path}' failed to satisfy constraint: {constraint}"));
    }

    /// Checks the length of a member.
    pub(super) fn range_of_len(&mut self, path: &str, len: usize, least: usize, most: usize) {
        if len < least {
            self.add(path, Constraint::LenAtLeast(least));
        } else if len > most {
            self.add(path, Constraint::LenAtMost(most));
        }
    }

    /// Checks the name of a stream that must be there.
    pub(super) fn stream_name(&mut self, name: Option<&str>) -> String {
        match name {
            None => self.add("deliveryStreamName", Constraint::NotNull),
            Some(name) => self.name("deliveryStreamName", name),
        }
        name.unwrap_or_default().to_owned()
    }

    /// Checks something that is to be the name of a stream.
    pub(super) fn name(&mut self, path: &str, name: &str) {
        self.word(path, name, NAME_LEN_MAX, "[a-zA-Z0-9_.-]+", b"_.-");
    }

    /// Checks a text of ASCII letters, digits and `others`, which is what `pattern` says.
    pub(super) fn word(&mut self, path: &str, text: &str, len_max: usize, pattern: &str, others: &[u8]) {
        self.range_of_len(path, text.chars().count(), 1, len_max);
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte)) {
            self.add(path, Constraint::Pattern(pattern));
        }
    }

    /// Checks a number that may be missing.
    pub(super) fn range(&mut self, path: &str, value: Option<i64>, least: i64, most: i64) {
        match value {
            Some(value) if value < least => self.add(path, Constraint::AtLeast(least)),
            Some(value) if value > most => self.add(path, Constraint::AtMost(most)),
            _ => {}
        }
    }

    /// All of them as one error, if there are any.
    pub(super) fn none(self) -> Result<(), ServiceError> {
        match self.found.len() {
            0 => Ok(()),
            1 => Err(ServiceError::Validation(format!("1 validation error detected: {}", self.found.join("; ")))),
            n => Err(ServiceError::Validation(format!("{n} validation errors detected: {}", self.found.join("; ")))),
        }
    }
}
