//! Any sequence of append, read, forget, crash and reopen keeps every promise.

use std::io::ErrorKind;

use hydrant_core::{ByteSize, Position};
use proptest::collection::vec;
use proptest::prelude::*;

use super::damage::check_log;
use super::world::World;
use crate::files::sim::{Op, Times};

#[derive(Clone, Debug)]
enum Action {
    /// Requests that are stored in one round.
    Append(Vec<Vec<usize>>),
    /// Read all, and check it.
    Check,
    /// Read on where the last one of these stopped.
    Follow,
    /// Forget what lies below this share (of 256) of what is kept.
    Forget(u8),
    /// The process ends with these requests in the queue; the disk keeps all.
    Kill(Vec<Vec<usize>>),
    /// The power fails with these requests in the queue.
    Crash(Vec<Vec<usize>>),
    /// The power fails in the middle of a round: from the n-th operation of a kind on, nothing works any more.
    CrashDuring(Op, u64, Vec<Vec<usize>>),
    /// The same while segments are put away.
    CrashForgetting(Op, u64, u8),
    /// From here on the ledger names all that was read.
    Floor,
}

/// Requests of one to a few records; some of them of one size, so that frames of two lives of a file lie on one
/// another.
fn requests() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let any = vec(0_usize..3000, 1..5);
    let same = Just(vec![1000]);
    vec(prop_oneof![any, same], 1..6)
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let during = prop_oneof![
        Just(Op::Write),
        Just(Op::Sync),
        Just(Op::SyncDir),
        Just(Op::Rename),
        Just(Op::Create),
        Just(Op::Allocate)
    ];
    let forgetting = prop_oneof![Just(Op::Rename), Just(Op::Remove), Just(Op::SyncDir)];
    let action = prop_oneof![
        8 => requests().prop_map(Action::Append),
        2 => Just(Action::Check),
        4 => Just(Action::Follow),
        3 => any::<u8>().prop_map(Action::Forget),
        1 => requests().prop_map(Action::Kill),
        2 => requests().prop_map(Action::Crash),
        3 => (during, 1_u64..5, requests()).prop_map(|(op, nth, requests)| Action::CrashDuring(op, nth, requests)),
        1 => (forgetting, 1_u64..3, any::<u8>()).prop_map(|(op, nth, share)| Action::CrashForgetting(op, nth, share)),
        1 => Just(Action::Floor),
    ];
    vec(action, 1..30)
}

impl World {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Append(requests) => {
                for answer in self.append(requests) {
                    answer.unwrap();
                }
            }
            Action::Check => self.check(),
            Action::Follow => self.follow(),
            Action::Forget(share) => self.forget(self.part(*share)).unwrap(),
            Action::Kill(requests) => {
                self.leave_queued(requests);
                self.files.kill();
                self.reopen();
            }
            Action::Crash(requests) => {
                self.leave_queued(requests);
                self.files.crash();
                self.reopen();
            }
            Action::CrashDuring(op, nth, requests) => {
                self.files.fail(*op, *nth, Times::FromThenOn, ErrorKind::Other);
                self.append(requests);
                self.files.crash();
                self.reopen();
            }
            Action::CrashForgetting(op, nth, share) => {
                self.files.fail(*op, *nth, Times::FromThenOn, ErrorKind::Other);
                self.forget(self.part(*share)).ok();
                self.files.crash();
                self.reopen();
            }
            Action::Floor => {
                self.check();
                self.options.floor = self.log().end();
            }
        }
    }

    fn reopen(&mut self) {
        self.files.heal();
        self.open().unwrap();
        self.check();
        // What was told of must be there after the next power cut too.
        self.files.crash();
        self.open().unwrap();
        self.check();
    }

    /// A position among those that are kept.
    fn part(&self, share: u8) -> Position {
        let (from, to) = (self.forgotten.get(), self.log().end().get());
        Position::new(from + (to.saturating_sub(from)) * u64::from(share) / 255)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_record_is_there_once_in_order_and_nothing_else(
        seed in any::<u64>(),
        actions in actions(),
        memory in prop_oneof![Just(0), 1_u64..30_000],
    ) {
        let mut world = World::new(seed);
        world.memory = ByteSize::bytes(memory);
        world.open().unwrap();
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::Crash(Vec::new()));
    }
}

#[test]
fn a_recycled_segment_never_shows_a_frame_of_its_earlier_life() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut recycled = 0;
        for round in 0..60 {
            // One record to a frame, all frames of one size: old and new ones start at the same places.
            world.store(&[900]);
            if round % 10 == 9 {
                world.forget(world.log().end()).unwrap();
                recycled += world.log().usage().spare_bytes;
            }
            if round % 7 == 6 {
                world.leave_queued(&[vec![900]]);
                let op = if round % 2 == 0 { Op::Sync } else { Op::Write };
                world.files.fail(op, 1 + seed % 3, Times::FromThenOn, ErrorKind::Other);
                world.append(&[vec![900], vec![900]]);
                world.files.crash();
                world.reopen();
            }
        }
        assert!(recycled > 0, "seed {seed}: no segment was written over");
    }
}

/// The negative control: were these tests blind to a missing sync, all of the others would mean nothing.
#[test]
fn on_a_disk_that_only_says_it_syncs_records_are_lost() {
    for lie in [Op::Sync, Op::SyncDir] {
        let is_lossy = |seed: &u64| {
            let mut world = World::new(*seed);
            world.files.lie(lie);
            for _ in 0..8 {
                world.store(&[900, 300]);
            }
            world.files.crash();
            let gone = world.open().is_err() || world.read(Position::FIRST, 1000).records != world.promised;
            assert!(gone || world.lost_at_open.is_empty());
            gone
        };
        let losses = (0..50).filter(is_lossy).count();
        assert!(losses > 25, "{lie:?} was needed in {losses} of 50 runs only");
    }
}

#[test]
fn the_same_seed_and_the_same_calls_leave_the_same_bytes() {
    let run = |seed| {
        let mut world = World::new(seed);
        for length in [10, 3000, 900, 6000, 1] {
            world.store(&[length; 3]);
            world.files.crash();
            world.reopen();
        }
        let paths = world.files.paths();
        let bytes: Vec<_> = paths.iter().map(|path| world.files.bytes(path)).collect();
        (paths, bytes)
    };
    assert_eq!(run(3), run(3));
}

/// The next process sees what the last one did not live to make durable; once an open has told of it, it is for good.
#[test]
fn what_an_open_finds_is_there_after_the_power_failed() {
    let mut cases = 0;
    for op in [Op::Allocate, Op::Write, Op::Sync, Op::Rename, Op::SyncDir, Op::Remove] {
        for nth in 1..6 {
            for seed in 0..30 {
                let mut world = World::new(seed);
                world.store(&[100, 3000]);
                world.files.die(op, nth);
                for _ in 0..6 {
                    world.append(&[vec![3000], vec![2000]]);
                    world.forget(world.log().end()).ok();
                }
                world.files.kill();
                for _ in 0..2 {
                    world.open().unwrap();
                    world.check();
                    world.files.crash();
                }
                world.open().unwrap();
                world.check();
                cases += 1;
            }
        }
    }
    println!("{cases} runs");
}

/// A spare file is written over only when its old name cannot come back, also if the process that put it away did not
/// live to make that durable: else a check would find one segment under the name of another, or half a header.
#[test]
fn a_file_that_is_used_again_never_shows_under_its_old_name() {
    for seed in 0..100 {
        for dies_forgetting in [false, true] {
            for op in [Op::Sync, Op::Rename, Op::SyncDir] {
                let mut world = World::new(seed);
                for _ in 0..6 {
                    world.store(&[3000]);
                }
                // Not all of the newest segment, or an open would put that away too, and sync the folder for it.
                let upto = Position::new(world.log().end().get() - 1);
                if dies_forgetting {
                    world.files.die(Op::SyncDir, 1);
                    world.forget(upto).unwrap_err();
                    world.files.kill();
                    world.open().unwrap();
                } else {
                    world.forget(upto).unwrap();
                }
                world.files.die(op, 1);
                world.append(&[vec![11_000]]).remove(0).unwrap_err(); // more than the newest segment has room for
                world.files.crash();
                let damages = check_log(&world).damages;
                assert!(damages.is_empty(), "{op:?}, seed {seed}, dies forgetting: {dies_forgetting}: {damages:?}");
            }
        }
    }
}
