//! Pieces: what follows an attempt to deliver separate pieces, until nothing of their batch is owed.
//!
//! In: a sink's report on each piece, and batches of dead letters as they are sealed. Out: the batch is settled, or the
//! ledger hears what was answered and the pieces that are left are tried again. Those that were refused wait for a batch of
//! dead letters; when that is durable, and the ledger knows, their own batch owes them no more.
//!
//! ```text
//!            ┌── confirmed, or thrown away ──────────────┐
//!   report ──┼── left ──> Answered, then the next attempt │
//!            └── refused ─> Answered ─> letters ─> Buried ─┴─> settle, when nothing is left
//! ```
//!
//! A crash between any two of these finds, at the next start, what is durable: a batch of dead letters says itself which
//! pieces lie in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, Fault, FaultCode, Report, Sink, Verdict};
use hydrant_storage::crash::{self, Point, Slip};
use hydrant_storage::ledger::{Answers, BatchState, Entry, Refused, Stage};
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::outbox::{Header, SealError, Summary};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::Deliver;
use super::books::{NO_ROOM_WAIT, Turn};
use crate::stream::answers::{self, Heard};
use crate::stream::bury::{Buried, Grave, Undertaker};
use crate::stream::flight::Told;
use crate::stream::letters::Taken;
use crate::stream::pool::finish;
use crate::stream::send::{Rest, Tries};
use crate::stream::{Edges, LaneError};

/// A batch of dead letters that is being sealed. Dropped with the loop, so that nothing is read for it any more; a file that
/// is being written is finished, and found by whoever opens the lane again.
pub(super) struct Burial {
    taken: Taken,
    sealing: AbortOnDropHandle<Buried>,
}

/// Waits for the batch of dead letters that is being sealed; for ever if there is none. Cancel safe: the handle keeps the
/// result.
pub(super) async fn sealed(burial: &mut Option<Burial>) -> Buried {
    match burial {
        Some(burial) => finish(&mut burial.sealing).await,
        None => std::future::pending().await,
    }
}

impl Deliver {
    /// Takes a batch up where the ledger says that it stands.
    pub(super) fn resume(&mut self, batch: BatchId) -> Result<(), LaneError> {
        let Some(state) = self.state.batches.get(&batch) else { return Ok(()) };
        let (left, unburied) = (state.left(), state.answers.unburied());
        let refused: Vec<Ordinals> = state.answers.refused.iter().map(|refused| refused.ordinals.clone()).collect();
        for ordinals in refused {
            let bytes = self.bytes_of(batch, &ordinals);
            self.letters.push(batch, ordinals, bytes, self.now());
        }
        if left == 0 {
            self.settle(batch)?;
        } else if left > unburied {
            self.primary.turns.add(batch);
        }
        Ok(())
    }

    /// About how many bytes these pieces have.
    fn bytes_of(&self, batch: BatchId, ordinals: &Ordinals) -> u64 {
        let sealed = self.state.batches.get(&batch).map_or(1, |state| state.pieces_sealed.max(1));
        self.owed.get(&batch).map_or(0, |owed| owed.raw_bytes / sealed * ordinals.len())
    }

    /// The sink has answered, or was silent.
    pub(super) fn told(&mut self, batch: BatchId, Told { sent, report }: Told) -> Result<(), LaneError> {
        let (now, at) = (self.now(), self.parts.edges.clock.now());
        let is_whole = matches!(report, Report::All(_));
        let heard = match report {
            Report::All(Verdict::Retry(fault)) if !crash::slips(Slip::SettleUnconfirmed) => Heard::nothing(fault),
            Report::All(Verdict::Retry(_)) => Heard { delivered: self.left(batch), ..Heard::default() },
            report => Heard::new(report, sent.iter().map(|(ordinal, _)| *ordinal)),
        };
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        let attempts = owed.tries.failed + 1;
        let rest = owed.tries.after_answers(&heard, now, self.parts.retry_for);
        let tries = owed.tries;
        self.count_delivered(&heard.delivered, &sent);
        self.count_discarded(batch, &heard.discarded);
        if sent.is_empty() && rest == Rest::Nothing {
            self.primary.turns.ended(false); // there was nothing to send: its file was read, and that is all
        } else {
            self.tell_destination(&heard, &rest, now);
        }
        let Heard { delivered: mut done, refused, discarded, .. } = heard;
        let is_confirmed = !done.is_empty();
        done.add(&discarded.into_keys().collect());
        // Who answers for each piece knows one that is stored already; who refuses a request as a whole may have taken it before.
        let asked = Tries { failed: attempts, outcome_unknown: is_whole && tries.outcome_unknown, ..tries };
        let mut answers = Answers { done, refused: answers::refusals(refused, Stage::Deliver, asked, at) };
        let next = match rest {
            Rest::Nothing => None,
            Rest::AtOnce => Some(Turn::Now),
            Rest::Again(fault) => {
                debug!(%batch, attempt = attempts, error = %fault, "delivery will be retried");
                Some(Turn::After(fault))
            }
            Rest::GivenUp(fault) => {
                let mut left = self.left(batch);
                left.remove(&answers.done);
                warn!(%batch, attempts, pieces = left.len(), error = %fault, "pieces go to the dead letters");
                answers.refused.push(answers::given_up(left, fault, tries, at));
                None
            }
        };
        let is_last = self.not_done(batch) == answers.done.len();
        self.parts.counters.batches_out.add(u64::from(is_last && is_confirmed));
        self.answer(batch, answers, next)
    }

    /// These pieces can never be sent; the others come with the next attempt.
    pub(super) fn unfit(&mut self, batch: BatchId, refused: BTreeMap<u32, Fault>) -> Result<(), LaneError> {
        self.primary.turns.ended(false);
        let (at, failed) = (self.parts.edges.clock.now(), self.owed.get(&batch).map_or(0, |owed| owed.tries.failed));
        let leaves_some = self.left(batch).len() > refused.len() as u64;
        let refused = answers::refusals(refused, Stage::Encode, Tries { failed, ..Tries::default() }, at);
        self.answer(batch, Answers { done: Ordinals::new(), refused }, leaves_some.then_some(Turn::Now))
    }

    /// The pieces that no attempt has answered for good.
    fn left(&self, batch: BatchId) -> Ordinals {
        let Some(state) = self.state.batches.get(&batch) else { return Ordinals::new() };
        let mut left = Ordinals::all(u32::try_from(state.pieces_sealed).unwrap_or(u32::MAX));
        left.remove(&state.answers.answered());
        left
    }

    /// How many pieces are neither done nor in a batch of dead letters.
    fn not_done(&self, batch: BatchId) -> u64 {
        self.state.batches.get(&batch).map_or(0, BatchState::left)
    }

    fn count_delivered(&self, delivered: &Ordinals, sent: &[(u32, u64)]) {
        let counters = &self.parts.counters;
        counters.records_out.add(delivered.len());
        let bytes = sent.iter().filter(|(ordinal, _)| delivered.contains(*ordinal)).map(|(_, bytes)| bytes);
        counters.bytes_out.add(bytes.sum());
    }

    /// Says which pieces are thrown away: nothing else ever will.
    fn count_discarded(&self, batch: BatchId, discarded: &BTreeMap<u32, Fault>) {
        let Some(fault) = discarded.values().next() else { return };
        self.parts.counters.records_discarded.add(discarded.len() as u64);
        let (stream, pieces) = (&self.parts.stream, discarded.len());
        warn!(stream, %batch, pieces, error = %fault, "pieces are thrown away, as the configuration says");
    }

    /// What an attempt means for the destination as a whole. It fails when it took nothing, and when it says something that
    /// somebody has to mend; when it took some and asks to wait with others, these wait and the destination goes on.
    fn tell_destination(&mut self, heard: &Heard, rest: &Rest, now: Duration) {
        let took_some = !heard.delivered.is_empty();
        let fault = match rest {
            Rest::Again(fault) | Rest::GivenUp(fault) => Some(fault),
            Rest::Nothing | Rest::AtOnce => None,
        };
        self.parts.counters.attempts_failed.add(u64::from(fault.is_some()));
        let fails = fault.filter(|fault| !took_some || fault.code.is_for_operators());
        if let Some(fault) = fails {
            let fraction = self.parts.edges.entropy.fraction();
            self.primary.turns.failed(fault, now, self.parts.retry_for, fraction);
            self.parts.ward.failed(fault, &self.primary.turns, now, false);
        } else if took_some {
            self.parts.ward.delivered(false);
        }
        let answers = took_some || *rest == Rest::Nothing;
        self.primary.turns.ended(fails.is_none() && answers);
    }

    /// Writes down what was answered, and says when the batch has its next turn, if it has one.
    fn answer(&mut self, batch: BatchId, answers: Answers, next: Option<Turn>) -> Result<(), LaneError> {
        if self.not_done(batch) == answers.done.len() {
            crash::reach(Point::SettleDelivered);
            return self.settle(batch);
        }
        if !answers.is_empty() {
            let is_recorded =
                self.owed.get_mut(&batch).is_some_and(|owed| std::mem::replace(&mut owed.is_recorded, true));
            self.record(batch, is_recorded);
            for Refused { ordinals, why } in &answers.refused {
                let bytes = self.bytes_of(batch, ordinals);
                self.letters.push(batch, ordinals.clone(), bytes, self.now());
                debug!(%batch, pieces = ordinals.len(), code = why.code, error = why.message, "pieces are refused");
            }
            self.enter(Entry::Answered { batch, answers })?;
        }
        self.turns.extend(next.map(|turn| (batch, turn)));
        Ok(())
    }

    // Dead letters.

    /// When a batch of dead letters is to be sealed. Sooner than its hints say when everything is to be settled and
    /// nothing else is left to do.
    pub(super) fn burial_due(&self) -> Option<Duration> {
        let due = self.letters.due().filter(|_| self.burial.is_none())?;
        let is_awaited = *self.parts.drain.borrow() > self.settled_below() && self.primary.turns.is_idle();
        Some(if is_awaited { self.letters.not_before() } else { due })
    }

    /// Begins to seal a batch of dead letters. Those whose file the disk does not give wait without holding up the others.
    pub(super) fn bury(&mut self) {
        let Sink::Pieces(sink) = &self.parts.primary else { return };
        let Edges { clock, entropy, pool, .. } = self.parts.edges.clone();
        let undertaker = Undertaker {
            stream: self.parts.stream.clone(),
            mark: self.parts.mark.clone(),
            error_prefix: self.parts.letters.error_prefix.clone(),
            sink: Arc::clone(sink),
            outbox: self.parts.outbox.clone(),
            seals: Arc::clone(&self.parts.seals),
            clock,
            entropy,
            pool,
        };
        let (unreadable, damaged) = (&self.unreadable, &self.damaged);
        let taken = self.letters.take(|batch| !unreadable.contains_key(&batch) && !damaged.contains_key(&batch));
        let graves: Vec<Grave> =
            taken.by_batch().into_iter().filter_map(|(batch, which)| self.grave(batch, &which)).collect();
        if graves.is_empty() {
            self.letters.put_back(taken, self.now() + NO_ROOM_WAIT);
        } else {
            self.burial =
                Some(Burial { taken, sealing: AbortOnDropHandle::new(tokio::spawn(undertaker.bury(graves))) });
        }
    }

    /// The reasons for refusing these pieces, as the ledger has them.
    fn grave(&self, batch: BatchId, which: &Ordinals) -> Option<Grave> {
        let state = self.state.batches.get(&batch)?;
        let refused = state.answers.refused.iter().map(|refused| {
            let ordinals = refused.ordinals.iter().filter(|ordinal| which.contains(*ordinal)).collect();
            Refused { ordinals, why: refused.why.clone() }
        });
        Some(Grave { batch, refused: refused.filter(|refused| !refused.ordinals.is_empty()).collect() })
    }

    /// A batch of dead letters is sealed, or could not be.
    pub(super) fn buried(&mut self, buried: Buried) -> Result<(), LaneError> {
        let Some(Burial { taken, .. }) = self.burial.take() else { return Ok(()) };
        let retry_at = self.now() + NO_ROOM_WAIT;
        match buried {
            Buried::Sealed(header) => {
                crash::reach(Point::BuryDurable);
                self.lie_in(*header, taken)
            }
            Buried::NotSealed(error @ (SealError::HeaderTooLarge { .. } | SealError::Poisoned(_))) => {
                Err(LaneError::Outbox(error))
            }
            Buried::NotSealed(error) => {
                warn!(stream = self.parts.stream, %error, "no room on disk for dead letters; they wait");
                self.letters.put_back(taken, retry_at);
                self.letters.shrink();
                Ok(())
            }
            Buried::Unread(batch, error) => {
                self.letters.put_back(taken, retry_at);
                self.unread(batch, &error);
                Ok(())
            }
        }
    }

    /// Refused pieces lie in this batch now: it is sent to the dead-letter store, and the batches that they come from owe
    /// them no more.
    fn lie_in(&mut self, header: Header, taken: Taken) -> Result<(), LaneError> {
        let summary = Summary::from(header);
        let Summary { batch, letters, pieces, .. } = &summary;
        debug!(%batch, records = summary.records, batches = letters.len(), "dead letters are sealed");
        self.letters.put_back(taken.without(letters), Duration::ZERO);
        self.letters.grow();
        self.enter(Entry::Buried { batch: *batch, pieces: pieces.clone(), letters: letters.clone() })?;
        self.owe(&summary, Tries::default(), true)?;
        for source in &summary.letters {
            let is_done =
                self.state.batches.get(&source.batch).is_some_and(|state| !state.settled && state.left() == 0);
            if is_done {
                self.settle(source.batch)?;
            }
        }
        Ok(())
    }

    /// The file of a batch could not be read for its refused pieces. An attempt finds out whether it is damaged: one that
    /// is made anyway, as other pieces are left, or one that has nothing to send.
    fn unread(&mut self, batch: BatchId, error: &io::Error) {
        let is_tried = self.unreadable.contains_key(&batch) || !self.left(batch).is_empty();
        let is_tried = is_tried || self.owed.get(&batch).is_none_or(|owed| owed.is_flying);
        self.unreadable(batch, &Fault::new(FaultCode::Damaged, format!("batch file: {error}")));
        if !is_tried {
            self.primary.turns.add(batch);
        }
    }
}
