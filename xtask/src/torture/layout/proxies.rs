//! Two proxies before a server: one cuts connections somewhere, the other is dead and alive in turn.

use anyhow::Result;

use super::Ground;
use crate::kit::Proxy;
use crate::random::Random;

/// Rounds for which a destination that dies again and again stays as it is.
pub(super) const LATE_ROUNDS: u64 = 3;

/// Behind how many bytes of a connection it is cut at the latest.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
}

pub(super) struct Proxies {
    random: Random,
    reach: Reach,
    pub(super) late: Proxy,
    pub(super) cut: Proxy,
    is_late_dead: bool,
}

impl Proxies {
    /// Starts both before the server at `http://HOST:PORT`; the late one is dead.
    pub(super) fn start(Ground { seed, programs, .. }: Ground<'_>, endpoint: &str, reach: Reach) -> Result<Self> {
        let (mut late, cut) = (Proxy::start(programs, endpoint)?, Proxy::start(programs, endpoint)?);
        late.order("refuse")?;
        Ok(Self { random: Random::new(seed), reach, late, cut, is_late_dead: true })
    }

    /// As is the turn of this round. Connections that are open keep their fault.
    pub(super) fn turn(&mut self, round: u64) -> Result<()> {
        let order = match self.random.below(4) {
            0 => "none".to_owned(),
            1 => format!("cut-request {}", self.random.below(self.reach.request_bytes)),
            _ => format!("cut-answer {}", self.random.below(self.reach.answer_bytes)),
        };
        self.cut.order(&order)?;
        let is_dead = (round / LATE_ROUNDS).is_multiple_of(2);
        if is_dead != self.is_late_dead {
            self.late.order(if is_dead { "refuse" } else { "none" })?;
            self.is_late_dead = is_dead;
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) -> Result<()> {
        self.cut.order("none")?;
        self.late.order("none")
    }
}
