//! No space: appends are refused as long as there is none, and taken again as soon as there is. Nothing is poisoned,
//! unless it is a write that finds none, which allocation should have made impossible.

use hydrant_core::{ByteSize, Position};

use super::world::{World, small};
use crate::files::sim::{Op, SimFiles, Times};
use crate::log::AppendError;
use crate::space::Space;

/// Appends until the log says that it is full; how many requests it took.
fn fill(world: &mut World) -> usize {
    for count in 0..10_000 {
        match world.append(&[vec![3000]]).remove(0) {
            Ok(_) => {}
            Err(AppendError::Full) => return count,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never full");
}

/// Makes the disk so small that the log may take `bytes` of it, besides what must stay free for seals.
fn let_append(world: &World, bytes: u64) {
    world.files.set_capacity(Some((bytes * 16).div_ceil(11)));
}

#[test]
fn a_full_disk_refuses_until_something_is_forgotten() {
    let mut world = World::new(1);
    let_append(&world, 100 << 10);
    for cycle in 0..100 {
        let taken = fill(&mut world);
        assert!(taken > 10, "cycle {cycle}: only {taken}");
        world.check();
        world.forget(world.log().end()).unwrap();
    }
    assert_eq!(world.log().usage().poisoned, None);
}

#[test]
fn a_used_up_share_refuses_until_something_is_forgotten() {
    let mut world = World::on(SimFiles::new(1), small());
    world.share = Space::new(ByteSize::gib(1)).share(ByteSize::kib(128));
    world.open().unwrap();
    for _ in 0..100 {
        assert!(fill(&mut world) > 10);
        let usage = world.log().usage();
        assert_eq!(usage.bytes, world.share.used());
        assert_eq!(usage.bytes, world.files.used());
        world.forget(world.log().end()).unwrap();
    }
    world.files.crash();
    world.open().unwrap();
    world.check();
    assert_eq!(world.share.used(), world.files.used());
}

#[test]
fn a_full_disk_can_be_opened_read_and_drained() {
    let mut world = World::new(1);
    let_append(&world, 100 << 10);
    fill(&mut world);
    // Others have filled the disk meanwhile.
    world.files.set_capacity(Some(0));
    world.files.crash();
    let allocations = world.files.count(Op::Allocate);
    world.open().unwrap();
    world.check();
    assert_eq!(world.files.count(Op::Allocate), allocations, "opening takes no space");
    assert_eq!(world.append(&[vec![10]])[0], Err(AppendError::Full));
    world.forget(world.log().end()).unwrap();
    // Written over a spare file, on a disk that is as full as before.
    world.store(&[3000]);
    world.check();
}

#[test]
fn spare_files_are_given_up_before_an_append_is_refused() {
    let mut world = World::new(1);
    fill_segments(&mut world, 6);
    world.forget(world.log().end()).unwrap();
    let spare = world.log().usage().spare_bytes;
    assert!(spare > 0);
    let_append(&world, world.files.used());
    // Larger than any spare file, so it needs a new one.
    world.store(&[40_000]);
    assert_eq!(world.log().usage().spare_bytes, 0);
    world.check();
}

#[test]
fn when_room_is_short_smaller_segments_are_made() {
    let mut world = World::new(1);
    fill_segments(&mut world, 3);
    let_append(&world, world.files.used() + (12 << 10));
    let before = world.segments().len();
    fill(&mut world);
    assert_eq!(world.segments().len(), before + 1);
    assert_eq!(world.files.bytes(world.segments().last().unwrap()).len(), 8 << 10);
}

/// Appends until there are so many segments.
fn fill_segments(world: &mut World, count: usize) {
    while world.segments().len() < count {
        world.store(&[3000]);
    }
}

#[test]
fn an_empty_log_is_as_small_as_it_can_be() {
    let mut world = World::new(1);
    assert_eq!((world.files.used(), world.log().usage().bytes), (0, 0));
    world.store(&[1]);
    assert_eq!(world.files.used(), 8 << 10);
    assert_eq!(world.log().reader(Position::ZERO).next(100).unwrap().frames.len(), 1);
}

#[test]
fn a_write_that_finds_no_room_in_what_was_allocated_poisons_as_any_failed_write() {
    let mut world = World::new(1);
    world.store(&[100]);
    world.files.fail(Op::Write, 1, Times::Once, std::io::ErrorKind::StorageFull);
    let answers = world.append(&[vec![2000], vec![50]]);
    // Not `Full`: any part of the two may lie there, and a later one that is shorter would not cover it.
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::Unknown(_)))), "{answers:?}");
    assert!(matches!(world.append(&[vec![10]])[0], Err(AppendError::Poisoned(_))));
    world.check();
    world.files.crash();
    world.open().unwrap();
    world.check();
    world.store(&[10]);
}
