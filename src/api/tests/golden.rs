//! Answers, byte for byte, as they stand in `tests/golden/api`.

use std::fmt::Write;

use super::kit::{Answer, Signing, Stand, request, unsigned};

/// Compares with the file of this name; `INSTA_UPDATE=always` writes it anew.
fn check(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../../../tests/golden/api", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[derive(Default)]
struct Book(String);

impl Book {
    fn add(&mut self, asked: &str, answer: &Answer) {
        let Answer { status, headers, body } = answer;
        writeln!(self.0, "> {asked}\n{status}").unwrap();
        for (name, value) in headers {
            writeln!(self.0, "{name}: {value}").unwrap();
        }
        writeln!(self.0, "\n{body}\n").unwrap();
    }

    async fn ask(&mut self, stand: &Stand, operation: &str, body: &str) {
        let answer = stand.operation(operation, body).await;
        self.add(&format!("{operation} {body}"), &answer);
    }
}

#[tokio::test]
async fn puts_are_answered_in_the_words_of_the_service() {
    let (stand, mut book) = (Stand::new(), Book::default());
    book.ask(&stand, "PutRecord", r#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG8="}}"#).await;
    for stream in ["web", "full", "closed", "nowhere"] {
        let body = format!(r#"{{"DeliveryStreamName":"{stream}","Records":[{{"Data":"aGVsbG8="}},{{"Data":""}}]}}"#);
        book.ask(&stand, "PutRecordBatch", &body).await;
    }
    check("puts", &book.0);
}

#[tokio::test]
async fn streams_are_described_in_the_words_of_the_service() {
    let (stand, mut book) = (Stand::new(), Book::default());
    for stream in ["web", "web-kms", "web-zstd", "folder", "nowhere", ""] {
        book.ask(&stand, "DescribeDeliveryStream", &format!(r#"{{"DeliveryStreamName":"{stream}","Limit":1}}"#)).await;
    }
    let past = r#"{"DeliveryStreamName":"web","ExclusiveStartDestinationId":"destinationId-000000000001"}"#;
    book.ask(&stand, "DescribeDeliveryStream", past).await;
    book.ask(&stand, "DescribeDeliveryStream", r#"{"Limit":0,"ExclusiveStartDestinationId":"?"}"#).await;
    check("describe", &book.0);
}

#[tokio::test]
async fn streams_are_listed_in_the_words_of_the_service() {
    let (stand, mut book) = (Stand::new(), Book::default());
    for body in [
        "",
        "{}",
        r#"{"Limit":2}"#,
        r#"{"Limit":2,"ExclusiveStartDeliveryStreamName":"folder"}"#,
        r#"{"Limit":2,"ExclusiveStartDeliveryStreamName":"g-is-no-stream"}"#,
        r#"{"ExclusiveStartDeliveryStreamName":"web-zstd"}"#,
        r#"{"DeliveryStreamType":"DirectPut","Limit":10000}"#,
        r#"{"DeliveryStreamType":"KinesisStreamAsSource"}"#,
        r#"{"DeliveryStreamType":"direct","Limit":10001,"ExclusiveStartDeliveryStreamName":""}"#,
        r#"{"Limit":"2"}"#,
    ] {
        book.ask(&stand, "ListDeliveryStreams", body).await;
    }
    check("list", &book.0);
}

#[tokio::test]
async fn refusals_are_in_the_words_of_the_service() {
    let (stand, mut book) = (Stand::new(), Book::default());
    book.ask(&stand, "PutRecord", "{").await;
    book.ask(&stand, "PutRecord", "{}").await;
    book.ask(&stand, "CreateDeliveryStream", r#"{"DeliveryStreamName":"new"}"#).await;
    book.ask(&stand, "MakeCoffee", "{}").await;
    for (what, request) in [
        ("unsigned", unsigned(&Signing::default())),
        ("wrong secret", request(&Signing { secret: "x", ..Signing::default() })),
        ("unknown key", request(&Signing { key_id: "x", ..Signing::default() })),
        ("wrong region", request(&Signing { region: "eu-west-1", ..Signing::default() })),
    ] {
        book.add(what, &stand.call(request).await);
    }
    check("refusals", &book.0);
}
