//! Goal: log, outbox and ledger together lose nothing that was acknowledged, seal nothing twice, put no dead letter back
//! twice, and give a settled batch back never, whatever sequence of work, faults and crashes they go through. Method: one lane, as the stream
//! loops drive it but as small as can be, on the simulated disk, beside a model that only remembers what it was told.

mod damage;
mod lane;
mod model;

use proptest::prelude::*;

use crate::files::sim::{Op, SimFiles, Times};
use lane::World;

/// One step of a run.
#[derive(Clone, Debug)]
enum Action {
    /// Puts that many records in one request.
    Append(usize),
    /// Puts so many of the next dead letters of an object back, in one request.
    Redrive(u8, usize),
    /// Reads about that many bytes of the log.
    Read(usize),
    /// Seals what was read and lies at positions of one remainder, so that batches have holes.
    Seal { every: u64, rest: u64 },
    /// Delivers and settles one of the owed batches.
    Settle(usize),
    /// Sends one of them to the dead letters instead, for good.
    Redirect(usize),
    /// Makes removals durable.
    SyncRemovals,
    /// Writes a checkpoint and lets the log forget.
    Checkpoint,
    /// The process is killed.
    Kill,
    /// The power fails.
    Crash,
    /// The nth operation from now fails, once or from then on, until the next start.
    Fail(Op, u64, Times),
    /// The disk has room for that many bytes more, or for as many as one likes.
    Room(Option<u64>),
}

fn action() -> impl Strategy<Value = Action> {
    let op = prop::sample::select(Op::CHANGES.to_vec());
    let times = prop::sample::select(vec![Times::Once, Times::FromThenOn]);
    prop_oneof![
        8 => (1_usize..20).prop_map(Action::Append),
        3 => (0_u8..3, 1_usize..20).prop_map(|(object, count)| Action::Redrive(object, count)),
        6 => (1_usize..8000).prop_map(Action::Read),
        6 => (1_u64..4, 0_u64..4).prop_map(|(every, rest)| Action::Seal { every, rest: rest % every }),
        5 => (0_usize..8).prop_map(Action::Settle),
        1 => (0_usize..8).prop_map(Action::Redirect),
        2 => Just(Action::SyncRemovals),
        3 => Just(Action::Checkpoint),
        1 => Just(Action::Kill),
        2 => Just(Action::Crash),
        1 => (op, 1_u64..6, times).prop_map(|(op, nth, times)| Action::Fail(op, nth, times)),
        1 => prop::option::of(0_u64..400_000).prop_map(Action::Room),
    ]
}

fn run(seed: u64, actions: &[Action]) {
    let mut world = World::new(SimFiles::new(seed));
    for action in actions {
        world.step(action);
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_sealed_twice_or_comes_back(seed: u64, actions in prop::collection::vec(action(), 1..150)) {
        run(seed, &actions);
    }
}

/// A run that does everything once or more, and nothing unexpected.
fn plain_run() -> Vec<Action> {
    let mut actions = Vec::new();
    for round in 0..4 {
        actions.extend([
            Action::Append(12),
            Action::Append(7),
            Action::Redrive(round % 2, 5),
            Action::Read(3000),
            Action::Seal { every: 2, rest: u64::from(round % 2) },
            Action::Settle(0),
            Action::Read(20_000),
            Action::Seal { every: 3, rest: u64::from(round % 3) },
            Action::Redirect(0),
            Action::Checkpoint,
            Action::Redrive(round % 2, 3),
            Action::Seal { every: 1, rest: 0 },
            Action::Settle(1),
            Action::SyncRemovals,
            Action::Checkpoint,
        ]);
    }
    actions
}

#[test]
fn any_one_operation_of_a_run_may_fail() {
    let runs: [fn() -> Vec<Action>; 2] = [plain_run, || [plain_run(), vec![Action::Kill], plain_run()].concat()];
    let ops: Vec<Op> = Op::CHANGES.into_iter().chain([Op::List, Op::Open, Op::Len, Op::Read]).collect();
    let mut cases = 0;
    for run in runs {
        let mut world = World::new(SimFiles::new(1));
        world.run(&run());
        for &op in &ops {
            let count = world.files.count(op);
            assert!(count > 0 || op == Op::Truncate, "{op:?} is never used");
            for nth in 1..=count {
                for times in [Times::Once, Times::FromThenOn] {
                    let mut world = World::new(SimFiles::new(nth));
                    world.fail(op, nth, times);
                    world.run(&run());
                    world.finish();
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} runs, in each of which another operation failed");
}

/// What a process did not live to make durable is seen by the next one, and must not be acted on before it is: the power
/// may fail soon after.
#[test]
fn the_process_may_die_before_any_operation_of_a_run_and_the_power_fail_soon_after() {
    let counted = {
        let mut world = World::new(SimFiles::new(1));
        world.run(&plain_run());
        Op::CHANGES.map(|op| (op, world.files.count(op)))
    };
    let mut cases = 0;
    for (op, count) in counted {
        for nth in 1..=count {
            for power_fails_after in 0..4_usize {
                let mut world = World::new(SimFiles::new(nth * 4 + power_fails_after as u64));
                world.files.die(op, nth);
                let mut steps = plain_run().into_iter();
                while world.deaths == 0
                    && let Some(action) = steps.next()
                {
                    world.step(&action);
                }
                steps.by_ref().take(power_fails_after).for_each(|action| world.step(&action));
                world.step(&Action::Crash);
                steps.for_each(|action| world.step(&action));
                world.finish();
                cases += 1;
            }
        }
    }
    println!("{cases} runs, in each of which the process died somewhere else");
}

#[test]
fn the_power_may_fail_before_any_operation_of_a_run() {
    let length = plain_run().len();
    for at in 0..length {
        for seed in 0..6 {
            let mut actions = plain_run();
            actions.insert(at, Action::Crash);
            run(seed, &actions);
        }
    }
}

#[test]
fn a_disk_that_fills_up_at_any_moment_is_drained_when_there_is_room_again() {
    for room in (0..600_000).step_by(40_000) {
        let mut actions = vec![Action::Room(Some(room))];
        actions.extend(plain_run());
        actions.push(Action::Room(None));
        actions.extend(plain_run());
        run(room, &actions);
    }
}

/// Hundreds of streams may be declared, most of them idle: what each takes of the disk has a bound.
#[test]
fn an_idle_stream_takes_little_disk_declared_or_used() {
    let files = SimFiles::new(1);
    let mut world = World::with_usual_sizes(files.clone());
    world.step(&Action::Kill); // nothing is open yet
    world.step(&Action::SyncRemovals);
    println!("declared: {} KiB", files.used() >> 10);
    assert!(files.used() <= 160 << 10, "{} bytes of an idle stream", files.used());
    for action in [
        Action::Append(10),
        Action::Read(10_000),
        Action::Seal { every: 1, rest: 0 },
        Action::Settle(0),
        Action::SyncRemovals,
        Action::Checkpoint,
        Action::SyncRemovals,
    ] {
        world.step(&action);
    }
    println!("used once: {} KiB", files.used() >> 10);
    assert!(files.used() <= 1200 << 10, "{} bytes of a stream that was used once", files.used());
    world.finish();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut world = World::new(SimFiles::new(seed));
        plain_run().iter().chain([&Action::Crash]).chain(&plain_run()).for_each(|action| world.step(action));
        (world.files.trace(), world.files.paths().iter().map(|path| world.files.bytes(path)).collect::<Vec<_>>())
    };
    assert_eq!(trace(5), trace(5));
}
