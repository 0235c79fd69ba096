//! Bodies of puts: what is taken, what is refused, and that nothing in them makes us panic.

use base64_simd::STANDARD as BASE64;
use hydrant_core::ByteSize;
use hydrant_storage::buffers::Buffers;
use proptest::prelude::*;

use crate::api::error::ServiceError;
use crate::api::wire::{BATCH_BYTES_MAX, Put, PutKind, RECORD_BYTES_MAX};

fn batch_body(records: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let records: Vec<_> =
        records.iter().map(|record| format!(r#"{{"Data":"{}"}}"#, BASE64.encode_to_string(record))).collect();
    format!(r#"{{"DeliveryStreamName":"web","Records":[{}]}}"#, records.join(",")).into_bytes()
}

fn records_of(put: &Put) -> Vec<Vec<u8>> {
    let mut rest = put.payloads.data.clone();
    let records = put.payloads.lengths.iter().map(|len| rest.split_to(*len as usize).to_vec()).collect();
    assert!(rest.is_empty(), "lengths must cover all of the data");
    records
}

#[track_caller]
fn check_taken(kind: PutKind, body: impl AsRef<[u8]>, records: &[&[u8]]) {
    let body = body.as_ref();
    let put = Put::read(kind, body.to_vec()).unwrap_or_else(|error| panic!("{error:?}: {}", body.escape_ascii()));
    assert_eq!(put.stream, "web");
    assert_eq!(records_of(&put), records);
}

#[track_caller]
fn check_refused(kind: PutKind, body: impl AsRef<[u8]>, code: &str, message: &str) {
    let error = Put::read(kind, body.as_ref().to_vec()).expect_err("the body must be refused");
    assert_eq!((error.shape().1, error.to_string().as_str()), (code, message));
}

#[test]
fn records_come_out_as_they_went_in_and_in_order() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let records: [&[u8]; 6] = [b"hello", b"", b"\0", &every_byte, b"\"\\\n", b"world"];
    check_taken(PutKind::Batch, batch_body(&records), &records);
    check_taken(PutKind::One, br#"{"DeliveryStreamName":"web","Record":{"Data":"aGVsbG8="}}"#, &[b"hello"]);
}

#[test]
fn json_may_be_written_in_any_way() {
    check_taken(
        PutKind::Batch,
        " {\n\t\"Records\" : [ { \"Data\" : \"aGVs\\u0062G8=\" , \"Other\":[{}] }, {\"Data\":\"\\/\\/\\/\\/\"} ] ,\r\n \"x\":{\"Records\":1},\
         \"DeliveryStreamName\":\"w\\u0065b\" } ",
        &[b"hel\x6c\x6f", b"\xff\xff\xff"],
    );
}

#[test]
fn a_body_that_is_mostly_white_space_does_not_stay_in_memory() {
    let (text, buffers) = (batch_body(&["x"]), Buffers::new(ByteSize::mib(2)));
    let mut body = buffers.take(1 << 20);
    body.fill(b' ');
    body[..text.len()].copy_from_slice(&text);
    let put = Put::read(PutKind::Batch, body).unwrap();
    assert_eq!((&put.payloads.data[..], buffers.free()), (&b"x"[..], 1 << 20));
}

#[test]
fn json_that_is_none_of_ours_is_a_serialization_exception() {
    let deep = format!(r#"{{"DeliveryStreamName":"web","Records":{}"#, "[".repeat(100_000));
    let deep_record = format!(r#"{{"Records":[{{"Data":{}"#, r#"{"a":"#.repeat(100_000));
    for body in [
        "[",
        "{",
        "null",
        "[]",
        r#"["web",[]]"#,
        "\"web\"",
        "{}{}",
        "{\"DeliveryStreamName\":\"web\"} x",
        "\u{feff}{}",
        "{'DeliveryStreamName':'web'}",
        r#"{"DeliveryStreamName":1}"#,
        r#"{"DeliveryStreamName":"web","DeliveryStreamName":"web"}"#,
        r#"{"DeliveryStreamName":"web","Records":[{"Data":"","Data":""}]}"#,
        r#"{"DeliveryStreamName":"web","Records":{}}"#,
        r#"{"DeliveryStreamName":"web","Records":[["aGVsbG8="]]}"#,
        r#"{"DeliveryStreamName":"web","Records":["aGVsbG8="]}"#,
        r#"{"DeliveryStreamName":"web","Records":[{"Data":[104,101]}]}"#,
        r#"{"DeliveryStreamName":"web","Records":[{"Data":7}]}"#,
        r#"{"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="}"#,
        r#"{"DeliveryStreamName":"\ud800","Records":[{"Data":""}]}"#,
        &deep,
        &deep_record,
    ] {
        let error = Put::read(PutKind::Batch, body.as_bytes().to_vec()).expect_err(body);
        assert!(matches!(error, ServiceError::Serialization(_)), "{error:?}: {body:.200}");
    }
    for body in [&b"{\"DeliveryStreamName\":\"\xff\"}"[..], b"\xff", b"{\"DeliveryStreamName\":\"web\0\"}"] {
        let error = Put::read(PutKind::Batch, body.to_vec()).unwrap_err();
        assert!(matches!(error, ServiceError::Serialization(_)), "{error:?}: {}", body.escape_ascii());
    }
}

#[test]
fn unknown_members_are_passed_over_however_deep_they_are() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    check_taken(
        PutKind::Batch,
        format!(r#"{{"Later":{deep},"DeliveryStreamName":"web","Records":[{{"Data":"aGVsbG8="}}]}}"#),
        &[b"hello"],
    );
}

#[test]
fn base64_is_standard_and_padded_or_a_serialization_exception() {
    for text in
        ["a", "aGVsbG8", "aGVsbG8==", "aGVs bG8=", "aGVs\\nbG8=", "_-_-", "=", "====", "aGVsbG8=aGVsbG8=", "é==="]
    {
        let body = format!(r#"{{"DeliveryStreamName":"web","Records":[{{"Data":"aGVsbG8="}},{{"Data":"{text}"}}]}}"#);
        check_refused(PutKind::Batch, body, "SerializationException", "Data is not base64.");
    }
}

#[test]
fn decoding_agrees_with_a_decoder_that_is_written_plainly() {
    proptest!(|(text in "[A-Za-z0-9+/]{0,12}={0,2}")| {
        let body = format!(r#"{{"DeliveryStreamName":"web","Record":{{"Data":"{text}"}}}}"#).into_bytes();
        let ours = Put::read(PutKind::One, body).ok().map(|put| put.payloads.data.to_vec());
        prop_assert_eq!(ours, plain_base64(&text), "{}", text);
    });
}

/// RFC 4648 by the letter: four characters at a time, padded, no bits left over.
fn plain_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let bits = digits.chars().map(|c| ALPHABET.find(c).map(|v| format!("{v:06b}"))).collect::<Option<String>>()?;
    let (bytes, rest) = bits.split_at(bits.len() / 8 * 8);
    if padding > 2 || rest.contains('1') {
        return None;
    }
    let byte = |index: usize| u8::from_str_radix(&bytes[index * 8..index * 8 + 8], 2).unwrap();
    Some((0..bytes.len() / 8).map(byte).collect())
}

#[test]
fn records_up_to_1000_kib_are_taken_and_one_byte_more_refuses_the_whole_batch() {
    let most = vec![7; RECORD_BYTES_MAX];
    check_taken(PutKind::Batch, batch_body(&[&most[..], b"x"]), &[&most, b"x"]);
    let more = vec![7; RECORD_BYTES_MAX + 1];
    check_refused(
        PutKind::Batch,
        batch_body(&[b"x", &more[..]]),
        "ValidationException",
        "1 validation error detected: Value at 'records.2.member.data' failed to satisfy constraint: \
         Member must have length less than or equal to 1024000",
    );
    let body = format!(r#"{{"DeliveryStreamName":"web","Record":{{"Data":"{}"}}}}"#, BASE64.encode_to_string(&more));
    check_refused(
        PutKind::One,
        body,
        "ValidationException",
        "1 validation error detected: Value at 'record.data' failed to satisfy constraint: \
         Member must have length less than or equal to 1024000",
    );
}

#[test]
fn a_batch_has_1_to_500_records() {
    check_taken(PutKind::Batch, batch_body(&["x"; 500]), &[&b"x"[..]; 500]);
    for (count, rule) in
        [(0, "greater than or equal to 1"), (501, "less than or equal to 500"), (100_000, "less than or equal to 500")]
    {
        check_refused(
            PutKind::Batch,
            batch_body(&vec!["x"; count]),
            "ValidationException",
            &format!(
                "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length {rule}"
            ),
        );
    }
}

#[test]
fn a_batch_has_up_to_4_mib_once_decoded() {
    let sizes = [
        RECORD_BYTES_MAX,
        RECORD_BYTES_MAX,
        RECORD_BYTES_MAX,
        RECORD_BYTES_MAX,
        BATCH_BYTES_MAX - 4 * RECORD_BYTES_MAX,
    ];
    let mut records: Vec<_> = sizes.iter().map(|size| vec![b'z'; *size]).collect();
    assert_eq!(Put::read(PutKind::Batch, batch_body(&records)).unwrap().payloads.data.len(), 4_194_304);
    records.push(vec![b'z']);
    check_refused(PutKind::Batch, batch_body(&records), "InvalidArgumentException", "Records size exceeds 4 MB limit");
}

#[test]
fn members_that_are_missing_or_malformed_are_named_all_at_once() {
    check_refused(
        PutKind::Batch,
        "{}",
        "ValidationException",
        "2 validation errors detected: Value at 'deliveryStreamName' failed to satisfy constraint: Member must not be null; \
         Value at 'records' failed to satisfy constraint: Member must not be null",
    );
    check_refused(
        PutKind::Batch,
        r#"{"DeliveryStreamName":"a b","Records":[{"Data":""},{},null,{"Data":null}]}"#,
        "ValidationException",
        "4 validation errors detected: Value at 'deliveryStreamName' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: [a-zA-Z0-9_.-]+; Value at 'records.2.member.data' failed to satisfy constraint: Member must not be \
         null; Value at 'records.3.member' failed to satisfy constraint: Member must not be null; Value at \
         'records.4.member.data' failed to satisfy constraint: Member must not be null",
    );
    check_refused(
        PutKind::One,
        format!(r#"{{"DeliveryStreamName":"{}","Record":null}}"#, "n".repeat(65)),
        "ValidationException",
        "2 validation errors detected: Value at 'deliveryStreamName' failed to satisfy constraint: Member must have length \
         less than or equal to 64; Value at 'record' failed to satisfy constraint: Member must not be null",
    );
}

proptest! {
    #[test]
    fn any_records_survive(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40)) {
        let put = Put::read(PutKind::Batch, batch_body(&records)).unwrap();
        prop_assert_eq!(records_of(&put), records);
    }

    /// A body with a few bytes changed, cut out or doubled is taken or refused, and what is taken adds up.
    #[test]
    fn no_damaged_body_panics(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
        one in any::<bool>(),
    ) {
        let mut body = batch_body(&records);
        for (at, byte, how) in damage {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => { body.remove(at); }
                _ => body.insert(at, byte),
            }
        }
        let kind = if one { PutKind::One } else { PutKind::Batch };
        if let Ok(put) = Put::read(kind, body) {
            records_of(&put);
        }
    }

    #[test]
    fn no_bytes_at_all_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
        drop(Put::read(PutKind::Batch, body.clone()));
        drop(Put::read(PutKind::One, body));
    }
}
