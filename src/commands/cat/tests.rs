use std::path::Path;
use std::sync::Mutex;

use clap::Parser;
use hydrant_core::compression::{Compression, GzipLevel, ZstdLevel};

use super::*;
use crate::commands::{Format, Kind};
use crate::encode::compress::compress;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

/// Standard output that a test can look at, and that breaks like a pipe after so many bytes.
#[derive(Clone)]
struct Pipe {
    written: Arc<Mutex<Vec<u8>>>,
    breaks_after: usize,
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        if written.len() >= self.breaks_after {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cat_into(words: &[&str], breaks_after: usize) -> (Vec<u8>, Result<(), Failure>) {
    let args = CommandLine::try_parse_from([&["cat"], words].concat()).unwrap().args;
    let pipe = Pipe { written: Arc::default(), breaks_after };
    let result = run(&args, &mut Output::to(Format::Text, pipe.clone()));
    let written = pipe.written.lock().unwrap().clone();
    (written, result)
}

fn cat(words: &[&str]) -> (Vec<u8>, Result<(), Failure>) {
    cat_into(words, usize::MAX)
}

/// An object of 300,000 bytes in a folder: its path and its raw bytes.
fn object(folder: &Path, compression: Compression) -> (String, Vec<u8>) {
    let raw: Vec<u8> = (0..30_000).flat_map(|n| format!("{n:9}\n").into_bytes()).collect();
    let path = folder.join(format!("object{}", compression.extension()));
    std::fs::write(&path, compress(vec![raw.clone().into()], compression).concat()).unwrap();
    (path.display().to_string(), raw)
}

const GZIP: Compression = Compression::Gzip(GzipLevel::DEFAULT);

#[test]
fn a_file_is_written_as_its_records_were_whatever_its_compression() {
    let folder = tempfile::tempdir().unwrap();
    for compression in [Compression::None, GZIP, Compression::Zstd(ZstdLevel::DEFAULT)] {
        let (path, raw) = object(folder.path(), compression);
        for path in [path.clone(), format!("file://{path}")] {
            let (written, result) = cat(&[&path]);
            assert!(result.is_ok() && written == raw, "{path}: {result:?}");
        }
    }
}

#[test]
fn raw_writes_the_object_as_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = object(folder.path(), GZIP);
    let (written, result) = cat(&[&path, "--raw"]);
    assert!(result.is_ok());
    assert!(written == std::fs::read(path).unwrap());
}

#[test]
fn the_limit_cuts_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (path, raw) = object(folder.path(), GZIP);
    let (written, result) = cat(&[&path, "--limit", "100kB"]);
    assert!(written == raw[..100_000], "{} bytes", written.len());
    assert!(result.unwrap_err().render(Format::Json).contains("\"too_large\""));
    let (written, result) = cat(&[&path, "--limit", "300kB"]);
    assert!(result.is_ok() && written == raw, "{result:?}");

    let (written, result) = cat(&[&path, "--limit", "10B", "--raw"]);
    assert_eq!(written.len(), 10);
    assert!(result.unwrap_err().to_string().contains("--limit"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, raw) = object(folder.path(), GZIP);
    let (written, result) = cat_into(&[&path], 1);
    assert!(!written.is_empty() && written.len() < raw.len());
    assert_eq!(result.unwrap_err().kind(), Kind::ReaderGone);
}

#[test]
fn a_damaged_object_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = object(folder.path(), GZIP);
    let stored = std::fs::read(&path).unwrap();
    std::fs::write(&path, &stored[..stored.len() / 2]).unwrap();
    let (_, result) = cat(&[&path]);
    let failure = result.unwrap_err();
    assert_eq!(failure.kind(), Kind::Damage);
    assert!(failure.render(Format::Text).starts_with(&format!("error: {path}: ")), "{failure:?}");
}

#[test]
fn a_bucket_is_known_by_its_name_wherever_it_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hydrant.yaml");
    let yaml = "stores:\n  lake:\n    s3: { bucket: lake, endpoint: \"http://127.0.0.1:1\", region: us-east-1, path_style: true }\n\
        streams:\n  web:\n    sink:\n      s3: { store: lake }\n";
    std::fs::write(&config, yaml).unwrap();
    let config = config.display().to_string();
    let (_, result) = cat(&["s3://other/key.gz", "--config", &config]);
    assert!(result.unwrap_err().render(Format::Text).contains("no stream of the configuration uses"));
    // The store is found, and nobody answers there.
    let (_, result) = cat(&["s3://lake/key.gz", "--config", &config]);
    let failure = result.unwrap_err().render(Format::Text);
    assert!(!failure.contains("no stream of the configuration uses"), "{failure}");
}

#[test]
fn an_object_in_a_store_is_found_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).unwrap();
    let (_, raw) = object(&objects, GZIP);
    let config = folder.path().join("hydrant.yaml");
    let yaml = format!(
        "stores:\n  main:\n    file:\n      path: {}\nstreams:\n  web:\n    sink:\n      file:\n        store: main\n",
        objects.display()
    );
    std::fs::write(&config, yaml).unwrap();
    let config = config.display().to_string();

    let (written, result) = cat(&["object.gz", "--config", &config, "--store", "main"]);
    assert!(result.is_ok() && written == raw, "{result:?}");

    for (words, text) in [
        (["nothing.gz", "--store", "main"], "not-found"),
        (["object.gz", "--store", "spare"], "a store `spare`"),
        (["s3://bucket/object.gz", "--store", "main"], "a store `main` that is s3://bucket"),
    ] {
        let (_, result) = cat(&[words.as_slice(), &["--config", &config]].concat());
        let failure = result.unwrap_err().render(Format::Text);
        assert!(failure.contains(text), "{words:?}: {failure}");
    }
}

#[test]
fn places_are_told_apart() {
    let store = |bucket: Option<&str>, name: Option<&str>, key: &str| {
        let (bucket, name) = (bucket.map(str::to_owned), name.map(str::to_owned));
        Place::Store { bucket, name, key: key.to_owned() }
    };
    for (object, name, place) in [
        ("a/b.gz", None, Place::File("a/b.gz".into())),
        ("file:///a/b.gz", None, Place::File("/a/b.gz".into())),
        ("a/b.gz", Some("main"), store(None, Some("main"), "a/b.gz")),
        ("s3://bucket/a//b", None, store(Some("bucket"), None, "a//b")),
        ("s3://bucket/a", Some("main"), store(Some("bucket"), Some("main"), "a")),
    ] {
        assert_eq!(Place::parse(object, name).unwrap(), place);
    }
    for (object, name) in [
        ("s3://bucket", None),
        ("s3://bucket/", None),
        ("s3:///key", None),
        ("file://host/a", None),
        ("file:///a", Some("main")),
        ("https://host/a", None),
    ] {
        assert_eq!(Place::parse(object, name).unwrap_err().kind(), Kind::Usage, "{object}");
    }
    let (_, result) = cat(&["s3://bucket/key"]);
    assert!(result.unwrap_err().to_string().contains("--config"));
}
