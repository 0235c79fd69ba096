//! Layout of `catalog.json`: streams by name, and a checksum over them. Pure; see `docs/formats/catalog.md`.

use std::collections::BTreeMap;

use hydrant_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::Declaration;
use crate::fields::crc32c;

/// What is kept of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Drawn when the stream was made; another stream of the same name has another one.
    pub incarnation: u64,
    /// Starts at 1, grows by one with each other definition.
    pub version: u64,
    /// The definition of this version.
    pub definition: String,
    /// Kind of sink of this version.
    pub sink_kind: String,
    /// When it was first declared.
    pub created_at: Timestamp,
    /// When its definition last changed, if ever.
    pub updated_at: Option<Timestamp>,
}

/// Why a catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("not a catalog: {0}")]
    Json(#[from] serde_json::Error),
    #[error("checksum does not match; it is not meant to be edited")]
    Checksum,
    #[error("stream {0}: its incarnation is not a hexadecimal number")]
    Incarnation(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    /// CRC-32C of the JSON of `streams` without white space, in hexadecimal.
    crc32c: String,
    streams: BTreeMap<String, Stored>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    incarnation: String,
    version: u64,
    sink_kind: String,
    created_at_ms: u64,
    updated_at_ms: Option<u64>,
    definition: String,
}

impl StreamEntry {
    /// The entry after this declaration.
    pub(super) fn redeclared(&self, declared: Declaration<'_>, now: Timestamp) -> Self {
        if self.definition == declared.definition && self.sink_kind == declared.sink_kind {
            return self.clone();
        }
        Self {
            version: self.version + 1,
            definition: declared.definition.to_owned(),
            sink_kind: declared.sink_kind.to_owned(),
            updated_at: Some(now),
            ..*self
        }
    }
}

pub(super) fn encode(streams: &BTreeMap<String, StreamEntry>) -> Vec<u8> {
    let stored = |entry: &StreamEntry| Stored {
        incarnation: format!("{:016x}", entry.incarnation),
        version: entry.version,
        sink_kind: entry.sink_kind.clone(),
        created_at_ms: entry.created_at.as_millis(),
        updated_at_ms: entry.updated_at.map(Timestamp::as_millis),
        definition: entry.definition.clone(),
    };
    let streams: BTreeMap<_, _> = streams.iter().map(|(name, entry)| (name.clone(), stored(entry))).collect();
    let catalog = Catalog { crc32c: checksum(&streams), streams };
    let mut out = json(&catalog, serde_json::to_vec_pretty);
    out.push(b'\n');
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<BTreeMap<String, StreamEntry>, Malformed> {
    let catalog: Catalog = serde_json::from_slice(bytes)?;
    if checksum(&catalog.streams) != catalog.crc32c {
        return Err(Malformed::Checksum);
    }
    let entry = |(name, stored): (String, Stored)| {
        let incarnation = u64::from_str_radix(&stored.incarnation, 16);
        let entry = StreamEntry {
            incarnation: incarnation.map_err(|_| Malformed::Incarnation(name.clone()))?,
            version: stored.version,
            definition: stored.definition,
            sink_kind: stored.sink_kind,
            created_at: Timestamp::from_millis(stored.created_at_ms),
            updated_at: stored.updated_at_ms.map(Timestamp::from_millis),
        };
        Ok((name, entry))
    };
    catalog.streams.into_iter().map(entry).collect()
}

fn checksum(streams: &BTreeMap<String, Stored>) -> String {
    format!("{:08x}", crc32c([json(streams, serde_json::to_vec).as_slice()]))
}

#[expect(clippy::expect_used, reason = "maps with text keys, texts and numbers always have a JSON form")]
fn json<T>(value: &T, encode: fn(&T) -> serde_json::Result<Vec<u8>>) -> Vec<u8> {
    encode(value).expect("a catalog has a JSON form")
}
