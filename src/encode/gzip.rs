//! Gzip: the bytes of one member, whole or joined of chunks that were compressed apart.
//!
//! In: raw bytes in parts, and a level. Out: one gzip member, always: many readers (browsers, curl) stop after the
//! first. The same bytes come out for the same bytes, cuts and level.
//!
//! ```text
//!   header │ chunk │ chunk │ … │ chunk │ empty last block │ CRC-32, length
//!            └ raw deflate, begun with the 32 KiB before it as dictionary, ended on a byte border
//! ```
//!
//! Small objects go through libdeflate in one call, which gives the better bytes for the work but knows neither
//! dictionary nor flush; chunks need both and go through zlib-rs. Which level of either library stands for which class
//! of zlib's is chosen by measurement.

use bytes::Bytes;
use flate2::{Compress, Crc, FlushCompress};
use hydrant_core::compression::GzipLevel;
use libdeflater::{CompressionLvl, Compressor};

use super::rows::Rows;
use crate::blocks::{Blocks, Chain};

/// How far deflate looks back, and so how much of what lies before it a chunk can use. Source: RFC 1951.
pub(super) const WINDOW_BYTES: usize = 32 << 10;

/// Magic, deflate, no flags, no time, no hint about the effort, unknown system. Source: RFC 1952.
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A last block that holds nothing.
const END: &[u8] = &[0x03, 0x00];

/// The libdeflate level for objects that are compressed whole: the least work whose output is at most 2 % larger than
/// that of zlib itself at the class asked for. Classes above the default give something for their work, even where
/// the one below would do. The figures are in [`super::compress`]. `Fast` is less than any of its levels.
fn libdeflate_level(level: GzipLevel) -> Option<i32> {
    Some(match level {
        GzipLevel::Fast => return None,
        GzipLevel::Class(..=3) => 1,
        GzipLevel::Class(4) => 2,
        GzipLevel::Class(5) => 4,
        GzipLevel::Class(6) => 5,
        GzipLevel::Class(7) => 6,
        GzipLevel::Class(8) => 7,
        GzipLevel::Class(9..) => 8,
    })
}

/// The zlib-rs level for chunks, by the same rule. `Fast` is its least work of all.
fn zlib_rs_level(level: GzipLevel) -> u32 {
    match level {
        GzipLevel::Fast => 1,
        GzipLevel::Class(..=3) => 2,
        GzipLevel::Class(4) => 3,
        GzipLevel::Class(5) => 4,
        GzipLevel::Class(6) => 5,
        GzipLevel::Class(7) => 6,
        GzipLevel::Class(8) => 7,
        GzipLevel::Class(9..) => 8,
    }
}

/// What is kept between objects: compressors of the last levels used.
#[derive(Default)]
pub(super) struct Memory {
    libdeflate: Option<(i32, Compressor)>,
    zlib_rs: Option<(u32, Compress)>,
}

/// Compresses `raw` in one go.
pub(super) fn whole(
    raw: &[Bytes],
    level: GzipLevel,
    memory: &mut Memory,
    rows: &mut Rows,
    blocks: &Blocks,
) -> Vec<Bytes> {
    let Some(libdeflate_level) = libdeflate_level(level) else {
        let mut member = Member::default();
        let mut parts = member.add(chunk(&[], raw, level, memory, blocks));
        parts.push(member.finish());
        return parts;
    };
    let compressor = match &mut memory.libdeflate {
        Some((level, compressor)) if *level == libdeflate_level => compressor,
        other => &mut other.insert((libdeflate_level, compressor(libdeflate_level))).1,
    };
    let (raw, output) = rows.of(raw, |len| compressor.gzip_compress_bound(len));
    #[expect(clippy::expect_used, reason = "libdeflate fails only when the output has less room than its bound")]
    let len = compressor.gzip_compress(raw, output).expect("room by the bound");
    let mut object = blocks.chain();
    object.extend(output.get(..len).unwrap_or_default());
    object.take()
}

fn compressor(level: i32) -> Compressor {
    #[expect(clippy::expect_used, reason = "the levels used here are 1 to 8, libdeflate's go to 12")]
    let level = CompressionLvl::new(level).expect("a level of libdeflate");
    Compressor::new(level)
}

/// A part of a member's deflate stream, ended on a byte border, and the checksum of the bytes in it.
#[derive(Debug)]
pub(super) struct Chunk {
    deflated: Vec<Bytes>,
    crc: Crc,
}

/// Compresses the next part of an object. `before` is what the object holds right before it, at most
/// [`WINDOW_BYTES`], and serves as dictionary. Chunks of one object can be compressed at the same time.
pub(super) fn chunk(before: &[u8], raw: &[Bytes], level: GzipLevel, memory: &mut Memory, blocks: &Blocks) -> Chunk {
    let level = zlib_rs_level(level);
    let compress = match &mut memory.zlib_rs {
        Some((kept, compress)) if *kept == level => {
            compress.reset();
            compress
        }
        other => &mut other.insert((level, Compress::new(flate2::Compression::new(level), false))).1,
    };
    if !before.is_empty() {
        #[expect(clippy::expect_used, reason = "a raw deflate stream that has not begun takes any dictionary")]
        compress.set_dictionary(before).expect("a dictionary before the first byte");
    }
    let (mut deflated, mut crc) = (blocks.chain(), Crc::new());
    for part in raw {
        crc.update(part);
        feed(compress, part, &mut deflated, FlushCompress::None);
    }
    feed(compress, &[], &mut deflated, FlushCompress::Sync);
    Chunk { deflated: deflated.take(), crc }
}

/// Gives `input` to the compressor until it has taken all of it and has given back all that this flush asks for.
/// A flush that meets the end of a block is marked twice, which costs five bytes and means nothing.
fn feed(compress: &mut Compress, mut input: &[u8], output: &mut Chain, flush: FlushCompress) {
    loop {
        let before = compress.total_in();
        let is_done = output.write(|room| {
            #[expect(clippy::expect_used, reason = "deflate fails only when called in a state that has no meaning")]
            compress.compress_vec(input, room, flush).expect("deflate in a good state");
            room.len() < room.capacity()
        });
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(usize::MAX);
        input = input.get(taken..).unwrap_or_default();
        if input.is_empty() && is_done {
            return;
        }
    }
}

/// A member that is put together of chunks, in order.
#[derive(Debug, Default)]
pub(super) struct Member {
    has_begun: bool,
    crc: Crc,
}

impl Member {
    /// What the next chunk adds to the member. Copies nothing but a few bytes.
    pub(super) fn add(&mut self, chunk: Chunk) -> Vec<Bytes> {
        let mut parts = self.header();
        self.crc.combine(&chunk.crc);
        parts.extend(chunk.deflated);
        parts
    }

    /// What ends it.
    pub(super) fn finish(&mut self) -> Bytes {
        // The length is counted modulo 2^32 by the format itself.
        let (header, crc, len) =
            (self.header().concat(), self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes());
        [&header, END, &crc, &len].concat().into()
    }

    fn header(&mut self) -> Vec<Bytes> {
        if std::mem::replace(&mut self.has_begun, true) { Vec::new() } else { vec![Bytes::from_static(HEADER)] }
    }
}
