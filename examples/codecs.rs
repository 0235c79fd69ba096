//! Prints what each compression costs and saves on JSON log records of 1 KB: the figures that the levels of
//! `encode::gzip` were chosen by.
//!
//! zlib stands there three times: itself (through Python, if there is one), as zlib-rs, whose levels are other trade-offs
//! under the same names, and as the classes of `gzip: 1` to `9`.
//!
//! `cargo run --release --example codecs [RAW_BYTES]`. Records are drawn from a fixed seed. Speed is raw bytes per
//! second that the thread was on a core, so that a busy machine does not matter much.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use flate2::FlushCompress;
use hydrant::encode::compress::compress;
use hydrant_core::compression::{Compression, GzipLevel, ZstdLevel};
use hydrant_kit::lines::Lines;

/// Size of an object by default: the size hint that a stream has unless told otherwise.
const RAW_BYTES: usize = 5 << 20;

const RECORD_BYTES: usize = 1024;

const SEED: u64 = 7;

/// Runs are repeated for at least this long, as the scheduler keeps its account in ticks of some milliseconds.
const MEASURED: Duration = Duration::from_millis(400);

/// Of so many measurements the best one counts.
const TRIES: usize = 3;

fn main() -> anyhow::Result<()> {
    let bytes = std::env::args().nth(1).map_or(Ok(RAW_BYTES), |size| size.parse())?;
    let raw = records(bytes);
    let yardstick = zlib_rs(&raw, 6);
    println!("{} bytes of log records, zlib-rs 6 makes {yardstick} of them\n", raw.len());
    println!("| codec        | MB/s per core | ratio | size, zlib-rs 6 = 1 |");
    println!("|--------------|--------------:|------:|--------------------:|");
    let report = |name: &str, size: usize, speed: f64| {
        let (ratio, relative) = (raw.len() as f64 / size as f64, size as f64 / yardstick as f64);
        println!("| {name:<12} | {speed:>13.0} | {ratio:>5.2} | {relative:>19.3} |");
    };
    let line = |name: &str, run: &dyn Fn(&Bytes) -> usize| {
        let (size, spent) = measure(&raw, run);
        report(name, size, raw.len() as f64 / 1e6 / spent.as_secs_f64());
    };
    for (level, size, speed) in zlib_by_python(&raw)? {
        report(&format!("zlib {level}"), size, speed);
    }
    for level in 1..=9 {
        line(&format!("zlib-rs {level}"), &|raw| zlib_rs(raw, level));
    }
    for level in 1..=10 {
        line(&format!("libdeflate {level}"), &|raw| libdeflate(raw, level));
    }
    for level in [-1, 1, 2, 3, 6, 9] {
        line(&format!("zstd {level}"), &|raw| zstd(raw, level));
    }
    for (name, compression) in settings() {
        line(&name, &|raw| compress(vec![raw.clone()], compression).iter().map(Bytes::len).sum());
    }
    Ok(())
}

/// What a stream can ask for.
fn settings() -> Vec<(String, Compression)> {
    let gzip = |class| (format!("gzip: {class}"), Compression::Gzip(GzipLevel::Class(class)));
    let mut settings = vec![("gzip: fast".to_owned(), Compression::Gzip(GzipLevel::Fast))];
    settings.extend((1..=9).map(gzip));
    settings.push(("zstd".to_owned(), Compression::Zstd(ZstdLevel::DEFAULT)));
    settings
}

fn zlib_rs(raw: &[u8], level: u32) -> usize {
    let mut output = Vec::with_capacity(raw.len() + (64 << 10));
    let mut compress = flate2::Compress::new(flate2::Compression::new(level), false);
    let status = compress.compress_vec(raw, &mut output, FlushCompress::Finish);
    assert!(matches!(status, Ok(flate2::Status::StreamEnd)), "room for all output");
    output.len()
}

/// Level, size and speed of zlib itself, as Python has it; nothing where there is no Python.
fn zlib_by_python(raw: &Bytes) -> anyhow::Result<Vec<(u32, usize, f64)>> {
    const SCRIPT: &str = "
import sys, time, zlib
raw = sys.stdin.buffer.read()
for level in range(1, 10):
    start = time.process_time()
    size = len(zlib.compress(raw, level))
    print(level, size, len(raw) / 1e6 / (time.process_time() - start))
";
    let python = Command::new("python3").args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return Ok(Vec::new()) };
    if let Some(mut stdin) = python.stdin.take() {
        stdin.write_all(raw)?;
    }
    let answer = String::from_utf8(python.wait_with_output()?.stdout)?;
    let mut rows = Vec::new();
    for line in answer.lines() {
        if let [level, size, speed] = line.split(' ').collect::<Vec<_>>()[..] {
            rows.push((level.parse()?, size.parse()?, speed.parse()?));
        }
    }
    Ok(rows)
}

fn libdeflate(raw: &[u8], level: i32) -> usize {
    let Ok(level) = libdeflater::CompressionLvl::new(level) else { return 0 };
    let mut compressor = libdeflater::Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(raw.len())];
    compressor.gzip_compress(raw, &mut output).unwrap_or_default()
}

fn zstd(raw: &[u8], level: i32) -> usize {
    let mut output = Vec::new();
    let done = zstd::stream::write::Encoder::new(&mut output, level).and_then(|mut encoder| {
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(raw.len() as u64))?;
        encoder.write_all(raw)?;
        encoder.finish().map(drop)
    });
    assert!(done.is_ok(), "memory takes all output");
    output.len()
}

/// The size of what `run` makes, and the time on a core that it takes.
fn measure(raw: &Bytes, run: &dyn Fn(&Bytes) -> usize) -> (usize, Duration) {
    let size = run(raw);
    let measured = |_| {
        let (start, mut runs) = (time_on_core(), 0);
        loop {
            run(raw);
            runs += 1;
            let spent = time_on_core().saturating_sub(start);
            if spent >= MEASURED || runs == 10_000 {
                break spent / runs;
            }
        }
    };
    (size, (0..TRIES).map(measured).min().unwrap_or_default().max(Duration::from_nanos(1)))
}

/// How long this thread has been on a core, by the scheduler's own account. Linux only; elsewhere all speeds are
/// infinite, which is at least plainly wrong.
fn time_on_core() -> Duration {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(account.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// At least `bytes` of log records, one per line.
fn records(bytes: usize) -> Bytes {
    let (mut lines, mut out) = (Lines::new(SEED, RECORD_BYTES), Vec::new());
    while out.len() < bytes {
        lines.write(&mut out);
        out.push(b'\n');
    }
    out.into()
}
