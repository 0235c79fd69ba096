//! The bytes of version 1, computed by another program from the table in `docs/formats/log.md`. When this fails, the
//! layout has changed: that takes a new version, and a program that still reads this one.

use super::world::World;
use crate::log::frame::{HEADER_BYTES, Header};
use crate::log::segment::{self, Found};

const SEGMENT: &str = "68796472 2d6c6f67 01000000 feca0000 00000000 01000000 00000000 01000000 00000000 a549a57c \
     16ed1eea 00200000 00000000 0068e5cf 8b010000 fcdff122";
const FRAME: &str = "f768791d a39dcbb4 6780a0ac 01000000 02000000 13000000 01000000 00000000 0068e5cf 8b010000 \
     01000000 00000000 09000000 0a000000 30303030 30303031 7c303030 30303030 327c3000 00000000";
const MARK: &str = "f768791d ee9aae45 00000000 02000000 00000000 00000000 03000000 00000000 0068e5cf 8b010000 \
     03000000 00000000";

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
