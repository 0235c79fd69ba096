use std::io::Read;
use std::path::Path;
use std::process::Command;

use ::zstd::zstd_safe;
use hydrant_core::compression::ZstdLevel;
use hydrant_kit::lines::Lines;
use hydrant_kit::random::Random;
use proptest::prelude::*;

use super::*;

/// Everything that a stream can ask for, as far as it takes another road.
fn settings() -> Vec<Compression> {
    let mut settings =
        vec![Compression::None, Compression::Gzip(GzipLevel::Fast), Compression::Zstd(ZstdLevel::DEFAULT)];
    settings.extend((1..=9).map(|class| Compression::Gzip(GzipLevel::Class(class))));
    settings
}

fn gzip() -> Compression {
    Compression::Gzip(GzipLevel::DEFAULT)
}

/// Half log records, half bytes that nothing can compress, in parts of uneven length.
fn raw(seed: u64, len: usize) -> Vec<Bytes> {
    let (mut random, mut lines, mut all) = (Random::new(seed), Lines::new(seed, 1024), Vec::new());
    while all.len() < len {
        if random.below(2) == 0 { lines.write(&mut all) } else { random.fill(&mut all, 1000) }
    }
    all.truncate(len);
    let mut rest = Bytes::from(all);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let part = usize::try_from(random.below(100_000)).unwrap();
        parts.push(rest.split_to(part.min(rest.len())));
    }
    parts
}

/// Reads an object back by other code than wrote it, and insists on one gzip member or zstd frame and nothing behind.
fn read_back(object: &[Bytes], compression: Compression) -> Vec<u8> {
    let object = object.concat();
    let mut raw = Vec::new();
    match compression {
        Compression::None => raw = object,
        Compression::Gzip(_) => {
            let mut decoder = flate2::bufread::GzDecoder::new(object.as_slice());
            decoder.read_to_end(&mut raw).unwrap();
            assert!(decoder.into_inner().is_empty(), "bytes behind the member");
        }
        Compression::Zstd(_) => {
            assert_eq!(zstd_safe::find_frame_compressed_size(&object), Ok(object.len()), "one frame");
            let said = zstd_safe::get_frame_content_size(&object).unwrap();
            raw = ::zstd::stream::decode_all(object.as_slice()).unwrap();
            assert!(said.is_none_or(|said| said == raw.len() as u64), "a frame that says how much it holds is right");
        }
    }
    raw
}

#[test]
fn objects_of_any_small_size_are_read_back_as_they_were() {
    for len in [0, 1, 2, 100, 32_767, 32_768, 32_769, 65_535, 65_536, 1_000_000] {
        let raw = raw(1, len);
        for compression in settings() {
            let object = compress(raw.clone(), compression);
            assert!(read_back(&object, compression) == raw.concat(), "{len} bytes, {compression:?}");
        }
    }
}

fn workspace() -> Workspace {
    Workspace::new(Blocks::new(ByteSize::mib(4)))
}

#[test]
fn objects_around_the_borders_of_units_are_read_back_as_they_were() {
    for border in [UNIT_BYTES, 3 * UNIT_BYTES, WHOLE_BYTES_MAX] {
        for len in [border - 1, border, border + 1] {
            let raw = raw(2, len);
            for compression in settings().into_iter().filter(|it| *it != Compression::Gzip(GzipLevel::Class(9))) {
                let object = in_units(&raw, compression, &mut workspace());
                assert!(read_back(&object, compression) == raw.concat(), "{len} bytes, {compression:?}");
            }
        }
    }
}

#[test]
fn a_zstd_frame_that_is_made_whole_says_how_much_it_holds() {
    let object = whole(raw(2, 100_000), Compression::Zstd(ZstdLevel::DEFAULT), &mut workspace());
    assert_eq!(zstd_safe::get_frame_content_size(&object.concat()).unwrap(), Some(100_000));
}

#[test]
fn only_zstd_keeps_much_between_units() {
    for compression in settings() {
        let mut back = Back::new(compression);
        back.add(Front::new(compression).unit(raw(2, UNIT_BYTES)).run(&mut workspace()), &workspace());
        let expected = if matches!(compression, Compression::Zstd(_)) { 500_000..2_000_000 } else { 0..1 };
        assert!(expected.contains(&back.footprint()), "{compression:?}: {}", back.footprint());
    }
}

#[test]
fn no_compression_copies_nothing() {
    let raw = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")];
    let object = compress(raw.clone(), Compression::None);
    let addresses = |parts: &[Bytes]| parts.iter().map(|part| part.as_ptr()).collect::<Vec<_>>();
    assert_eq!(addresses(&object), addresses(&raw));
}

#[test]
fn units_may_be_compressed_in_any_order_and_on_any_thread() {
    let raw = raw(3, 5 * UNIT_BYTES);
    let alone = in_units(&raw, gzip(), &mut workspace());
    let (mut front, mut back) = (Front::new(gzip()), Back::new(gzip()));
    let mut units: Vec<_> = cut(&raw, UNIT_BYTES).into_iter().map(|raw| front.unit(raw)).collect();
    units.reverse();
    let run = |unit: Unit| std::thread::spawn(|| unit.run(&mut workspace()));
    let threads: Vec<_> = units.into_iter().map(run).collect();
    let mut made: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    made.reverse();
    let mut object: Vec<Bytes> = made.into_iter().flat_map(|made| back.add(made, &workspace())).collect();
    object.extend(back.finish(&workspace()));
    assert!(object == alone);
}

/// What a workspace keeps between objects must not show in the next one.
#[test]
fn the_same_bytes_come_out_for_the_same_bytes_whatever_came_before() {
    let (small, large) = (raw(4, 10_000), raw(5, 3_000_000));
    let used = &mut workspace();
    for compression in settings() {
        for make in
            [whole, |raw: Vec<Bytes>, compression, workspace: &mut Workspace| in_units(&raw, compression, workspace)]
        {
            let first = make(small.clone(), compression, &mut workspace());
            make(large.clone(), compression, used);
            assert_eq!(make(small.clone(), compression, used), first, "{compression:?}");
        }
    }
}

#[test]
fn gzip_is_no_larger_than_zlib_makes_it_and_more_work_makes_less_bytes() {
    let (mut lines, mut logs) = (Lines::new(6, 1024), Vec::new());
    while logs.len() < 10 << 20 {
        lines.write(&mut logs);
    }
    // Sizes of zlib itself against its level 6, in per mille, from the table at the top of `compress.rs`.
    let zlib = [1252, 1213, 1185, 1103, 1036, 1000, 991, 967, 964];
    for len in [4 << 20, 10 << 20] {
        let raw = vec![Bytes::copy_from_slice(&logs[..len])];
        let size = |level| compress(raw.clone(), Compression::Gzip(level)).iter().map(Bytes::len).sum::<usize>();
        let six = size(GzipLevel::DEFAULT);
        let mut before = size(GzipLevel::Fast);
        for (class, zlib) in (1..=9).zip(zlib) {
            let size = size(GzipLevel::Class(class));
            assert!(size <= before, "class {class} of {len} bytes: {size} after {before}");
            assert!(size * 1000 <= six * zlib * 105 / 100, "class {class} of {len} bytes: {size}, default {six}");
            before = size;
        }
    }
}

/// Every kind of object in a folder, for readers that are not ours: `NAME.gz` or `NAME.zst` beside `NAME`.
fn write_samples(folder: &Path) {
    let fast = Compression::Gzip(GzipLevel::Fast);
    for compression in [fast, gzip(), Compression::Zstd(ZstdLevel::DEFAULT)] {
        for len in [0, 1, UNIT_BYTES + 1, WHOLE_BYTES_MAX, WHOLE_BYTES_MAX + 1] {
            let raw = raw(7, len);
            let level = if compression == fast { "fast-" } else { "" };
            let path = folder.join(format!("{level}{len}{}", compression.extension()));
            std::fs::write(&path, compress(raw.clone(), compression).concat()).unwrap();
            std::fs::write(path.with_extension(""), raw.concat()).unwrap();
        }
    }
}

const PYTHON: &str = "
import glob, zlib
paths = glob.glob('*.gz')
assert len(paths) == 10, paths
for path in paths:
    decoder = zlib.decompressobj(31)
    raw = decoder.decompress(open(path, 'rb').read())
    assert decoder.eof and not decoder.unused_data and not decoder.unconsumed_tail, path
    assert raw == open(path[:-3], 'rb').read(), path
";

const GZIP: &str = "set -e; for f in *.gz; do gzip -t $f; zcat $f | cmp - ${f%.gz}; done";

const ZSTD: &str = "set -e; for f in *.zst; do zstd -q -t $f; zstd -q -dc $f | cmp - ${f%.zst}; done";

/// Python insists on one member: its decoder stops at the end of the first and shows what it left.
#[test]
fn foreign_readers_read_what_was_written_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    write_samples(folder.path());
    for (reader, interpreter, script) in [("python3", "python3", PYTHON), ("gzip", "sh", GZIP), ("zstd", "sh", ZSTD)] {
        if Command::new(reader).arg("--version").output().is_err() {
            eprintln!("{reader} is not installed: nothing was compared with it");
            continue;
        }
        let output = Command::new(interpreter).args(["-c", script]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

proptest! {
    /// Units of any length, begun in the middle of anything, make one member with the right checksum and length.
    #[test]
    fn joined_units_are_one_member_of_all_bytes(
        seed: u64, len in 0_usize..200_000, unit_bytes in 1_usize..80_000, class in 0_u8..=9,
    ) {
        let level = if class == 0 { GzipLevel::Fast } else { GzipLevel::Class(class) };
        let (raw, workspace) = (raw(seed, len), &mut workspace());
        let (mut front, mut back) = (Front::new(Compression::Gzip(level)), Back::new(Compression::Gzip(level)));
        let mut object = Vec::new();
        for raw in cut(&raw, unit_bytes.max(len / 200)) {
            let made = front.unit(raw).run(workspace);
            object.extend(back.add(made, workspace));
        }
        object.extend(back.finish(workspace));
        prop_assert!(read_back(&object, gzip()) == raw.concat());
        let trailer = object.concat().split_off(object.concat().len() - 8);
        prop_assert_eq!(&trailer[..4], libdeflater::crc32(&raw.concat()).to_le_bytes());
        prop_assert_eq!(&trailer[4..], u32::try_from(len).unwrap().to_le_bytes());
    }

    #[test]
    fn cutting_loses_nothing(lengths in prop::collection::vec(0_usize..50, 0..20), len in 1_usize..60, window in 0_usize..99) {
        let mut random = Random::new(9);
        let parts: Vec<Bytes> = lengths.iter().map(|&len| {
            let mut part = Vec::new();
            random.fill(&mut part, len);
            part.into()
        }).collect();
        let all = parts.concat();
        let runs = cut(&parts, len);
        prop_assert_eq!(runs.iter().map(|run| run.concat()).collect::<Vec<_>>().concat(), all.clone());
        prop_assert!(runs.iter().rev().skip(1).all(|run| total(run) == len));
        prop_assert_eq!(tail(&parts, window), all[all.len().saturating_sub(window)..].to_vec());
    }
}
