//! Requests, whole: what is stored, and that nothing is when it should not be.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64_simd::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{Full, StreamBody};
use hydrant_core::Timestamp;
use hyper::body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use super::kit::{Answer, DATE, KEY_ID, NOW, SECRET, Signing, Stand, request, settings, unsigned};
use crate::api::{Limits, Operation, RecordId, Settings};

const GOOD: &[u8] = br#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG8="}}"#;

#[tokio::test]
async fn records_lie_in_the_log_once_they_are_acknowledged() {
    let stand = Stand::new();
    let one = stand.operation("PutRecord", GOOD).await;
    assert_eq!(one.status, 200, "{one:?}");
    let ids: Vec<_> = (0..500).map(|n: u64| BASE64.encode_to_string(format!("record {n}"))).collect();
    let records: Vec<_> = ids.iter().map(|data| format!(r#"{{"Data":"{data}"}}"#)).collect();
    let body = format!(r#"{{"DeliveryStreamName":"web","Records":[{}]}}"#, records.join(","));
    let batch = stand.operation("PutRecordBatch", body).await;
    assert_eq!(batch.status, 200, "{batch:?}");

    let stored = stand.stored("web");
    assert_eq!(stored.len(), 501);
    assert_eq!(stored[0], b"hello");
    let answer: serde_json::Value = serde_json::from_str(&batch.body).unwrap();
    for (n, entry) in answer["RequestResponses"].as_array().unwrap().iter().enumerate() {
        let id = RecordId::parse(entry["RecordId"].as_str().unwrap()).unwrap();
        assert_eq!(id.position.get(), n as u64 + 2);
        assert_eq!(stored[n + 1], format!("record {n}").as_bytes());
    }
}

#[tokio::test]
async fn the_largest_batch_is_stored_as_it_is() {
    let stand = Stand::new();
    let records: Vec<Vec<u8>> = (0..5).map(|n: u8| (0..838_860).map(|i| n ^ (i % 251) as u8).collect()).collect();
    let json: Vec<_> = records.iter().map(|it| format!(r#"{{"Data":"{}"}}"#, BASE64.encode_to_string(it))).collect();
    let body = format!(r#"{{"DeliveryStreamName":"web","Records":[{}]}}"#, json.join(","));
    assert_eq!(stand.operation("PutRecordBatch", body).await.status, 200);
    assert!(stand.stored("web") == records);
}

/// The forgeries that a server of this kind must know, between two requests that are good.
#[tokio::test]
async fn forged_requests_are_refused_and_store_nothing() {
    let stand = Stand::new();
    let good = || request(&Signing::default());
    assert_eq!(stand.call(good()).await.status, 200);

    let stale = Timestamp::from_millis(NOW.as_millis() - 301_000);
    let region = Signing { region: "eu-west-1", ..Signing::default() };
    let mut forged = vec![
        ("wrong secret", request(&Signing { secret: "wrong", ..Signing::default() })),
        ("unknown key", request(&Signing { key_id: "AKIDNOBODY", ..Signing::default() })),
        ("another region", request(&region)),
        ("another service", request(&Signing { service: "s3", ..Signing::default() })),
        ("an old date", request(&Signing { now: stale, ..Signing::default() })),
        ("none at all", unsigned(&Signing::default())),
    ];
    let mut forge = |what, change: fn(&mut Request<Bytes>)| {
        let mut request = good();
        change(&mut request);
        forged.push((what, request));
    };
    forge("changed body", |it| {
        *it.body_mut() = Bytes::from_static(br#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG9="}}"#);
    });
    forge("no body", |it| *it.body_mut() = Bytes::new());
    forge("changed target", |it| set(it, "x-amz-target", "Firehose_20150804.PutRecordBatch"));
    forge("second target", |it| append(it, "x-amz-target", "Firehose_20150804.PutRecord"));
    forge("changed path", |it| *it.uri_mut() = Uri::from_static("/x"));
    forge("added query", |it| *it.uri_mut() = Uri::from_static("/?a=b"));
    forge("changed method", |it| *it.method_mut() = Method::PUT);
    forge("changed date", |it| set(it, "x-amz-date", "20260830T123601Z"));
    forge("changed host", |it| set(it, "host", "elsewhere"));
    forge("changed content type", |it| set(it, "content-type", "application/json"));
    forge("region changed in the scope", |it| replace(it, "us-east-1", "us-west-2"));
    forge("day changed in the scope", |it| replace(it, DATE, "20260831"));
    forge("dropped signed header", |it| drop(it.headers_mut().remove("x-amz-target")));
    forge("dropped host", |it| drop(it.headers_mut().remove("host")));
    forge("dropped date", |it| drop(it.headers_mut().remove("x-amz-date")));
    forge("target left out of the list", |it| replace(it, ";x-amz-target", ""));
    forge("empty list", |it| replace(it, "SignedHeaders=content-type;host;x-amz-date;x-amz-target", "SignedHeaders="));
    forge("signature cut short", |it| cut_authorization(it, 1));
    forge("signature of nothing", |it| cut_authorization(it, 64));
    for (what, request) in forged {
        let answer = stand.call(request).await;
        assert!((400..500).contains(&answer.status) && answer.code().ends_with("Exception"), "{what}: {answer:?}");
        assert_eq!(stand.stored("web").len(), 1, "{what} was stored");
        let corrects_clocks = answer.status != 403 || answer.headers["date"] == "Sun, 30 Aug 2026 12:36:00 GMT";
        assert!(corrects_clocks, "{what}: {answer:?}");
    }
    let wrong_region = stand.call(request(&region)).await;
    assert!(wrong_region.body.contains("us-east-1"), "the answer names the right region: {wrong_region:?}");

    assert_eq!(stand.call(good()).await.status, 200);
    assert_eq!(stand.stored("web"), [b"hello", b"hello"]);
}

fn set(request: &mut Request<Bytes>, name: &'static str, value: &'static str) {
    request.headers_mut().insert(name, HeaderValue::from_static(value));
}

fn append(request: &mut Request<Bytes>, name: &'static str, value: &'static str) {
    request.headers_mut().append(name, HeaderValue::from_static(value));
}

fn replace(request: &mut Request<Bytes>, from: &str, to: &str) {
    let header = request.headers()["authorization"].to_str().unwrap();
    assert!(header.contains(from));
    let header = header.replacen(from, to, 1).parse().unwrap();
    request.headers_mut().insert("authorization", header);
}

fn cut_authorization(request: &mut Request<Bytes>, chars: usize) {
    let header = request.headers()["authorization"].to_str().unwrap();
    let header = header[..header.len() - chars].parse().unwrap();
    request.headers_mut().insert("authorization", header);
}

/// Method, path, each signed header, the authorization and the body: every byte of them, changed in several ways.
#[tokio::test]
async fn no_signed_byte_can_be_changed() {
    let stand = Stand::new();
    let original = || request(&Signing { path: "/?a=b", payload_header: true, ..Signing::default() });
    // A query is signed and passed over; with it in place every part of a request is there to be changed.
    assert_eq!(stand.call(original()).await.status, 200);
    let mut tried = 0;
    let mut refused = async |what: String, request: Request<Bytes>| {
        let answer = stand.call(request).await;
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        tried += 1;
    };
    for (at, body) in mutations(original().body()) {
        let what = format!("body byte {at}: {}", body.escape_ascii());
        refused(what, original().map(|_| Bytes::from(body))).await;
    }
    for (name, value) in original().headers() {
        for (at, value) in mutations(value.as_bytes()) {
            let Ok(changed) = HeaderValue::from_bytes(&value) else { continue };
            let mut request = original();
            request.headers_mut().insert(name, changed);
            // Space around values, and between the fields of an authorization, means nothing.
            let words = |text: &[u8]| text.iter().copied().filter(|byte| *byte != b' ').collect::<Vec<_>>();
            if words(&value) == words(original().headers()[name].as_bytes()) {
                continue;
            }
            refused(format!("{name} byte {at}: {}", value.escape_ascii()), request).await;
        }
    }
    for (at, uri) in mutations(b"/?a=b") {
        let Ok(uri) = Uri::try_from(uri) else { continue };
        // The root has more than one name; whatever is not written as the root is no operation.
        let mut request = original();
        *request.uri_mut() = uri.clone();
        refused(format!("uri byte {at}: {uri}"), request).await;
    }
    for (at, method) in mutations(b"POST") {
        let Ok(method) = Method::from_bytes(&method) else { continue };
        let mut request = original();
        *request.method_mut() = method.clone();
        refused(format!("method byte {at}: {method}"), request).await;
    }
    assert!(tried > 2000, "only {tried} mutations were tried");
    assert_eq!(stand.stored("web").len(), 1);
}

/// All texts that differ from this one in one byte: changed in four ways, doubled, or missing.
fn mutations(text: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..text.len()).flat_map(move |at| {
        let byte = text[at];
        let changed = [byte ^ 1, byte ^ 2, byte ^ 0x20, b'/'].into_iter().filter(move |to| *to != byte);
        let changed = changed.map(move |to| [&text[..at], &[to], &text[at + 1..]].concat());
        let doubled = [&text[..=at], &text[at..]].concat();
        let missing = [&text[..at], &text[at + 1..]].concat();
        changed.chain([doubled, missing]).map(move |text| (at, text))
    })
}

#[tokio::test]
async fn bodies_that_are_refused_store_nothing() {
    let stand = Stand::new();
    let too_long = format!(
        r#"{{"DeliveryStreamName":"web","Records":[{{"Data":"aGVsbG8="}},{{"Data":"{}"}}]}}"#,
        BASE64.encode_to_string(vec![0; 1_024_001])
    );
    for (body, code) in [
        ("", "ValidationException"),
        ("{", "SerializationException"),
        (r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="},{"Data":"?"}]}"#, "SerializationException"),
        (r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="},{}]}"#, "ValidationException"),
        (r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="}],"Records":[]}"#, "SerializationException"),
        (r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="}]"#, "SerializationException"),
        (r#"{"DeliveryStreamName":"nowhere","Records":[{"Data":"aGVsbG8="}]}"#, "ResourceNotFoundException"),
        (&too_long, "ValidationException"),
    ] {
        let answer = stand.operation("PutRecordBatch", body).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{body:.100}");
    }
    assert_eq!(stand.stored("web").len(), 0);
}

#[tokio::test]
async fn a_full_log_slows_producers_down() {
    let stand = Stand::new();
    let one = stand.operation("PutRecord", br#"{"DeliveryStreamName":"full","Record":{"Data":"aGVsbG8="}}"#).await;
    assert_eq!((one.status, one.code()), (500, "ServiceUnavailableException"));
    assert_eq!(one.body, r#"{"__type":"ServiceUnavailableException","message":"Slow down."}"#);
    let body = br#"{"DeliveryStreamName":"full","Records":[{"Data":"aGVsbG8="},{"Data":""}]}"#;
    let batch = stand.operation("PutRecordBatch", body).await;
    let entry = r#"{"ErrorCode":"ServiceUnavailableException","ErrorMessage":"Slow down."}"#;
    let expected = format!(r#"{{"Encrypted":false,"FailedPutCount":2,"RequestResponses":[{entry},{entry}]}}"#);
    assert_eq!((batch.status, batch.body), (200, expected));
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_our_failure() {
    let stand = Stand::new();
    let one = stand.operation("PutRecord", br#"{"DeliveryStreamName":"closed","Record":{"Data":"aGVsbG8="}}"#).await;
    assert_eq!((one.status, one.code()), (500, "InternalFailure"));
    let batch = stand.operation("PutRecordBatch", br#"{"DeliveryStreamName":"closed","Records":[{"Data":""}]}"#).await;
    assert_eq!((batch.status, batch.code()), (500, "InternalFailure"));
    assert!(!batch.body.contains("closed"), "why is for the operator's eyes: {batch:?}");
}

#[tokio::test]
async fn an_operation_that_is_none_is_unknown() {
    let stand = Stand::new();
    let call = async |signing: Signing<'_>| {
        let answer = stand.call(request(&signing)).await;
        assert_eq!((answer.status, answer.code()), (404, "UnknownOperationException"), "{signing:?}");
    };
    for target in [
        "",
        "PutRecord",
        "Firehose_20150804.",
        "Firehose_20150804.putRecord",
        "Kinesis_20131202.PutRecord",
        "Firehose_20150804.PutRecord ",
    ] {
        call(Signing { target, ..Signing::default() }).await;
    }
    for path in ["/x", "//", "/.", "/%2F"] {
        call(Signing { path, ..Signing::default() }).await;
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        call(Signing { method, ..Signing::default() }).await;
    }
    assert_eq!(stand.stored("web").len(), 0);
}

#[tokio::test]
async fn every_operation_has_an_answer_of_its_own() {
    let stand = Stand::new();
    for operation in Operation::ALL {
        let answer = stand.operation(operation.name(), "{}").await;
        let expected = match operation {
            Operation::PutRecord | Operation::PutRecordBatch | Operation::DescribeDeliveryStream => {
                "ValidationException"
            }
            Operation::ListDeliveryStreams => "",
            _ => "InvalidArgumentException",
        };
        assert_eq!(answer.code(), expected, "{operation:?}: {answer:?}");
        assert!(answer.headers.contains_key("x-amzn-requestid"), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/x-amz-json-1.1");
    }
}

#[tokio::test]
async fn without_credentials_any_signature_will_do() {
    let stand = Stand::with(Settings { credentials: Vec::new(), ..settings() });
    for request in
        [unsigned(&Signing::default()), request(&Signing { key_id: "any", region: "mars", ..Signing::default() })]
    {
        assert_eq!(stand.call(request).await.status, 200);
    }
    assert_eq!(stand.stored("web").len(), 2);
}

#[tokio::test]
async fn headers_have_a_limit() {
    let stand = Stand::new();
    let fits = "x".repeat(31 << 10);
    assert_eq!(stand.call(request(&Signing { headers: &[("x-long", &fits)], ..Signing::default() })).await.status, 200);
    let long = "x".repeat(32 << 10);
    let answer = stand.call(request(&Signing { headers: &[("x-long", &long)], ..Signing::default() })).await;
    assert_eq!((answer.status, answer.code()), (431, "RequestHeaderFieldsTooLargeException"));
}

fn limited(limits: Limits) -> Stand {
    Stand::with(Settings { limits, ..settings() })
}

/// A body of unknown length, in frames of 64 KiB, each after a pause.
fn trickle(frames: usize, pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    struct Trickle(usize, Duration, Pin<Box<Sleep>>);
    impl futures_util::Stream for Trickle {
        type Item = Result<Frame<Bytes>, Infallible>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if self.0 == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.2.as_mut().poll(cx));
            self.0 -= 1;
            self.2 = Box::pin(sleep(self.1));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b' '; 64 << 10])))))
        }
    }
    StreamBody::new(Trickle(frames, pause, Box::pin(sleep(pause))))
}

#[tokio::test]
async fn bodies_have_a_limit_whether_announced_or_not() {
    let stand = limited(Limits { body_bytes_max: 1 << 20, ..Limits::default() });
    let head = || request(&Signing { body: b"", ..Signing::default() });
    let fits = stand.call_with_body(head().map(|_| trickle(16, Duration::ZERO))).await;
    assert_eq!(fits.code(), "InvalidSignatureException");
    for answer in [
        stand.call_with_body(head().map(|_| trickle(17, Duration::ZERO))).await,
        stand.call_with_body(head().map(|_| Full::new(Bytes::from(vec![b' '; (1 << 20) + 1])))).await,
    ] {
        assert_eq!((answer.status, answer.code()), (413, "RequestEntityTooLargeException"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_must_keep_up_with_the_least_rate() {
    // 64 KiB a second for up to ten seconds in arrears.
    let stand = limited(Limits::default());
    let call = async |frames, pause| {
        let head = request(&Signing { body: b"", ..Signing::default() });
        stand.call_with_body(head.map(|_| trickle(frames, pause))).await
    };
    assert_eq!(call(100, Duration::from_secs(1)).await.code(), "InvalidSignatureException");
    let slow = call(100, Duration::from_millis(1500)).await;
    assert_eq!((slow.status, slow.code()), (408, "RequestTimeoutException"));
    let silent = call(1, Duration::from_hours(1)).await;
    assert_eq!(silent.code(), "RequestTimeoutException");
}

#[tokio::test(start_paused = true)]
async fn bodies_share_a_budget_and_the_one_too_many_is_told_to_slow_down() {
    let limits = Limits { body_bytes_max: 1 << 20, body_bytes_total: 1 << 20, ..Limits::default() };
    let stand = limited(limits);
    let head = || request(&Signing { body: b"", ..Signing::default() });
    let hungry = stand.call_with_body(head().map(|_| trickle(15, Duration::from_millis(500))));
    let late = async {
        sleep(Duration::from_secs(6)).await;
        stand.call_with_body(head().map(|_| trickle(15, Duration::from_millis(1)))).await
    };
    let (first, second) = tokio::join!(hungry, late);
    assert_eq!(first.code(), "InvalidSignatureException", "the first one had the budget");
    assert_eq!((second.status, second.code()), (500, "ServiceUnavailableException"));
    tokio::time::resume();
    let after: Answer = stand.operation("PutRecord", GOOD).await;
    assert_eq!(after.status, 200, "all of the budget was given back: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_no_key_of_ours_takes_up_none_of_the_budget() {
    let limits = Limits { body_bytes_max: 1 << 20, body_bytes_total: 1 << 20, ..Limits::default() };
    let stand = limited(limits);
    let stranger = request(&Signing { body: b"", key_id: "AKIDNOBODY", ..Signing::default() });
    let hungry = stand.call_with_body(stranger.map(|_| trickle(15, Duration::from_millis(500))));
    let good = async {
        sleep(Duration::from_secs(6)).await;
        let head = request(&Signing { body: b"", ..Signing::default() });
        stand.call_with_body(head.map(|_| trickle(15, Duration::from_millis(1)))).await
    };
    let (stranger, good) = tokio::join!(hungry, good);
    assert_eq!(stranger.code(), "UnrecognizedClientException");
    assert_eq!(good.code(), "InvalidSignatureException", "its body was taken in");
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let stand = Stand::new();
    let shown = format!("{:?} {:?}", stand.api, settings());
    assert!(shown.contains(KEY_ID) && !shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_what_to_do() {
    let stand = Stand::new();
    for (encoding, status) in [("gzip", 400), ("aws-chunked, gzip", 400), ("identity", 200), ("amz-1.0", 200)] {
        let headers = [("content-encoding", encoding)];
        let answer = stand.call(request(&Signing { headers: &headers, ..Signing::default() })).await;
        assert_eq!(answer.status, status, "{encoding}: {answer:?}");
        if status == 400 {
            assert_eq!(answer.code(), "SerializationException");
            assert!(answer.body.contains("send it without Content-Encoding"), "{answer:?}");
        }
    }
    assert_eq!(stand.stored("web").len(), 2);
}
