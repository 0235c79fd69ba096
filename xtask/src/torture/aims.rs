//! Aims: at which crash points the server is to kill itself, how often each was struck, and the mistakes that controls
//! make.
//!
//! The points are those of `storage/src/crash.rs`, which says what each means; a test keeps the lists equal. Every
//! fourth kill is left to chance instead; the others go through all points in an order of the seed, again and again.

use std::collections::{BTreeMap, VecDeque};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::random::Random;

/// Every point, and the most times that a process lets it pass before it dies there: rare ones are struck at once, or
/// the round would wait.
const POINTS: &[(&str, u64)] = &[
    ("append.allocated", 12),
    ("append.headed", 12),
    ("append.named", 12),
    ("append.taken", 200),
    ("append.written", 200),
    ("append.synced", 200),
    ("append.answered", 200),
    ("seal.allocated", 20),
    ("seal.written", 20),
    ("seal.synced", 20),
    ("seal.named", 20),
    ("seal.durable", 20),
    ("settle.delivered", 20),
    ("settle.written", 20),
    ("settle.recorded", 20),
    ("settle.unlinked", 20),
    ("redirect.decided", 3),
    ("redirect.written", 3),
    ("redirect.recorded", 3),
    ("redirect.placed", 3),
    ("checkpoint.begun", 6),
    ("checkpoint.written", 6),
    ("checkpoint.synced", 6),
    ("checkpoint.named", 6),
    ("checkpoint.durable", 6),
    ("checkpoint.unlinked", 6),
    ("recycle.listed", 6),
    ("recycle.put-away", 10),
    ("recycle.synced", 6),
    ("open.locked", 1),
    ("open.outbox", 8),
    ("open.ledger", 8),
    ("open.recovered", 8),
    ("open.names", 8),
    ("open.rewritten", 8),
    ("open.streams", 1),
];

/// Every kill whose number can be divided by this is left to chance.
const CHANCE_EVERY: u64 = 4;

/// Kills that strike every point once, with those between that are left to chance.
pub(super) fn rounds_for_all() -> u64 {
    let points = POINTS.len() as u64;
    points + points.div_ceil(CHANCE_EVERY - 1)
}

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
    coming: VecDeque<(&'static str, u64)>,
    struck: BTreeMap<&'static str, u64>,
    chance: u64,
    missed: u64,
}

impl Aims {
    pub(super) fn new(control: Option<Control>) -> Self {
        Self { control, coming: VecDeque::new(), struck: BTreeMap::new(), chance: 0, missed: 0 }
    }

    /// The aim of a round, counted from 1; none when the kill is left to chance.
    pub(super) fn of_round(&mut self, round: u64, random: &mut Random) -> Option<Aim> {
        if let Some(control) = self.control {
            let (point, most) = control.aim();
            return Some(Aim { point, times: 1 + random.below(most) });
        }
        if round.is_multiple_of(CHANCE_EVERY) {
            return None;
        }
        if self.coming.is_empty() {
            let mut points = POINTS.to_vec();
            random.shuffle(&mut points);
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
        if self.control.is_some() || rounds < rounds_for_all() {
            return Vec::new();
        }
        POINTS.iter().map(|(point, _)| *point).filter(|point| !self.struck.contains_key(point)).collect()
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
        for (point, _) in POINTS {
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

/// A mistake that the server is told to make, and that the oracle must report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Control {
    /// Producers are answered, and their records written a little later.
    AcknowledgeBeforeWrite,
    /// An object is placed before its batch file is there.
    SendBeforeSeal,
    /// A batch file is unlinked before the ledger knows that nothing of it is owed.
    UnlinkBeforeSettled,
}

impl Control {
    /// What the server is told.
    pub(super) fn variable(self) -> (&'static str, String) {
        ("HYDRANT_SLIP", self.name().to_owned())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeWrite => "acknowledge-before-write",
            Self::SendBeforeSeal => "send-before-seal",
            Self::UnlinkBeforeSettled => "unlink-before-settled",
        }
    }

    /// Where a kill shows the mistake.
    fn aim(self) -> (&'static str, u64) {
        match self {
            Self::AcknowledgeBeforeWrite => ("append.taken", 5),
            Self::SendBeforeSeal => ("settle.delivered", 3),
            Self::UnlinkBeforeSettled => ("settle.unlinked", 3),
        }
    }

    /// What the oracle must count of it, any of these.
    pub(super) fn faults(self) -> &'static [&'static str] {
        match self {
            Self::AcknowledgeBeforeWrite => &["lost"],
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
        let ours: Vec<&str> = POINTS.iter().map(|(point, _)| *point).collect();
        assert_eq!(named, ours);
    }

    #[test]
    fn every_point_is_aimed_at_once_before_one_is_aimed_at_again() {
        let (mut aims, mut random) = (Aims::new(None), Random::new(7));
        for round in 1..=rounds_for_all() {
            if let Some(aim) = aims.of_round(round, &mut random) {
                aims.struck(&aim);
            }
        }
        assert_eq!(aims.never_struck(rounds_for_all()), Vec::<&str>::new());
        assert!(aims.struck.values().filter(|kills| **kills > 1).count() <= 1, "{aims:?}");
    }

    #[test]
    fn a_missed_point_comes_again_at_once() {
        let (mut aims, mut random) = (Aims::new(None), Random::new(7));
        let aim = aims.of_round(1, &mut random).unwrap();
        aims.missed(&aim);
        assert_eq!(aims.of_round(2, &mut random), Some(Aim { point: aim.point, times: 1 }));
    }
}
