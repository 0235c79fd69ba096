//! Each operation of a run fails, one after the other: nothing is acknowledged that is not safe, a poisoned log stays
//! poisoned, and what was acknowledged is there when the log is opened again.

use std::io::ErrorKind;

use super::world::World;
use crate::files::sim::{Op, SimFiles, Times};
use crate::log::AppendError;
use crate::log::tests::world::small;

/// Opens, appends over several segments, forgets, appends into spare files. Stops at nothing.
fn run(world: &mut World) {
    if world.open().is_err() {
        return;
    }
    for turn in 0..4 {
        for _ in 0..9 {
            let answers = world.append(&[vec![1500, 0, 700], vec![2000], vec![100; 5]]);
            check_answers(world, &answers);
        }
        if turn % 2 == 1 {
            world.forget(world.log().end()).ok();
        }
    }
}

/// Whether a log that said no to anything because of its disk keeps to it.
fn check_answers(world: &mut World, answers: &[Result<hydrant_core::Span, AppendError>]) {
    let doubts =
        |answer: &Result<_, AppendError>| matches!(answer, Err(AppendError::Unknown(_) | AppendError::Poisoned(_)));
    let Some(first) = answers.iter().position(doubts) else { return };
    assert!(answers[first..].iter().all(Result::is_err), "an acknowledgement after a failed write or sync");
    let syncs = (world.files.count(Op::Sync), world.files.count(Op::Write));
    let again = world.append(&[vec![10], vec![20]]);
    assert!(again.iter().all(|answer| matches!(answer, Err(AppendError::Poisoned(_)))), "{again:?}");
    assert_eq!((world.files.count(Op::Sync), world.files.count(Op::Write)), syncs, "tried again");
    assert!(world.log().usage().poisoned.is_some());
}

#[test]
fn whichever_operation_fails_what_was_acknowledged_is_there_after_the_restart() {
    let mut cases = 0;
    for op in Op::CHANGES.into_iter().chain([Op::List, Op::Open, Op::Len, Op::Read]) {
        for times in [Times::Once, Times::FromThenOn] {
            let mut nth = 0;
            loop {
                nth += 1;
                cases += 1;
                let mut world = World::on(SimFiles::new(nth), small());
                world.files.fail(op, nth, times, ErrorKind::Other);
                run(&mut world);
                let hit = world.files.count(op) >= nth;
                world.files.heal();
                for seed in 0..4 {
                    let mut world = world.fork(seed);
                    if seed > 0 {
                        world.files.crash();
                    }
                    world.open().unwrap();
                    world.check();
                    world.store(&[100]);
                    world.check();
                    // What the kernel only seemed to have kept would be gone now.
                    world.files.crash();
                    world.open().unwrap();
                    world.check();
                }
                if !hit {
                    break;
                }
            }
            let idle = [Op::Truncate, Op::Open, Op::Len, Op::Read];
            assert!(nth > 1 || idle.contains(&op), "{op:?} is never used");
        }
    }
    println!("{cases} runs, in each of which another operation failed, each opened again four times");
}

#[test]
fn an_open_that_fails_half_way_harms_nothing_and_can_be_made_again() {
    for op in Op::CHANGES.into_iter().chain([Op::List, Op::Open, Op::Len, Op::Read]) {
        for nth in 1..30 {
            let mut world = World::new(nth);
            run(&mut world);
            world.files.crash();
            world.files.fail(op, nth, Times::FromThenOn, ErrorKind::Other);
            let outcome = world.open();
            world.files.heal();
            if outcome.is_err() {
                world.files.crash();
                world.open().unwrap();
            }
            world.check();
        }
    }
}

#[test]
fn readers_see_nothing_whose_sync_failed() {
    let mut world = World::new(1);
    world.store(&[10]);
    world.files.fail(Op::Sync, 1, Times::Once, ErrorKind::Other);
    let answers = world.append(&[vec![20]]);
    assert!(matches!(answers[0], Err(AppendError::Unknown(_))), "{answers:?}");
    assert_eq!(world.read(world.forgotten, 1000).records.len(), 1);
    // The page cache still has the frame, so the next process finds it, and makes it durable before it tells.
    world.files.kill();
    world.open().unwrap();
    world.check();
    world.files.crash();
    world.open().unwrap();
    world.check();
}

#[test]
fn a_folder_whose_sync_failed_is_not_synced_again_by_anybody() {
    let mut world = World::new(1);
    world.store(&[10]);
    let rack = &world.log().shared.rack;
    world.files.fail(Op::SyncDir, 1, Times::Once, ErrorKind::Other);
    rack.sync_dir().unwrap_err();
    let asked = world.files.count(Op::SyncDir);
    rack.sync_dir().unwrap_err();
    assert_eq!(world.files.count(Op::SyncDir), asked);
    // A commit that needs a new segment just then must not rely on a later sync of the folder.
    let answers = world.append(&[vec![9000]]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::Poisoned(_)))), "{answers:?}");
}

#[test]
fn a_failed_sync_of_the_folder_poisons_and_a_failed_rename_does_not() {
    let mut world = World::new(1);
    world.files.fail(Op::Rename, 1, Times::Once, ErrorKind::Other);
    assert!(matches!(world.append(&[vec![10]])[0], Err(AppendError::Unavailable(_))));
    world.store(&[10]);
    world.store(&[9000]);
    let upto = world.log().end();
    world.files.fail(Op::Rename, 1, Times::Once, ErrorKind::Other);
    world.forget(upto).unwrap_err();
    world.forget(upto).unwrap();
    world.store(&[9000]);
    world.store(&[9000]);
    world.files.fail(Op::SyncDir, 1, Times::Once, ErrorKind::Other);
    world.forget(world.log().end()).unwrap_err();
    assert!(matches!(world.append(&[vec![10]])[0], Err(AppendError::Poisoned(_))));
    world.files.crash();
    world.open().unwrap();
    world.check();
}
