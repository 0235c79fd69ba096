//! The bytes of versions 1 and 2, computed by another program from the table in `docs/formats/log.md`. When this fails, the
//! layout has changed: that takes a new version, and a program that still reads these.

use hydrant_core::{BatchId, ByteSize, Position};

use super::world::World;
use crate::files::sim::Op;
use crate::log::frame::{HEADER_BYTES, Header};
use crate::log::segment::{self, Found};
use crate::redriven::Origin;

const SEGMENT: &str = "68796472 2d6c6f67 01000000 feca0000 00000000 01000000 00000000 01000000 00000000 a549a57c \
     16ed1eea 00200000 00000000 0068e5cf 8b010000 fcdff122";
const FRAME: &str = "f768791d a39dcbb4 6780a0ac 01000000 02000000 13000000 01000000 00000000 0068e5cf 8b010000 \
     01000000 00000000 09000000 0a000000 30303030 30303031 7c303030 30303030 327c3000 00000000";
const MARK: &str = "f768791d ee9aae45 00000000 02000000 00000000 00000000 03000000 00000000 0068e5cf 8b010000 \
     03000000 00000000";

/// The header of a segment of version 2, and a frame of two dead letters: lines 1 and 4 of an object.
const SEGMENT_2: &str = "68796472 2d6c6f67 02000000 feca0000 00000000 03000000 00000000 03000000 00000000 54739978 \
     bdee21eb 00400000 00000000 0068e5cf 8b010000 f8097d0e";
const REDRIVEN: &str = "f768791d 4c28980f c7af0f31 03001600 02000000 13000000 03000000 00000000 0068e5cf 8b010000 \
     03000000 00000000 09000000 0a000000 30303030 30303033 7c303030 30303030 347c3000 09090909 09090909 09090909 \
     09090909 02010102 01000000 00000000";

fn hex(bytes: &[u8]) -> String {
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let words: Vec<String> = words.iter().map(|word| format!("{:08x}", u32::from_be_bytes(*word))).collect();
    words.join(" ")
}

#[test]
fn a_log_lies_on_the_disk_as_the_table_says() {
    let mut world = World::new(1);
    world.store(&[9, 10]);
    let bytes = world.files.bytes(&world.segments()[0]);
    assert_eq!(bytes.len(), 8192);
    assert_eq!(hex(&bytes[..64]), SEGMENT);
    assert_eq!(bytes[..64], bytes[2048..2112]);
    assert!(bytes[64..2048].iter().chain(&bytes[2112..4096]).all(|byte| *byte == 0));
    // Two lengths and 19 bytes behind the header, padded to a multiple of 8.
    assert_eq!(hex(&bytes[4096..4096 + 80]), FRAME);
    assert_eq!(hex(&bytes[4176..4176 + 48]), MARK);
    assert!(bytes[4224..].iter().all(|byte| *byte == 0));
}

#[test]
fn redriven_records_lie_with_their_origin_in_a_segment_of_version_2() {
    let mut world = World::new(1);
    world.store(&[9, 10]);
    world.store_redriven(&[9, 10], origin());
    world.store(&[9]);
    let segments = world.segments();
    assert_eq!(segments.len(), 2, "what comes behind them stays in their segment");
    let bytes = world.files.bytes(&segments[1]);
    assert_eq!(hex(&bytes[..64]), SEGMENT_2);
    assert_eq!(hex(&bytes[4096..4096 + 104]), REDRIVEN);
    assert_eq!(hex(&world.files.bytes(&segments[0])[..64]), SEGMENT, "the first is as it was");
    world.check();
}

/// Lines 1 and 4 of an object.
fn origin() -> Origin {
    Origin { object: BatchId::from_bytes([9; 16]), ordinals: [1, 4].into_iter().collect(), is_processed: false }
}

#[test]
fn the_log_tells_where_redriven_records_come_from_as_long_as_it_has_them() {
    let mut world = World::new(1);
    world.store(&[9]);
    let span = world.store_redriven(&[2000, 3000], origin());
    let later = Origin { object: BatchId::from_bytes([8; 16]), is_processed: true, ..origin() };
    world.store(&[4000]);
    world.store_redriven(&[10, 10], later.clone());
    for _ in 0..2 {
        let redriven = |from| world.log().redriven(from).unwrap();
        let (all, rest) = (redriven(Position::FIRST), redriven(span.end));
        assert_eq!((all.objects(), rest.objects()), (2, 1));
        assert!(all.of(origin().object) == Some(&origin().ordinals) && rest.of(later.object) == Some(&later.ordinals));
        // Of a frame that is read from its middle, all is told.
        assert_eq!(redriven(span.first.plus(1)), all);
        let slice = world.log().reader(span.first.plus(1)).next(20_000).unwrap();
        assert_eq!(slice.frames[0].count(), 1);
        assert_eq!(slice.redriven().cloned().collect::<Vec<_>>(), [origin(), later.clone()]);
        world.open().unwrap();
    }
    world.forget(span.end).unwrap();
    world.check();
    assert_eq!(World::new(2).log().redriven(Position::FIRST).unwrap().objects(), 0);
}

#[test]
fn a_reader_that_follows_closely_hears_of_redriven_records_from_memory() {
    let mut world = World::new(1);
    world.memory = ByteSize::kib(64);
    world.open().unwrap();
    world.store_redriven(&[9, 10], origin());
    let reads = world.files.count(Op::Read);
    let slice = world.log().reader(Position::FIRST).next(1000).unwrap();
    assert_eq!(slice.redriven().cloned().collect::<Vec<_>>(), [origin()]);
    assert_eq!(world.files.count(Op::Read), reads);
}

#[test]
fn a_frame_header_with_any_bit_changed_or_another_salt_is_no_header() {
    let mut world = World::new(1);
    world.store(&[9, 10]);
    let path = &world.segments()[0];
    let bytes = world.files.bytes(path);
    let Found::Header(segment) = segment::Header::parse(&bytes) else { panic!("unreadable") };
    let frame: [u8; HEADER_BYTES] = bytes[4096..4144].try_into().unwrap();
    let header = Header::parse(&frame, segment.salt).unwrap();
    assert_eq!(header.encode(segment.salt), frame);
    for bit in 0..8 * HEADER_BYTES {
        let mut frame = frame;
        frame[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Header::parse(&frame, segment.salt), None, "bit {bit}");
        assert_eq!(Header::parse(&frame, segment.salt ^ (1 << (bit % 64))), None, "salt bit {bit}");
    }
}

#[test]
fn any_bytes_at_all_are_read_without_a_panic() {
    let mut world = World::new(1);
    world.store(&[9, 10]);
    let whole = world.files.bytes(&world.segments()[0]);
    let Found::Header(segment) = segment::Header::parse(&whole) else { panic!("unreadable") };
    for at in (4100..4144).step_by(4) {
        for value in [0_u32, 1, 0x7FFF_FFFF, 0xFFFF_FFFF] {
            let mut frame: [u8; HEADER_BYTES] = whole[4096..4144].try_into().unwrap();
            frame[at - 4096..at - 4092].copy_from_slice(&value.to_le_bytes());
            // With the checksum made right again, as if a bug had written it.
            let Some(header) = Header::parse_unchecked(&frame) else { continue };
            let mut copy = world.fork(0);
            let path = copy.segments()[0].clone();
            copy.files.damage(&path, |bytes| bytes[4096..4144].copy_from_slice(&header.encode(segment.salt)));
            copy.open().unwrap();
            copy.read(copy.forgotten, 100);
        }
    }
}
