//! Bodies by their form, answers by the rules.

use hydrant_core::{PartitionKeys, Piece, PieceId, Position};

use super::*;

const ID: &str = "ed4acda5-034f-4f42-bba1-f29aea6d7d8f";

fn batch(records: &[&[u8]]) -> Batch {
    let piece = |data: &&[u8]| Piece {
        id: PieceId::whole(Position::FIRST),
        arrived_at: Timestamp::default(),
        keys: PartitionKeys::default(),
        data: Bytes::copy_from_slice(data),
    };
    Batch {
        id: ID.parse().unwrap(),
        sealed_at: Timestamp::from_millis(1_578_090_901_599),
        pieces: (0..).zip(records.iter().map(piece)).collect(),
    }
}

fn body(form: Form, records: &[&[u8]]) -> String {
    let mut packer = Packer::new(None);
    form.write(&batch(records), &mut packer);
    String::from_utf8(packer.finish().concat()).unwrap()
}

#[test]
fn a_body_has_the_form_that_was_asked_for() {
    assert_eq!(
        body(Form::Firehose, &[b"hello", b"", b"\xff\x00"]),
        format!(
            r#"{{"requestId":"{ID}","timestamp":1578090901599,"records":[{{"data":"aGVsbG8="}},{{"data":""}},{{"data":"/wA="}}]}}"#
        )
    );
    assert_eq!(body(Form::Ndjson, &[b"{\"a\":1}", b"[\n1,\r\n2]", b"\"\xc3\xa4\""]), "{\"a\":1}\n[ 1,  2]\n\"ä\"\n");
    assert_eq!(body(Form::JsonArray, &[b"{\"a\":1}", b" 2\n"]), "[{\"a\":1}, 2\n]");
    assert_eq!(body(Form::Raw(b"\n"), &[b"a", b"", b"b\n"]), "a\n\nb\n\n");
    assert_eq!(body(Form::Raw(b""), &[b"a", b"b"]), "ab");
}

#[test]
fn only_records_that_can_never_be_sent_are_refused() {
    let refused = |form: Form, record: &[u8], body_bytes_max: u64| {
        let refusals = form.refusals(&batch(&[b"1", record, b"2"]), body_bytes_max);
        refusals.into_iter().map(|(ordinal, fault)| (ordinal, fault.code)).collect::<Vec<_>>()
    };
    let mib_64 = 64 << 20;
    assert_eq!(refused(Form::Firehose, &vec![0; RECORD_BYTES_MAX], mib_64), []);
    assert_eq!(refused(Form::Firehose, &vec![0; RECORD_BYTES_MAX + 1], mib_64), [(1, FaultCode::TooLarge)]);
    assert_eq!(refused(Form::Firehose, &[0; 4000], 4096), [(1, FaultCode::TooLarge)]);
    assert_eq!(refused(Form::Raw(b"\n"), &vec![0; RECORD_BYTES_MAX + 1], mib_64), []);
    for form in [Form::Ndjson, Form::JsonArray] {
        for good in [&b"{}"[..], b" [1, {\"a\": null}]\n", b"\"\xc3\xa4\"", b"-1e9"] {
            assert_eq!(refused(form, good, mib_64), [], "{form:?} {good:?}");
        }
        let deep = "[".repeat(1_000_000);
        for bad in [&b""[..], b"{", b"{}{}", b"text", b"\"\xff\"", b"{\"a\":1}\n{\"a\":2}", deep.as_bytes()] {
            assert_eq!(refused(form, bad, mib_64), [(1, FaultCode::Invalid)], "{form:?} {} bytes", bad.len());
        }
    }
}

#[test]
fn what_a_batch_may_hold_fits_the_body() {
    for (form, record_lens) in [
        (Form::Firehose, [1, 2, 3, 1000]),
        (Form::Ndjson, [1, 2, 3, 1000]),
        (Form::JsonArray, [1, 2, 3, 1000]),
        (Form::Raw(b"\n"), [1, 2, 3, 1000]),
    ] {
        for len in record_lens {
            let (body_bytes_max, pieces_max) = (100_000, 500);
            let bytes_max = form.records_bytes_max(body_bytes_max, pieces_max);
            let count = usize::try_from(bytes_max).unwrap() / len;
            let records = vec![&[b'1'; 1000][..len]; count.min(500)];
            assert!(body(form, &records).len() as u64 <= body_bytes_max, "{form:?}: {} of {len} bytes", records.len());
        }
    }
}

#[test]
fn a_trace_id_is_the_same_in_each_attempt() {
    let batch = batch(&[]);
    assert_eq!(trace_id(batch.id, batch.sealed_at), "Root=1-5e0fc195-ed4acda5034f4f42bba1f29a");
}

#[test]
fn common_attributes_are_json_in_ascii() {
    let attributes = [("stage", "live"), ("line\nbreak", "\"ä\" 😀")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = common_attributes(&attributes);
    assert_eq!(text, r#"{"commonAttributes":{"line\nbreak":"\"\u00e4\" \ud83d\ude00","stage":"live"}}"#);
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read, serde_json::json!({ "commonAttributes": attributes }));
}

fn acknowledged() -> Rules {
    Rules { success: Success::Acknowledged, refusals: vec![413], discards: Vec::new() }
}

fn plain() -> Rules {
    Rules { success: Success::Any, refusals: vec![413, 422], discards: vec![415] }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn verdict(rules: &Rules, answer: &Response<Bytes>) -> String {
    match rules.judge(answer, ID.parse().unwrap()) {
        Verdict::Delivered => "delivered".to_owned(),
        Verdict::Retry(Fault { code, retry_after: Some(wait), .. }) => format!("retry {code} after {wait:?}"),
        Verdict::Retry(fault) => format!("retry {}", fault.code),
        Verdict::Refused(fault) => format!("refused {}", fault.code),
        Verdict::Discarded(fault) => format!("discarded {}", fault.code),
    }
}

#[test]
fn only_a_200_that_follows_every_rule_is_an_acknowledgement() {
    let good = format!(r#"{{"requestId":"{ID}","timestamp":1578090903599}}"#);
    let json = ("content-type", "application/json");
    let length = ("content-length", "82");
    let judge = |headers: &[(&str, &str)], body: &str| verdict(&acknowledged(), &answer(200, headers, body));
    assert_eq!(judge(&[json, length], &good), "delivered");
    assert_eq!(judge(&[("content-type", " Application/JSON "), length], &good), "delivered");
    let with_error = good.replace('}', r#","errorMessage":"none"}"#);
    assert_eq!(judge(&[json, length], &with_error), "delivered");
    assert_eq!(judge(&[json, length], &good.replace("ed4", r"\u0065d4")), "delivered");

    for headers in [
        &[length][..],
        &[json],
        &[json, json, length],
        &[("content-type", "text/html"), length],
        &[("content-type", "application/json; charset=utf-8"), length],
        &[json, length, ("content-encoding", "gzip")],
    ] {
        assert_eq!(judge(headers, &good), "retry protocol", "{headers:?}");
    }
    for body in [
        String::new(),
        "{}".to_owned(),
        "<html>welcome".to_owned(),
        format!(r#"{{"requestId":"{ID}"}}"#),
        r#"{"timestamp":1578090903599}"#.to_owned(),
        good.replace("ed4a", "0000"),
        good.replace("ed4acda5", "ED4ACDA5"),
        good.replace("1578090903599", r#""1578090903599""#),
        good.replace("1578090903599", "1.5"),
        good.replace('}', r#","more":1}"#),
        good.replace('}', &format!(r#","requestId":"{ID}"}}"#)),
        format!("{good}{good}"),
        format!("[{good}]"),
        format!(r#"{{"requestId":"{ID}","timestamp":1,"more":{}"#, "[".repeat(1_000_000)),
    ] {
        assert_eq!(judge(&[json, length], &body), "retry protocol", "{}", body.get(..200).unwrap_or(&body));
    }
}

#[test]
fn each_status_has_its_meaning() {
    let good = format!(r#"{{"requestId":"{ID}","timestamp":1578090903599}}"#);
    let headers = [("content-type", "application/json"), ("content-length", "82")];
    for (status, as_the_service, as_plain) in [
        (200, "delivered", "delivered"),
        (201, "retry protocol", "delivered"),
        (204, "retry protocol", "delivered"),
        (301, "retry not-found", "retry not-found"),
        (400, "retry invalid", "retry invalid"),
        (401, "retry unauthenticated", "retry unauthenticated"),
        (403, "retry forbidden", "retry forbidden"),
        (404, "retry not-found", "retry not-found"),
        (405, "retry invalid", "retry invalid"),
        (408, "retry timed-out", "retry timed-out"),
        (409, "retry conflict", "retry conflict"),
        (413, "refused too-large", "refused too-large"),
        (415, "retry invalid", "discarded invalid"),
        (422, "retry invalid", "refused invalid"),
        (429, "retry throttled", "retry throttled"),
        (500, "retry unavailable", "retry unavailable"),
        (503, "retry unavailable", "retry unavailable"),
        (507, "retry full", "retry full"),
        (600, "retry protocol", "retry protocol"),
    ] {
        let answer = answer(status, &headers, &good);
        assert_eq!(verdict(&acknowledged(), &answer), as_the_service, "{status}");
        assert_eq!(verdict(&plain(), &answer), as_plain, "{status}");
    }
    let as_the_service_does = Rules { refusals: Vec::new(), discards: vec![413], ..acknowledged() };
    assert_eq!(verdict(&as_the_service_does, &answer(413, &[], "")), "discarded too-large");
    let only = Rules { success: Success::Statuses(vec![202]), refusals: Vec::new(), discards: Vec::new() };
    assert_eq!(verdict(&only, &answer(202, &[], "")), "delivered");
    assert_eq!(verdict(&only, &answer(200, &[], "")), "retry protocol");
    assert_eq!(verdict(&only, &answer(413, &[], "")), "retry too-large");
}

#[test]
fn a_wish_is_a_number_of_seconds_or_a_moment_after_the_answer_s_own() {
    let wait = |headers: &[(&str, &str)]| verdict(&plain(), &answer(429, headers, ""));
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(wait(&[("retry-after", "7")]), "retry throttled after 7s");
    assert_eq!(wait(&[("retry-after", "0")]), "retry throttled after 0ns");
    assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date]), "retry throttled after 30s");
    for headers in [
        &[][..],
        &[("retry-after", "soon")],
        &[("retry-after", "-1")],
        &[("retry-after", "1.5")],
        &[("retry-after", "99999999999999999999999")],
        &[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")],
        &[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date],
    ] {
        assert_eq!(wait(headers), "retry throttled", "{headers:?}");
    }
}
