//! Secrets: written in a configuration as a reference only, held in memory behind a wall, never shown.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde::{Deserialize as Read, Serialize};

/// Where a secret is to be found: `{ env: NAME }` or `{ file: PATH }`. A literal is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// In an environment variable of the server.
    Env(String),
    /// In a file, whose trailing newline is not part of it.
    File(String),
}

/// What is said of a secret that stands in a document itself. Never holds what stood there.
pub const LITERAL_SECRET: &str =
    "a secret must not stand in this file; say where it is: { env: NAME } or { file: PATH }";

impl<'de> Deserialize<'de> for SecretRef {
    /// Refuses everything but a reference, with a text that does not repeat what was written.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Read)]
        #[serde(untagged, deny_unknown_fields)]
        enum Written {
            Env { env: String },
            File { file: String },
            Else(IgnoredAny),
        }
        match Written::deserialize(deserializer)? {
            Written::Env { env } => Ok(Self::Env(env)),
            Written::File { file } => Ok(Self::File(file)),
            Written::Else(IgnoredAny) => Err(D::Error::custom(LITERAL_SECRET)),
        }
    }
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

    /// Whether the values are the real ones, so that it can be checked what they hold.
    fn are_real(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_is_read_back_as_it_is_written() {
        for reference in [SecretRef::Env("NAME".into()), SecretRef::File("/run/secrets/key".into())] {
            let written = serde_json::to_value(&reference).unwrap();
            assert_eq!(serde_json::from_value::<SecretRef>(written).unwrap(), reference);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_and_not_repeated() {
        for literal in [
            json!("hunter2"),
            json!(31337),
            json!(["hunter2"]),
            json!({ "vault": "hunter2" }),
            json!({ "env": "A", "file": "hunter2" }),
            json!({ "env": ["hunter2"] }),
            json!(null),
        ] {
            let error = serde_json::from_value::<SecretRef>(literal.clone()).unwrap_err().to_string();
            assert_eq!(error, LITERAL_SECRET, "{literal}");
        }
    }

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", vec![secret.clone()]), "*** *** [***]");
    }
}
