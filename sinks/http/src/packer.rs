//! Packer: where a body is put together, a block at a time, and compressed on its way if asked.
//!
//! ```text
//!   bytes ──────┐
//!   base64 of ──┴─> block of 64 KiB ──(gzip)──> parts
//! ```
//!
//! Nothing is allocated for a record, and neither the body nor what it compresses to lies in memory in one row. The same
//! bytes come out for the same bytes and level: gzip's header names no time.

use std::io::{self, Write};

use base64_simd::STANDARD;
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use hydrant_core::compression::GzipLevel;

/// Bytes of a block: small enough to stay in a core's cache between the base64 encoder and the compressor.
const BLOCK_BYTES: usize = 64 << 10;

/// A body in the making.
#[derive(Debug)]
pub(crate) struct Packer {
    block: Vec<u8>,
    out: Out,
}

#[derive(Debug)]
enum Out {
    Plain(Vec<Bytes>),
    Gzip(Box<GzEncoder<Parts>>),
}

impl Packer {
    /// A body that stays as it is, or becomes one gzip member.
    pub(crate) fn new(gzip: Option<GzipLevel>) -> Self {
        let out = match gzip {
            None => Out::Plain(Vec::new()),
            Some(level) => Out::Gzip(Box::new(GzEncoder::new(Parts::default(), zlib_rs_level(level)))),
        };
        Self { block: Vec::with_capacity(BLOCK_BYTES), out }
    }

    /// Adds these bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.room(1)));
            self.block.extend_from_slice(now);
            rest = later;
        }
    }

    /// Adds the base64 of these bytes.
    pub(crate) fn put_base64(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Three bytes give four characters; what is cut off before the end is always such a group.
            let (now, later) = rest.split_at(rest.len().min(self.room(4) / 4 * 3));
            STANDARD.encode_append(now, &mut self.block);
            rest = later;
        }
    }

    /// The body.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.pass_on();
        match self.out {
            Out::Plain(parts) => parts,
            #[expect(clippy::expect_used, reason = "parts in memory take everything")]
            Out::Gzip(encoder) => encoder.finish().expect("parts take everything").finish(),
        }
    }

    /// How many bytes the block still takes, at least `least`.
    fn room(&mut self, least: usize) -> usize {
        if BLOCK_BYTES - self.block.len() < least {
            self.pass_on();
        }
        BLOCK_BYTES - self.block.len()
    }

    fn pass_on(&mut self) {
        match &mut self.out {
            Out::Plain(parts) if !self.block.is_empty() => {
                parts.push(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES)).into());
            }
            Out::Plain(_) => {}
            Out::Gzip(encoder) => {
                #[expect(clippy::expect_used, reason = "parts in memory take everything")]
                encoder.write_all(&self.block).expect("parts take everything");
                self.block.clear();
            }
        }
    }
}

/// The zlib-rs level for a ratio class of zlib.
fn zlib_rs_level(level: GzipLevel) -> Level {
    Level::new(match level {
        GzipLevel::Fast => 1,
        GzipLevel::Class(class) => u32::from(class.clamp(1, 9)),
    })
}

/// Bytes as they come out of the compressor.
#[derive(Debug, Default)]
struct Parts {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Parts {
    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.full.push(self.open.into());
        }
        self.full
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.capacity() == 0 {
            self.open.reserve_exact(BLOCK_BYTES);
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.open.len());
        self.open.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.open.len() == BLOCK_BYTES {
            self.full.push(std::mem::take(&mut self.open).into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        (0_u32..).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).take(len).collect()
    }

    #[test]
    fn base64_is_the_same_wherever_blocks_end() {
        for len in [0, 1, 2, 3, 4, 49_151, 49_152, 49_153, 200_000] {
            for before in [0, 1, 2, 3, BLOCK_BYTES - 4, BLOCK_BYTES - 3, BLOCK_BYTES - 1, BLOCK_BYTES] {
                let mut packer = Packer::new(None);
                packer.put(&vec![b'x'; before]);
                packer.put_base64(&noise(len));
                packer.put(b"end");
                let expected = ["x".repeat(before), STANDARD.encode_to_string(noise(len)), "end".to_owned()].concat();
                let parts = packer.finish();
                assert!(parts.iter().all(|part| part.len() <= BLOCK_BYTES));
                assert!(parts.concat() == expected.as_bytes(), "{len} bytes behind {before}");
            }
        }
    }

    #[test]
    fn gzip_is_one_member_and_the_same_each_time() {
        for level in [GzipLevel::Fast, GzipLevel::Class(1), GzipLevel::Class(6), GzipLevel::Class(9)] {
            for len in [0, 1, 300_000] {
                let pack = || {
                    let mut packer = Packer::new(Some(level));
                    packer.put(&noise(len));
                    packer.finish().concat()
                };
                let packed = pack();
                assert!(packed == pack());
                let (mut decoder, mut plain) = (GzDecoder::new(&packed[..]), Vec::new());
                decoder.read_to_end(&mut plain).unwrap();
                assert!(plain == noise(len) && decoder.into_inner().is_empty(), "{level:?} {len}");
            }
        }
    }
}
