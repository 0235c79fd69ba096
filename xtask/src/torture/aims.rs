//! Aims: at which crash points the server is to kill itself, how often each was struck, and the mistakes that controls
//! make.
//!
//! The points are those of `storage/src/crash.rs`, which says what each means; a test keeps the lists equal. Every
//! fourth kill is left to chance instead; the others go through all points that the streams come to, in an order of the seed,
//! again and again: first those that only separate pieces come to and those of settling, so that a short run has them.

use std::collections::{BTreeMap, VecDeque};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::Sink;
use crate::random::Random;

/// Which streams come to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    /// All.
    Every,
    /// Those of whole objects.
    Objects,
    /// Those of separate pieces.
    Pieces,
    /// None here: only a disk that is full or damaged brings a server to it, and tests with such disks fail each of its steps.
    Apart,
}

/// Every point, and the most times that a process lets it pass before it dies there: rare ones are struck at once, or
/// the round would wait.
const POINTS: &[(&str, u64, Road)] = &[
    ("append.allocated", 12, Road::Every),
    ("append.headed", 12, Road::Every),
    ("append.named", 12, Road::Every),
    ("append.taken", 200, Road::Every),
    ("append.written", 200, Road::Every),
    ("append.synced", 200, Road::Every),
    ("append.answered", 200, Road::Every),
    ("seal.allocated", 20, Road::Every),
    ("seal.written", 20, Road::Every),
    ("seal.synced", 20, Road::Every),
    ("seal.named", 20, Road::Every),
    ("seal.durable", 20, Road::Every),
    ("draft.allocated", 4, Road::Objects),
    ("draft.written", 8, Road::Objects),
    ("draft.headed", 1, Road::Objects),
    ("reserve.grown", 4, Road::Every),
    ("reserve.shrunk", 4, Road::Every),
    ("reserve.turned", 1, Road::Apart),
    ("answer.told", 6, Road::Pieces),
    ("answer.written", 6, Road::Pieces),
    ("answer.recorded", 6, Road::Pieces),
    ("bury.gathered", 3, Road::Pieces),
    ("bury.synced", 3, Road::Pieces),
    ("bury.named", 3, Road::Pieces),
    ("bury.durable", 3, Road::Pieces),
    ("bury.written", 3, Road::Pieces),
    ("bury.recorded", 3, Road::Pieces),
    ("settle.delivered", 20, Road::Every),
    ("settle.written", 20, Road::Every),
    ("settle.recorded", 20, Road::Every),
    ("settle.unlinked", 20, Road::Every),
    ("redirect.decided", 3, Road::Objects),
    ("redirect.written", 3, Road::Objects),
    ("redirect.recorded", 3, Road::Objects),
    ("redirect.placed", 3, Road::Every),
    ("checkpoint.begun", 6, Road::Every),
    ("checkpoint.written", 6, Road::Every),
    ("checkpoint.synced", 6, Road::Every),
    ("checkpoint.named", 6, Road::Every),
    ("checkpoint.durable", 6, Road::Every),
    ("checkpoint.unlinked", 6, Road::Every),
    ("aside.named", 1, Road::Apart),
    ("aside.durable", 1, Road::Apart),
    ("aside.recorded", 1, Road::Apart),
    ("recycle.listed", 6, Road::Every),
    ("recycle.put-away", 10, Road::Every),
    ("recycle.synced", 6, Road::Every),
    ("open.locked", 1, Road::Every),
    ("open.outbox", 8, Road::Every),
    ("open.ledger", 8, Road::Every),
    ("open.recovered", 8, Road::Every),
    ("open.names", 8, Road::Every),
    ("open.rewritten", 8, Road::Every),
    ("open.streams", 1, Road::Every),
];

/// Every kill whose number can be divided by this is left to chance.
const CHANCE_EVERY: u64 = 4;

/// A point and at which time the process dies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    pub(super) point: &'static str,
    times: u64,
}

impl Aim {
    /// What the server is told.
    pub(super) fn variable(&self) -> (&'static str, String) {
        ("HYDRANT_CRASH_AT", format!("{}:{}", self.point, self.times))
    }
}

/// What is aimed at next, and what was struck.
#[derive(Debug)]
pub(super) struct Aims {
    control: Option<Control>,
    points: Vec<(&'static str, u64)>,
    coming: VecDeque<(&'static str, u64)>,
    struck: BTreeMap<&'static str, u64>,
    chance: u64,
    missed: u64,
}

impl Aims {
    /// Aims at all points that streams to this kind of destination come to, or at that of a control.
    pub(super) fn new(sink: Sink, control: Option<Control>) -> Self {
        let others = if sink == Sink::Objects { Road::Pieces } else { Road::Objects };
        let is_ours = |road: &Road| ![others, Road::Apart].contains(road);
        let points = POINTS.iter().filter(|(.., road)| is_ours(road)).map(|(point, most, _)| (*point, *most)).collect();
        Self { control, points, coming: VecDeque::new(), struck: BTreeMap::new(), chance: 0, missed: 0 }
    }

    /// Kills that strike every point once, with those between that are left to chance.
    pub(super) fn rounds_for_all(&self) -> u64 {
        let points = self.points.len() as u64;
        points + points.div_ceil(CHANCE_EVERY - 1)
    }

    /// The aim of a round, counted from 1; none when the kill is left to chance.
    pub(super) fn of_round(&mut self, round: u64, random: &mut Random) -> Option<Aim> {
        if let Some(control) = self.control {
            let (point, most) = control.aim()?;
            return Some(Aim { point, times: 1 + random.below(most) });
        }
        if round.is_multiple_of(CHANCE_EVERY) {
            return None;
        }
        if self.coming.is_empty() {
            let mut points = self.points.clone();
            random.shuffle(&mut points);
            points.sort_by_key(|(point, _)| !is_of_pieces(point)); // stable: each part keeps its order of the seed
            self.coming.extend(points);
        }
        let (point, most) = self.coming.pop_front()?;
        Some(Aim { point, times: 1 + random.below(most) })
    }

    /// The process died where it was to.
    pub(super) fn struck(&mut self, aim: &Aim) {
        *self.struck.entry(aim.point).or_default() += 1;
    }

    /// The process was killed at a moment left to chance.
    pub(super) fn by_chance(&mut self) {
        self.chance += 1;
    }

    /// The process did not come to its point in time and was killed elsewhere. The next rounds try again, at once.
    pub(super) fn missed(&mut self, aim: &Aim) {
        self.missed += 1;
        self.coming.push_front((aim.point, 1));
    }

    /// Points that were never struck, when there were rounds enough for all.
    pub(super) fn never_struck(&self, rounds: u64) -> Vec<&'static str> {
        if self.control.is_some() || rounds < self.rounds_for_all() {
            return Vec::new();
        }
        self.points.iter().map(|(point, _)| *point).filter(|point| !self.struck.contains_key(point)).collect()
    }

    /// Kills by station and point, for the result.
    pub(super) fn counts(&self) -> Value {
        let mut stations: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for (point, kills) in &self.struck {
            let (station, step) = point.split_once('.').unwrap_or((point, ""));
            stations.entry(station).or_default().insert(step, *kills);
        }
        json!({ "stations": stations, "chance": self.chance, "missed": self.missed })
    }

    /// The same for people, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut stations: Vec<(&str, u64, Vec<String>)> = Vec::new();
        for (point, ..) in POINTS {
            let Some(kills) = self.struck.get(point) else { continue };
            let (station, step) = point.split_once('.').unwrap_or((point, ""));
            match stations.last_mut().filter(|last| last.0 == station) {
                Some((_, sum, steps)) => {
                    *sum += kills;
                    steps.push(format!("{step} {kills}"));
                }
                None => stations.push((station, *kills, vec![format!("{step} {kills}")])),
            }
        }
        let mut lines: Vec<String> =
            stations.iter().map(|(station, sum, steps)| format!("{station} {sum}: {}", steps.join(", "))).collect();
        lines.push(format!("chance {}; aims that missed {}", self.chance, self.missed));
        lines
    }
}

/// Whether a point lies between what a destination of separate pieces says and the end of their batch.
fn is_of_pieces(point: &str) -> bool {
    ["answer", "bury", "settle"].iter().any(|station| point.split_once('.').is_some_and(|(of, _)| of == *station))
}

/// A mistake that the server is told to make, and that the oracle must report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Control {
    /// Producers are answered, and their records written a little later.
    AcknowledgeBeforeWrite,
    /// An object is placed before its batch file is there.
    SendBeforeSeal,
    /// A batch file is unlinked before the ledger knows that nothing of it is owed.
    UnlinkBeforeSettled,
    /// Rows count as delivered though PostgreSQL did not say so.
    SettleUnconfirmed,
    /// The rows that are left of a batch are sent again before the ledger knows which were refused.
    AttemptBeforeAnswered,
}

impl Control {
    /// Where the streams deliver to.
    pub(super) fn sink(self) -> Sink {
        match self {
            Self::AcknowledgeBeforeWrite | Self::SendBeforeSeal | Self::UnlinkBeforeSettled => Sink::Objects,
            Self::SettleUnconfirmed | Self::AttemptBeforeAnswered => Sink::Postgres,
        }
    }

    /// What the server is told.
    pub(super) fn variable(self) -> (&'static str, String) {
        ("HYDRANT_SLIP", self.name().to_owned())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeWrite => "acknowledge-before-write",
            Self::SendBeforeSeal => "send-before-seal",
            Self::UnlinkBeforeSettled => "unlink-before-settled",
            Self::SettleUnconfirmed => "settle-unconfirmed",
            Self::AttemptBeforeAnswered => "attempt-before-answered",
        }
    }

    /// Where a kill shows the mistake; none where it is seen at any moment.
    fn aim(self) -> Option<(&'static str, u64)> {
        match self {
            Self::AcknowledgeBeforeWrite => Some(("append.taken", 5)),
            Self::SendBeforeSeal => Some(("settle.delivered", 3)),
            Self::UnlinkBeforeSettled => Some(("settle.unlinked", 3)),
            Self::SettleUnconfirmed => None,
            Self::AttemptBeforeAnswered => Some(("answer.told", 3)),
        }
    }

    /// What the oracle must count of it, any of these.
    pub(super) fn faults(self) -> &'static [&'static str] {
        match self {
            Self::AcknowledgeBeforeWrite | Self::SettleUnconfirmed | Self::AttemptBeforeAnswered => &["lost"],
            Self::SendBeforeSeal => &["duplicated"],
            Self::UnlinkBeforeSettled => &["lost", "duplicated"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_those_of_the_server() {
        let source = include_str!("../../../storage/src/crash.rs");
        let is_point = |name: &&str| {
            name.split_once('.').is_some_and(|(station, step)| {
                !step.is_empty() && (station.to_owned() + step).chars().all(|c| c == '-' || c.is_ascii_lowercase())
            })
        };
        let named: Vec<&str> = source
            .lines()
            .filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""))
            .map(|(_, name)| name)
            .filter(is_point)
            .collect();
        let ours: Vec<&str> = POINTS.iter().map(|(point, ..)| *point).collect();
        assert_eq!(named, ours);
    }

    #[test]
    fn every_point_is_aimed_at_once_before_one_is_aimed_at_again() {
        for sink in [Sink::Objects, Sink::Postgres] {
            let (mut aims, mut random) = (Aims::new(sink, None), Random::new(7));
            let rounds = aims.rounds_for_all();
            for round in 1..=rounds {
                if let Some(aim) = aims.of_round(round, &mut random) {
                    aims.struck(&aim);
                }
            }
            assert_eq!(aims.never_struck(rounds), Vec::<&str>::new());
            assert!(aims.struck.values().filter(|kills| **kills > 1).count() <= 1, "{aims:?}");
        }
    }

    #[test]
    fn a_short_run_with_pieces_strikes_between_commit_and_settle() {
        let (mut aims, mut random) = (Aims::new(Sink::Postgres, None), Random::new(7));
        let aimed: Vec<Aim> = (1..=5).filter_map(|round| aims.of_round(round, &mut random)).collect();
        assert!(aimed.iter().all(|aim| is_of_pieces(aim.point)), "{aimed:?}");
    }

    #[test]
    fn a_missed_point_comes_again_at_once() {
        let (mut aims, mut random) = (Aims::new(Sink::Objects, None), Random::new(7));
        let aim = aims.of_round(1, &mut random).unwrap();
        aims.missed(&aim);
        assert_eq!(aims.of_round(2, &mut random), Some(Aim { point: aim.point, times: 1 }));
    }
}
