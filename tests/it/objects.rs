//! Objects as others see them: stock tools decompress them, `head_object` shows what was asked for.

use std::fs;
use std::process::Command;

use crate::server::Server;
use crate::services::{Stored, bucket, finish, own_prefix, python, read_bucket, variable};

/// Log lines, some 3 MB: more than one window of any compressor.
fn lines() -> Vec<u8> {
    let mut lines = hydrant_kit::lines::Lines::new(5, 600);
    let mut all = Vec::new();
    (0..5000).for_each(|_| lines.write(&mut all));
    all
}

/// Puts lines into a stream with this sink and gives back the one object they became, as boto3 sees it.
#[track_caller]
fn stored(test: &str, sink: &str) -> (Server, Stored, Vec<u8>) {
    let prefix = own_prefix(test);
    let yaml = format!(
        "stores:\n{}streams:\n  web:\n    hints: {{ size: 128MiB, interval: 900s }}\n    sink:\n      \
         s3: {{ store: main, prefix: \"{prefix}\", {sink} }}\n",
        bucket("main", &variable("S3_BUCKET"))
    );
    let server = Server::start(&yaml);
    let lines = lines();
    for request in lines.chunks(600 * 500) {
        server.put("web", &request.chunks(600).collect::<Vec<_>>());
    }
    server.drain();
    let stored = read_bucket(&variable("S3_BUCKET"), &prefix, &server.path("read"));
    let [object] = stored.as_slice() else { panic!("one object was expected: {stored:?}") };
    assert_eq!(object.content_type, "application/octet-stream");
    (server, object.clone(), lines)
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn gzip_is_one_member_that_zlib_curl_and_zcat_read_to_its_end() {
    for (name, compression) in [("gzip", "gzip"), ("gzip-fast", "{ gzip: fast }"), ("gzip-9", "{ gzip: 9 }")] {
        let (server, object, lines) = stored(name, &format!("compression: {compression}"));
        assert!(object.extension() == Some("gz"), "{}", object.key);
        assert_eq!(object.content_encoding.as_deref(), Some("gzip"));
        let plain = server.path("plain");
        python("gunzip.py", &[&object.file, plain.to_str().unwrap()]);
        assert!(fs::read(&plain).unwrap() == lines, "{name}: zlib read other bytes");
        let curl = finish(Command::new("curl").args(["--silent", "--fail", "--compressed", &object.url]));
        assert!(curl.stdout == lines, "{name}: curl --compressed read {} of {} bytes", curl.stdout.len(), lines.len());
        let zcat = finish(Command::new("sh").args(["-c", "zcat < \"$1\"", "sh", &object.file]));
        assert!(zcat.stdout == lines, "{name}: zcat read {} of {} bytes", zcat.stdout.len(), lines.len());
    }
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn zstd_is_a_whole_frame_for_the_stock_tool() {
    let (server, object, lines) = stored("zstd", "compression: zstd");
    assert!(object.extension() == Some("zst"), "{}", object.key);
    assert_eq!(object.content_encoding.as_deref(), Some("zstd"));
    let file = server.path("object.zst");
    fs::copy(&object.file, &file).unwrap();
    finish(Command::new("zstd").arg("-t").arg(&file));
    assert!(finish(Command::new("zstd").arg("-dc").arg(&file)).stdout == lines);
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn an_uncompressed_object_says_so_and_a_delimiter_stands_behind_each_record() {
    let (_server, object, lines) = stored("plain", "compression: none, delimiter: newline");
    assert_eq!((object.content_encoding, object.sse), (None, None));
    let expected: Vec<u8> = lines.chunks(600).flat_map(|line| [line, b"\n"].concat()).collect();
    assert!(fs::read(&object.file).unwrap() == expected);
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn server_side_encryption_is_what_the_stream_asks_for() {
    let (_server, object, lines) = stored("sse-s3", "sse: s3");
    assert_eq!(object.sse.as_deref(), Some("AES256"));
    assert!(object.bytes() == lines);

    let key = variable("S3_KMS_KEY");
    let (_server, object, lines) = stored("sse-kms", &format!("sse: {{ kms: {key} }}"));
    assert_eq!(object.sse.as_deref(), Some("aws:kms"));
    assert!(object.kms_key.as_ref().is_some_and(|of| of.ends_with(&key)), "{:?}", object.kms_key);
    assert!(object.bytes() == lines);
}
