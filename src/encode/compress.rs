//! Compression: raw bytes of a sealed buffer to final bytes of an object.
//!
//! In: raw bytes in parts, and what the stream asks for. Out: the object's bytes in parts. Pure: the same bytes come
//! out for the same bytes, cuts and level, on any thread. Never waits and never starts a thread.
//!
//! There are two roads. An object of up to [`WHOLE_BYTES_MAX`] is compressed [`whole`] when it is sealed: best bytes for
//! the work. A larger one is made of units of [`UNIT_BYTES`] while its records come in, so that neither its raw nor its
//! compressed bytes ever lie in memory:
//!
//! ```text
//!   raw ── Front::unit ──> unit … unit ── run, in any order ──> made … made ── Back::add, in order ──> object bytes
//!          remembers what                 gzip: deflated here           zstd: compressed here,
//!          lies before                                                  each after the one before
//! ```
//!
//! Raw MB per second that one core was busy, bytes before / bytes after, and size against flate2's level 6 (zlib-rs),
//! for 5 MiB of log records of 1 KB (`cargo run --release --example codecs`). The other core was busy too.
//!
//! ```text
//!  zlib itself            libdeflate             zlib-rs (chunks)       zstd
//!  1  224  6.11  1.280    1  398  6.71  1.167    1  617  4.85  1.612    1  719  8.19  0.956
//!  2  222  6.31  1.240    2  288  6.86  1.141    2  376  6.71  1.166    2  554  7.94  0.986
//!  3  197  6.46  1.211    3  274  7.13  1.098    3  273  7.02  1.116    3  376  7.62  1.027
//!  4  137  6.95  1.127    4  254  7.27  1.076    4  221  7.31  1.070    6  119  8.10  0.967
//!  5  119  7.39  1.059    5  231  7.86  0.995    5  193  7.70  1.017    9   78  8.44  0.927
//!  6   96  7.66  1.022    6  182  8.29  0.945    6  157  7.83  1.000
//!  7   82  7.72  1.013    7  123  8.47  0.924    7  122  8.08  0.968
//!  8   49  7.92  0.988    8   77  8.64  0.906    8   94  8.28  0.946
//!  9   45  7.95  0.985    9   67  8.64  0.906    9   94  7.62  1.027
//! ```
//!
//! What a [`Workspace`] keeps between objects (compressors and room for their output) makes objects of 5 MiB some 5 %
//! cheaper than starting anew, and those of 4 KB some 10 % (gzip) to 35 % (zstd).

use std::fmt;

use ::zstd::zstd_safe::CCtx;
use bytes::Bytes;
use hydrant_core::ByteSize;
use hydrant_core::compression::{Compression, GzipLevel};

use super::parts::{cut, tail, total};
use super::rows::Rows;
use super::{gzip, zstd};
use crate::blocks::Blocks;

/// Most raw bytes that are compressed in one go: above the default size hint, and no more than a core should be busy
/// with at a time (some 30 ms). A workspace holds up to twice as much.
pub const WHOLE_BYTES_MAX: usize = 8 << 20;

/// Raw bytes of a unit. Each costs gzip a flush (some 5 bytes) and the tables of its last block, 0.1 % of its output.
pub const UNIT_BYTES: usize = 1 << 20;

/// What compressing needs and keeps for the next object. One for each core that compresses.
pub struct Workspace {
    gzip: gzip::Memory,
    zstd: CCtx<'static>,
    rows: Rows,
    blocks: Blocks,
}

impl Workspace {
    /// A workspace whose output lies in these blocks.
    pub fn new(blocks: Blocks) -> Self {
        Self { gzip: gzip::Memory::default(), zstd: CCtx::create(), rows: Rows::default(), blocks }
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}

/// Compresses an object in one go. CPU only; for objects of up to [`WHOLE_BYTES_MAX`] some 30 ms, longer only for the
/// highest levels.
pub fn whole(raw: Vec<Bytes>, compression: Compression, workspace: &mut Workspace) -> Vec<Bytes> {
    let Workspace { gzip, zstd, rows, blocks } = workspace;
    match compression {
        Compression::None => raw,
        Compression::Gzip(level) => gzip::whole(&raw, level, gzip, rows, blocks),
        Compression::Zstd(level) => zstd::whole(&raw, level, zstd, rows, blocks),
    }
}

/// Compresses an object as its stream would have it, on this thread.
pub fn compress(raw: Vec<Bytes>, compression: Compression) -> Vec<Bytes> {
    let workspace = &mut Workspace::new(Blocks::new(ByteSize::bytes(0)));
    if total(&raw) <= WHOLE_BYTES_MAX {
        whole(raw, compression, workspace)
    } else {
        in_units(&raw, compression, workspace)
    }
}

fn in_units(raw: &[Bytes], compression: Compression, workspace: &mut Workspace) -> Vec<Bytes> {
    let (mut front, mut back) = (Front::new(compression), Back::new(compression));
    let mut object = Vec::new();
    for raw in cut(raw, UNIT_BYTES) {
        let made = front.unit(raw).run(workspace);
        object.extend(back.add(made, workspace));
    }
    object.extend(back.finish(workspace));
    object
}

/// The front of an object that is made of units: what the next unit must know.
#[derive(Debug)]
pub struct Front {
    compression: Compression,
    before: Bytes,
}

/// The next raw bytes of an object. Needs nothing else; units may run at the same time.
#[derive(Debug)]
pub struct Unit(Work);

#[derive(Debug)]
enum Work {
    Pass(Vec<Bytes>),
    Deflate { before: Bytes, raw: Vec<Bytes>, level: GzipLevel },
}

/// What a [`Unit`] became.
#[derive(Debug)]
pub struct Made(Result);

#[derive(Debug)]
enum Result {
    Raw(Vec<Bytes>),
    Deflated(gzip::Chunk),
}

/// The back of an object that is made of units: puts them together, in order.
pub struct Back(Rear);

enum Rear {
    Nothing,
    Gzip(gzip::Member),
    Zstd(zstd::Frame),
}

impl Front {
    /// The front of an object that holds nothing yet.
    pub fn new(compression: Compression) -> Self {
        Self { compression, before: Bytes::new() }
    }

    /// The unit of the bytes that come next.
    pub fn unit(&mut self, raw: Vec<Bytes>) -> Unit {
        Unit(match self.compression {
            Compression::None | Compression::Zstd(_) => Work::Pass(raw),
            Compression::Gzip(level) => {
                // A unit shorter than the window leaves a part of the one before in it.
                let last = tail(&raw, gzip::WINDOW_BYTES);
                let window = tail(&[self.before.clone(), last], gzip::WINDOW_BYTES);
                Work::Deflate { before: std::mem::replace(&mut self.before, window), raw, level }
            }
        })
    }
}

impl Unit {
    /// Does the part of the work that needs no other unit: CPU only, some 5 ms, longer only for the highest levels.
    pub fn run(self, workspace: &mut Workspace) -> Made {
        let Workspace { gzip, blocks, .. } = workspace;
        Made(match self.0 {
            Work::Pass(raw) => Result::Raw(raw),
            Work::Deflate { before, raw, level } => Result::Deflated(gzip::chunk(&before, &raw, level, gzip, blocks)),
        })
    }
}

impl Back {
    /// The back of an object that holds nothing yet.
    pub fn new(compression: Compression) -> Self {
        Self(match compression {
            Compression::None => Rear::Nothing,
            Compression::Gzip(_) => Rear::Gzip(gzip::Member::default()),
            Compression::Zstd(level) => Rear::Zstd(zstd::Frame::new(level)),
        })
    }

    /// The bytes that the next unit adds to the object. CPU only, a few ms for zstd.
    ///
    /// # Panics
    /// When the unit is one of another compression.
    pub fn add(&mut self, made: Made, workspace: &Workspace) -> Vec<Bytes> {
        match (&mut self.0, made.0) {
            (Rear::Nothing, Result::Raw(raw)) => raw,
            (Rear::Gzip(member), Result::Deflated(chunk)) => member.add(chunk),
            (Rear::Zstd(frame), Result::Raw(raw)) => frame.add(&raw, &workspace.blocks),
            (Rear::Nothing | Rear::Gzip(_) | Rear::Zstd(_), Result::Raw(_) | Result::Deflated(_)) => {
                unreachable!("front and back of one object are of one compression")
            }
        }
    }

    /// What ends the object.
    pub fn finish(&mut self, workspace: &Workspace) -> Vec<Bytes> {
        match &mut self.0 {
            Rear::Nothing => Vec::new(),
            Rear::Gzip(member) => vec![member.finish()],
            Rear::Zstd(frame) => frame.finish(&workspace.blocks),
        }
    }

    /// Bytes of memory that it keeps between units.
    pub fn footprint(&self) -> u64 {
        match &self.0 {
            Rear::Nothing | Rear::Gzip(_) => 0,
            Rear::Zstd(frame) => frame.footprint(),
        }
    }
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
