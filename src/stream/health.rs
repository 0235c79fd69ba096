//! Health: when a stream counts as degraded, and when as well again.
//!
//! What an operator can mend (a wrong password, a missing bucket, a full disk) degrades a stream at once; what
//! usually passes by itself (a busy or restarting destination) when it has lasted for a while. The first delivery to
//! the same destination makes it well. A disk that does not give what lies on it degrades a stream too, until it does.
//! A degraded stream goes on taking records.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, Clock, Fault};
use tracing::{error, info};

use super::send::Turns;
use crate::config::spec::{SinkSpec, StreamSpec};
use crate::streams::{Ailment, Health, Part, State};

/// How long a fault that passes by itself may last before somebody should look.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a fault that lasts is logged again.
const REMIND_EVERY: Duration = Duration::from_mins(5);

/// The stores of a stream, as an operator knows them: name, address and what keys there start with.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where its records go.
    pub destination: String,
    /// Where its dead letters go.
    pub dead_letter: String,
}

impl Places {
    /// Those of a stream whose sinks have these addresses.
    pub fn of(spec: &StreamSpec, destination: &str, dead_letter: &str) -> Self {
        let store = |what: &str, name: &str, address: &str, prefix: &str| {
            let prefix = if prefix.is_empty() { String::new() } else { format!(", prefix {prefix}") };
            format!("{what} `{name}` ({address}{prefix})")
        };
        let letters = &spec.dead_letter;
        Self {
            destination: match &spec.sink {
                SinkSpec::Objects(objects) => store("store", &objects.store.name, destination, objects.prefix.as_str()),
                SinkSpec::Pieces(pieces) => format!("sink `{}` ({destination})", pieces.kind),
            },
            dead_letter: store("dead-letter store", &letters.store.name, dead_letter, letters.error_prefix.as_str()),
        }
    }
}

/// Watches over one stream.
#[derive(Debug)]
pub struct Ward {
    stream: String,
    places: Places,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    ill: Option<Ill>,
    unreadable_said_at: Option<Duration>,
}

#[derive(Debug)]
struct Ill {
    is_dead_letter: bool,
    said_at: Duration,
}

impl Ward {
    /// A ward for a stream that is well.
    pub fn new(stream: &str, places: Places, health: Arc<Health>, clock: Arc<dyn Clock>) -> Self {
        Self { stream: stream.to_owned(), places, health, clock, ill: None, unreadable_said_at: None }
    }

    /// An attempt failed at `now`, for the destination with these turns.
    pub fn failed(&mut self, fault: &Fault, turns: &Turns, now: Duration, is_dead_letter: bool) {
        let lasts = turns.failing_since().is_some_and(|since| now.saturating_sub(since) >= PATIENCE);
        if !fault.code.is_for_operators() && !lasts {
            return;
        }
        if !is_due(self.ill.as_ref().map(|ill| ill.said_at), now) {
            return;
        }
        let place = if is_dead_letter { &self.places.dead_letter } else { &self.places.destination };
        error!(stream = self.stream, code = fault.code.as_str(), attempts = turns.failures(), error = %fault, "{place} does not take records; they are kept and tried again");
        self.degrade(Part::Destination, fault.code.as_str(), format!("{place}: {}", fault.message));
        self.ill = Some(Ill { is_dead_letter, said_at: now });
    }

    /// A delivery succeeded.
    pub fn delivered(&mut self, is_dead_letter: bool) {
        if self.ill.as_ref().is_some_and(|ill| ill.is_dead_letter == is_dead_letter) {
            self.ill = None;
            self.health.report(Part::Destination, State::Healthy);
            info!(stream = self.stream, "delivery goes on again");
        }
    }

    /// The disk did not give a batch at `now`.
    pub fn unreadable(&mut self, batch: BatchId, fault: &Fault, now: Duration) {
        if is_due(self.unreadable_said_at, now) {
            error!(stream = self.stream, %batch, error = %fault, "the disk does not give a sealed batch; it is kept and tried again");
            self.degrade(Part::Outbox, "unreadable", format!("batch {batch}: {}", fault.message));
            self.unreadable_said_at = Some(now);
        }
    }

    /// All batches that the disk did not give have been read since, or given up.
    pub fn readable(&mut self) {
        self.unreadable_said_at = None;
        self.health.report(Part::Outbox, State::Healthy);
        info!(stream = self.stream, "the disk gives all batches again");
    }

    fn degrade(&self, part: Part, code: &'static str, message: String) {
        let since = match self.health.of(part) {
            State::Degraded(ailment) => ailment.since,
            State::Healthy | State::Failed(_) => self.clock.now(),
        };
        self.health.report(part, State::Degraded(Ailment { since, code, message, is_final: false }));
    }
}

/// Whether what was said then is to be said again.
fn is_due(said_at: Option<Duration>, now: Duration) -> bool {
    said_at.is_none_or(|said_at| now.saturating_sub(said_at) >= REMIND_EVERY)
}
