//! The request: an action and a document for each record, a line each.
//!
//! In: a batch. Out: its lines in one run of bytes, and the records that can never be a document. A record goes as it
//! came, byte for byte, but for newlines: they end lines here, and JSON has them between its tokens only, where a blank
//! means the same. Numbers, the order of fields and blanks stay as they are.
//!
//! Actions are written by a serialiser, once for each index; a record costs no allocation.

use std::fmt;
use std::io::Write as _;

use hydrant_core::batch::Batch;
use hydrant_core::sink::Sent;
use hydrant_core::{BatchId, Fault, FaultCode, Piece, Timestamp};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::index::Indices;
use crate::config::{DocumentId, SinkConfig};

/// The field that says when. Source: OpenSearch documentation, "Data streams".
const TIMESTAMP: &str = "@timestamp";

/// Digits of a document's number. With them an id has 44 characters of the URL-safe base64 alphabet, which is a
/// multiple of four, so OpenSearch keeps it as 33 bytes. Source: `org.opensearch.index.mapper.Uid`.
const ORDINAL_DIGITS: usize = 7;

/// What a `_bulk` of a stream looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    indices: Indices,
    document_id: DocumentId,
    type_name: Option<String>,
    add_timestamp: bool,
    /// Most bytes of records in a request; a single record may have more.
    body_max: u64,
}

/// A request's lines, and what they leave out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    /// Actions and documents.
    pub(crate) bytes: Vec<u8>,
    /// Records that can never be a document, by ordinal.
    pub(crate) refused: Vec<(u32, Fault)>,
}

impl Shape {
    /// What `config` asks for.
    pub(crate) fn new(config: &SinkConfig) -> Self {
        Self {
            indices: Indices::new(config.target(), config.rotation()),
            document_id: config.document_id,
            type_name: config.type_name.clone(),
            add_timestamp: config.add_timestamp,
            body_max: config.body_max.get(),
        }
    }

    /// Whether a document that comes again is known again.
    pub(crate) fn document_id(&self) -> DocumentId {
        self.document_id
    }

    /// The lines of a batch.
    pub(crate) fn lines(&self, batch: &Batch) -> Lines {
        let pieces = batch.pieces.get(..self.carried(batch)).unwrap_or_default();
        let Some((_, first)) = pieces.first() else { return Lines::default() };
        let mut period = self.indices.period(first.arrived_at);
        let mut action = self.action(batch.id, first.arrived_at);
        let records: usize = pieces.iter().map(|(_, piece)| piece.data.len()).sum();
        let overhead = action.before.len() + ORDINAL_DIGITS + action.after.len() + timestamp_field(0).len();
        let mut lines =
            Lines { bytes: Vec::with_capacity(records + pieces.len() * (overhead + 1)), refused: Vec::new() };
        for (ordinal, piece) in pieces {
            let object = match read(&piece.data) {
                Ok(object) => object,
                Err(fault) => {
                    lines.refused.push((*ordinal, fault));
                    continue;
                }
            };
            if self.indices.period(piece.arrived_at) != period {
                period = self.indices.period(piece.arrived_at);
                action = self.action(batch.id, piece.arrived_at);
            }
            action.write(*ordinal, &mut lines.bytes);
            self.document(piece, &object, &mut lines.bytes);
        }
        lines
    }

    /// How many pieces a request carries, from the first on; the others follow in later ones. All of them, unless the batch
    /// was sealed when requests were allowed to be longer.
    pub(crate) fn carried(&self, batch: &Batch) -> usize {
        let mut bytes = 0;
        let fits = |(_, piece): &&(u32, Piece)| {
            bytes += piece.data.len() as u64;
            bytes <= self.body_max
        };
        batch.pieces.iter().take_while(fits).count().max(1).min(batch.pieces.len())
    }

    /// What the cluster knows a record by, in the words of the service's error records. Source: Developer Guide, "Handle
    /// data delivery failures".
    pub(crate) fn known_as(&self, sent: Sent<'_>) -> Vec<(&'static str, String)> {
        let mut known = Vec::new();
        if self.document_id == DocumentId::Stable {
            known.push(("esDocumentId", format!("{}{:0ORDINAL_DIGITS$}", id_prefix(sent.batch), sent.ordinal)));
        }
        known.push(("esIndexName", self.indices.at(sent.piece.arrived_at)));
        known.extend(self.type_name.clone().map(|name| ("esTypeName", name)));
        known
    }

    /// The action for records that arrived then.
    fn action(&self, batch: BatchId, arrived: Timestamp) -> Action {
        let mut before = format!(r#"{{"create":{{"_index":{}"#, quoted(&self.indices.at(arrived)));
        if let Some(name) = &self.type_name {
            before.push_str(r#","_type":"#);
            before.push_str(&quoted(name));
        }
        match self.document_id {
            DocumentId::Server => Action { before, has_ordinal: false, after: "}}\n" },
            DocumentId::Stable => {
                before.push_str(r#","_id":""#);
                before.push_str(&id_prefix(batch));
                Action { before, has_ordinal: true, after: "\"}}\n" }
            }
        }
    }

    fn document(&self, piece: &Piece, object: &Object, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        if self.add_timestamp && !object.has_timestamp {
            let (_, rest) = piece.data.split_at_checked(brace(&piece.data)).unwrap_or_default();
            bytes.push(b'{');
            bytes.extend_from_slice(timestamp_field(piece.arrived_at.as_millis()).as_bytes());
            bytes.extend_from_slice(if object.is_empty { b"" } else { b"," });
            bytes.extend_from_slice(rest);
        } else {
            bytes.extend_from_slice(&piece.data);
        }
        if piece.data.contains(&b'\n') {
            let newlines = bytes.iter_mut().skip(start).filter(|byte| **byte == b'\n');
            newlines.for_each(|byte| *byte = b' ');
        }
        bytes.push(b'\n');
    }
}

/// The line before a document, around its number.
struct Action {
    before: String,
    has_ordinal: bool,
    after: &'static str,
}

impl Action {
    fn write(&self, ordinal: u32, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.before.as_bytes());
        if self.has_ordinal {
            write_ordinal(ordinal, bytes);
        }
        bytes.extend_from_slice(self.after.as_bytes());
    }
}

/// What the ids of a batch's documents begin with.
pub(super) fn id_prefix(batch: BatchId) -> String {
    format!("{batch}-")
}

/// What the id of a batch's document ends with.
pub(super) fn write_ordinal(ordinal: u32, bytes: &mut Vec<u8>) {
    // Into memory, which takes everything.
    let _written = write!(bytes, "{ordinal:0ORDINAL_DIGITS$}");
}

/// A text as JSON writes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The field of a document that arrived then; always of the same length until the year 9999.
fn timestamp_field(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!(r#""{TIMESTAMP}":"{:.3}""#, moment.unwrap_or(jiff::Timestamp::MAX))
}

/// How many bytes an object takes up to its first brace, that one included.
fn brace(record: &[u8]) -> usize {
    record.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1)
}

/// What has to be known of a record: that it is one JSON object, and whether it says when.
struct Object {
    is_empty: bool,
    has_timestamp: bool,
}

/// # Errors
/// Why the record is not one JSON object in UTF-8. Tells positions, and nothing of the record.
fn read(record: &[u8]) -> Result<Object, Fault> {
    let invalid =
        |reason: String| Fault::new(FaultCode::Invalid, format!("the record is not one JSON object: {reason}"));
    let text = std::str::from_utf8(record)
        .map_err(|error| invalid(format!("it is not UTF-8 from byte {} on", error.valid_up_to())))?;
    serde_json::from_str(text).map_err(|error| {
        // Errors of syntax tell what was expected and where; those of type quote what they found.
        invalid(if error.is_data() { "it is JSON of another kind".to_owned() } else { error.to_string() })
    })
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object { is_empty: true, has_timestamp: false };
                while let Some(IsTimestamp(is_timestamp)) = map.next_key()? {
                    object.is_empty = false;
                    object.has_timestamp |= is_timestamp;
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Whether the name of a field is `@timestamp`.
struct IsTimestamp(bool);

impl<'de> Deserialize<'de> for IsTimestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = IsTimestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<IsTimestamp, E> {
                Ok(IsTimestamp(name == TIMESTAMP))
            }
        }

        deserializer.deserialize_str(Name)
    }
}
