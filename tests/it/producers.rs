//! Unmodified clients: boto3, the AWS CLI, the SDK for Rust. What they put arrives byte for byte, in order, and what
//! they are refused leaves nothing behind.

use std::fs;
use std::process::Command;

use aws_sdk_firehose::Client;
use aws_sdk_firehose::config::retry::RetryConfig;
use aws_sdk_firehose::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record;

use crate::server::{ACCESS_KEY_ID, SECRET, Server, objects_in};
use crate::services::{aws, bucket, finish, own_prefix, producer, read_bucket, variable};

/// A stream into MinIO, uncompressed, sealed by nothing but a drain.
fn into_minio(test: &str) -> (Server, String) {
    let prefix = own_prefix(test);
    let yaml = format!(
        "stores:\n{}streams:\n  web:\n    hints: {{ size: 128MiB, interval: 900s }}\n    sink:\n      \
         s3: {{ store: main, prefix: \"{prefix}\" }}\n",
        bucket("main", &variable("S3_BUCKET"))
    );
    (Server::start(&yaml), prefix)
}

/// A stream into a folder, sealed by nothing but a drain.
const INTO_A_FOLDER: &str = "stores:\n  out:\n    file: { path: $FOLDER/out }\nstreams:\n  web:\n    \
    hints: { size: 128MiB, interval: 900s }\n    sink:\n      file: { store: out }\n";

/// What arrived in MinIO, as boto3 reads it: one object, as nothing sealed it before the drain.
#[track_caller]
fn arrived(server: &Server, prefix: &str) -> Vec<u8> {
    server.drain();
    let stored = read_bucket(&variable("S3_BUCKET"), prefix, &server.path("read"));
    let [object] = stored.as_slice() else { panic!("one object was expected: {stored:?}") };
    object.bytes()
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn records_of_every_size_arrive_and_a_byte_too_many_refuses_the_whole_request() {
    let (server, prefix) = into_minio("sizes");
    let expected = server.path("expected");
    producer(&server, "put.py", &["sizes", "web", expected.to_str().unwrap()]);
    assert!(arrived(&server, &prefix) == fs::read(expected).unwrap(), "other bytes arrived than were put");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn every_byte_value_arrives_and_batches_of_500_keep_their_order() {
    let (server, prefix) = into_minio("bytes");
    let expected = server.path("expected");
    producer(&server, "put.py", &["bytes", "web", expected.to_str().unwrap()]);
    assert!(arrived(&server, &prefix) == fs::read(expected).unwrap(), "other bytes arrived than were put");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn descriptions_lists_and_errors_are_what_boto3_expects() {
    let (server, _) = into_minio("answers");
    producer(&server, "put.py", &["answers", "web"]);
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn the_aws_cli_puts_describes_and_lists() {
    let (server, prefix) = into_minio("cli");
    let put = aws(&server, &["put-record", "--delivery-stream-name", "web", "--record", "Data=one"]);
    assert!(put["RecordId"].as_str().is_some_and(|id| !id.is_empty()), "{put}");
    // As JSON: with structures of one member the CLI's shorthand takes `Data=two` for the data itself.
    let records = r#"[{"Data":"two"},{"Data":"three"}]"#;
    let batch = aws(&server, &["put-record-batch", "--delivery-stream-name", "web", "--records", records]);
    assert_eq!((&batch["FailedPutCount"], batch["RequestResponses"].as_array().unwrap().len()), (&0.into(), 2));
    let described = aws(&server, &["describe-delivery-stream", "--delivery-stream-name", "web"]);
    assert_eq!(described["DeliveryStreamDescription"]["DeliveryStreamStatus"], "ACTIVE");
    assert_eq!(aws(&server, &["list-delivery-streams"])["DeliveryStreamNames"], serde_json::json!(["web"]));
    assert_eq!(arrived(&server, &prefix), b"onetwothree");
}

/// Posts 64 MiB, as Node.js does it: while it sends it listens, and a reset hides the answer behind EPIPE.
const TOO_MUCH: &str = "\
const http = require('http');
const body = Buffer.alloc(64 << 20, 32);
const headers = { 'x-amz-target': 'Firehose_20150804.PutRecordBatch', 'content-length': body.length };
const agent = new http.Agent({ keepAlive: true });
const request = http.request(process.argv[1], { method: 'POST', agent, headers }, (answer) => {
  let text = '';
  answer.on('data', (data) => { text += data; });
  answer.on('end', () => console.log(answer.statusCode, answer.headers.connection, text));
});
request.on('error', (error) => { console.log('error', error.code); process.exitCode = 1; });
request.end(body);
";

#[test]
#[ignore = "needs the services of cargo xtask"]
fn a_node_producer_that_sends_too_much_reads_why() {
    let server = Server::start(INTO_A_FOLDER);
    for _ in 0..5 {
        let mut node = Command::new(variable("NODE"));
        let output = finish(node.args(["-e", TOO_MUCH, &server.endpoint()]));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with("413 close {\"__type\":\"RequestEntityTooLargeException\""), "{said}");
    }
}

/// The SDK for Rust against a server, without retries.
fn sdk(server: &Server) -> Client {
    let config = aws_sdk_firehose::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY_ID, SECRET, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn record(data: &[u8]) -> Record {
    Record::builder().data(Blob::new(data)).build().unwrap()
}

#[tokio::test]
async fn the_sdk_for_rust_puts_and_reads_typed_errors() {
    let server = Server::start(INTO_A_FOLDER);
    let client = sdk(&server);
    let put = client.put_record().delivery_stream_name("web").record(record(b"one")).send().await.unwrap();
    assert!(!put.record_id().is_empty());
    let many = (0..500).map(|number: u32| record(format!("[{number}]").as_bytes())).collect();
    let batch = client.put_record_batch().delivery_stream_name("web").set_records(Some(many)).send().await.unwrap();
    assert_eq!((batch.failed_put_count(), batch.request_responses().len()), (0, 500));
    let absent = client.put_record().delivery_stream_name("absent").record(record(b"x")).send().await.unwrap_err();
    assert!(absent.into_service_error().is_resource_not_found_exception());
    let listed = client.list_delivery_streams().send().await.unwrap();
    assert_eq!(listed.delivery_stream_names(), ["web"]);

    server.drain();
    let expected: String =
        std::iter::once("one".to_owned()).chain((0..500).map(|number| format!("[{number}]"))).collect();
    let objects = objects_in(&server.path("out"));
    let [(key, bytes)] = objects.as_slice() else { panic!("one object was expected: {objects:?}") };
    assert_eq!(String::from_utf8_lossy(bytes), expected, "{key}");
}
