//! Compression: raw bytes of a sealed buffer to final bytes of an object.
//!
//! In: raw bytes in parts, and what the stream asks for. Out: the object's bytes in parts. Pure: the same bytes come
//! out for the same bytes and level, on any thread. Never waits and never starts a thread; [`plan`] gives tasks that
//! the caller may run wherever it has cores, several at a time.
//!
//! ```text
//!   raw ── plan ──> task … task ── run, in any order ──> done … done ── join ──> object
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
//! What a thread keeps between objects (compressor and room for the output) makes objects of 5 MiB some 5 % cheaper
//! than starting anew, and those of 4 KB some 10 % (gzip) to 35 % (zstd).

use std::cell::RefCell;
use std::io::{self, Write};

use bytes::Bytes;
use hydrant_core::compression::{Compression, GzipLevel, ZstdLevel};
use zstd::zstd_safe::{CCtx, CParameter, ResetDirective};

use super::gzip;
use super::parts::{cut, tail, total};

/// Most raw bytes that gzip compresses in one go. Above, an object is cut into chunks: no core is then busy with it
/// for more than some 30 ms at a time, and all of them can be.
pub const WHOLE_BYTES_MAX: usize = 16 << 20;

/// Raw bytes of a chunk. Each costs a flush (some 5 bytes) and the tables of its last block, nothing that shows in
/// the ratio at this size.
pub const CHUNK_BYTES: usize = 4 << 20;

/// A piece of the work on one object. Needs nothing else; may run at the same time as the others.
#[derive(Debug)]
pub struct Task(Work);

#[derive(Debug)]
enum Work {
    Nothing(Vec<Bytes>),
    Gzip { raw: Vec<Bytes>, level: GzipLevel },
    GzipChunk { before: Bytes, raw: Vec<Bytes>, level: GzipLevel },
    Zstd { raw: Vec<Bytes>, level: ZstdLevel },
}

/// What a [`Task`] made.
#[derive(Debug)]
pub struct Done(Result);

#[derive(Debug)]
enum Result {
    Object(Vec<Bytes>),
    GzipChunk(gzip::Chunk),
}

/// Compresses in one go, on this thread.
pub fn compress(raw: Vec<Bytes>, compression: Compression) -> Vec<Bytes> {
    join(plan(raw, compression).into_iter().map(Task::run))
}

/// The tasks that together compress an object: at least one, in the order of its bytes.
pub fn plan(raw: Vec<Bytes>, compression: Compression) -> Vec<Task> {
    let work = match compression {
        Compression::None => vec![Work::Nothing(raw)],
        Compression::Gzip(level) if level == GzipLevel::Fast || total(&raw) > WHOLE_BYTES_MAX => {
            gzip_chunks(&raw, CHUNK_BYTES, level)
        }
        Compression::Gzip(level) => vec![Work::Gzip { raw, level }],
        Compression::Zstd(level) => vec![Work::Zstd { raw, level }],
    };
    work.into_iter().map(Task).collect()
}

fn gzip_chunks(raw: &[Bytes], chunk_bytes: usize, level: GzipLevel) -> Vec<Work> {
    let mut before = Bytes::new();
    let chunk = |raw: Vec<Bytes>| {
        let window = tail(&raw, gzip::WINDOW_BYTES);
        Work::GzipChunk { before: std::mem::replace(&mut before, window), raw, level }
    };
    cut(raw, chunk_bytes).into_iter().map(chunk).collect()
}

impl Task {
    /// Does the work: CPU only, up to some 100 ms, longer only for zstd and the highest levels.
    pub fn run(self) -> Done {
        Done(match self.0 {
            Work::Nothing(raw) => Result::Object(raw),
            Work::Gzip { raw, level } => Result::Object(vec![gzip::whole(&raw, level)]),
            Work::GzipChunk { before, raw, level } => Result::GzipChunk(gzip::chunk(&before, &raw, level)),
            Work::Zstd { raw, level } => Result::Object(vec![zstd_frame(&raw, level)]),
        })
    }
}

/// Puts together what the tasks of one plan made, in the plan's order.
pub fn join(done: impl IntoIterator<Item = Done>) -> Vec<Bytes> {
    let (mut object, mut chunks) = (Vec::new(), Vec::new());
    for Done(result) in done {
        match result {
            Result::Object(parts) => object = parts,
            Result::GzipChunk(chunk) => chunks.push(chunk),
        }
    }
    if chunks.is_empty() { object } else { gzip::join(chunks) }
}

thread_local! {
    /// Kept between objects: making one anew costs more than compressing a small object.
    static ZSTD: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
}

/// One frame, which says how many bytes it holds and ends with their checksum.
fn zstd_frame(raw: &[Bytes], level: ZstdLevel) -> Bytes {
    let frame = ZSTD.with_borrow_mut(|context| -> io::Result<Vec<u8>> {
        prepare(context, level).map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
        let mut encoder = zstd::stream::write::Encoder::with_context(Vec::new(), context);
        encoder.set_pledged_src_size(Some(total(raw) as u64))?;
        for part in raw {
            encoder.write_all(part)?;
        }
        encoder.finish()
    });
    #[expect(clippy::expect_used, reason = "the writer is memory, the level is zstd's, the size is the bytes' own")]
    let mut frame = frame.expect("a frame in memory");
    frame.shrink_to_fit();
    frame.into()
}

fn prepare(context: &mut CCtx<'static>, level: ZstdLevel) -> std::result::Result<usize, usize> {
    context.reset(ResetDirective::SessionAndParameters)?;
    context.set_parameter(CParameter::CompressionLevel(level.get()))?;
    context.set_parameter(CParameter::ChecksumFlag(true))
}

#[cfg(test)]
mod tests;
