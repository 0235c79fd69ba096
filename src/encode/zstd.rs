//! Zstd: the bytes of one frame, whole or a part at a time.
//!
//! In: raw bytes in parts, and a level. Out: one frame that ends with a checksum of its bytes; one that was made whole
//! also says how many there are. The same bytes come out for the same bytes and level. A frame that is made a part
//! at a time keeps what the next part may refer to (a window and tables: 1 MiB at level 1, some 90 at 19), so its parts
//! come one after the other.

use ::zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, SafeResult};
use bytes::Bytes;
use hydrant_core::compression::ZstdLevel;

use super::rows::Rows;
use crate::blocks::{Blocks, Chain};

/// Compresses `raw` in one go. `context` is kept between objects: making one anew costs more than compressing a
/// small object.
///
/// In one row, so that zstd looks for matches in the bytes themselves. Given parts, it copies them to a window of its
/// own, and whenever that wraps it must look in two places, which is slower.
pub(super) fn whole(
    raw: &[Bytes],
    level: ZstdLevel,
    context: &mut CCtx<'static>,
    rows: &mut Rows,
    blocks: &Blocks,
) -> Vec<Bytes> {
    good(context.reset(ResetDirective::SessionAndParameters));
    prepare(context, level);
    let (raw, output) = rows.of(raw, zstd_safe::compress_bound);
    let len = good(context.compress2(output, raw));
    let mut object = blocks.chain();
    object.extend(output.get(..len).unwrap_or_default());
    object.take()
}

/// A frame under way.
pub(super) struct Frame(CCtx<'static>);

impl Frame {
    /// A frame that holds nothing yet.
    pub(super) fn new(level: ZstdLevel) -> Self {
        let mut context = CCtx::create();
        prepare(&mut context, level);
        Self(context)
    }

    /// Compresses the next part. What comes out may lag behind what went in.
    pub(super) fn add(&mut self, raw: &[Bytes], blocks: &Blocks) -> Vec<Bytes> {
        let mut parts = blocks.chain();
        for part in raw {
            feed(&mut self.0, part, &mut parts);
        }
        parts.take()
    }

    /// Ends the frame.
    pub(super) fn finish(&mut self, blocks: &Blocks) -> Vec<Bytes> {
        let mut parts = blocks.chain();
        end(&mut self.0, &mut parts);
        parts.take()
    }

    /// Bytes of memory that it keeps.
    pub(super) fn footprint(&self) -> u64 {
        self.0.sizeof() as u64
    }
}

fn prepare(context: &mut CCtx<'static>, level: ZstdLevel) {
    good(context.set_parameter(CParameter::CompressionLevel(level.get())));
    good(context.set_parameter(CParameter::ChecksumFlag(true)));
}

fn feed(context: &mut CCtx<'static>, part: &[u8], output: &mut Chain) {
    let mut input = InBuffer::around(part);
    while input.pos < part.len() {
        output.write(|room| {
            let at = room.len();
            good(context.compress_stream(&mut OutBuffer::around_pos(room, at), &mut input))
        });
    }
}

fn end(context: &mut CCtx<'static>, output: &mut Chain) {
    let mut rest = |room: &mut Vec<u8>| {
        let at = room.len();
        good(context.end_stream(&mut OutBuffer::around_pos(room, at)))
    };
    while output.write(&mut rest) > 0 {}
}

fn good(result: SafeResult) -> usize {
    #[expect(clippy::expect_used, reason = "the levels are zstd's own, and memory takes all output")]
    result.map_err(zstd_safe::get_error_name).expect("zstd in a good state")
}
