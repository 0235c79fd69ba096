//! Streams of requests: each to a strict receiver of its own, in another process, which remembers what it took.
//!
//! | stream | is there for | its destination |
//! |---|---|---|
//! | `aged`, `prompt` | large requests and small ones | takes everything |
//! | `moody` | answers that are lost, late or no | takes requests and resets, stalls, answers 500 or 429, as the round wants |
//! | `late` | a backlog in the outbox | answers 503, then takes everything, again and again |
//! | `turned` | every record becomes a dead letter | answers 400 |
//!
//! A request id counts once, however often it comes, and must come with the same records each time: the receiver tells what
//! breaks that, or any other rule of the protocol, and the run is red then.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::proxies::LATE_ROUNDS;
use super::{Ground, Layout, Misfits, letters, spare};
use crate::kit::Receiver;
use crate::random::Random;

/// What the moody receiver may do in a round.
const MOODS: &[&str] = &["serve", "lose", "lose", "stall", "answer 500", "answer 429"];

/// A kind of stream.
struct Kind {
    name: &'static str,
    hints: &'static str,
    role: Role,
    retry_for: &'static str,
    compression: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Good,
    Moody,
    Late,
    Denying,
}

impl Role {
    /// What its receiver does at first, and when all that can be healed is.
    const fn first_and_healed(self) -> (&'static str, &'static str) {
        match self {
            Self::Good | Self::Moody => ("serve", "serve"),
            Self::Late => ("answer 503", "serve"),
            Self::Denying => ("answer 400", "answer 400"),
        }
    }
}

const KINDS: &[Kind] = &[
    Kind::good("aged", "{ size: 5MiB, interval: 1s }", "gzip"),
    Kind::good("prompt", "{ size: 1MiB, interval: 0s }", "none"),
    Kind { role: Role::Moody, ..Kind::good("moody", "{ size: 1MiB, interval: 0s }", "none") },
    Kind { role: Role::Late, ..Kind::good("late", "{ size: 1MiB, interval: 1s }", "gzip") },
    Kind { role: Role::Denying, retry_for: "0s", ..Kind::good("turned", "{ size: 1MiB, interval: 1s }", "none") },
];

impl Kind {
    const fn good(name: &'static str, hints: &'static str, compression: &'static str) -> Self {
        Self { name, hints, role: Role::Good, retry_for: "forever", compression }
    }

    fn yaml(&self, receiver: &Receiver) -> String {
        let Self { name, hints, retry_for, compression, .. } = self;
        let url = receiver.endpoint();
        format!(
            "  {name}:
    hints: {hints}
    retry_for: {retry_for}
    sink:
      http: {{ url: \"{url}/\", compression: {compression}, timeout: 5s, requests_in_flight: 2 }}
"
        )
    }
}

/// Each kind of stream, to a receiver that is started for it.
pub(super) fn layout(ground: Ground<'_>) -> Result<Layout> {
    let mut receivers = Receivers { random: Random::new(ground.seed), all: Vec::new(), is_late_dead: true };
    let (mut streams, mut plans) = (String::new(), Vec::new());
    for kind in KINDS {
        let folder = ground.scratch.join("received").join(kind.name);
        let mut receiver = Receiver::start(ground.programs, &folder)?;
        receiver.order(kind.role.first_and_healed().0)?;
        let (dead_letter, letters) = letters(ground, kind.name);
        streams.push_str(&(kind.yaml(&receiver) + &dead_letter));
        let takes = kind.role != Role::Denying;
        let places = if takes { vec![json!({ "folder": folder })] } else { Vec::new() };
        plans.push(json!({ "name": kind.name, "places": places, "letters": letters }));
        receivers.all.push((kind.role, receiver));
    }
    let plan = json!({ "seed": ground.seed, "streams": plans });
    Ok(Layout { yaml: format!("stores:\n{}streams:\n{streams}", spare(ground)), plan, misfits: Box::new(receivers) })
}

struct Receivers {
    random: Random,
    all: Vec<(Role, Receiver)>,
    is_late_dead: bool,
}

impl Receivers {
    fn order(&mut self, role: Role, order: &str) -> Result<()> {
        let mut receivers = self.all.iter_mut().filter(|(of, _)| *of == role);
        receivers.try_for_each(|(_, receiver)| receiver.order(order))
    }
}

impl Misfits for Receivers {
    fn turn(&mut self, round: u64, _rounds: u64) -> Result<()> {
        let mood = usize::try_from(self.random.below(MOODS.len() as u64))?;
        self.order(Role::Moody, MOODS.get(mood).copied().unwrap_or("serve"))?;
        let is_dead = (round / LATE_ROUNDS).is_multiple_of(2);
        if is_dead != self.is_late_dead {
            self.order(Role::Late, if is_dead { "answer 503" } else { "serve" })?;
            self.is_late_dead = is_dead;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.all.iter_mut().try_for_each(|(role, receiver)| receiver.order(role.first_and_healed().1))
    }

    fn report(&mut self) -> Result<Value> {
        let (mut requests, mut ids) = (0, 0);
        for (role, receiver) in &mut self.all {
            let seen = receiver.seen()?;
            if seen.violations > 0 {
                bail!("{} requests to the receiver of {role:?} broke the protocol", seen.violations);
            }
            requests += seen.requests;
            ids += seen.ids;
        }
        Ok(json!({ "requests": requests, "request_ids": ids }))
    }
}
