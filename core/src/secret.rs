//! Secrets: written in a configuration as a reference only, held in memory behind a wall, never shown.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a secret is to be found: `{ env: NAME }` or `{ file: PATH }`. A literal is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// In an environment variable of the server.
    Env(String),
    /// In a file, whose trailing newline is not part of it.
    File(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

/// A secret's value. Prints as `***` however it is printed; [`expose`](Self::expose) is the only way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Turns references into values. The program reads environment and files; tests bring a map.
pub trait Secrets {
    /// The value behind `reference`.
    ///
    /// # Errors
    /// A sentence that says why there is none, such as "environment variable X is not set".
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String>;
}
