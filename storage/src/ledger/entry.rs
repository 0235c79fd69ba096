//! Entries: what became of batches and records, in the words of the ledger. Bytes: `docs/formats/ledger.md`.
//!
//! | entry        | must be durable before |
//! |--------------|------------------------|
//! | `Sealed`     | any other entry of the batch; its file names its records too, so it may be sent before |
//! | `Answered`   | the next attempt |
//! | `Buried`     | any other entry of the batch, and what settles the batches that its letters come from |
//! | `Redirected` | the first byte sent to the dead-letter store |
//! | `Settled`    | the batch's file is unlinked |
//! | `Lost`, `Version` | what relies on it |

use hydrant_core::{BatchId, Position, Span, Timestamp};

use crate::fields::{Fields, Malformed, put_len, put_text, put_varint};
use crate::ordinals::Ordinals;
use crate::outbox::Letters;
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
    /// As `Sealed`, for a batch of dead letters: these refused pieces lie in it, so the batches that they come from owe
    /// them no more.
    Buried {
        /// The batch of dead letters.
        batch: BatchId,
        /// Its pieces.
        pieces: Runs,
        /// The same pieces, by the batches that they were sent with.
        letters: Vec<Letters>,
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
}

/// What is answered for good inside a batch that is not settled, by ordinal in the batch as sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Nothing of these is owed by the batch any more: the destination has confirmed them, they lie in a batch of dead
    /// letters, or they were thrown away as asked.
    pub done: Ordinals,
    /// Never acceptable, and in no batch of dead letters yet; those with the same reason together.
    pub refused: Vec<Refused>,
}

/// Pieces that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which. Not empty.
    pub ordinals: Ordinals,
    /// Why.
    pub why: Refusal,
}

/// Why a piece was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused it.
    pub stage: Stage,
    /// The fault's stable code.
    pub code: String,
    /// The fault's sentence.
    pub message: String,
    /// How many attempts to send it ended, as far as the process knew that counted them.
    pub attempts: u32,
    /// When the last one ended.
    pub at: Timestamp,
    /// Whether the destination may have it all the same: it did not say.
    pub outcome_unknown: bool,
}

/// Where a piece was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// When the request was made: it was never sent.
    Encode,
    /// By the destination, or it did not take it in time.
    Deliver,
}

const SEALED: u8 = 1;
const ANSWERED: u8 = 2;
const REDIRECTED: u8 = 3;
const SETTLED: u8 = 4;
const LOST: u8 = 5;
const VERSION: u8 = 6;
// 7 was meant for redriven objects, and never written.
const BURIED: u8 = 8;

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
            Self::Buried { batch, pieces, letters } => {
                put_batch(out, BURIED, *batch);
                pieces.encode(out);
                Letters::encode(letters, out);
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
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        match fields.byte("kind of entry")? {
            SEALED => Ok(Self::Sealed { batch: batch(fields)?, pieces: Runs::decode(fields)? }),
            ANSWERED => Ok(Self::Answered { batch: batch(fields)?, answers: Answers::decode(fields)? }),
            BURIED => Ok(Self::Buried {
                batch: batch(fields)?,
                pieces: Runs::decode(fields)?,
                letters: Letters::decode(fields)?,
            }),
            REDIRECTED => {
                Ok(Self::Redirected { batch: batch(fields)?, key: fields.text("key of a redirected object")? })
            }
            SETTLED => Ok(Self::Settled { batch: batch(fields)? }),
            LOST => Ok(Self::Lost { span: span(fields)?, why: fields.text("why records are lost")? }),
            VERSION => {
                Ok(Self::Version { number: fields.varint("version")?, from: fields.position("border of a version")? })
            }
            _ => Err(Malformed("kind of entry")),
        }
    }
}

impl Answers {
    /// Whether nothing was answered.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.refused.is_empty()
    }

    /// Adds later answers.
    pub fn add(&mut self, later: &Self) {
        self.done.add(&later.done);
        for Refused { ordinals, why } in &later.refused {
            match self.refused.iter_mut().find(|known| known.why == *why) {
                Some(known) => known.ordinals.add(ordinals),
                None => self.refused.push(Refused { ordinals: ordinals.clone(), why: why.clone() }),
            }
        }
    }

    /// These lie in a batch of dead letters now.
    pub fn bury(&mut self, ordinals: &Ordinals) {
        self.done.add(ordinals);
        for refused in &mut self.refused {
            refused.ordinals.remove(ordinals);
        }
        self.refused.retain(|refused| !refused.ordinals.is_empty());
    }

    /// All that is answered for good: these are never sent again.
    pub fn answered(&self) -> Ordinals {
        let mut all = self.done.clone();
        self.refused.iter().for_each(|refused| all.add(&refused.ordinals));
        all
    }

    /// Refused pieces that lie in no batch of dead letters yet.
    pub fn unburied(&self) -> u64 {
        self.refused.iter().map(|refused| refused.ordinals.len()).sum()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.done.encode(out);
        put_len(out, self.refused.len());
        for Refused { ordinals, why } in &self.refused {
            ordinals.encode(out);
            why.encode(out);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let done = Ordinals::decode(fields)?;
        let refused = (0..fields.count(1 + Refusal::BYTES_MIN, "number of refusals")?)
            .map(|_| Ok(Refused { ordinals: Ordinals::decode(fields)?, why: Refusal::decode(fields)? }))
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { done, refused })
    }
}

impl Refusal {
    /// Two bytes, and four empty or small fields.
    const BYTES_MIN: usize = 6;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.stage {
            Stage::Encode => 1,
            Stage::Deliver => 2,
        });
        put_text(out, &self.code);
        put_text(out, &self.message);
        put_varint(out, u64::from(self.attempts));
        put_varint(out, self.at.as_millis());
        out.push(u8::from(self.outcome_unknown));
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            stage: match fields.byte("stage of a refusal")? {
                1 => Stage::Encode,
                2 => Stage::Deliver,
                _ => return Err(Malformed("stage of a refusal")),
            },
            code: fields.text("fault code")?,
            message: fields.text("fault message")?,
            attempts: fields.varint_u32("number of attempts")?,
            at: Timestamp::from_millis(fields.varint("time of the last attempt")?),
            outcome_unknown: match fields.byte("whether an outcome is unknown")? {
                0 => false,
                1 => true,
                _ => return Err(Malformed("whether an outcome is unknown")),
            },
        })
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
