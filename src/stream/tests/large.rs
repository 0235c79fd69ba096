//! Objects that are larger than memory should be: compressed while their records come in, into a draft of the outbox.
//!
//! On the real clock: paused time jumps to the next timer while threads work, and that would be the age of the buffer.

use std::io::Read;

use hydrant_core::compression::{GzipLevel, ZstdLevel};
use hydrant_storage::log::AppendError;

use super::*;

/// Lines of a request, and about a MiB of them.
const LINES: u32 = 4_000;

/// Far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(5);

fn setup(compression: Compression) -> Setup {
    let hints = Hints { size: ByteSize::mib(128), interval: Duration::from_hours(10_000) };
    Setup { hints, compression, disk: ByteSize::gib(4), ..Setup::with(Store::good()) }
}

/// Puts the numbers of `requests`, each with a long line; slows down when it is told to.
async fn put(running: &Running, requests: std::ops::Range<u32>) {
    for request in requests {
        let lines: Vec<String> =
            numbers(request..request + 1).map(|number| format!("{number} {}", filler(number))).collect();
        let lengths: Vec<u32> = lines.iter().map(|line| u32::try_from(line.len()).unwrap()).collect();
        let data = Bytes::from(lines.concat());
        let payloads = || Payloads { data: data.clone(), lengths: lengths.clone() };
        while let Err(refused) = running.stream.append(payloads()).await {
            assert!(matches!(refused, AppendError::Full), "{refused}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn drain(running: &Running) {
    tokio::time::timeout(PATIENCE, running.stream.drain()).await.expect("everything is settled").unwrap();
}

fn numbers(requests: std::ops::Range<u32>) -> std::ops::Range<u32> {
    requests.start * LINES..requests.end * LINES
}

/// 250 bytes or so, of which some can be compressed.
fn filler(number: u32) -> String {
    let word = |at| format!("{:08x} and more", number.wrapping_mul(2_654_435_761).rotate_left(at));
    (0..12).map(word).collect::<Vec<_>>().join(" ")
}

fn read_back(body: &Bytes, compression: Compression) -> String {
    let mut text = String::new();
    match compression {
        Compression::None => text = String::from_utf8(body.to_vec()).unwrap(),
        Compression::Gzip(_) => {
            let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
            decoder.read_to_string(&mut text).unwrap();
            assert!(decoder.into_inner().is_empty(), "one member");
        }
        Compression::Zstd(_) => {
            text = String::from_utf8(zstd::stream::decode_all(&body[..]).unwrap()).unwrap();
        }
    }
    text
}

/// Numbers that arrived, as they arrived, and the size of each object before compression.
fn arrived(setup: &Setup) -> (Vec<u32>, Vec<usize>) {
    let texts: Vec<String> =
        setup.primary.objects().values().map(|object| read_back(&object.body, setup.compression)).collect();
    let number = |line: &str| {
        let number: u32 = line.split(' ').next().unwrap().parse().unwrap();
        assert!(line.ends_with(&filler(number)), "the bytes of {number} are its own");
        number
    };
    (texts.iter().flat_map(|text| text.lines().map(number)).collect(), texts.iter().map(String::len).collect())
}

fn drafts(dir: &Path) -> usize {
    let paths = std::fs::read_dir(dir.join("outbox")).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).count()
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what} did not come"));
}

fn all() -> [Compression; 4] {
    let fast = Compression::Gzip(GzipLevel::Fast);
    [Compression::None, Compression::Gzip(GzipLevel::DEFAULT), fast, Compression::Zstd(ZstdLevel::DEFAULT)]
}

#[tokio::test]
async fn a_large_object_is_one_object_in_the_order_of_the_puts() {
    for compression in all() {
        let (dir, setup) = (tempfile::tempdir().unwrap(), setup(compression));
        let running = setup.start(dir.path(), 1);
        put(&running, 0..12).await;
        drain(&running).await;
        let (arrived, sizes) = arrived(&setup);
        assert!(arrived.into_iter().eq(numbers(0..12)), "{compression:?}");
        assert_eq!(sizes.len(), 1, "{compression:?}");
        assert_eq!(drafts(dir.path()), 0);
        running.stop().await;
    }
}

/// The memory is a fraction of the object: under pressure a stream hands over what it has and goes on with the object.
#[tokio::test]
async fn an_object_may_be_larger_than_the_memory_for_records() {
    for compression in all() {
        let (dir, mut setup) = (tempfile::tempdir().unwrap(), setup(compression));
        setup.memory = ByteSize::mib(3);
        let running = setup.start(dir.path(), 1);
        put(&running, 0..12).await;
        drain(&running).await;
        let (mut arrived, sizes) = arrived(&setup);
        arrived.sort_unstable();
        assert!(arrived.into_iter().eq(numbers(0..12)), "{compression:?}");
        assert!(sizes.len() == 1 || matches!(compression, Compression::Zstd(_)), "{compression:?}: {sizes:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_draft_that_a_crash_or_a_stop_left_is_thrown_away_and_its_records_come_from_the_log() {
    let (dir, setup) = (tempfile::tempdir().unwrap(), setup(Compression::Gzip(GzipLevel::DEFAULT)));
    let running = setup.start(dir.path(), 1);
    put(&running, 0..6).await;
    wait_for("a draft", || drafts(dir.path()) == 1).await;
    running.crash().await;
    let running = setup.start(dir.path(), 2);
    put(&running, 6..12).await;
    wait_for("a draft", || drafts(dir.path()) == 1).await;
    running.stop().await;
    assert_eq!(drafts(dir.path()), 0, "a stop removes what it will not go on with");
    let running = setup.start(dir.path(), 3);
    drain(&running).await;
    assert!(arrived(&setup).0.into_iter().eq(numbers(0..12)));
    running.stop().await;
}

/// The share has room for the log, or for objects of some MiB beside it, never for one of all its records.
#[tokio::test]
async fn what_does_not_fit_the_disk_as_one_object_goes_as_several() {
    let (dir, mut setup) = (tempfile::tempdir().unwrap(), setup(Compression::None));
    setup.disk = ByteSize::mib(24);
    let running = setup.start(dir.path(), 1);
    put(&running, 0..12).await;
    drain(&running).await;
    let (mut arrived, sizes) = arrived(&setup);
    arrived.sort_unstable();
    assert!(arrived.into_iter().eq(numbers(0..12)));
    assert!(sizes.len() > 1, "{sizes:?}");
    running.stop().await;
}
