//! Header: what a batch is, fixed at the seal. Its bytes are specified in `docs/formats/outbox.md`.

use hydrant_core::{BatchId, Timestamp};

use crate::fields::{Fields, Malformed, put_len, put_optional_text, put_text, put_varint};
use crate::ordinals::Ordinals;
use crate::runs::Runs;

/// Everything that names a batch and says what is in it. Written once, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub batch: BatchId,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// When the oldest of its records was accepted.
    pub oldest_arrival: Timestamp,
    /// How many records it has pieces of.
    pub records: u64,
    /// Bytes of its pieces before encoding and compression.
    pub raw_bytes: u64,
    /// Which pieces it holds.
    pub pieces: Runs,
    /// Where it was meant to go when it was sealed.
    pub sink: SinkMark,
    /// What its body is.
    pub content: Content,
}

/// What of a header is needed while its batch waits: very many may wait, and the rest stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub batch: BatchId,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// When the oldest of its records was accepted.
    pub oldest_arrival: Timestamp,
    /// How many records it has pieces of.
    pub records: u64,
    /// Bytes of its pieces before encoding and compression.
    pub raw_bytes: u64,
    /// Which pieces it holds.
    pub pieces: Runs,
    /// Where they come from, if they are dead letters.
    pub letters: Vec<Letters>,
}

impl From<Header> for Summary {
    fn from(header: Header) -> Self {
        let Header { batch, sealed_at, oldest_arrival, records, raw_bytes, pieces, content, .. } = header;
        let letters = match content {
            Content::DeadLetters { letters, .. } => letters,
            Content::Object { .. } | Content::Pieces => Vec::new(),
        };
        Self { batch, sealed_at, oldest_arrival, records, raw_bytes, pieces, letters }
    }
}

/// Pieces that were refused, by the batch that they were sent with. A batch of dead letters names all of its own so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letters {
    /// The batch.
    pub batch: BatchId,
    /// Which of its pieces. Not empty.
    pub ordinals: Ordinals,
}

/// Where a batch was meant to go when it was sealed. No credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkMark {
    /// Kind of sink: `s3`, `file`.
    pub kind: String,
    /// The destination in words: `s3://bucket`.
    pub destination: String,
    /// Version of the stream's definition.
    pub version: u64,
}

/// What the body of a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The final bytes of an object.
    Object {
        /// The full key inside the store.
        key: String,
        /// The `Content-Type` to store with it.
        content_type: String,
        /// The `Content-Encoding` to store with it, if any.
        content_encoding: Option<String>,
        /// More to store with it: names and values, in this order.
        metadata: Vec<(String, String)>,
    },
    /// Separate pieces, one after the other: see [`pieces`](super::pieces).
    Pieces,
    /// The final bytes of an object of dead letters. It goes to the dead-letter store and nowhere else.
    DeadLetters {
        /// The full key inside the store.
        key: String,
        /// The `Content-Type` to store with it.
        content_type: String,
        /// The pieces that lie in it.
        letters: Vec<Letters>,
    },
}

const OBJECT: u8 = 1;
const PIECES: u8 = 2;
const DEAD_LETTERS: u8 = 3;

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.batch.as_bytes().to_vec();
        for number in [self.sealed_at.as_millis(), self.oldest_arrival.as_millis(), self.records, self.raw_bytes] {
            put_varint(&mut out, number);
        }
        put_text(&mut out, &self.sink.kind);
        put_text(&mut out, &self.sink.destination);
        put_varint(&mut out, self.sink.version);
        self.content.encode(&mut out);
        self.pieces.encode(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes);
        let header = Self {
            batch: BatchId::from_bytes(fields.array("batch id")?),
            sealed_at: Timestamp::from_millis(fields.varint("time of the seal")?),
            oldest_arrival: Timestamp::from_millis(fields.varint("oldest arrival")?),
            records: fields.varint("number of records")?,
            raw_bytes: fields.varint("raw bytes")?,
            sink: SinkMark {
                kind: fields.text("sink kind")?,
                destination: fields.text("destination")?,
                version: fields.varint("version of the definition")?,
            },
            content: Content::decode(&mut fields)?,
            pieces: Runs::decode(&mut fields)?,
        };
        fields.end("end of the header")?;
        Ok(header)
    }
}

impl Content {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Object { key, content_type, content_encoding, metadata } => {
                out.push(OBJECT);
                put_text(out, key);
                put_text(out, content_type);
                put_optional_text(out, content_encoding.as_deref());
                put_len(out, metadata.len());
                for (name, value) in metadata {
                    put_text(out, name);
                    put_text(out, value);
                }
            }
            Self::Pieces => out.push(PIECES),
            Self::DeadLetters { key, content_type, letters } => {
                out.push(DEAD_LETTERS);
                put_text(out, key);
                put_text(out, content_type);
                Letters::encode(letters, out);
            }
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        match fields.byte("kind of content")? {
            OBJECT => Ok(Self::Object {
                key: fields.text("object key")?,
                content_type: fields.text("content type")?,
                content_encoding: fields.optional_text("content encoding")?,
                metadata: (0..fields.count(2, "number of metadata")?)
                    .map(|_| Ok((fields.text("metadata name")?, fields.text("metadata value")?)))
                    .collect::<Result<_, Malformed>>()?,
            }),
            PIECES => Ok(Self::Pieces),
            DEAD_LETTERS => Ok(Self::DeadLetters {
                key: fields.text("object key")?,
                content_type: fields.text("content type")?,
                letters: Letters::decode(fields)?,
            }),
            _ => Err(Malformed("kind of content")),
        }
    }
}

impl Letters {
    pub(crate) fn encode(all: &[Self], out: &mut Vec<u8>) {
        put_len(out, all.len());
        for Self { batch, ordinals } in all {
            out.extend_from_slice(batch.as_bytes());
            ordinals.encode(out);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Vec<Self>, Malformed> {
        (0..fields.count(17, "number of batches with dead letters")?)
            .map(|_| {
                let batch = BatchId::from_bytes(fields.array("batch of dead letters")?);
                Ok(Self { batch, ordinals: Ordinals::decode(fields)? })
            })
            .collect()
    }
}
