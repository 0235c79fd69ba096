//! The promises of an object sink on a real folder, and what is particular to files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::{FaultCode, Object, ObjectSink, ObjectSource, Verdict};
use hydrant_kit::conformance::{Breakage, MemoryBlob, ObjectWorld, object};
use hydrant_kit::object_sink_conformance;
use hydrant_kit::random::Random;
use tempfile::TempDir;

use crate::{FileSink, FileSource, StoreConfig};

const BELOW_A_FILE: Breakage = Breakage::new("the root lies below a file", FaultCode::NotFound);

/// Nobody may make a folder in sysfs, not even root.
const FORBIDDEN: Breakage = Breakage::new("the root cannot be made", FaultCode::Forbidden);

struct Folder {
    home: TempDir,
    /// The root, while it is not the good one.
    elsewhere: Mutex<Option<String>>,
}

impl Folder {
    fn new() -> Self {
        Self { home: TempDir::new().unwrap(), elsewhere: Mutex::default() }
    }

    fn root(&self) -> std::path::PathBuf {
        self.home.path().join("made/when/needed")
    }

    fn config(&self) -> StoreConfig {
        let elsewhere = self.elsewhere.lock().unwrap().clone();
        StoreConfig { path: elsewhere.unwrap_or_else(|| self.root().to_str().unwrap().to_owned()) }
    }

    fn source(&self) -> FileSource {
        FileSource::new(&self.config())
    }

    fn new_sink(&self) -> FileSink {
        FileSink::new(&self.config())
    }
}

fn files_below(folder: &Path, base: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let key = format!("{base}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{key}/"), found);
        } else {
            found.push(key);
        }
    }
}

#[async_trait]
impl ObjectWorld for Folder {
    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::new(self.new_sink())
    }

    async fn stored(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(fs::read(self.root().join(key)).ok().map(Bytes::from))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        files_below(&self.root(), "", &mut found);
        found.sort();
        Ok(found)
    }

    fn attempts(&self) -> Option<u64> {
        None
    }

    fn breakages(&self) -> Vec<Breakage> {
        vec![BELOW_A_FILE, FORBIDDEN]
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let file = self.home.path().join("file");
        fs::write(&file, "")?;
        let root =
            if breakage.name == FORBIDDEN.name { Path::new("/sys/hydrant").to_owned() } else { file.join("root") };
        *self.elsewhere.lock().unwrap() = Some(root.to_str().unwrap().to_owned());
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.elsewhere.lock().unwrap() = None;
        Ok(())
    }

    fn unacceptable(&self) -> Vec<(Object, FaultCode)> {
        let keys = ["", "/a", "a/../../b", ".hydrant/temporary/a", &format!("{}/a", "n".repeat(256))];
        keys.map(|key| (Object { key: key.to_owned(), ..object(0, 1, 10) }, FaultCode::Invalid)).to_vec()
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

object_sink_conformance!(async { Folder::new() });

#[tokio::test]
async fn a_folder_where_the_object_goes_is_left_and_reported() {
    let folder = Folder::new();
    let object = object(0, 1, 100);
    fs::create_dir_all(folder.root().join(&object.key)).unwrap();
    let verdict = folder.sink().place(&object).await;
    assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Conflict), "{verdict:?}");
}

/// A name in the folder may be taken by what is no file. Nothing of it is read, written or waited for.
#[tokio::test]
async fn links_and_pipes_under_the_name_of_an_object_are_left_and_reported() {
    let folder = Folder::new();
    let object = object(0, 1, 100);
    let elsewhere = folder.home.path().join("elsewhere");
    fs::write(&elsewhere, vec![7; 100]).unwrap();
    let path = folder.root().join(&object.key);
    let make_pipe = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    for make in [&(|path: &Path| symlink(&elsewhere, path).unwrap()) as &dyn Fn(&Path), &make_pipe] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        make(&path);
        let (sink, source) = (folder.sink(), folder.source());
        let placed = tokio::time::timeout(Duration::from_secs(20), sink.place(&object)).await.expect("does not wait");
        assert!(matches!(&placed, Verdict::Retry(fault) if fault.code == FaultCode::Conflict), "{placed:?}");
        let opened = tokio::time::timeout(Duration::from_secs(20), source.open(&object.key)).await;
        assert_eq!(opened.expect("does not wait").unwrap_err().code, FaultCode::Conflict);
        assert_eq!(source.list("", None, 10).await.unwrap(), []);
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn what_is_made_is_for_the_server_and_its_group() {
    let folder = Folder::new();
    let object = Object { metadata: vec![("a".to_owned(), "b".to_owned())], ..object(0, 1, 10) };
    assert_eq!(folder.sink().place(&object).await, Verdict::Delivered);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    for key in folder.keys().await.unwrap() {
        let path = folder.root().join(key);
        // What the umask of this process takes away may be missing too.
        assert_eq!(mode(&path) | 0o040, 0o640, "{}", path.display());
        for above in path.ancestors().skip(1).take_while(|above| *above != folder.home.path()) {
            assert_eq!(mode(above) | 0o050, 0o750, "{}", above.display());
        }
    }
}

#[tokio::test]
async fn a_shorter_file_under_the_name_is_nobody_s_batch() {
    let folder = Folder::new();
    let object = object(0, 1, 100_000);
    let path = folder.root().join(&object.key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "torn").unwrap();
    let verdict = folder.sink().place(&object).await;
    assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Conflict), "{verdict:?}");
    assert_eq!(fs::read(&path).unwrap(), b"torn");
}

#[tokio::test]
async fn one_batch_from_many_attempts_at_once_is_one_file() {
    let folder = Folder::new();
    let object = object(0, 1, 3 << 20);
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (sink, object) = (folder.sink(), object.clone());
        attempts.spawn(async move { sink.place(&object).await });
    }
    while let Some(verdict) = attempts.join_next().await {
        assert_eq!(verdict.unwrap(), Verdict::Delivered);
    }
    assert_eq!(folder.keys().await.unwrap(), [object.key]);
}

#[tokio::test]
async fn folders_that_somebody_tidied_away_are_made_again() {
    let folder = Folder::new();
    let sink = folder.sink();
    for seed in 0..3 {
        assert_eq!(sink.place(&object(0, seed, 10)).await, Verdict::Delivered);
        fs::remove_dir_all(folder.root()).unwrap();
    }
}

#[tokio::test]
async fn what_a_crash_left_is_removed_when_it_is_a_day_old() {
    let folder = Folder::new();
    let temporary = folder.root().join(".hydrant/temporary");
    fs::create_dir_all(&temporary).unwrap();
    for (name, hours) in [("old", 25), ("young", 23)] {
        let file = File::create(temporary.join(name)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - Duration::from_hours(hours)).unwrap();
    }
    let object = object(0, 1, 10);
    assert_eq!(folder.sink().place(&object).await, Verdict::Delivered);
    assert_eq!(folder.keys().await.unwrap(), [".hydrant/temporary/young", &object.key]);
}

#[tokio::test]
async fn metadata_lie_beside_the_object_that_carries_them_and_only_there() {
    let folder = Folder::new();
    let plain = object(0, 1, 10);
    let metadata = vec![("intended-key".to_owned(), "a/b".to_owned()), ("attempts".to_owned(), "3".to_owned())];
    let noted = Object { metadata, ..object(0, 2, 10) };
    for object in [&plain, &noted] {
        assert_eq!(folder.sink().place(object).await, Verdict::Delivered);
    }
    let kept = format!(".hydrant/metadata/{}", noted.key);
    assert_eq!(folder.keys().await.unwrap(), [kept, plain.key.clone(), noted.key.clone()]);

    let read = folder.source().open(&noted.key).await.unwrap();
    assert_eq!(read.content_type.as_deref(), Some("application/octet-stream"));
    assert_eq!(read.content_encoding.as_deref(), Some("gzip"));
    let mut expected = noted.metadata;
    expected.sort();
    assert_eq!(read.metadata, expected);
    assert_eq!(folder.source().open(&plain.key).await.unwrap().metadata, []);
}

#[tokio::test]
async fn objects_are_read_back_in_parts_up_to_their_end() {
    let folder = Folder::new();
    let object = object(0, 1, 1000);
    folder.sink().place(&object).await;
    let body = folder.source().open(&object.key).await.unwrap().body;
    assert_eq!(body.len(), 1000);
    for (offset, len, expected) in [(0, 1000, 1000), (0, 4000, 1000), (990, 100, 10), (1000, 10, 0), (2000, 10, 0)] {
        let part = body.read_at(offset, len).await.unwrap();
        assert_eq!(part.len(), expected, "{offset} {len}");
        assert_eq!(part, object.body.read_at(offset, len).await.unwrap());
    }
    let missing = folder.source().open("missing").await.unwrap_err();
    assert_eq!(missing.code, FaultCode::NotFound);
    let outside = folder.source().open("../file").await.unwrap_err();
    assert_eq!(outside.code, FaultCode::NotFound);
}

/// Keys of few letters, so that many are beginnings of others, listed page by page from each prefix: the walk must
/// find what a sorted list of all keys gives.
#[tokio::test]
async fn listing_gives_keys_in_the_order_of_their_bytes_page_by_page() {
    let seed = 7;
    let mut random = Random::new(seed);
    let folder = Folder::new();
    let sink = folder.sink();
    let mut all = BTreeMap::new();
    while all.len() < 150 {
        let depth = 1 + random.index(3);
        let segments: Vec<&str> = (0..depth).map(|_| random.pick(&["a", "a-", "a.b", "b", "ab", "ä"])).collect();
        let key = format!("{}{}", segments.join("/"), if random.below(2) == 0 { "-1" } else { ".gz" });
        let len = random.index(3);
        if all.contains_key(&key) || all.len() > 149 {
            continue;
        }
        let body = Arc::new(MemoryBlob(vec![0; len].into()));
        // A key that is a folder already, or lies below a file, cannot be placed.
        if sink.place(&Object { key: key.clone(), body, ..object(0, 1, 0) }).await == Verdict::Delivered {
            all.insert(key, len as u64);
        }
        if random.below(400) == 0 {
            break;
        }
    }
    let source = folder.source();
    for prefix in ["", "a", "a-", "a/", "a-/", "a.b/a", "b/ab/", "nothing", "ä"] {
        let expected: Vec<_> = all.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
        for page in [1, 7, 1000] {
            let mut found: Vec<(String, u64)> = Vec::new();
            loop {
                let after = found.last().map(|(key, _)| key.clone());
                let listed = source.list(prefix, after.as_deref(), page).await.unwrap();
                let is_last = listed.len() < page;
                found.extend(listed.into_iter().map(|it| (it.key, it.len)));
                if is_last {
                    break;
                }
            }
            assert!(
                found.iter().map(|(key, len)| (key, len)).eq(expected.iter().copied()),
                "seed {seed}, {prefix:?} by {page}"
            );
        }
    }
}

#[test]
fn problems_of_a_store_are_told_with_their_place() {
    let check = |path: &str| {
        let mut problems = Problems::default();
        StoreConfig { path: path.to_owned() }.validate(&DocPath::root().field("file"), &mut problems);
        problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect::<Vec<_>>()
    };
    assert_eq!(check("./dead"), Vec::<String>::new());
    assert_eq!(check(""), ["file.path: path is empty"]);
    assert_eq!(check("a\0b"), ["file.path: path holds a zero byte"]);
    assert_eq!(check("/"), ["file.path: path is the root of the file system"]);
}
