//! Gzip: the bytes of one member, whole or joined of chunks that were compressed apart.
//!
//! In: raw bytes in parts, and a level. Out: one gzip member, always: many readers (browsers, curl) stop after the
//! first. The same bytes come out for the same bytes and level.
//!
//! ```text
//!   header │ chunk │ chunk │ … │ chunk │ empty last block │ CRC-32, length
//!            └ raw deflate, begun with the 32 KiB before it as dictionary, ended on a byte border
//! ```
//!
//! Small objects go through libdeflate in one call, which gives the better bytes for the work but knows neither
//! dictionary nor flush; chunks need both and go through zlib-rs. Which level of either library stands for which class
//! of zlib's is chosen by measurement.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Crc, FlushCompress};
use hydrant_core::compression::GzipLevel;
use libdeflater::{CompressionLvl, Compressor};

use super::parts::{contiguous, total};

/// How far deflate looks back, and so how much of what lies before it a chunk can use. Source: RFC 1951.
pub const WINDOW_BYTES: usize = 32 << 10;

/// Magic, deflate, no flags, no time, no hint about the effort, unknown system. Source: RFC 1952.
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A last block that holds nothing.
const END: &[u8] = &[0x03, 0x00];

/// The libdeflate level for objects that are compressed whole: the least work whose output is at most 2 % larger than
/// that of zlib itself at the class asked for. Classes above the default give something for their work, even where
/// the one below would do. The figures are in [`super::compress`].
fn libdeflate_level(level: GzipLevel) -> i32 {
    match level {
        GzipLevel::Fast | GzipLevel::Class(..=3) => 1,
        GzipLevel::Class(4) => 2,
        GzipLevel::Class(5) => 4,
        GzipLevel::Class(6) => 5,
        GzipLevel::Class(7) => 6,
        GzipLevel::Class(8) => 7,
        GzipLevel::Class(9..) => 8,
    }
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

/// What one thread keeps between objects: a compressor of the last level used, and room for its output.
struct Memory {
    level: i32,
    compressor: Compressor,
    output: Vec<u8>,
}

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// Compresses `raw` in one go. Memory: `raw` once more if it comes in parts, and the output.
pub(super) fn whole(raw: &[Bytes], level: GzipLevel) -> Bytes {
    let raw = contiguous(raw);
    let level = libdeflate_level(level);
    MEMORY.with_borrow_mut(|memory| {
        let memory = match memory {
            Some(memory) if memory.level == level => memory,
            other => other.insert(Memory { level, compressor: compressor(level), output: Vec::new() }),
        };
        let bound = memory.compressor.gzip_compress_bound(raw.len());
        if memory.output.len() < bound {
            memory.output = vec![0; bound];
        }
        #[expect(clippy::expect_used, reason = "libdeflate fails only when the output has less room than its bound")]
        let len = memory.compressor.gzip_compress(&raw, &mut memory.output).expect("room by the bound");
        Bytes::copy_from_slice(memory.output.get(..len).unwrap_or_default())
    })
}

fn compressor(level: i32) -> Compressor {
    #[expect(clippy::expect_used, reason = "the levels used here are 1 to 8, libdeflate's go to 12")]
    let level = CompressionLvl::new(level).expect("a level of libdeflate");
    Compressor::new(level)
}

/// A part of a member's deflate stream, ended on a byte border, and the checksum of the bytes in it.
#[derive(Debug)]
pub struct Chunk {
    deflated: Vec<u8>,
    crc: Crc,
}

/// Compresses the next part of an object. `before` is what the object holds right before it; its last
/// [`WINDOW_BYTES`] serve as dictionary. Chunks of one object can be compressed at the same time.
///
/// # Panics
/// Never: the compressor is only called in states that it allows.
pub fn chunk(before: &[u8], raw: &[Bytes], level: GzipLevel) -> Chunk {
    let mut compress = Compress::new(flate2::Compression::new(zlib_rs_level(level)), false);
    let window = before.get(before.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
    if !window.is_empty() {
        #[expect(clippy::expect_used, reason = "a raw deflate stream that has not begun takes any dictionary")]
        compress.set_dictionary(window).expect("a dictionary before the first byte");
    }
    let mut deflated = Vec::with_capacity(total(raw) / 4);
    let mut crc = Crc::new();
    for part in raw {
        crc.update(part);
        feed(&mut compress, part, &mut deflated, FlushCompress::None);
    }
    feed(&mut compress, &[], &mut deflated, FlushCompress::Sync);
    deflated.shrink_to_fit();
    Chunk { deflated, crc }
}

/// Room that the output has at least whenever the compressor runs. More than a flush needs, so that a flush is
/// never cut in two.
const ROOM: usize = 64 << 10;

/// Gives `input` to the compressor until it has taken all of it and has given back all that this flush asks for.
fn feed(compress: &mut Compress, mut input: &[u8], output: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        output.reserve(ROOM);
        let before = compress.total_in();
        #[expect(clippy::expect_used, reason = "deflate fails only when it is called in a state that has no meaning")]
        compress.compress_vec(input, output, flush).expect("deflate in a good state");
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(usize::MAX);
        input = input.get(taken..).unwrap_or_default();
        if input.is_empty() && output.len() < output.capacity() {
            return;
        }
    }
}

/// Joins the chunks of an object, in order, into one member. Copies nothing but a few bytes.
pub fn join(chunks: Vec<Chunk>) -> Vec<Bytes> {
    let mut crc = Crc::new();
    let mut parts = vec![Bytes::from_static(HEADER)];
    for chunk in chunks {
        crc.combine(&chunk.crc);
        parts.push(chunk.deflated.into());
    }
    // The length is counted modulo 2^32 by the format itself.
    parts.push([END, &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat().into());
    parts
}
