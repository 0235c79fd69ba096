//! Checkpoint: everything the ledger says, at one moment; and what each entry changes in it. Pure.
//!
//! ```text
//!            forget            sealed_above              highest
//!   ───────────┼──────────▓▓▓▓▓▓▓──▓▓▓▓───▓▓──────────────┼────
//!    all done  │  still needed from the log, but for ▓    │ never used
//! ```

use std::collections::BTreeMap;

use hydrant_core::{BatchId, Position, Span};

use super::entry::{Answers, Entry, batch, put_span, span};
use crate::fields::{Fields, Malformed, put_len, put_optional_text, put_varint};
use crate::redriven::Redriven;
use crate::runs::Runs;

/// What a lane has sealed and settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every record below is wholly sealed, dropped or lost: the log may forget them. Moves by
    /// [`advance`](Self::advance).
    pub forget: Position,
    /// The highest position that any entry named.
    pub highest: Position,
    /// Version of the stream's definition; 0 before the first.
    pub version: u64,
    /// The first record that this version holds for.
    pub version_from: Position,
    /// What is sealed or lost at or above `forget`, settled or not.
    pub sealed_above: Runs,
    /// Every batch whose file may still be there.
    pub batches: BTreeMap<BatchId, BatchState>,
    /// Records that were lost, ever.
    pub lost_records: u64,
    /// Dead letters that were put back into the log, and lay below the forget-position or may have. No entry says it:
    /// above the forget-position the log does, see [`Log::redriven`](crate::log::Log::redriven).
    pub redriven: Redriven,
}

/// What is known of a batch whose file may still be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchState {
    /// Its pieces, for [`Checkpoint::give_back`]; none once it is settled. A checkpoint on the disk has those at or
    /// above its forget-position only.
    pub pieces: Runs,
    /// How many pieces it had when it was sealed.
    pub pieces_sealed: u64,
    /// From the lowest to the highest of its records.
    pub hull: Span,
    /// Its key in the dead-letter store, when it goes there.
    pub redirected: Option<String>,
    /// Nothing of it is owed; its file is unlinked or about to be.
    pub settled: bool,
    /// What is settled inside it.
    pub answers: Answers,
}

/// What becomes of the pieces of a batch whose file cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// The log still has these; they are to be sealed again.
    pub again: Runs,
    /// How many pieces are lost.
    pub lost: u64,
    /// From the lowest to the highest record that the batch held.
    pub hull: Span,
}

/// An entry that cannot be true after the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The batch was sealed before.
    #[error("batch {0} is sealed twice")]
    SealedTwice(BatchId),
    /// The batch was never sealed, or is long gone.
    #[error("batch {0} is not known")]
    UnknownBatch(BatchId),
    /// The batch was settled before.
    #[error("batch {0} is answered after it was settled")]
    SettledBefore(BatchId),
}

impl Checkpoint {
    /// Applies one entry.
    ///
    /// # Errors
    /// When the entry cannot be true; nothing is changed then.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Contradiction> {
        match entry {
            Entry::Sealed { batch, pieces } => self.seal(*batch, pieces)?,
            Entry::Answered { batch, answers } => self.open_batch(*batch)?.answers.add(answers),
            Entry::Buried { batch, pieces, letters } => {
                self.seal(*batch, pieces)?;
                for letters in letters {
                    // One that is settled owes nothing anyway.
                    if let Ok(source) = self.open_batch(letters.batch) {
                        source.answers.bury(&letters.ordinals);
                    }
                }
            }
            Entry::Redirected { batch, key } => self.open_batch(*batch)?.redirected = Some(key.clone()),
            Entry::Settled { batch } => {
                let state = self.batches.get_mut(batch).ok_or(Contradiction::UnknownBatch(*batch))?;
                state.settled = true;
                state.pieces = Runs::new();
                state.answers = Answers::default();
            }
            Entry::Lost { span, .. } => self.lose(*span),
            Entry::Version { number, from } => {
                self.version = *number;
                self.version_from = *from;
            }
        }
        Ok(())
    }

    fn seal(&mut self, batch: BatchId, pieces: &Runs) -> Result<(), Contradiction> {
        if self.batches.contains_key(&batch) {
            return Err(Contradiction::SealedTwice(batch));
        }
        let hull = pieces.hull();
        self.sealed_above.add(pieces);
        self.sealed_above.forget_below(self.forget);
        self.used(hull);
        let state = BatchState { pieces: pieces.clone(), pieces_sealed: pieces.len(), hull, ..BatchState::default() };
        self.batches.insert(batch, state);
        Ok(())
    }

    fn open_batch(&mut self, batch: BatchId) -> Result<&mut BatchState, Contradiction> {
        match self.batches.get_mut(&batch) {
            None => Err(Contradiction::UnknownBatch(batch)),
            Some(state) if state.settled => Err(Contradiction::SettledBefore(batch)),
            Some(state) => Ok(state),
        }
    }

    /// Records are lost once: those that are done already, or were lost before, are not counted again.
    fn lose(&mut self, span: Span) {
        let mut lost: Runs = [span].into_iter().collect();
        lost.forget_below(self.forget);
        lost.remove(&self.sealed_above);
        self.lost_records = self.lost_records.saturating_add(lost.len());
        self.sealed_above.add(&lost);
        self.used(span);
    }

    fn used(&mut self, span: Span) {
        if !span.is_empty() {
            self.highest = self.highest.max(Position::new(span.end.get() - 1));
        }
    }

    /// Moves the forget-position up; a lower one changes nothing. Costs the same however many batches are owed.
    pub fn advance(&mut self, forget: Position) {
        self.forget = self.forget.max(forget);
        self.sealed_above.forget_below(self.forget);
    }

    /// Takes out an owed batch whose file cannot be read any more; `None` when there is no such batch. What of it lies
    /// at or above `kept_from` the log still has: it counts as not sealed, and the forget-position goes back to it. The
    /// rest is lost, and counted. Pieces of which nothing was owed any more are neither.
    ///
    /// The file must not be found as a batch again, and nothing of it may be sealed again before the next checkpoint
    /// is durable, or a crash would give its records back once more.
    pub fn give_back(&mut self, batch: BatchId, kept_from: Position) -> Option<GivenBack> {
        if self.batches.get(&batch)?.settled {
            return None;
        }
        let BatchState { pieces: mut again, pieces_sealed, hull, answers, .. } = self.batches.remove(&batch)?;
        again.remove(&done_pieces(&again, pieces_sealed, &answers));
        again.forget_below(kept_from);
        if !again.is_empty() && again.hull().first < self.forget {
            self.sealed_above.push_span(Span { first: again.hull().first, end: self.forget });
            self.forget = again.hull().first;
        }
        self.sealed_above.remove(&again);
        let lost = pieces_sealed.saturating_sub(answers.done.len()).saturating_sub(again.len());
        self.lost_records = self.lost_records.saturating_add(lost);
        Some(GivenBack { again, lost, hull })
    }

    /// Forgets which pieces below the forget-position lie in which batch, as a checkpoint on the disk does.
    pub(crate) fn trim(&mut self) {
        self.batches.values_mut().for_each(|state| state.pieces.forget_below(self.forget));
    }

    /// Takes a batch out. Only when its unlink is durable.
    pub fn unlinked(&mut self, batch: BatchId) {
        self.batches.remove(&batch);
    }

    /// Batches that are sealed and not settled.
    pub fn owed(&self) -> impl Iterator<Item = (BatchId, &BatchState)> {
        self.batches.iter().filter(|(_, state)| !state.settled).map(|(batch, state)| (*batch, state))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [self.forget.get(), self.highest.get(), self.version, self.version_from.get(), self.lost_records];
        for number in numbers {
            put_varint(&mut out, number);
        }
        self.sealed_above.encode(&mut out);
        put_len(&mut out, self.batches.len());
        for (batch, state) in &self.batches {
            out.extend_from_slice(batch.as_bytes());
            state.encode(self.forget, &mut out);
        }
        self.redriven.encode(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes);
        let checkpoint = Self {
            forget: fields.position("forget-position")?,
            highest: fields.position("highest position")?,
            version: fields.varint("version")?,
            version_from: fields.position("border of the version")?,
            lost_records: fields.varint("lost records")?,
            sealed_above: Runs::decode(&mut fields)?,
            batches: (0..fields.count(BatchState::BYTES_MIN, "number of batches")?)
                .map(|_| Ok((batch(&mut fields)?, BatchState::decode(&mut fields)?)))
                .collect::<Result<_, Malformed>>()?,
            redriven: Redriven::decode(&mut fields)?,
        };
        fields.end("end of the checkpoint")?;
        Ok(checkpoint)
    }
}

/// Which of the pieces that are left of a batch are done with. The lowest of them may be forgotten; so the last of what is
/// left is the last that was sealed.
fn done_pieces(left: &Runs, sealed: u64, answers: &Answers) -> Runs {
    if answers.done.is_empty() {
        return Runs::new();
    }
    let first = sealed.saturating_sub(left.len());
    let is_done = |ordinal: u64| u32::try_from(ordinal).is_ok_and(|ordinal| answers.done.contains(ordinal));
    (first..).zip(left.in_order()).filter(|(ordinal, _)| is_done(*ordinal)).map(|(_, piece)| piece).collect()
}

impl BatchState {
    /// How many of its pieces are still owed: neither confirmed nor in a batch of dead letters, nor thrown away.
    pub fn left(&self) -> u64 {
        self.pieces_sealed.saturating_sub(self.answers.done.len())
    }

    /// An id, a flag, and seven empty or small fields.
    const BYTES_MIN: usize = 16 + 1 + 1 + 1 + 2 + 2 + 2;

    fn encode(&self, forget: Position, out: &mut Vec<u8>) {
        out.push(u8::from(self.settled));
        put_optional_text(out, self.redirected.as_deref());
        put_varint(out, self.pieces_sealed);
        put_span(out, self.hull);
        let mut pieces = self.pieces.clone();
        pieces.forget_below(forget);
        pieces.encode(out);
        self.answers.encode(out);
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let settled = match fields.byte("whether a batch is settled")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("whether a batch is settled")),
        };
        Ok(Self {
            settled,
            redirected: fields.optional_text("key of a redirected object")?,
            pieces_sealed: fields.varint("number of pieces")?,
            hull: span(fields)?,
            pieces: Runs::decode(fields)?,
            answers: Answers::decode(fields)?,
        })
    }
}
