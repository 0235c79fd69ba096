//! What is fuzzed: one function for each thing that is read from a client, a disk or a person. Each takes any bytes at
//! all, and ends; what it finds must add up. Used by the fuzz targets beside it and, over seeded mutations of the same
//! samples, by `tests/it/mutation.rs`.
//!
//! Files of the data directory are read on a simulated disk by what reads them at a start, and by `hydrant log verify`.
//! Their first byte is ours: odd, and all checksums are made right before they are read, or nothing behind a
//! checksum would ever be reached.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use hydrant::config::{AnySecrets, Look};
use hydrant_core::{BatchId, ByteSize, Clock, Position, Span, Timestamp};
use hydrant_storage::catalog::{DataDir, Declaration};
use hydrant_storage::files::Files;
use hydrant_storage::files::sim::SimFiles;
use hydrant_storage::ledger::{Entry, Ledger};
use hydrant_storage::log::{self, Committers, Log, Payloads};
use hydrant_storage::outbox::{Content, Found, Header, Outbox, SinkMark, Summary};
use hydrant_storage::redriven::Origin;
use hydrant_storage::runs::Runs;
use hydrant_storage::space::{Claim, Share, Space};
use hydrant_storage::verify::verify;

/// A target: its name, what it does with any bytes, and samples that are as they should be.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("put", put, put_samples),
    ("config", config, config_samples),
    ("log", log_segment, log_samples),
    ("ledger", ledger, ledger_samples),
    ("batch", batch, batch_samples),
];

/// Slices that a log of this size can have at most; reading must end before.
const SLICES_MAX: usize = 10_000;

/// The body of a put. What is taken adds up and is no larger than it came.
pub fn put(bytes: &[u8]) {
    for is_batch in [false, true] {
        if let Some(payloads) = hydrant::api::read_put(is_batch, bytes.to_vec()) {
            let sum: u64 = payloads.lengths.iter().map(|length| u64::from(*length)).sum();
            assert_eq!(sum, payloads.data.len() as u64);
            assert!(payloads.data.len() <= bytes.len() && (1..=500).contains(&payloads.lengths.len()));
        }
    }
}

/// A configuration. Whatever is wrong with it can be told.
pub fn config(bytes: &[u8]) {
    let report = match hydrant::config::parse("fuzz.yaml", bytes, &AnySecrets) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    for look in [Look::Plain, Look::Fancy] {
        drop(report.render(look));
    }
    drop(report.to_json());
}

/// A segment of a log. Reading it ends, and gives each record once and in order.
pub fn log_segment(bytes: &[u8]) {
    let Some(bytes) = checked(bytes, right_log) else { return };
    let image = Image::with("log", bytes);
    image.verify();
    let Ok(opened) = image.open_log() else { return };
    let mut reader = opened.reader(Position::FIRST);
    let mut next = Position::ZERO;
    for _ in 0..SLICES_MAX {
        let from = reader.position();
        let Ok(slice) = reader.next(64 << 10) else { return };
        for (position, _) in slice.frames.iter().flat_map(log::Frame::records) {
            assert!(position >= next, "{position:?} came after {next:?}");
            next = position.plus(1);
        }
        if reader.position() == from {
            return;
        }
    }
    panic!("reading does not end");
}

/// A ledger. What was written anew by us is read again as it was. The first writing may leave out what no ledger of
/// ours would hold, such as pieces that the log has forgotten.
pub fn ledger(bytes: &[u8]) {
    let Some(bytes) = checked(bytes, right_ledger) else { return };
    let image = Image::with("ledger", bytes);
    image.verify();
    let Ok((mut first, state)) = image.open_ledger() else { return };
    let entry = Entry::Lost { span: Span { first: Position::new(8), end: Position::new(9) }, why: String::new() };
    if first.append(&[entry]).is_err() || first.checkpoint(&state).is_err() {
        return;
    }
    drop(first);
    let (mut second, ours) = image.open_ledger().expect("what was opened and written can be opened");
    second.checkpoint(&ours).expect("what was read can be written");
    drop(second);
    let (_, again) = image.open_ledger().expect("what was opened and written can be opened");
    assert_eq!(format!("{again:?}"), format!("{ours:?}"));
}

/// A batch file. A body is read to its end or to its damage.
pub fn batch(bytes: &[u8]) {
    let Some(bytes) = checked(bytes, right_batch) else { return };
    let image = Image::with("outbox", bytes);
    image.verify();
    let Ok((outbox, found)) = image.open_outbox() else { return };
    for found in found {
        let Found::Whole { summary, .. } = found else { continue };
        let Ok((again, body)) = outbox.read(summary.batch) else { continue };
        assert_eq!(Summary::from(again), summary);
        let mut at = 0;
        while let Ok(part) = body.read(at, 1 << 20) {
            if part.is_empty() {
                break;
            }
            at += part.len() as u64;
        }
    }
}

fn checked(bytes: &[u8], make_right: fn(&mut [u8])) -> Option<Vec<u8>> {
    let (choice, bytes) = bytes.split_first()?;
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 {
        make_right(&mut bytes);
    }
    Some(bytes)
}

fn put_samples() -> Vec<Vec<u8>> {
    [
        r#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG8="}}"#,
        r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="},{"Data":"d29ybGQ="},{"Data":""}]}"#,
        r#"{ "Later": [1.5e3, null, {"a": true}], "Records": [ {"Data": "\u0061GVsbG8=", "X": "\ud83d\ude00"} ],
            "DeliveryStreamName": "a.b_c-D9" }"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn config_samples() -> Vec<Vec<u8>> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|path| path.join("config/schema.json").is_file());
    let folder = folder.expect("the examples").join("config");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the examples can be listed")
        .map(|entry| entry.expect("an example").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an example")).collect()
}

fn log_samples() -> Vec<Vec<u8>> {
    with_choice(&IMAGE.bytes("log"))
}

fn ledger_samples() -> Vec<Vec<u8>> {
    // Behind the last frame lie zeros, of which a few will do.
    let mut bytes = IMAGE.bytes("ledger");
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 65);
    bytes.truncate(end);
    with_choice(&bytes)
}

fn batch_samples() -> Vec<Vec<u8>> {
    with_choice(&IMAGE.bytes("outbox"))
}

fn with_choice(bytes: &[u8]) -> Vec<Vec<u8>> {
    [0, 1].map(|choice| [&[choice], bytes].concat()).to_vec()
}

/// A data directory with one stream, in memory.
struct Image {
    disk: SimFiles,
    root: PathBuf,
    stream: PathBuf,
    /// Threads for logs, as a server has them. They have nothing to do.
    committers: Arc<Committers>,
}

static IMAGE: LazyLock<Image> = LazyLock::new(Image::sample);

const INCARNATION: u64 = 0x0123_4567_89ab_cdef;

/// A clock that stands still.
#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_788_093_360_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Image {
    /// A few records in the log, two batches in the ledger, one of them in the outbox.
    fn sample() -> Self {
        let (disk, root) = (SimFiles::new(1), PathBuf::from("/data"));
        let mut data = DataDir::open_without_lock(&root, Arc::new(disk.clone())).expect("a new directory");
        let declared = Declaration { name: "web", definition: "{}", sink_kind: "file" };
        let (_, stream) = data.declare(declared, Stopped.now(), INCARNATION).expect("a new stream");
        let committers = Arc::new(Committers::start(1).expect("a thread"));
        let image = Self { disk, root, stream, committers };
        let log = image.open_log().expect("a new log");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let payloads = |records: &[&str]| {
            let lengths = records.iter().map(|record| u32::try_from(record.len()).expect("short")).collect();
            Payloads { data: Bytes::from(records.concat()), lengths }
        };
        let object = BatchId::from_bytes([9; 16]);
        let origin = Origin { object, ordinals: [1, 4].into_iter().collect(), is_processed: false };
        let redriven = log.append_redriven(payloads(&["hello", "world"]), &origin);
        runtime.block_on(redriven).expect("there is room");
        for records in [&[""], &["a longer record, and one of odd length"]] {
            runtime.block_on(log.append(payloads(records))).expect("there is room");
        }
        log.close();
        let (first, second) = (BatchId::from_bytes([1; 16]), BatchId::from_bytes([2; 16]));
        let mut pieces = Runs::default();
        pieces.push_span(Span { first: Position::new(1), end: Position::new(3) });
        let (mut ledger, mut state) = image.open_ledger().expect("a new ledger");
        state.redriven.add(object, &origin.ordinals);
        ledger.checkpoint(&state).expect("there is room");
        let entries = [
            Entry::Sealed { batch: first, pieces: pieces.clone() },
            Entry::Redirected { batch: first, key: "errors/key".to_owned() },
            Entry::Settled { batch: first },
            Entry::Lost { span: Span { first: Position::new(3), end: Position::new(4) }, why: "a reason".to_owned() },
            Entry::Sealed { batch: second, pieces: Runs::default() },
        ];
        for entry in entries {
            ledger.append(&[entry]).expect("there is room");
        }
        let (outbox, _) = image.open_outbox().expect("a new outbox");
        outbox.seal(&header(second, pieces), &[Bytes::from(vec![7; 3000])], Claim::DataSeal).expect("there is room");
        image
    }

    /// The same with one file changed.
    fn with(kind: &str, bytes: Vec<u8>) -> Self {
        let image = Self {
            disk: IMAGE.disk.fork(1),
            root: IMAGE.root.clone(),
            stream: IMAGE.stream.clone(),
            committers: Arc::clone(&IMAGE.committers),
        };
        image.disk.damage(&image.path(kind), |file| *file = bytes);
        image
    }

    /// The one file of the log, the ledger or the outbox that counts.
    fn path(&self, kind: &str) -> PathBuf {
        let end = match kind {
            "log" => ".log",
            "ledger" => ".ledger",
            _ => ".batch",
        };
        let folder = self.stream.join(kind);
        let paths = self.disk.paths();
        let found =
            paths.into_iter().rev().find(|path| path.starts_with(&folder) && path.to_string_lossy().ends_with(end));
        found.expect("the file")
    }

    fn bytes(&self, kind: &str) -> Vec<u8> {
        self.disk.bytes(&self.path(kind))
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.disk.clone())
    }

    /// Too little for the reserve of an outbox, which would be copied again and again.
    fn share() -> Arc<Share> {
        Space::new(ByteSize::kib(512)).share(ByteSize::kib(512))
    }

    fn verify(&self) {
        let report = verify(&self.root, &self.disk).expect("the catalog is whole");
        assert_eq!(report.streams.len(), 1);
    }

    fn open_log(&self) -> Result<Log, log::OpenError> {
        let options = log::Options {
            segment_bytes_first: ByteSize::kib(8),
            segment_bytes_max: ByteSize::kib(8),
            salt_seed: Some(1),
            ..log::Options::new(INCARNATION)
        };
        let dir = self.stream.join("log");
        let opened = Log::open(&dir, &options, self.files(), Arc::new(Stopped), Self::share(), &self.committers)?;
        Ok(opened.log)
    }

    fn open_ledger(&self) -> Result<(Ledger, hydrant_storage::ledger::Checkpoint), hydrant_storage::ledger::OpenError> {
        Ledger::open(&self.stream.join("ledger"), self.files(), Arc::new(Stopped), Self::share())
    }

    fn open_outbox(&self) -> Result<(Outbox, Vec<Found>), hydrant_storage::outbox::OpenError> {
        Outbox::open(&self.stream.join("outbox"), self.files(), Arc::new(Stopped), Self::share())
    }
}

fn header(batch: BatchId, pieces: Runs) -> Header {
    Header {
        batch,
        sealed_at: Stopped.now(),
        oldest_arrival: Stopped.now(),
        records: 2,
        raw_bytes: 10,
        pieces,
        sink: SinkMark { kind: "file".to_owned(), destination: "file:///objects".to_owned(), version: 1 },
        content: Content::Object {
            key: "2026/11/21/13/web-1.gz".to_owned(),
            content_type: "application/octet-stream".to_owned(),
            content_encoding: Some("gzip".to_owned()),
            metadata: vec![("name".to_owned(), "value".to_owned())],
        },
    }
}

/// Makes the checksums of a segment right, as `docs/formats/log.md` has them.
fn right_log(bytes: &mut [u8]) {
    for copy in [0, 2048] {
        if bytes.len() >= copy + 64 {
            put_u32(bytes, copy + 60, crc(&[&bytes[copy..copy + 60]]));
        }
    }
    let Some(salt) = bytes.get(36..44).map(<[u8]>::to_vec) else { return };
    let mut at = 4096;
    while bytes.get(at..at + 4) == Some(&[0xf7, 0x68, 0x79, 0x1d]) && bytes.len() >= at + 48 {
        let len = 48 + 4 * u32_at(bytes, at + 16) + u32_at(bytes, at + 20) + (u32_at(bytes, at + 12) >> 16);
        if at + len > bytes.len() {
            return;
        }
        put_u32(bytes, at + 8, crc(&[&bytes[at + 48..at + len]]));
        put_u32(bytes, at + 4, crc(&[&salt, &bytes[at + 8..at + 48]]));
        at += len.next_multiple_of(8);
    }
}

/// Makes the checksums of a ledger right, as `docs/formats/ledger.md` has them.
fn right_ledger(bytes: &mut [u8]) {
    if bytes.len() < 24 {
        return;
    }
    put_u32(bytes, 20, crc(&[&bytes[..20]]));
    let number = bytes[12..20].to_vec();
    let mut at = 24;
    while bytes.get(at..at + 4) == Some(b"HLFR") && bytes.len() >= at + 20 {
        let end = at + 20 + u32_at(bytes, at + 4);
        if end > bytes.len() {
            return;
        }
        put_u32(bytes, at + 16, crc(&[&number, &bytes[at + 4..at + 16], &bytes[at + 20..end]]));
        at = end;
    }
}

/// Makes the checksums of a batch right, as `docs/formats/outbox.md` has them.
fn right_batch(bytes: &mut [u8]) {
    if bytes.len() < 32 {
        return;
    }
    // Samples are shorter than a block, so there is one checksum of the body, and then that of all checksums.
    let header = bytes.len().checked_sub(u32_at(bytes, 12));
    let (Some(header), Some(end)) = (header, header.and_then(|header| header.checked_sub(8))) else { return };
    if end < 32 {
        return;
    }
    put_u32(bytes, 28, crc(&[&bytes[..28], &bytes[header..]]));
    put_u32(bytes, end, crc(&[&bytes[32..end]]));
    put_u32(bytes, end + 4, crc(&[&bytes[28..32], &bytes[end..end + 4]]));
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    // Too much to add up is as good as too much.
    (u32::from_le_bytes(number) as usize).min(1 << 24)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// CRC-32C, bit by bit: written apart from the program's own, and plainly.
fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

/// The samples as they are must be taken: otherwise all that is fuzzed is the first check.
pub fn assert_samples_are_whole() {
    for sample in put_samples() {
        let taken = [false, true].map(|is_batch| hydrant::api::read_put(is_batch, sample.clone()).is_some());
        assert!(taken.contains(&true), "{}", sample.escape_ascii());
    }
    let report = verify(&IMAGE.root, &IMAGE.disk).expect("the catalog is whole");
    let damages: Vec<_> = report.damages().collect();
    assert!(damages.is_empty(), "{damages:?}");
    for (kind, make_right) in [("log", right_log as fn(&mut [u8])), ("ledger", right_ledger), ("outbox", right_batch)] {
        let (whole, mut again) = (IMAGE.bytes(kind), IMAGE.bytes(kind));
        make_right(&mut again);
        assert!(whole == again, "the checksums of a {kind} were right");
    }
}
