//! How object bytes are compressed: the choice as a user writes it, and what it means for names and headers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Compression of an object.
///
/// Written `none`, `gzip`, `gzip: 1` … `gzip: 9`, `gzip: fast`, `zstd`, or `zstd: 1` … `zstd: 19`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// The bytes as they came.
    #[default]
    None,
    /// One gzip member.
    Gzip(GzipLevel),
    /// One zstd frame, at this level.
    Zstd(ZstdLevel),
}

/// How hard gzip tries: the ratio classes of zlib, or as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipLevel {
    /// The least work there is, for objects some two fifths larger than those of level 1.
    Fast,
    /// A ratio class of zlib, 1 to 9.
    Class(u8),
}

/// A zstd level, 1 to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZstdLevel(u8);

impl GzipLevel {
    /// zlib's own default, and so what a user of plain `gzip` expects to get.
    pub const DEFAULT: Self = Self::Class(6);
}

impl ZstdLevel {
    /// Beats gzip's ratio at a fraction of its work.
    pub const DEFAULT: Self = Self(1);

    /// The level as zstd's own interface wants it.
    pub fn get(self) -> i32 {
        i32::from(self.0)
    }
}

impl Compression {
    /// What follows the object's name. Source: the service's table of extensions; `.zst` is zstd's own.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip(_) => ".gz",
            Self::Zstd(_) => ".zst",
        }
    }

    /// The `Content-Encoding` of the object.
    pub const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip(_) => Some("gzip"),
            Self::Zstd(_) => Some("zstd"),
        }
    }

    fn from_word<E: Error>(word: &str) -> Result<Self, E> {
        match word {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip(GzipLevel::DEFAULT)),
            "zstd" => Ok(Self::Zstd(ZstdLevel::DEFAULT)),
            other => match other.split([':', ' ']).next() {
                Some("gzip" | "zstd") => {
                    Err(E::custom(format_args!("a level goes behind a colon and a space; {LEVELS}")))
                }
                _ => Err(E::custom(format_args!("`{other}` is no compression; known are none, gzip and zstd"))),
            },
        }
    }

    fn with_level<E: Error>(codec: &str, level: &LevelText) -> Result<Self, E> {
        match (codec, level) {
            ("gzip", LevelText::Number(class @ 1..=9)) => {
                Ok(Self::Gzip(GzipLevel::Class(u8::try_from(*class).unwrap_or_default())))
            }
            ("gzip", LevelText::Word(word)) if word == "fast" => Ok(Self::Gzip(GzipLevel::Fast)),
            ("gzip", _) => Err(E::custom("gzip has levels 1 to 9, and fast; the default is 6")),
            ("zstd", LevelText::Number(level @ 1..=19)) => {
                Ok(Self::Zstd(ZstdLevel(u8::try_from(*level).unwrap_or_default())))
            }
            ("zstd", _) => Err(E::custom("zstd has levels 1 to 19; the default is 1")),
            (other, _) => Err(E::custom(format_args!("`{other}` has no levels; gzip and zstd have"))),
        }
    }
}

/// How a level is written.
const LEVELS: &str = "write { gzip: 9 }, { gzip: fast } or { zstd: 3 }";

#[derive(Deserialize)]
#[serde(untagged)]
enum LevelText {
    Number(u64),
    Word(String),
    Else(IgnoredAny),
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Compression;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "`none`, `gzip`, `zstd`, or one of the last two with a level (`gzip: 9`, `gzip: fast`, `zstd: 3`)",
                )
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Compression, E> {
                Compression::from_word(word)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Compression, A::Error> {
                let Some((codec, level)) = map.next_entry::<String, LevelText>()? else {
                    return Err(A::Error::custom(format_args!("nothing stands here; {LEVELS}")));
                };
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom(format_args!("an object has one compression; {LEVELS}")));
                }
                Compression::with_level(&codec, &level)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl Serialize for Compression {
    /// As it is written: a word, or a word with its level. The levels that a bare word means are left out.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let with_level = |serializer: S, codec: &str, level: u8| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(codec, &level)?;
            map.end()
        };
        match *self {
            Self::None => serializer.serialize_str("none"),
            Self::Gzip(GzipLevel::DEFAULT) => serializer.serialize_str("gzip"),
            Self::Gzip(GzipLevel::Class(class)) => with_level(serializer, "gzip", class),
            Self::Gzip(GzipLevel::Fast) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("gzip", "fast")?;
                map.end()
            }
            Self::Zstd(ZstdLevel::DEFAULT) => serializer.serialize_str("zstd"),
            Self::Zstd(ZstdLevel(level)) => with_level(serializer, "zstd", level),
        }
    }
}

impl JsonSchema for Compression {
    fn schema_name() -> Cow<'static, str> {
        "Compression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Compression of an object: `none`, `gzip` (zlib-6's ratio), `gzip: 1` to `9`, `gzip: fast`, `zstd` (level 1), `zstd: 1` to `19`.",
            "oneOf": [
                { "enum": ["none", "gzip", "zstd"] },
                { "type": "object", "additionalProperties": false, "required": ["gzip"],
                  "properties": { "gzip": { "oneOf": [{ "type": "integer", "minimum": 1, "maximum": 9 }, { "const": "fast" }] } } },
                { "type": "object", "additionalProperties": false, "required": ["zstd"],
                  "properties": { "zstd": { "type": "integer", "minimum": 1, "maximum": 19 } } },
            ],
        })
    }
}
