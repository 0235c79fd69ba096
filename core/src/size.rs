//! Sizes in bytes, as people write them: `5MiB`, `20GiB`, `512KiB`, `1000`, `1 MB`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. `KiB`, `MiB`, `GiB`, `TiB` are powers of 1,024; `kB`, `MB`, `GB`, `TB` powers of 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// That many bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// That many KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// That many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// That many GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// In bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; write a number with a unit, such as 512KiB, 5MiB or 20GiB")]
pub struct NotASize(String);

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let fail = || NotASize(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            "" => 1,
            unit => UNITS.iter().find_map(|&(name, factor)| (name == unit).then_some(factor)).ok_or_else(fail)?,
        };
        let number: u64 = number.parse().map_err(|_| fail())?;
        number.checked_mul(factor).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it without a rest, so that what is shown can be written back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected is a size such as 512KiB, 5MiB or 20GiB")]
        enum Text {
            Number(u64),
            Words(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(count) => Ok(Self(count)),
            Text::Words(words) => words.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: 512KiB, 5MiB, 20GiB (powers of 1,024) or kB, MB, GB (powers of 1,000).",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("5MiB", 5 << 20), ("5 MiB", 5 << 20), ("1MB", 1_000_000), ("20GiB", 20 << 30)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "5mib", "-1", "1.5MiB", "5 M", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written_back() {
        for bytes in [0, 1, 1000, 1024, 1536, 5 << 20, 1_000_000, 20 << 30, (1 << 40) + 1] {
            let size = ByteSize(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
