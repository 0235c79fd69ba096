//! Rows as text, byte for byte, and what complaints mean.

use hydrant_core::{BatchId, PartitionKeys, PieceId, Position, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::config::RawColumn;

fn batch(records: &[&[u8]]) -> Batch {
    let piece = |(ordinal, data): (u32, &&[u8])| {
        let id = PieceId::whole(Position::new(u64::from(ordinal) + 1));
        let arrived_at = Timestamp::from_millis(1_790_000_000_123);
        (ordinal, Piece { id, arrived_at, keys: PartitionKeys::default(), data: Bytes::copy_from_slice(data) })
    };
    Batch {
        id: BatchId::from_bytes([7; 16]),
        sealed_at: Timestamp::from_millis(1_790_000_001_000),
        pieces: (0..).zip(records).map(piece).collect(),
    }
}

fn raw(r#type: &str) -> Row {
    Row::Raw(RawColumn { column: "data".to_owned(), r#type: r#type.to_owned() })
}

/// The body, and who is refused with which words.
fn encode(row: &Row, records: &[&[u8]]) -> (String, Vec<(u32, String)>) {
    let encoded = Layout::new(row).unwrap().encode(&batch(records));
    let refused = encoded.refused.into_iter().map(|(ordinal, fault)| (ordinal, fault.message)).collect();
    (String::from_utf8(encoded.body.concat()).unwrap(), refused)
}

fn column(name: &str, r#type: &str, from: Option<&str>) -> Column {
    Column { name: name.to_owned(), r#type: r#type.to_owned(), from: from.map(str::to_owned), ..Column::default() }
}

#[test]
fn text_is_escaped_as_copy_reads_it() {
    let cases: [(&str, &str); 8] = [
        ("", "\n"),
        ("plain", "plain\n"),
        ("a\tb", "a\\tb\n"),
        ("a\nb\r\n", "a\\nb\\r\\n\n"),
        (r"a\b", "a\\\\b\n"),
        (r"\.", "\\\\.\n"),
        (r"\N", "\\\\N\n"),
        ("\u{8}\u{b}\u{c}\u{7f}ü€😀", "\u{8}\u{b}\u{c}\u{7f}ü€😀\n"),
    ];
    for (record, row) in cases {
        assert_eq!(encode(&raw("text"), &[record.as_bytes()]), (row.to_owned(), vec![]), "{record:?}");
        assert_eq!(encode(&raw("jsonb"), &[record.as_bytes()]), (row.to_owned(), vec![]), "{record:?}");
    }
}

#[test]
fn bytes_are_hex() {
    assert_eq!(encode(&raw("bytea"), &[b"", b"\x00\xff\\\n"]), ("\\\\x\n\\\\x00ff5c0a\n".to_owned(), vec![]));
}

#[test]
fn what_is_no_text_is_refused_alone() {
    let (body, refused) = encode(&raw("text"), &[b"one", b"\xff", b"a\0b", b"four", b"\xed\xa0\x80"]);
    assert_eq!(body, "one\nfour\n");
    let message = "22021 invalid byte sequence for encoding \"UTF8\"".to_owned();
    assert_eq!(refused, [(1, message.clone()), (2, message.clone()), (4, message)]);
}

#[test]
fn columns_take_their_values_from_where_they_are_told() {
    let row = Row::Columns(vec![
        column("id", "bigint", None),
        column("name", "text", Some("$.user.name")),
        column("tags", "jsonb", Some("$.user['the tags']")),
        column("second", "text", Some("$.list[1]")),
        column("whole", "jsonb", Some("$")),
        column("user", "jsonb", None),
        column("at", "timestamptz", Some("arrived_at")),
    ]);
    let record = r#" {"id": 7, "user": {"name": "a\tb\\c\"dé😀/", "the tags": ["x\n"]}, "list": [1, true]} "#;
    let expected = [
        "7",
        "a\\tb\\\\c\"dé😀/",
        r#"["x\\n"]"#,
        "true",
        &record.trim().replace('\\', "\\\\"),
        r#"{"name": "a\\tb\\\\c\\"dé😀/", "the tags": ["x\\n"]}"#,
        "2026-09-21T14:13:20.123Z",
    ]
    .join("\t");
    assert_eq!(encode(&row, &[record.as_bytes()]), (expected + "\n", vec![]));
}

#[test]
fn absent_values_and_nulls_follow_the_rules_of_their_column() {
    let rules = |change: fn(&mut Column)| {
        let mut column = column("a", "text", None);
        change(&mut column);
        Row::Columns(vec![column])
    };
    let records: [&[u8]; 5] = [b"{}", br#"{"a":null}"#, br#"{"a":""}"#, br#"{"a":"-"}"#, b"7"];
    let plain = encode(&rules(|_| {}), &records);
    assert_eq!(plain, ("\\N\n\\N\n\n-\n\\N\n".to_owned(), vec![]));
    let default = encode(&rules(|it| it.default = Some("a\tb".to_owned())), &records);
    assert_eq!(default, ("a\\tb\na\\tb\n\n-\na\\tb\n".to_owned(), vec![]));
    let null_if = encode(&rules(|it| it.null_if = vec![String::new(), "-".to_owned()]), &records);
    assert_eq!(null_if, ("\\N\n".repeat(5), vec![]));
    let (body, refused) = encode(&rules(|it| it.required = true), &records);
    let message = "23502 a value is required and there is none, column \"a\"".to_owned();
    assert_eq!((body.as_str(), refused), ("\n-\n", [0, 1, 4].map(|ordinal| (ordinal, message.clone())).to_vec()));
}

#[test]
fn a_record_that_is_no_json_is_refused_without_a_word_of_it() {
    let row = Row::Columns(vec![column("a", "text", None), column("b", "jsonb", Some("$.a.b"))]);
    let broken: [&[u8]; 7] =
        [b"", b"canary", b"{\"a\":canary}", b"{\"a\":1}{}", b"{\"a\":", b"[canary]", b"{\"a\":\"\\ud800x\"}"];
    let (body, refused) = encode(&row, &broken);
    assert_eq!((body.as_str(), refused.len()), ("", broken.len()));
    assert_eq!(refused[1].1, "22P02 invalid JSON at line 1 column 1");
    assert_eq!(refused[6].1, "22P05 unsupported Unicode escape sequence, column \"a\"");
    assert!(refused.iter().all(|(_, message)| !message.contains("canary")), "{refused:?}");
}

#[test]
fn paths_that_are_none_are_told() {
    for text in ["", "a", "$a", "$.", "$..a", "$[", "$[x]", "$[-1]", "$['a", "$.a[", &format!("${}", ".a".repeat(33))] {
        assert_eq!(Path::parse(text), Err(NotAPath(text.to_owned())), "{text}");
    }
    for text in ["$", "$.a", "$.a.b[0][1]", "$['a.b'].c", "$.ü"] {
        assert!(Path::parse(text).is_ok(), "{text}");
    }
}

/// A row of a text COPY as PostgreSQL's documentation says that it is read; the live tests ask PostgreSQL itself.
fn read_field(field: &str) -> Option<String> {
    if field == "\\N" {
        return None;
    }
    let (mut read, mut characters) = (String::new(), field.chars());
    while let Some(character) = characters.next() {
        read.push(match character {
            '\\' => match characters.next().unwrap() {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                same => same,
            },
            plain => plain,
        });
    }
    Some(read)
}

proptest! {
    #[test]
    fn any_text_is_read_back(records in proptest::collection::vec("\\PC*|[\\t\\n\\r\\\\.N]*|[a-z\\\\\\n]{30,70}", 0..8)) {
        let bytes: Vec<&[u8]> = records.iter().map(String::as_bytes).collect();
        let (body, refused) = encode(&raw("text"), &bytes);
        prop_assert!(refused.is_empty());
        prop_assert_eq!(body.matches('\n').count(), records.len());
        let read: Vec<_> = body.split_terminator('\n').map(|row| read_field(row).unwrap()).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn any_string_of_json_is_read_back(text in "[^\\x00]*") {
        let row = Row::Columns(vec![column("a", "text", None)]);
        let record = serde_json::json!({ "a": text }).to_string();
        let (body, refused) = encode(&row, &[record.as_bytes()]);
        prop_assert!(refused.is_empty());
        prop_assert_eq!(read_field(body.strip_suffix('\n').unwrap()), Some(text));
    }

    #[test]
    fn no_bytes_make_a_row_of_another_shape(record in proptest::collection::vec(any::<u8>(), 0..200)) {
        let row = Row::Columns(vec![column("a", "text", None), column("b", "jsonb", Some("$[0]")), column("c", "text", Some("$"))]);
        for (row, columns) in [(row, 3), (raw("text"), 1), (raw("bytea"), 1)] {
            let (body, refused) = encode(&row, &[&record]);
            prop_assert_eq!(body.matches('\n').count() + refused.len(), 1);
            prop_assert!(!refused.is_empty() || body.matches('\t').count() == columns - 1);
        }
    }
}

fn complaint(code: &str, message: &str, context: &str) -> Complaint {
    Complaint {
        code: code.to_owned(),
        message: message.to_owned(),
        context: (!context.is_empty()).then(|| context.to_owned()),
        ..Complaint::default()
    }
}

#[test]
fn a_record_is_blamed_only_for_what_is_its_own() {
    for code in ["22P02", "22003", "22001", "22021", "22P05", "23502", "23503", "23505", "23P01", "54000", "P0001"] {
        assert!(matches!(complaint(code, "x", "").judge(), Judgement::Row(_)), "{code}");
    }
    let check = Complaint { constraint: Some("c".to_owned()), ..complaint("23514", "x", "") };
    assert!(matches!(check.judge(), Judgement::Row(_)));
    let others = [
        ("23514", FaultCode::NotFound), // no partition for the row
        ("22P04", FaultCode::Protocol),
        ("28P01", FaultCode::Unauthenticated),
        ("28000", FaultCode::Unauthenticated),
        ("42501", FaultCode::Forbidden),
        ("25006", FaultCode::Forbidden),
        ("3D000", FaultCode::NotFound),
        ("3F000", FaultCode::NotFound),
        ("42P01", FaultCode::NotFound),
        ("42703", FaultCode::NotFound),
        ("42804", FaultCode::Invalid),
        ("42P10", FaultCode::Invalid),
        ("0A000", FaultCode::Invalid),
        ("53100", FaultCode::Full),
        ("53200", FaultCode::Unavailable),
        ("53300", FaultCode::Throttled),
        ("55P03", FaultCode::Conflict),
        ("40P01", FaultCode::Conflict),
        ("57014", FaultCode::TimedOut),
        ("57P01", FaultCode::Unavailable),
        ("57P03", FaultCode::Unavailable),
        ("58030", FaultCode::Unavailable),
        ("XX000", FaultCode::Unavailable),
        ("ZZZZZ", FaultCode::Unavailable),
        ("", FaultCode::Unavailable),
    ];
    for (code, expected) in others {
        let judgement = complaint(code, "x", "").judge();
        assert!(matches!(&judgement, Judgement::Again(fault) if fault.code == expected), "{code}: {judgement:?}");
    }
}

#[test]
fn the_row_at_fault_is_read_from_the_context() {
    let line = |context| complaint("22P02", "x", context).line("events");
    assert_eq!(line("COPY events, line 3, column a: \"x\""), Some(3));
    assert_eq!(line("COPY events, line 12"), Some(12));
    assert_eq!(line("JSON data, line 1: {\nCOPY events, line 7, column data: \"{\""), Some(7));
    assert_eq!(line("COPY events, line 3, column a: \"\nCOPY events, line 4\""), Some(3), "values come behind");
    assert_eq!(line("PL/pgSQL function f() line 3 at RAISE\nCOPY events, line 5: \"x\""), Some(5));
    for context in ["", "COPY eventsx, line 3", "COPY other, line 3", "COPY events, Zeile 3", "COPY events, line "] {
        assert_eq!(line(context), None, "{context}");
    }
}

#[test]
fn what_is_shown_holds_names_and_no_values() {
    let shown = |code: &str, message: &str, context: &str| {
        let columns = ["n".to_owned(), "number".to_owned()];
        let complaint = complaint(code, message, context).with_column_of("t", &columns);
        let (Judgement::Row(fault) | Judgement::Again(fault)) = complaint.judge();
        fault.message
    };
    let cases = [
        (
            (
                "22P02",
                "invalid input syntax for type integer: \"a\" canary \"b\"",
                "COPY t, line 1, column number: \"canary\"",
            ),
            "22P02 invalid input syntax for type integer: \"…\", column \"number\"",
        ),
        (
            ("22003", "value \"canary\" is out of range for type integer", ""),
            "22003 value \"…\" is out of range for type integer",
        ),
        (("22P02", "ungültige Syntax für Typ integer: »canary«", ""), "22P02 ungültige Syntax für Typ integer: \"…\""),
        (
            ("22P05", "character with byte sequence 0xe2 0x82 in encoding \"UTF8\" has no equivalent", ""),
            "22P05 character with byte sequence",
        ),
        (
            ("22021", "invalid byte sequence for encoding \"UTF8\": 0xff", ""),
            "22021 invalid byte sequence for encoding \"…\"",
        ),
        (
            ("23502", "null value in column \"n\" of relation \"t\" violates not-null constraint", ""),
            "23502 null value in column \"n\" of relation \"t\" violates not-null constraint",
        ),
        (("P0001", "canary", "PL/pgSQL function f() line 3 at RAISE"), "P0001 refused by a function of the database"),
        (("23514", "canary", "PL/pgSQL function f() line 3 at RAISE"), "23514 refused by a function of the database"),
        (("42P01", "relation \"t\" does not exist", ""), "42P01 relation \"t\" does not exist"),
    ];
    for ((code, message, context), expected) in cases {
        assert_eq!(shown(code, message, context), expected);
    }
    assert!(shown("23502", &"x".repeat(5_000), "").len() < 300);
}
