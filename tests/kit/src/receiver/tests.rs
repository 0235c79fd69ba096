//! A good request is taken, each rule can be broken, and the same id counts once.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::protocol::{Request, read};
use super::*;

const ID: &str = "ed4acda5-034f-4f42-bba1-f29aea6d7d8f";
const BODY: &str = r#"{"requestId":"ed4acda5-034f-4f42-bba1-f29aea6d7d8f","timestamp":1578090901599,"records":[{"data":"aGVsbG8="},{"data":""}]}"#;

fn rules() -> Rules {
    let common_attributes = [("stage".to_owned(), "test".to_owned())].into();
    Rules { access_key: Some("key".to_owned()), common_attributes, ..Rules::default() }
}

fn good() -> Head {
    let headers = [
        ("host", "127.0.0.1"),
        ("accept", "*/*"),
        ("content-type", "application/json"),
        ("content-length", "10"),
        ("user-agent", "Amazon Kinesis Data Firehose Agent/1.0"),
        ("x-amz-firehose-protocol-version", "1.0"),
        ("x-amz-firehose-request-id", ID),
        ("x-amz-firehose-source-arn", "arn:aws:firehose:us-east-1:000000000000:deliverystream/web"),
        ("x-amz-firehose-access-key", "key"),
        ("x-amz-firehose-common-attributes", r#"{"commonAttributes":{"stage":"test"}}"#),
        ("x-amzn-trace-id", "Root=1-5e0fb495-ed4acda5034f4f42bba1f29a"),
    ];
    Head {
        method: "POST".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..Head::default()
    }
}

fn with(name: &str, value: &str) -> Head {
    let mut head = good();
    head.headers.retain(|(known, _)| known != name);
    head.headers.push((name.to_owned(), value.to_owned()));
    head
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_request_as_the_service_sends_it_is_read() {
    let records = vec![Bytes::from_static(b"hello"), Bytes::new()];
    let expected = Request { id: ID.to_owned(), timestamp: Some(1_578_090_901_599), records };
    assert_eq!(read(&rules(), &good(), BODY.as_bytes()).unwrap(), expected);
    let packed = gzip(BODY.as_bytes());
    assert_eq!(read(&rules(), &with("content-encoding", "gzip"), &packed).unwrap(), expected);
}

#[test]
fn each_rule_of_a_head_can_be_broken() {
    let cases = [
        ("x-amz-firehose-protocol-version", "2.0"),
        ("x-amz-firehose-request-id", "ED4ACDA5-034F-4F42-BBA1-F29AEA6D7D8F"),
        ("x-amz-firehose-request-id", "00000000-034f-4f42-bba1-f29aea6d7d8f"),
        ("x-amz-firehose-source-arn", "web"),
        ("x-amz-firehose-common-attributes", r#"{"commonAttributes":{"stage":"live"}}"#),
        ("x-amz-firehose-common-attributes", r#"{"stage":"test"}"#),
        ("content-type", "text/plain"),
        ("content-encoding", "br"),
        ("content-encoding", "gzip"),
        ("transfer-encoding", "chunked"),
        ("user-agent", "hydrant/0.1"),
        ("x-amzn-trace-id", "Root=2"),
        ("x-something", "else"),
    ];
    for (name, value) in cases {
        assert!(read(&rules(), &with(name, value), BODY.as_bytes()).is_err(), "{name}: {value}");
    }
    for (name, _) in &good().headers {
        let mut head = good();
        head.headers.push((name.clone(), "again".to_owned()));
        assert!(read(&rules(), &head, BODY.as_bytes()).is_err(), "{name} twice");
    }
    let get = Head { method: "PUT".to_owned(), ..good() };
    assert!(read(&rules(), &get, BODY.as_bytes()).is_err());
    assert!(!protocol::admits(&rules(), &with("x-amz-firehose-access-key", "other")));
    assert!(!protocol::admits(&Rules::default(), &good()), "a key that nobody asked for");
}

#[test]
fn each_rule_of_a_body_can_be_broken() {
    for (from, to) in [
        (r#""requestId":"ed4a"#, r#""requestId":"0000"#),
        ("1578090901599", r#""1578090901599""#),
        ("1578090901599", "1.5"),
        (r#","timestamp":1578090901599"#, ""),
        (r#"[{"data":"aGVsbG8="},{"data":""}]"#, "[]"),
        (r#"{"data":""}"#, r#"{"data":"","more":1}"#),
        (r#"{"data":""}"#, r#"{"data":{"a":1}}"#),
        ("aGVsbG8=", "aGVsbG8"),
        ("aGVsbG8=", "aGVs bG8="),
        ("]}", r#"],"more":1}"#),
        ("]}", "]}}"),
    ] {
        let body = BODY.replace(from, to);
        assert_ne!(body, BODY, "{from}");
        assert!(read(&rules(), &good(), body.as_bytes()).is_err(), "{body}");
    }
    let two_members = [gzip(BODY.as_bytes()), gzip(b"")].concat();
    assert!(read(&rules(), &with("content-encoding", "gzip"), &two_members).is_err());
    assert!(read(&Rules { is_gzip: Some(true), ..rules() }, &good(), BODY.as_bytes()).is_err());
}

#[test]
fn plain_requests_are_read_by_their_form() {
    let head = Head {
        method: "POST".to_owned(),
        headers: vec![("idempotency-key".to_owned(), ID.to_owned())],
        ..Head::default()
    };
    let records =
        |form, body: &str| read(&Rules { form, ..Rules::default() }, &head, body.as_bytes()).map(|it| it.records);
    assert_eq!(records(Form::JsonArray, r#"[{"a":1}, 2]"#).unwrap(), [&b"{\"a\":1}"[..], b"2"]);
    assert_eq!(records(Form::Ndjson, "{\"a\":1}\n2\n").unwrap(), [&b"{\"a\":1}"[..], b"2"]);
    assert_eq!(records(Form::Lines, "a b\n\n").unwrap(), [&b"a b"[..], b""]);
    for (form, body) in [(Form::JsonArray, "[1"), (Form::Ndjson, "a\n"), (Form::Ndjson, "1"), (Form::Lines, "a")] {
        assert!(records(form, body).is_err(), "{form:?} {body}");
    }
}

fn request(id: &str, records: &[&'static str]) -> Request {
    let records = records.iter().map(|record| Bytes::from_static(record.as_bytes())).collect();
    Request { id: id.to_owned(), timestamp: Some(1), records }
}

#[test]
fn the_same_request_counts_once_and_another_under_its_id_is_found_out() {
    let home = tempfile::tempdir().unwrap();
    let folder = Some(home.path().to_owned());
    let keep = Keep::open(folder.clone()).unwrap();
    for _ in 0..2 {
        keep.take(&request(ID, &["a", "bc"])).unwrap();
    }
    for other in [&["a"][..], &["ab", "c"], &["bc", "a"]] {
        keep.take(&request(ID, other)).unwrap_err();
    }
    keep.take(&Request { timestamp: Some(2), ..request(ID, &["a", "bc"]) }).unwrap_err();
    let kept = keep.get(ID).unwrap();
    assert_eq!((kept.times, kept.digests), (2, vec![digest(b"a"), digest(b"bc")]));
    assert_eq!(std::fs::read(home.path().join(ID)).unwrap(), b"abc");

    let next_life = Keep::open(folder).unwrap();
    next_life.take(&request(ID, &["a", "bc"])).unwrap();
    let next_life = Keep::open(Some(home.path().to_owned())).unwrap();
    next_life.take(&request(ID, &["other"])).unwrap_err();
}
