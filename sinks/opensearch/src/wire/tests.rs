//! Requests as they go, and answers as they come: real ones, old ones, and others.

use bytes::Bytes;
use http::Response;
use hydrant_core::batch::Batch;
use hydrant_core::sink::Sent;
use hydrant_core::{BatchId, Fault, FaultCode, PartitionKeys, Piece, PieceId, Position, Timestamp, Verdict};
use hydrant_kit::random::Random;

use super::answer::fault_of;
use super::*;
use crate::config::{DocumentId, Rotation, SinkConfig};
use crate::tests::config;

/// 2026-11-21T13:59:59.500Z.
const ARRIVED: u64 = 1_795_269_599_500;

const BATCH: &str = "6f1e7a52-9c7e-4d2b-8a55-0123456789ab";

fn batch(records: &[&[u8]]) -> Batch {
    let piece = |(ordinal, data): (u32, &&[u8])| {
        let id = PieceId::whole(Position::new(u64::from(ordinal) + 1));
        let arrived_at = Timestamp::from_millis(ARRIVED + 400 * u64::from(ordinal));
        (ordinal, Piece { id, arrived_at, keys: PartitionKeys::default(), data: Bytes::copy_from_slice(data) })
    };
    Batch {
        id: BATCH.parse().unwrap(),
        sealed_at: Timestamp::from_millis(ARRIVED + 60_000),
        pieces: (0..).zip(records).map(piece).collect(),
    }
}

fn texts(records: &[&str]) -> Batch {
    batch(&records.iter().map(|record| record.as_bytes()).collect::<Vec<_>>())
}

fn lines(config: &SinkConfig, batch: &Batch) -> String {
    String::from_utf8(Shape::new(config).lines(batch).bytes).unwrap()
}

fn good() -> SinkConfig {
    config("https://search.example.net")
}

#[test]
fn each_record_is_an_action_and_a_document() {
    let batch = texts(&[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
    // The third arrives in the next hour.
    let hourly = SinkConfig { rotation: Some(Rotation::Hour), ..good() };
    assert_eq!(
        lines(&hourly, &batch),
        r#"{"create":{"_index":"web-2026-11-21-13","_id":"6f1e7a52-9c7e-4d2b-8a55-0123456789ab-0000000"}}
{"a":1}
{"create":{"_index":"web-2026-11-21-13","_id":"6f1e7a52-9c7e-4d2b-8a55-0123456789ab-0000001"}}
{"a":2}
{"create":{"_index":"web-2026-11-21-14","_id":"6f1e7a52-9c7e-4d2b-8a55-0123456789ab-0000002"}}
{"a":3}
"#
    );
    let old = SinkConfig { type_name: Some("say \"log\"".to_owned()), rotation: Some(Rotation::None), ..good() };
    assert_eq!(
        lines(&old, &texts(&["{}"])),
        "{\"create\":{\"_index\":\"web\",\"_type\":\"say \\\"log\\\"\",\
         \"_id\":\"6f1e7a52-9c7e-4d2b-8a55-0123456789ab-0000000\"}}\n{}\n"
    );
    let stream = SinkConfig { index: None, data_stream: Some("logs".to_owned()), ..good() };
    let server = SinkConfig { document_id: DocumentId::Server, ..stream };
    assert_eq!(lines(&server, &texts(&["{}"])), "{\"create\":{\"_index\":\"logs\"}}\n{}\n");
}

#[test]
fn an_attempt_that_carries_fewer_pieces_names_them_as_before() {
    let whole = texts(&[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
    let mut rest = whole.clone();
    rest.pieces.remove(1);
    let (whole, rest) = (lines(&good(), &whole), lines(&good(), &rest));
    let kept: String =
        whole.split_inclusive('\n').enumerate().filter(|(n, _)| n / 2 != 1).map(|(_, line)| line).collect();
    assert_eq!(rest, kept);
}

#[test]
fn a_dead_letter_names_the_document_that_was_not_made() {
    let batch = texts(&["{}", "[]"]);
    let known = |config: &SinkConfig| {
        let (ordinal, piece) = &batch.pieces[1];
        let sent = Sent { batch: batch.id, sealed_at: batch.sealed_at, ordinal: *ordinal, piece };
        Shape::new(config).known_as(sent)
    };
    let (id, index) = (("esDocumentId", format!("{BATCH}-0000001")), ("esIndexName", "web-2026-11-21".to_owned()));
    assert_eq!(known(&good()), [id.clone(), index.clone()]);
    let typed = SinkConfig { type_name: Some("log".to_owned()), ..good() };
    assert_eq!(known(&typed), [id, index.clone(), ("esTypeName", "log".to_owned())]);
    assert_eq!(known(&SinkConfig { document_id: DocumentId::Server, ..good() }), [index]);
}

#[test]
fn newlines_between_tokens_become_blanks_and_nothing_else_changes() {
    let record = "\n{\r\n \"big\" : 12345678901234567890123.10e+2,\n\t\"b\":[1.0,\n1],\"a\":\"x\\n\\u00e9é\"}\n";
    let document = lines(&good(), &texts(&[record])).lines().nth(1).unwrap().to_owned();
    assert_eq!(document, record.replace('\n', " "));
}

#[test]
fn what_is_no_object_is_refused_with_its_place_and_without_its_bytes() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"canary", "expected value at line 1 column 1"),
        (b"[{\"a\":1}]", "it is JSON of another kind"),
        (b"\"canary\"", "it is JSON of another kind"),
        (b"{\"a\":1}{\"canary\":2}", "trailing characters at line 1 column 8"),
        (b"{\"a\":1}\n{\"create\":{}}", "trailing characters at line 2 column 1"),
        (b"{\"canary\":1", "EOF while parsing an object at line 1 column 11"),
        (b"{'canary':1}", "key must be a string at line 1 column 2"),
        (
            b"{\"a\":\"can\nary\"}",
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 9",
        ),
        (b"{\"a\":\"\xffcanary\"}", "it is not UTF-8 from byte 6 on"),
        (b"\xef\xbb\xbf{\"a\":1}", "expected value at line 1 column 1"),
    ];
    for (record, reason) in cases {
        let lines = Shape::new(&good()).lines(&batch(&[b"{}", record, b"{}"]));
        let message = format!("the record is not one JSON object: {reason}");
        assert_eq!(lines.refused, [(1, Fault::new(FaultCode::Invalid, message))], "{}", record.escape_ascii());
        let text = String::from_utf8(lines.bytes).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}

/// Goal: no record can end its line, or stand for another action.
#[test]
fn any_bytes_make_two_lines_or_none() {
    let (seed, tokens) = (7, br#"{}[]:,"'\ x1e-.tfn "#);
    let mut random = Random::new(seed);
    for round in 0..20_000 {
        let mut record = b"{\"create\":{".to_vec();
        for _ in 0..random.below(12) {
            record.push(tokens[random.index(tokens.len())]);
            if random.below(4) == 0 {
                record.push(b'\n');
            }
        }
        if random.below(2) == 0 {
            record.extend_from_slice(b"}}");
        }
        let lines = Shape::new(&good()).lines(&batch(&[&record]));
        let newlines = lines.bytes.split(|byte| *byte == b'\n').count() - 1;
        let what = format!("seed {seed}, round {round}: {}", record.escape_ascii());
        assert_eq!(newlines, if lines.refused.is_empty() { 2 } else { 0 }, "{what}");
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&record).is_ok();
        assert_eq!(is_object, lines.refused.is_empty(), "{what}");
    }
}

#[test]
fn a_record_without_a_timestamp_gets_that_of_its_arrival_where_it_is_asked_for() {
    let stream = SinkConfig { index: None, data_stream: Some("logs".to_owned()), add_timestamp: true, ..good() };
    let given = |record: &str| lines(&stream, &texts(&[record])).lines().nth(1).unwrap().to_owned();
    let at = r#""@timestamp":"2026-11-21T13:59:59.500Z""#;
    assert_eq!(given(r#"{"a":1}"#), format!(r#"{{{at},"a":1}}"#));
    assert_eq!(given(" { } "), format!("{{{at} }} "));
    assert_eq!(given("\n{\n\"a\" : 1}"), format!("{{{at}, \"a\" : 1}}"));
    // Not the field of the document itself, or by another name.
    assert_eq!(given(r#"{"a":{"@timestamp":1}}"#), format!(r#"{{{at},"a":{{"@timestamp":1}}}}"#));
    assert_eq!(given(r#"{"a":"@timestamp"}"#), format!(r#"{{{at},"a":"@timestamp"}}"#));
    for has_one in [r#"{"a":1,"@timestamp":"2020-01-01"}"#, r#"{"\u0040timestamp":1}"#] {
        assert_eq!(given(has_one), has_one);
    }
    assert_eq!(lines(&good(), &texts(&["{}"])).lines().nth(1), Some("{}"), "nobody asked");
}

#[test]
fn a_batch_that_was_sealed_for_longer_requests_goes_in_several() {
    let small = SinkConfig { body_max: hydrant_core::ByteSize::bytes(20), ..good() };
    let shape = Shape::new(&small);
    let batch = texts(&[r#"{"a":"1"}"#, r#"{"a":"2"}"#, r#"{"a":"3"}"#]);
    assert_eq!(shape.carried(&batch), 2);
    assert_eq!(lines(&small, &batch).lines().count(), 4);
    // One that is longer than any request may be goes alone.
    let long = texts(&[r#"{"a":"long enough to be too long"}"#, "{}"]);
    assert_eq!(shape.carried(&long), 1);
    assert_eq!(lines(&small, &texts(&[])), "");
}

fn answer(status: u16, body: &str) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

/// What is said of two documents, of which the first one is stored and the second one has this item.
fn second(item: &str, record: &str, ids: DocumentId) -> Verdict {
    let batch = texts(&["{}", record]);
    let id = |n: u32| format!("{BATCH}-{n:07}");
    let body = format!(
        r#"{{"took":1,"errors":true,"items":[{{"create":{{"_index":"web","_id":"{}","status":201}}}},{{"create":{{"_id":"{}",{item}}}}}]}}"#,
        id(0),
        id(1)
    );
    let verdicts = verdicts(&answer(200, &body), batch.id, &batch.pieces, ids).unwrap();
    assert_eq!(verdicts[0], (0, Verdict::Delivered));
    assert_eq!(verdicts[1].0, 1);
    verdicts[1].1.clone()
}

fn with_error(status: u16, kind: &str, reason: &str) -> String {
    format!(r#""status":{status},"error":{}"#, serde_json::json!({ "type": kind, "reason": reason, "caused_by": {} }))
}

#[test]
fn each_item_has_a_verdict_of_its_own() {
    let check = |item: &str, expected: &str| {
        let said = match second(item, r#"{"age":"canary"}"#, DocumentId::Stable) {
            Verdict::Delivered => "delivered".to_owned(),
            Verdict::Retry(fault) => format!("retry {fault}"),
            Verdict::Refused(fault) => format!("refused {fault}"),
            Verdict::Discarded(fault) => format!("discarded {fault}"),
        };
        assert_eq!(said, expected, "{item}");
    };
    check(r#""status":201"#, "delivered");
    check(r#""status":200,"error":null"#, "delivered");
    check(
        &with_error(409, "version_conflict_engine_exception", "[x]: version conflict, document already exists"),
        "delivered",
    );
    check(&with_error(409, "document_already_exists_exception", "[logs][1]: document already exists"), "delivered");
    check(&with_error(409, "some_other_exception", ""), "retry conflict: 409 some_other_exception");
    check(
        &with_error(
            400,
            "mapper_parsing_exception",
            "failed to parse field [age] of type [long] in document with id 'x'. Preview of field's value: 'canary'",
        ),
        "refused invalid: 400 mapper_parsing_exception: failed to parse field [age] of type [long]",
    );
    check(
        &with_error(
            400,
            "strict_dynamic_mapping_exception",
            "mapping set to strict, dynamic introduction of [age] within [_doc] is not allowed",
        ),
        "refused invalid: 400 strict_dynamic_mapping_exception: mapping set to strict, dynamic introduction of [age] \
         within [_doc] is not allowed",
    );
    check(
        &with_error(400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded"),
        "refused invalid: 400 illegal_argument_exception: Limit of total fields [1000] has been exceeded",
    );
    check(
        &with_error(400, "illegal_argument_exception", "no write index is defined for alias [web]. The write index …"),
        "retry invalid: 400 illegal_argument_exception: no write index is defined for alias [web]. The write index …",
    );
    check(
        &with_error(
            400,
            "validation_exception",
            "this action would add [2] total shards, but this cluster has [1]/[1]",
        ),
        "retry full: 400 validation_exception: this action would add [2] total shards, but this cluster has [1]/[1]",
    );
    check(
        &with_error(400, "illegal_argument_exception", "Number of documents in the index can't exceed [2147483519]"),
        "retry full: 400 illegal_argument_exception: Number of documents in the index can",
    );
    check(
        &with_error(400, "something_new_exception", "who knows"),
        "retry protocol: 400 something_new_exception: who knows",
    );
    check(&with_error(400, "index_closed_exception", "closed"), "retry forbidden: 400 index_closed_exception: closed");
    check(
        &with_error(404, "index_not_found_exception", "no such index [web]"),
        "retry not-found: 404 index_not_found_exception: no such index [web]",
    );
    check(
        &with_error(403, "cluster_block_exception", "index [web] blocked by: [FORBIDDEN/8/index write (api)];"),
        "retry forbidden: 403 cluster_block_exception: index [web] blocked by: [FORBIDDEN/8/index write (api)]",
    );
    check(
        &with_error(
            429,
            "cluster_block_exception",
            "index [web] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has \
             read-only-allow-delete block];",
        ),
        "retry full: 429 cluster_block_exception: index [web] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded \
         flood-stage watermark, index has read-only-allow-delete block]",
    );
    check(
        &with_error(403, "security_exception", "no permissions"),
        "retry forbidden: 403 security_exception: no permissions",
    );
    check(
        &with_error(429, "rejected_execution_exception", "rejected execution of …"),
        "retry throttled: 429 rejected_execution_exception: rejected execution of …",
    );
    check(
        &with_error(503, "unavailable_shards_exception", "[web][0] primary shard is not active"),
        "retry unavailable: 503 unavailable_shards_exception: [web][0] primary shard is not active",
    );
    check(r#""status":429"#, "retry throttled: the cluster answered 429");
    check(r#""status":500,"error":{}"#, "retry unavailable: 500");
    // A contradiction.
    check(r#""status":201,"error":{"type":"x"}"#, "retry protocol: 201 x");
    // Elasticsearch 1.
    check(
        r#""status":400,"error":"MapperParsingException[failed to parse [age]]; nested: NumberFormatException[For input string: \"canary\"]; ""#,
        "refused invalid: 400 mapper_parsing_exception: failed to parse [age]",
    );
}

#[test]
fn a_document_that_is_there_is_only_ours_if_we_name_documents() {
    let item = with_error(409, "version_conflict_engine_exception", "[x]: version conflict");
    let verdict = second(&item, "{}", DocumentId::Server);
    assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Conflict), "{verdict:?}");
}

/// Goal: whatever comes back, what became of the request is known of each document or of none.
#[test]
fn an_answer_that_does_not_fit_the_request_says_nothing() {
    let batch = texts(&["{}", "{}"]);
    let item = |n: u32| format!(r#"{{"create":{{"_id":"{BATCH}-{n:07}","status":201}}}}"#);
    let read = |body: &str| verdicts(&answer(200, body), batch.id, &batch.pieces, DocumentId::Stable);
    let good = format!(r#"{{"items":[{},{}]}}"#, item(0), item(1));
    assert_eq!(read(&good).unwrap(), [(0, Verdict::Delivered), (1, Verdict::Delivered)]);

    let other_batch = good.replace("6f1e", "6f1f");
    let (zero, one, two) = (item(0), item(1), item(2));
    for bad in [
        String::new(),
        "<html>welcome".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"items":null}"#.to_owned(),
        r#"{"items":[]}"#.to_owned(),
        format!(r#"{{"items":[{zero}]}}"#),
        format!(r#"{{"items":[{one},{zero}]}}"#),
        format!(r#"{{"items":[{zero},{one},{two}]}}"#),
        format!(r#"{{"items":[{zero},{two}]}}"#),
        format!(r#"{{"items":[{zero},{zero}]}}"#),
        format!(r#"{{"items":[{zero},{one}],"items":[{zero},{one}]}}"#),
        format!("{good}{good}"),
        other_batch,
        good.replace("create", "delete"),
        good.replace("201", "\"201\""),
        good.replace(",\"status\":201", ""),
        good.replace("_id", "id"),
        good.replace("-0000001", "-1"),
    ] {
        let fault = read(&bad).expect_err(&bad);
        assert_eq!(fault.code, FaultCode::Protocol, "{bad}");
        assert!(fault.message.starts_with("the answer does not fit the request from line "), "{fault}");
    }
    for cut in 0..good.len() {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn random_damage_never_makes_an_answer_say_more() {
    let seed = 11;
    let mut random = Random::new(seed);
    let batch = texts(&["{}", r#"{"age":"x"}"#, "{}"]);
    let item = |n: u32, rest: &str| format!(r#"{{"create":{{"_id":"{BATCH}-{n:07}",{rest}}}}}"#);
    let failed = with_error(429, "rejected_execution_exception", "busy");
    let good =
        format!(r#"{{"items":[{},{},{}]}}"#, item(0, r#""status":201"#), item(1, &failed), item(2, r#""status":201"#));
    for round in 0..20_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.index(bytes.len());
            bytes[at] = random.next_u64().to_le_bytes()[0];
        }
        let answer = Response::new(Bytes::from(bytes.clone()));
        let Ok(verdicts) = verdicts(&answer, batch.id, &batch.pieces, DocumentId::Stable) else { continue };
        let ordinals: Vec<u32> = verdicts.iter().map(|(ordinal, _)| *ordinal).collect();
        assert_eq!(ordinals, [0, 1, 2], "seed {seed}, round {round}: {}", bytes.escape_ascii());
    }
}

#[test]
fn a_request_that_is_not_taken_is_the_operator_s_or_passes() {
    let check = |status: u16, body: &str, expected: &str| {
        assert_eq!(fault_of(&answer(status, body)).to_string(), expected);
    };
    let error = |kind: &str| format!(r#"{{"error":{{"type":"{kind}","reason":"canary"}},"status":0}}"#);
    check(401, &error("security_exception"), "unauthenticated: the cluster answered 401 security_exception");
    check(403, &error("security_exception"), "forbidden: the cluster answered 403 security_exception");
    check(403, "canary", "forbidden: the cluster answered 403");
    check(400, &error("illegal_argument_exception"), "invalid: the cluster answered 400 illegal_argument_exception");
    check(404, "", "not-found: the cluster answered 404");
    check(
        413,
        "<html>canary",
        "too-large: the cluster answered 413; raise its limit or that of a proxy before it, or lower body_max",
    );
    check(429, &error("circuit_breaking_exception"), "throttled: the cluster answered 429 circuit_breaking_exception");
    check(503, &error("cluster_block_exception"), "unavailable: the cluster answered 503 cluster_block_exception");
    check(502, "<html>canary", "unavailable: the cluster answered 502");
    check(301, "", "not-found: the cluster answered 301");
    check(201, "{}", "protocol: the cluster answered 201, which is no answer to a bulk request");
    // What does not look like a kind of error is not shown.
    check(400, &error("Can ary"), "invalid: the cluster answered 400");
    let mut slow_down = answer(429, "");
    slow_down.headers_mut().insert("retry-after", "7".parse().unwrap());
    assert_eq!(fault_of(&slow_down).retry_after, Some(std::time::Duration::from_secs(7)));
}

/// Goal: whatever OpenSearch quotes of a record, none of it is told, and the rest is.
#[test]
fn reasons_keep_names_and_lose_values() {
    let check = |record: &str, reason: &str, told: &str| {
        assert_eq!(reason::told(reason, record.as_bytes()), told, "{record} {reason}");
    };
    check(
        r#"{"age":"abc"}"#,
        "failed to parse field [age] of type [long]",
        "failed to parse field [age] of type [long]",
    );
    // A name that is long, and one that a value contains by chance.
    check(
        r#"{"customer_number":"a long story"}"#,
        "failed to parse field [customer_number] of type [long]",
        "failed to parse field [customer_number] of type [long]",
    );
    check(
        r#"{"d":"abc"}"#,
        "failed to parse date field [abc] with format [x]",
        "failed to parse date field […] with format [x]",
    );
    check(r#"{"d":17}"#, "Numeric value (17) out of range of int", "Numeric value (…) out of range of int");
    check(r#"{"a":"secret of the house"}"#, "cannot read secret of the house, sorry", "cannot read …, sorry");
    check(r#"{"a":["x",{"b":"\u0073ecret-\u0073ecret"}]}"#, "near secret-secret!", "near …!");
    check(r#"{"a":123456789012}"#, "near 123456789012!", "near …!");
    check(r#"{"a":1e999,"b":"canary-canary"}"#, "near canary-canary", "near …");
    check("{}", "Unrecognized token 'canary': was expecting", "Unrecognized token");
    check("{}", "one\ntwo", "one");
    check("{}", "term in field=\"word\" (whose bytes: 'canary'", "term in field [word] (whose bytes");
    check("{}", "'canary' in field=\"word\"", "");
    check("not json at all {", "plain", "plain");
    check("{}", "", "");
    let with_cause = |reason: &str, cause: &str| reason::told_with_cause(reason, cause, br#"{"a":"canary-canary"}"#);
    assert_eq!(with_cause("failed to parse", "Duplicate field 'canary-canary'"), "failed to parse: Duplicate field");
    assert_eq!(with_cause("failed to parse", "'canary-canary' is none"), "failed to parse");
    assert_eq!(with_cause("failed to parse [a]", "it is no number"), "failed to parse [a]");
    let long = "é".repeat(1000);
    assert_eq!(reason::told(&long, b"{}").len(), 300);
}

#[test]
fn classes_of_old_servers_are_kinds_of_new_ones() {
    for (class, kind) in [
        ("MapperParsingException", "mapper_parsing_exception"),
        ("DocumentAlreadyExistsException", "document_already_exists_exception"),
        (" EsRejectedExecutionException ", "es_rejected_execution_exception"),
        ("", ""),
    ] {
        assert_eq!(reason::snake_case(class), kind);
    }
}

/// The bound on answers covers an error for each document that quotes it whole.
#[test]
fn an_answer_that_quotes_every_record_is_not_too_long() {
    let record = format!(r#"{{"number":"{}"}}"#, "x".repeat(5000));
    let batch = texts(&vec![record.as_str(); 100]);
    let item = with_error(400, "mapper_parsing_exception", &format!("failed '{}'", "x".repeat(5000)));
    assert!(answer_bytes_max(&batch.pieces) > 100 * (item.len() + 100));
}

#[test]
fn the_id_of_a_document_is_one_that_opensearch_keeps_short() {
    let id = BatchId::from_random([7; 16]);
    let batch = Batch { id, ..texts(&["{}"]) };
    let action = lines(&good(), &batch).lines().next().unwrap().to_owned();
    let action: serde_json::Value = serde_json::from_str(&action).unwrap();
    let id = action["create"]["_id"].as_str().unwrap();
    assert_eq!(id.len() % 4, 0);
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
}
