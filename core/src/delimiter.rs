//! What is put behind each record of an object: the choice as a user writes it, and its bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is put behind each record of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    /// Nothing, as the service does.
    #[default]
    None,
    /// A line feed.
    Newline,
}

impl Delimiter {
    /// Its bytes.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Newline => b"\n",
        }
    }
}
