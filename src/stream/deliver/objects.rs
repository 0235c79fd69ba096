//! Objects: what follows an attempt to place a whole object, be it of records or of dead letters.
//!
//! In: a store's verdict. Out: the batch is settled, tried again, or turned to the dead-letter store for good. What
//! follows which verdict stands in [`send`](super::super::send).

use hydrant_core::{BatchId, Fault, Verdict};
use hydrant_storage::crash::{self, Point};
use hydrant_storage::ledger::Entry;
use hydrant_storage::outbox::Content;
use tracing::{debug, warn};

use super::books::Turn;
use super::{Deliver, To};
use crate::config::spec::RetryFor;
use crate::encode::name::{ErrorType, NameParts};
use crate::stream::LaneError;
use crate::stream::send::{Next, Tries};

impl Deliver {
    pub(super) async fn placed(&mut self, batch: BatchId, verdict: Verdict) -> Result<(), LaneError> {
        let now = self.now();
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        let is_dead_letter = owed.to == To::DeadLetter;
        let (destination, retry_for) = if is_dead_letter {
            (&mut self.dead_letter, RetryFor::Forever)
        } else {
            (&mut self.primary, self.parts.retry_for)
        };
        let verdict = match verdict {
            Verdict::Refused(fault) | Verdict::Discarded(fault) if is_dead_letter => Verdict::Retry(fault), // there is nowhere further to go
            verdict => verdict,
        };
        let is_refused = matches!(verdict, Verdict::Refused(_) | Verdict::Discarded(_)); // the object's fault, not the destination's
        match owed.tries.after(verdict, now, retry_for) {
            Next::Settle => {
                crash::reach(if is_dead_letter { Point::RedirectPlaced } else { Point::SettleDelivered });
                destination.turns.ended(true);
                self.parts.counters.settled(owed.records, owed.raw_bytes, is_dead_letter);
                self.parts.ward.delivered(is_dead_letter);
                self.settle(batch)
            }
            Next::Again(fault) => {
                let jitter = || self.parts.edges.entropy.fraction();
                destination.turns.failed(&fault, now, retry_for, jitter());
                destination.turns.again(batch, owed.tries, &fault, now, jitter());
                self.parts.counters.attempts_failed.add(1);
                debug!(%batch, attempt = owed.tries.failed, error = %fault, "delivery will be retried");
                self.parts.ward.failed(&fault, &destination.turns, now, is_dead_letter);
                Ok(())
            }
            Next::Redirect(fault) => {
                if !is_refused {
                    destination.turns.failed(&fault, now, retry_for, self.parts.edges.entropy.fraction());
                    self.parts.ward.failed(&fault, &destination.turns, now, is_dead_letter);
                }
                destination.turns.ended(is_refused);
                crash::reach(Point::RedirectDecided);
                self.parts.counters.attempts_failed.add(1);
                self.redirect(batch, &fault).await
            }
        }
    }

    /// Turns a batch to the dead-letter store, for good.
    async fn redirect(&mut self, batch: BatchId, fault: &Fault) -> Result<(), LaneError> {
        let outbox = self.parts.outbox.clone();
        let read = self.parts.edges.pool.block(move || outbox.read(batch)).await.map_err(LaneError::panicked)?;
        let header = match read {
            Ok((header, _)) => header,
            Err(error) => {
                // The next attempt meets it again, and tells damage from a disk that does not answer.
                debug!(%batch, %error, "a batch could not be read to be redirected");
                self.primary.turns.add(batch);
                return Ok(());
            }
        };
        let key = self.parts.letters.error_prefix.key(
            ErrorType::DeliveryFailed,
            &NameParts {
                stream: &self.parts.stream,
                version: header.sink.version,
                oldest_arrival: header.oldest_arrival,
                batch,
                extension: extension(&header.content),
            },
        );
        let Some(owed) = self.owed.get_mut(&batch) else { return Ok(()) };
        warn!(%batch, attempts = owed.tries.failed, error = %fault, %key, "object goes to the dead-letter store");
        owed.tries = Tries::default();
        owed.to = To::DeadLetter;
        let is_recorded = std::mem::replace(&mut owed.is_recorded, true);
        self.record(batch, is_recorded);
        self.enter(Entry::Redirected { batch, key })?;
        self.turns.push((batch, Turn::Turned));
        self.parts.counters.batches_redirected.add(1);
        Ok(())
    }
}

/// The extension that an object's key ends with, its dot included.
fn extension(content: &Content) -> &str {
    let Content::Object { key, .. } = content else { return "" };
    let name = key.rsplit('/').next().unwrap_or(key);
    name.rfind('.').map_or("", |dot| &name[dot..])
}
