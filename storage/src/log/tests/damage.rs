//! Media damage: every byte of a small log flipped, every file cut at every length, files missing, swapped, doubled.
//! What was acknowledged is read, or reported with its range; what is whole is delivered; nothing panics.

use std::path::Path;

use hydrant_core::Position;

use super::world::{DIR, Read, World};
use crate::files::Files;
use crate::files::sim::{Op, Times};
use crate::log::{AppendError, Checked, Known, check};

/// Three requests to a segment, two segments, closed as a process that is killed leaves them.
fn written() -> World {
    let mut world = World::new(1);
    for _ in 0..5 {
        world.append(&[vec![400, 0, 300], vec![900]]);
    }
    assert_eq!(world.segments().len(), 2);
    world
}

/// Opens the damaged copy and reads it; what is missing must be reported.
fn read(world: &mut World) -> Read {
    world.open().unwrap();
    let before = world.promised.clone();
    let read = world.check_but_for_losses();
    assert_eq!(before, world.promised, "something was invented");
    read
}

/// What checking says of the log on this disk, without changing it.
pub(super) fn check_log(world: &World) -> Checked {
    let known = Known { forgotten: world.forgotten, floor: world.options.floor };
    let before = world.files.trace().len();
    let checked = check(Path::new(DIR), world.options.incarnation, Some(known), &world.files).unwrap();
    let changes = |(op, _): &(Op, _)| Op::CHANGES.contains(op);
    assert!(!world.files.trace()[before..].iter().any(changes), "checking writes nothing");
    checked
}

fn missing(world: &World, read: &Read) -> Vec<Position> {
    world.promised.keys().filter(|position| !read.records.contains_key(position)).copied().collect()
}

#[test]
fn a_flipped_byte_costs_one_request_at_most_and_its_range_is_reported() {
    let origin = written();
    let (mut harmless, mut costly) = (0, 0);
    for path in origin.segments() {
        for at in 0..origin.files.bytes(&path).len() {
            for mask in [1, 0xFF] {
                let mut world = origin.fork(0);
                world.files.damage(&path, |bytes| bytes[at] ^= mask);
                let read = read(&mut world);
                let missing = missing(&world, &read);
                let place = format!("byte {at} of {}", path.display());
                assert!(missing.len() <= 3, "{place} cost {missing:?}");
                let lost: u64 = read.lost.iter().map(|lost| lost.span.count()).sum();
                assert_eq!(lost, missing.len() as u64, "{place}: {:?}", read.lost);
                if missing.is_empty() {
                    harmless += 1;
                } else {
                    costly += 1;
                }
                let span = world.store(&[10]);
                assert!(world.promised.keys().all(|position| *position <= span.first), "{place}");
            }
        }
    }
    // Two headers, paddings and unused room do no harm; everything else does.
    assert!(costly > 2 * 5 * 1500 && harmless > 2 * 4096, "{costly} {harmless}");
    println!("{} flipped bytes", costly + harmless);
}

#[test]
fn a_file_cut_at_any_length_loses_what_was_behind_and_says_so() {
    let origin = written();
    let segments = origin.segments();
    let mut cases = 0;
    for (number, path) in segments.iter().enumerate() {
        for len in 0..origin.files.bytes(path).len() {
            for ledger_knows in [true, false] {
                let mut world = origin.fork(0);
                world.files.damage(path, |bytes| bytes.truncate(len));
                if ledger_knows {
                    world.options.floor = world.promised.last_key_value().unwrap().0.plus(1);
                }
                let is_newest = number + 1 == segments.len();
                world.open().unwrap();
                if is_newest && !ledger_knows {
                    // Nobody knows how much was behind the cut, but that there was something is seen and said.
                    let read = world.read(world.forgotten, 3000);
                    let lost = missing(&world, &read);
                    let unknown = world.lost_at_open.iter().any(|lost| lost.span.is_empty());
                    let unreported = lost.iter().any(|position| !read.loses(*position));
                    assert!(unknown || !unreported, "cut at {len}: {lost:?}");
                    assert!(read.records.iter().all(|(position, record)| world.promised[position] == *record));
                } else {
                    let read = read(&mut world);
                    assert!(missing(&world, &read).iter().all(|position| read.loses(*position)));
                }
                let span = world.append(&[vec![10]]).remove(0).unwrap();
                assert!(world.promised.keys().all(|position| *position <= span.first), "cut at {len}");
                cases += 1;
            }
        }
    }
    println!("{cases} cuts");
}

#[test]
fn a_missing_segment_is_lost_with_its_range() {
    let mut origin = written();
    origin.store(&[9000]);
    for (number, path) in origin.segments().iter().enumerate() {
        let mut world = origin.fork(0);
        world.options.floor = origin.log().end();
        world.files.remove(path).unwrap();
        world.files.sync_dir(Path::new(DIR)).unwrap();
        let read = read(&mut world);
        let missing = missing(&world, &read);
        assert!(!missing.is_empty());
        assert_eq!(read.lost.len(), 1, "segment {number}: {:?}", read.lost);
        assert_eq!(read.lost[0].span.count(), missing.len() as u64);
        // Only the newest segment is read at the open, so one that is missing between two is found when it is read.
        let at_open: Vec<_> = world.lost_at_open.iter().map(|lost| lost.span).collect();
        assert_eq!(at_open, if number == 1 { vec![] } else { vec![read.lost[0].span] });
    }
}

#[test]
fn a_log_whose_files_are_all_gone_says_what_it_misses() {
    let mut world = written();
    world.options.floor = world.log().end();
    for path in world.segments() {
        world.files.remove(&path).unwrap();
    }
    let read = read(&mut world);
    assert_eq!(missing(&world, &read).len(), world.promised.len());
    assert_eq!(world.store(&[1]).first, world.options.floor);
}

#[test]
fn swapped_and_doubled_segments_are_read_by_what_stands_in_them() {
    let mut world = written();
    let [first, second] = world.segments().try_into().unwrap();
    let aside = Path::new(DIR).join("aside");
    for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
        world.files.rename(from, to).unwrap();
    }
    let copy = Path::new(DIR).join("00000000000000000777.log");
    let bytes = world.files.bytes(&first);
    world.files.create(&copy).unwrap().write_at(0, &[std::io::IoSlice::new(&bytes)]).unwrap();
    world.open().unwrap();
    world.check();
    world.store(&[9000]);
    world.check();
    world.forget(world.log().end()).unwrap();
    world.store(&[9000]);
    world.check();
}

#[test]
fn damage_below_the_newest_segment_is_found_by_the_reader_that_comes_by() {
    let mut world = written();
    let first = &world.segments()[0];
    world.files.damage(first, |bytes| bytes[4096..].fill(0xA5));
    world.open().unwrap();
    assert_eq!(world.lost_at_open, []);
    let read = world.check_but_for_losses();
    assert!(!read.lost.is_empty());
    let after = read.lost[0].span.end;
    assert!(world.read(after, 1000).lost.is_empty(), "damage is told once to a reader that is past it");
}

#[test]
fn a_wholly_unreadable_header_loses_its_segment_and_no_position_is_used_again() {
    for newest in [false, true] {
        let mut world = written();
        let segments = world.segments();
        let path = if newest { &segments[1] } else { &segments[0] };
        world.files.damage(path, |bytes| bytes[..4096].fill(0));
        let read = read(&mut world);
        assert_eq!(read.lost.len(), 1);
        world.store(&[10]);
    }
}

#[test]
fn a_segment_of_another_stream_or_another_layout_is_refused() {
    let world = written();
    let mut other = world.fork(0);
    other.options.incarnation += 1;
    assert!(matches!(other.open(), Err(crate::log::OpenError::OtherStream { .. })));
    let mut newer = world.fork(0);
    newer.files.damage(&newer.segments()[0], |bytes| {
        for copy in [0, 2048] {
            bytes[copy + 8] = 9;
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[copy..copy + 60]);
            bytes[copy + 60..copy + 64].copy_from_slice(&u32::try_from(crc).unwrap().to_le_bytes());
        }
    });
    let Err(error) = newer.open() else { panic!("a newer layout was read") };
    assert!(error.to_string().contains("layout 9"), "{error}");
}

#[test]
fn checking_finds_every_damage_and_its_place_and_changes_nothing() {
    let origin = written();
    let whole = check_log(&origin);
    assert_eq!((whole.segments, whole.records), (2, origin.promised.len() as u64));
    assert!(whole.damages.is_empty(), "{:?}", whole.damages);
    for path in origin.segments() {
        for at in (0..64).chain(2048..2112).chain(4096..origin.files.bytes(&path).len()) {
            let mut world = origin.fork(0);
            world.files.damage(&path, |bytes| bytes[at] ^= 0x10);
            let checked = check_log(&world);
            let costs = checked.records < whole.records;
            assert_eq!(checked.damages.is_empty(), at >= 4096 && !costs, "byte {at}: {:?}", checked.damages);
            assert!(checked.damages.iter().all(|damage| damage.path == path));
            if at % 64 == 0 {
                let read = read(&mut world);
                assert_eq!(checked.records, read.records.len() as u64, "byte {at}");
            }
        }
    }
    let world = origin.fork(0);
    world.files.remove(&world.segments()[0]).unwrap();
    assert_eq!(check_log(&world).damages[0].what, "records 1..9: no segment holds these records");
}

#[test]
fn a_disk_that_cannot_be_read_loses_nothing() {
    let mut world = written();
    world.files.fail(Op::Read, 2, Times::Once, std::io::ErrorKind::Other);
    let mut reader = world.log().reader(Position::ZERO);
    let mut found = 0;
    let mut errors = 0;
    loop {
        match reader.next(500) {
            Ok(slice) if slice.frames.is_empty() => break,
            Ok(slice) => {
                assert_eq!(slice.lost, []);
                found += slice.frames.iter().map(crate::log::Frame::count).sum::<usize>();
            }
            Err(_) => errors += 1,
        }
    }
    assert_eq!((found, errors), (world.promised.len(), 1));
    assert!(!matches!(world.append(&[vec![1]])[0], Err(AppendError::Poisoned(_))));
}

#[test]
fn a_reader_that_meets_damage_and_then_a_disk_that_does_not_answer_has_told_of_the_damage() {
    for nth in 1..12 {
        let mut world = written();
        let path = world.segments().remove(0);
        world.files.damage(&path, |bytes| bytes[4096 + 48 + 4 + 1] ^= 1);
        world.files.fail(Op::Read, nth, Times::Once, std::io::ErrorKind::Other);
        let mut reader = world.log().reader(Position::ZERO);
        let mut told = std::collections::BTreeSet::new();
        loop {
            match reader.next(500) {
                Ok(slice) => {
                    let frames = slice.frames.iter().map(crate::log::Frame::span);
                    for span in frames.chain(slice.lost.iter().map(|lost| lost.span)) {
                        told.extend(span.first.get()..span.end.get());
                    }
                    if slice.frames.is_empty() && slice.lost.is_empty() {
                        break;
                    }
                }
                Err(error) => assert!(error.to_string().contains("made to fail"), "{error}"),
            }
        }
        let promised: std::collections::BTreeSet<u64> = world.promised.keys().map(|at| at.get()).collect();
        assert!(promised.is_subset(&told), "read {nth} failed: {:?} were passed over", promised.difference(&told));
        world.append(&[vec![1]]).remove(0).unwrap();
    }
}
