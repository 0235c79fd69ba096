use super::*;

/// 2018-08-27T10:30:00Z, as in the service's own examples.
const MOMENT: Timestamp = Timestamp::from_millis(1_535_365_800_000);

fn parts() -> NameParts<'static> {
    let batch = BatchId::from_bytes([0xa0; 16]);
    NameParts { stream: "s", version: 1, oldest_arrival: MOMENT, batch, extension: "" }
}

const SUFFIX: &str = "s-1-2018-08-27-10-30-00-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0";

/// The worked examples of the service's guide, corrected where observed keys differ from it.
#[test]
fn keys_look_as_the_service_writes_them() {
    for (prefix, error_prefix, data, dead) in [
        ("", None, "2018/08/27/10/", "processing-failed/2018/08/27/10/"),
        ("logs/", None, "logs/2018/08/27/10/", "logs/processing-failed/2018/08/27/10/"),
        ("logs", None, "logs2018/08/27/10/", "logsprocessing-failed/2018/08/27/10/"),
        ("y=!{timestamp:yyyy}/", Some("err/!{firehose:error-output-type}/"), "y=2018/", "err/processing-failed/"),
        ("!{timestamp:yyyy'/M'MM}", Some("e/!{firehose:error-output-type}"), "2018/M08", "e/processing-failed"),
        ("a/", Some("retries/"), "a/2018/08/27/10/", "retries/processing-failed/2018/08/27/10/"),
        (
            "!{timestamp:yyyy}-!{timestamp:MM}/",
            Some("!{firehose:error-output-type}/!{timestamp:yyyy}/!{firehose:error-output-type}-"),
            "2018-08/",
            "processing-failed/2018/processing-failed-",
        ),
    ] {
        let prefix = Prefix::parse(prefix).unwrap();
        assert_eq!(prefix.key(&parts()), format!("{data}{SUFFIX}"));
        let error_prefix = ErrorPrefix::beside(&prefix, error_prefix).unwrap();
        assert_eq!(error_prefix.key(ErrorType::ProcessingFailed, &parts()), format!("{dead}{SUFFIX}"));
    }
}

#[test]
fn a_redirected_object_keeps_its_name_behind_the_error_prefix() {
    let error_prefix = ErrorPrefix::parse("dead/").unwrap();
    let key = error_prefix.key(ErrorType::DeliveryFailed, &NameParts { extension: ".gz", ..parts() });
    assert_eq!(key, format!("dead/delivery-failed/2018/08/27/10/{SUFFIX}.gz"));
}

/// Goal: a redrive takes every dead letter of its stream and none of another. Method: keys of all kinds of prefixes are
/// read back; streams are called as each other's beginnings and ends.
#[test]
fn a_key_is_read_back_by_the_prefix_that_made_it_and_by_its_stream_alone() {
    for prefix in [
        "",
        "dead/",
        "dead",
        "e/!{firehose:error-output-type}",
        "!{timestamp:yyyy/MM}/!{firehose:error-output-type}/web-",
        "!{firehose:error-output-type}/web/!{timestamp:HH}/",
    ] {
        let error_prefix = ErrorPrefix::parse(prefix).unwrap();
        let streams = ["web", "web-1", "1", "b", "w", "2018"];
        for (stream, extension) in streams.iter().zip(["", ".gz", ".zst", "", ".gz", ""]) {
            let parts = NameParts { stream, version: 20, extension, ..parts() };
            let key = error_prefix.key(ErrorType::DeliveryFailed, &parts);
            assert!(key.starts_with(&error_prefix.beginning(ErrorType::DeliveryFailed)), "{key}");
            let named = Named { oldest_arrival: MOMENT, batch: parts.batch };
            for other in streams {
                let read = error_prefix.read(ErrorType::DeliveryFailed, other, &key);
                assert_eq!(read, (other == *stream).then_some(named), "{other}: {key}");
            }
            assert_eq!(error_prefix.read(ErrorType::ProcessingFailed, stream, &key), None, "{key}");
            assert_eq!(error_prefix.read(ErrorType::DeliveryFailed, stream, &key[1..]), None, "{key}");
        }
    }
    let beginning = |prefix| ErrorPrefix::parse(prefix).unwrap().beginning(ErrorType::DeliveryFailed);
    assert_eq!(beginning("dead/"), "dead/delivery-failed/");
    assert_eq!(beginning("a/!{firehose:error-output-type}/b-!{timestamp:yyyy}/"), "a/delivery-failed/b-");
}

#[test]
fn a_key_that_we_would_not_write_is_not_read() {
    for extension in ["x", "/../x", ".gz\u{9b}1m", ".gz\n", ".\u{202e}zg", &format!(".{}", "x".repeat(128))] {
        let key = ErrorPrefix::default().key(ErrorType::DeliveryFailed, &NameParts { extension, ..parts() });
        assert_eq!(ErrorPrefix::default().read(ErrorType::DeliveryFailed, parts().stream, &key), None, "{extension:?}");
    }
}

#[test]
fn a_data_key_is_read_back_by_the_prefix_that_made_it_alone() {
    let prefix = Prefix::parse("logs/!{timestamp:yyyy}/").unwrap();
    let key = prefix.key(&parts());
    let named = Named { oldest_arrival: MOMENT, batch: parts().batch };
    assert_eq!(prefix.read(parts().stream, &key), Some(named));
    assert_eq!(Prefix::default().read(parts().stream, &key), None);
    assert_eq!(prefix.read("other", &key), None);
}

#[test]
fn an_absent_prefix_is_the_empty_one() {
    assert_eq!(Prefix::default().key(&parts()), Prefix::parse("").unwrap().key(&parts()));
    let parsed = ErrorPrefix::parse("").unwrap();
    for error_type in [ErrorType::DeliveryFailed, ErrorType::ProcessingFailed] {
        assert_eq!(ErrorPrefix::default().key(error_type, &parts()), parsed.key(error_type, &parts()));
    }
}

#[test]
fn wrong_prefixes_are_refused_in_the_words_of_the_service() {
    let bad_value = "Invalid conversion character used in the value of the expression in Prefix";
    for (prefix, text) in [
        ("a!{", "Invalid expression usage"),
        ("!{timestamp:yyyy", "Invalid expression usage"),
        ("!{timestamp}", "Invalid expression usage"),
        ("!{timestamp:!{timestamp:yyyy}}", "Invalid expression usage"),
        ("!{}", "Invalid expression usage"),
        ("!{time:yyyy}", "Namespace to the left of colon (time) is an invalid keyword!"),
        ("!{:yyyy}", "Namespace to the left of colon () is an invalid keyword!"),
        ("!{timestamp:jj}", bad_value),
        ("!{timestamp:}", bad_value),
        ("!{firehose:random}", bad_value),
        ("!{firehose:error-output-type}/", "Prefix must not contain any occurrence of !{firehose:error-output-type}"),
        (
            "!{partitionKeyFromQuery:id}/",
            "Dynamic Partitioning Namespaces can only be part of a prefix expression when Dynamic Partitioning is enabled.",
        ),
        ("!{firehose:random-string}/", "!{firehose:random-string} is not supported in Prefix"),
    ] {
        assert_eq!(Prefix::parse(prefix).unwrap_err().to_string(), text, "{prefix}");
    }
    for (error_prefix, text) in [
        ("!{timestamp:jj}", "Invalid conversion character used in the value of the expression in ErrorOutputPrefix"),
        (
            "e/!{timestamp:yyyy}/",
            "ErrorOutputPrefix must contain at least one occurrence of !{firehose:error-output-type}",
        ),
        (
            "!{partitionKeyFromLambda:id}/",
            "Dynamic Partitioning Namespaces can't be part of an error prefix expression",
        ),
    ] {
        assert_eq!(ErrorPrefix::parse(error_prefix).unwrap_err().to_string(), text, "{error_prefix}");
    }
}

#[test]
fn a_prefix_with_expressions_needs_an_error_prefix() {
    let prefix = Prefix::parse("!{timestamp:yyyy}/").unwrap();
    for missing in [None, Some("")] {
        assert_eq!(ErrorPrefix::beside(&prefix, missing), Err(PrefixError::ErrorPrefixMissing));
    }
    assert!(ErrorPrefix::beside(&prefix, Some("e/")).is_ok());
}

#[test]
fn what_does_not_work_says_what_does() {
    for prefix in ["!{firehose:random-string}/", "!{partitionKeyFromQuery:id}/", "!{nothing:x}", "!{firehose:x}"] {
        let hint = Prefix::parse(prefix).unwrap_err().hint().unwrap();
        assert!(hint.contains("!{timestamp:PATTERN}"), "{prefix}: {hint}");
    }
    let hint = Prefix::parse("!{timestamp:YYYY/jj}").unwrap_err().hint().unwrap();
    assert!(hint.contains("`j`"), "{hint}");
}

#[test]
fn an_evaluated_prefix_has_at_most_512_characters() {
    let date_path = "2018/08/27/10/".len();
    for filler in ["a", "é", "\u{1f600}"] {
        let utf16 = filler.encode_utf16().count();
        let longest = filler.repeat((512 - date_path) / utf16);
        match Prefix::parse(&longest) {
            Ok(prefix) => assert!(prefix.key(&parts()).len() <= KEY_BYTES_MAX),
            Err(error) => assert!(matches!(error, PrefixError::KeyTooLong { .. }), "{error}"),
        }
        let longer = longest + &filler.repeat(2);
        assert_eq!(Prefix::parse(&longer), Err(PrefixError::EvaluatedTooLong(Field::Prefix)), "{filler}");
    }
    assert_eq!(
        Prefix::parse(&"a".repeat(513)).unwrap_err().to_string(),
        "Length of evaluated prefix cannot be greater than 512"
    );
    assert_eq!(
        ErrorPrefix::parse(&"a".repeat(513)).unwrap_err().to_string(),
        "Length of evaluated ErrorOutputPrefix cannot be greater than 512"
    );
    assert_eq!(Prefix::parse(&"a".repeat(1025)), Err(PrefixError::TooLong(Field::Prefix)));
}

/// A long pattern may be short in May and too long in September.
#[test]
fn lengths_are_checked_at_the_longest_moment() {
    let months = "!{timestamp:MMMM}".repeat(57);
    assert_eq!(Prefix::parse(&months), Err(PrefixError::EvaluatedTooLong(Field::Prefix)));
    let afternoons = "!{timestamp:BBBB}".repeat(33);
    assert_eq!(Prefix::parse(&afternoons), Err(PrefixError::EvaluatedTooLong(Field::Prefix)));
    assert!(Prefix::parse(&"!{timestamp:MMMM}".repeat(56)).is_ok());
}

#[test]
fn keys_that_some_store_could_not_keep_are_refused() {
    for prefix in ["/a", "a//b/", "./", "a/../", "a/./b", "../", "!{timestamp:yyyy}//", "a/!{timestamp:'..'}/"] {
        let refused = Prefix::parse(prefix).unwrap_err();
        assert!(matches!(refused, PrefixError::PathSegment { .. }), "{prefix}: {refused}");
    }
    for prefix in ["a\n", "\u{7f}", "a\u{0}b", "!{timestamp:yyyy\t}"] {
        let refused = Prefix::parse(prefix).unwrap_err();
        assert!(matches!(refused, PrefixError::ControlCharacter { .. }), "{prefix:?}: {refused}");
    }
    for prefix in [".a/", "a../", "...", "a b/", "ä=!{timestamp:yyyy}/", "!", "{a}", "}"] {
        assert!(Prefix::parse(prefix).is_ok(), "{prefix}");
    }
}

proptest::proptest! {
    /// What parses makes keys that fit, at any moment.
    #[test]
    fn a_prefix_that_parses_makes_keys_that_fit(
        prefix in "([a-zA-Z0-9./é ]{0,9}|!\\{timestamp:[yMdHEaBLw'/ -]{0,9}\\}){0,40}",
        ms in 0_u64..300_000_000_000_000,
    ) {
        let name = NameParts { oldest_arrival: Timestamp::from_millis(ms), ..parts() };
        if let Ok(prefix) = Prefix::parse(&prefix) {
            let key = prefix.key(&name);
            proptest::prop_assert_eq!(check_key(Field::Prefix, &key), Ok(()));
            proptest::prop_assert!(key.ends_with(&suffix(&name, Moment::new(name.oldest_arrival))));
        }
        if let Ok(prefix) = ErrorPrefix::parse(&prefix) {
            let key = prefix.key(ErrorType::DeliveryFailed, &name);
            proptest::prop_assert_eq!(check_key(Field::ErrorPrefix, &key), Ok(()));
        }
    }
}
