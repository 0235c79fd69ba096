//! Entries: what became of batches and records, in the words of the ledger. Bytes: `docs/formats/ledger.md`.
//!
//! | entry        | must be durable before |
//! |--------------|------------------------|
//! | `Sealed`     | any other entry of the batch; its file names its records too, so it may be sent before |
//! | `Answered`   | the next attempt |
//! | `Redirected` | the first byte sent to the dead-letter store |
//! | `Settled`    | the batch's file is unlinked |
//! | `Lost`, `Version`, `Redriven` | what relies on it |

use std::collections::{BTreeMap, BTreeSet};

use hydrant_core::{BatchId, Position, Span};

use crate::fields::{Fields, Malformed, put_len, put_text, put_varint};
use crate::runs::Runs;

/// One fact, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// These pieces lie in that batch, whose file is durable.
    Sealed {
        /// The batch.
        batch: BatchId,
        /// Its pieces.
        pieces: Runs,
    },
    /// What an attempt settled when it left a rest.
    Answered {
        /// The batch.
        batch: BatchId,
        /// What was answered for good.
        answers: Answers,
    },
    /// The object goes to the dead-letter store now, and never again to where it was meant to go.
    Redirected {
        /// The batch.
        batch: BatchId,
        /// Its key in the dead-letter store.
        key: String,
    },
    /// Nothing of the batch is owed.
    Settled {
        /// The batch.
        batch: BatchId,
    },
    /// Records that will never be delivered: damage, or expiry that was asked for.
    Lost {
        /// Which.
        span: Span,
        /// Why, for a person.
        why: String,
    },
    /// From this record on another version of the stream's definition holds.
    Version {
        /// The version.
        number: u64,
        /// The first record it holds for.
        from: Position,
    },
    /// How far a dead-letter object has been put back into the log.
    Redriven {
        /// The object's key.
        object: String,
        /// Records below this ordinal are in the log.
        upto: u32,
    },
}

/// What is settled inside a batch that is not, by ordinal in the batch as sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Confirmed by the destination.
    pub delivered: BTreeSet<u32>,
    /// Never acceptable, each with the reason.
    pub refused: BTreeMap<u32, Refusal>,
}

/// Why a piece was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The fault's stable code.
    pub code: String,
    /// The fault's sentence.
    pub message: String,
}

const SEALED: u8 = 1;
const ANSWERED: u8 = 2;
const REDIRECTED: u8 = 3;
const SETTLED: u8 = 4;
const LOST: u8 = 5;
const VERSION: u8 = 6;
const REDRIVEN: u8 = 7;

impl Entry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sealed { batch, pieces } => {
                put_batch(out, SEALED, *batch);
                pieces.encode(out);
            }
            Self::Answered { batch, answers } => {
                put_batch(out, ANSWERED, *batch);
                answers.encode(out);
            }
            Self::Redirected { batch, key } => {
                put_batch(out, REDIRECTED, *batch);
                put_text(out, key);
            }
            Self::Settled { batch } => put_batch(out, SETTLED, *batch),
            Self::Lost { span, why } => {
                out.push(LOST);
                put_span(out, *span);
                put_text(out, why);
            }
            Self::Version { number, from } => {
                out.push(VERSION);
                put_varint(out, *number);
                put_varint(out, from.get());
            }
            Self::Redriven { object, upto } => {
                out.push(REDRIVEN);
                put_text(out, object);
                put_varint(out, u64::from(*upto));
            }
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        match fields.byte("kind of entry")? {
            SEALED => Ok(Self::Sealed { batch: batch(fields)?, pieces: Runs::decode(fields)? }),
            ANSWERED => Ok(Self::Answered { batch: batch(fields)?, answers: Answers::decode(fields)? }),
            REDIRECTED => {
                Ok(Self::Redirected { batch: batch(fields)?, key: fields.text("key of a redirected object")? })
            }
            SETTLED => Ok(Self::Settled { batch: batch(fields)? }),
            LOST => Ok(Self::Lost { span: span(fields)?, why: fields.text("why records are lost")? }),
            VERSION => {
                Ok(Self::Version { number: fields.varint("version")?, from: fields.position("border of a version")? })
            }
            REDRIVEN => Ok(Self::Redriven {
                object: fields.text("key of a redriven object")?,
                upto: fields.varint_u32("progress of a redrive")?,
            }),
            _ => Err(Malformed("kind of entry")),
        }
    }
}

impl Answers {
    /// Whether nothing was answered.
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.refused.is_empty()
    }

    /// Adds later answers.
    pub fn add(&mut self, later: &Self) {
        self.delivered.extend(&later.delivered);
        self.refused.extend(later.refused.iter().map(|(ordinal, refusal)| (*ordinal, refusal.clone())));
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.delivered.len());
        self.delivered.iter().for_each(|ordinal| put_varint(out, u64::from(*ordinal)));
        put_len(out, self.refused.len());
        for (ordinal, refusal) in &self.refused {
            put_varint(out, u64::from(*ordinal));
            put_text(out, &refusal.code);
            put_text(out, &refusal.message);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let delivered = (0..fields.count(1, "number of delivered pieces")?)
            .map(|_| fields.varint_u32("ordinal"))
            .collect::<Result<_, _>>()?;
        let refused = (0..fields.count(3, "number of refused pieces")?)
            .map(|_| {
                let ordinal = fields.varint_u32("ordinal")?;
                Ok((ordinal, Refusal { code: fields.text("fault code")?, message: fields.text("fault message")? }))
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { delivered, refused })
    }
}

fn put_batch(out: &mut Vec<u8>, kind: u8, batch: BatchId) {
    out.push(kind);
    out.extend_from_slice(batch.as_bytes());
}

pub(crate) fn batch(fields: &mut Fields<'_>) -> Result<BatchId, Malformed> {
    fields.array("batch id").map(BatchId::from_bytes)
}

pub(crate) fn put_span(out: &mut Vec<u8>, span: Span) {
    put_varint(out, span.first.get());
    put_varint(out, span.count());
}

pub(crate) fn span(fields: &mut Fields<'_>) -> Result<Span, Malformed> {
    let first = fields.position("first record of a span")?;
    let end = first.get().checked_add(fields.varint("length of a span")?).and_then(Position::read);
    Ok(Span { first, end: end.ok_or(Malformed("length of a span"))? })
}
