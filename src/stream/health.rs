//! Health: when a stream counts as degraded, and when as well again.
//!
//! What an operator can mend (a wrong password, a missing bucket, a full disk) degrades a stream at once; what
//! usually passes by itself (a busy or restarting destination) when it has lasted for a while. The first delivery to
//! the same destination makes it well. A degraded stream goes on taking records.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{Clock, Fault, FaultCode};
use tracing::{error, info};

use super::send::Turns;
use crate::streams::{Ailment, Health, State};

/// How long a fault that passes by itself may last before somebody should look.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a fault that lasts is logged again.
const REMIND_EVERY: Duration = Duration::from_mins(5);

/// Watches over one stream.
#[derive(Debug)]
pub struct Ward {
    stream: String,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    ill: Option<Ill>,
}

#[derive(Debug)]
struct Ill {
    is_dead_letter: bool,
    /// A batch file is damaged: another batch's delivery mends nothing.
    is_damage: bool,
    said_at: Duration,
}

impl Ward {
    /// A ward for a stream that is well.
    pub fn new(stream: &str, health: Arc<Health>, clock: Arc<dyn Clock>) -> Self {
        Self { stream: stream.to_owned(), health, clock, ill: None }
    }

    /// An attempt failed at `now`, for the destination with these turns.
    pub fn failed(&mut self, fault: &Fault, turns: &Turns, now: Duration, is_dead_letter: bool) {
        let lasts = turns.failing_since().is_some_and(|since| now.saturating_sub(since) >= PATIENCE);
        if !fault.code.is_for_operators() && !lasts {
            return;
        }
        let is_due = self.ill.as_ref().is_none_or(|ill| now.saturating_sub(ill.said_at) >= REMIND_EVERY);
        if !is_due {
            return;
        }
        let since = match self.health.state() {
            State::Degraded(ailment) => ailment.since,
            State::Healthy | State::Failed(_) => self.clock.now(),
        };
        let store = if is_dead_letter { "dead-letter store" } else { "destination" };
        error!(stream = self.stream, code = fault.code.as_str(), attempts = turns.failures(), error = %fault, "the {store} does not take records; they are kept and tried again");
        let message = format!("{store}: {}", fault.message);
        self.health.set(State::Degraded(Ailment { since, code: fault.code.as_str(), message, is_final: false }));
        self.ill = Some(Ill { is_dead_letter, is_damage: fault.code == FaultCode::Damaged, said_at: now });
    }

    /// A delivery succeeded.
    pub fn delivered(&mut self, is_dead_letter: bool) {
        if self.ill.as_ref().is_some_and(|ill| ill.is_dead_letter == is_dead_letter && !ill.is_damage) {
            self.ill = None;
            self.health.set(State::Healthy);
            info!(stream = self.stream, "delivery goes on again");
        }
    }
}
