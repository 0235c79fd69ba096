//! Problems of a configuration: what is wrong, where in the document, and what would be right. They are collected,
//! not thrown, so that a user hears of all of them at once.

use std::fmt;

/// A place in a document: the keys and indexes that lead to it from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocPath(Vec<Step>);

/// One step down in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into the value of a mapping's key.
    Key(String),
    /// Into the n-th item of a sequence, from 0.
    Index(usize),
}

impl DocPath {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The value of `key` below this place.
    #[must_use]
    pub fn field(&self, key: impl Into<String>) -> Self {
        self.step(Step::Key(key.into()))
    }

    /// The `index`-th item below this place, from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl FromIterator<Step> for DocPath {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl fmt::Display for DocPath {
    /// `streams.web.hints.size`, `server.credentials[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if depth == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: DocPath,
    /// What: lower case, no full stop, the offending value in it unless it is a secret.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// The problems found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, at: DocPath, message: impl Into<String>) {
        self.0.push(Problem { at, message: message.into(), hint: None });
    }

    /// Adds a problem and what would be right.
    pub fn add_with_hint(&mut self, at: DocPath, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { at, message: message.into(), hint: Some(hint.into()) });
    }

    /// Gives `value` back if it lies in `range`, and otherwise adds a problem that names both ends.
    pub fn range<T: PartialOrd + fmt::Display>(
        &mut self,
        at: DocPath,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        self.add_with_hint(
            at,
            format!("{value} is out of range"),
            format!("allowed is {} to {}", range.start(), range.end()),
        );
        None
    }

    /// Adds those that were collected apart.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order in which they were found.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}
