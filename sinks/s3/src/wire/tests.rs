use super::*;

fn answer(status: u16, code: &str) -> Answer {
    let body = Bytes::from(format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"));
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    Answer::of(&response)
}

#[test]
fn what_an_operator_can_mend_is_tried_again_under_its_own_code() {
    for (status, code, expected) in [
        (301, "PermanentRedirect", FaultCode::NotFound),
        (400, "ExpiredToken", FaultCode::Unauthenticated),
        (400, "AuthorizationHeaderMalformed", FaultCode::Unauthenticated),
        (400, "RequestTimeout", FaultCode::TimedOut),
        (400, "IncompleteBody", FaultCode::Interrupted),
        (400, "XAmzContentSHA256Mismatch", FaultCode::Interrupted),
        (400, "KMS.NotFoundException", FaultCode::NotFound),
        (400, "SomethingNew", FaultCode::Protocol),
        (401, "", FaultCode::Unauthenticated),
        (403, "AccessDenied", FaultCode::Forbidden),
        (403, "SignatureDoesNotMatch", FaultCode::Unauthenticated),
        (403, "InvalidAccessKeyId", FaultCode::Unauthenticated),
        (403, "RequestTimeTooSkewed", FaultCode::Unauthenticated),
        (404, "NoSuchBucket", FaultCode::NotFound),
        (408, "", FaultCode::TimedOut),
        (409, "ConditionalRequestConflict", FaultCode::Conflict),
        (413, "", FaultCode::TooLarge),
        (429, "", FaultCode::Throttled),
        (500, "InternalError", FaultCode::Unavailable),
        (502, "", FaultCode::Unavailable),
        (503, "SlowDown", FaultCode::Throttled),
        (503, "", FaultCode::Unavailable),
        (507, "XMinioStorageFull", FaultCode::Full),
        (200, "", FaultCode::Protocol),
    ] {
        let Judgement::Again(fault) = answer(status, code).judge() else {
            panic!("{status} {code} is not tried again")
        };
        assert_eq!(fault.code, expected, "{status} {code}");
    }
}

#[test]
fn only_faults_of_the_object_are_final() {
    for (status, code, expected) in [
        (400, "EntityTooLarge", FaultCode::TooLarge),
        (413, "EntityTooLarge", FaultCode::TooLarge),
        (400, "KeyTooLongError", FaultCode::Invalid),
        (400, "XMinioInvalidObjectName", FaultCode::Invalid),
    ] {
        let Judgement::Never(fault) = answer(status, code).judge() else { panic!("{status} {code} is tried again") };
        assert_eq!(fault.code, expected, "{status} {code}");
    }
}

#[test]
fn an_upload_is_stored_only_where_a_version_is_named() {
    let stored = Answer { status: 200, has_etag: true, ..Answer::default() };
    assert_eq!(stored.judge(), Judgement::Stored);
    assert!(matches!(Answer { has_etag: false, ..stored }.judge(), Judgement::Again(_)), "some other server answered");
    assert!(matches!(answer(412, "PreconditionFailed").judge(), Judgement::Present(_)));
    assert!(matches!(answer(412, "Other").judge(), Judgement::Again(_)), "a gateway's answer, not the store's");
    assert!(matches!(Answer { status: 412, ..Answer::default() }.judge(), Judgement::Again(_)));
    let began_with_200 = Answer { code: Some("PreconditionFailed".to_owned()), status: 200, ..Answer::default() };
    assert!(matches!(began_with_200.judge(), Judgement::Present(_)));
    assert!(matches!(answer(501, "NotImplemented").judge(), Judgement::NotImplemented(_)));
}

#[test]
fn messages_show_code_request_and_region_but_nothing_that_was_quoted() {
    let body = "<Error><Code>InvalidAccessKeyId</Code><Message>AKIACANARY</Message></Error>";
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = http::StatusCode::FORBIDDEN;
    response.headers_mut().insert("x-amz-request-id", "4442587FB7D0A2F9".parse().unwrap());
    response.headers_mut().insert("retry-after", "7".parse().unwrap());
    let answer = Answer::of(&response);
    let fault = answer.fault(answer.fault_code());
    assert_eq!(fault.message, "the store answered 403 InvalidAccessKeyId, request 4442587FB7D0A2F9");
    assert_eq!(fault.retry_after, Some(Duration::from_secs(7)));

    let moved = Answer { status: 301, bucket_region: Some("eu-west-1".to_owned()), ..Answer::default() };
    assert_eq!(moved.fault(moved.fault_code()).message, "the store answered 301; the bucket is in region eu-west-1");
}

#[test]
fn a_code_that_is_no_word_is_not_shown() {
    for code in ["", "two words", "a<b", "é", "\n", &"x".repeat(65)] {
        assert_eq!(answer(400, code).code, None, "{code:?}");
    }
    for body in ["", "<Code>", "<Code>x", "</Code><Code>", "{\"Code\":\"x\"}"] {
        assert_eq!(error_code(body.as_bytes()), None, "{body:?}");
    }
    let far = format!("{}<Code>X</Code>", " ".repeat(5000));
    assert_eq!(error_code(far.as_bytes()), None, "a long answer is not searched to its end");
}

#[test]
fn keys_are_those_that_every_tool_finds_again() {
    for key in ["", "/a", "a/", "a//b", ".", "a/../b", "a\nb", &"k".repeat(1025)] {
        assert!(check_key(key).is_err(), "{key:?}");
    }
    for key in ["a", "a b/ü=1+2%20", "2026/11/21/web-1-2026-11-21-13-00-00-id.gz", &"k".repeat(1024)] {
        assert_eq!(check_key(key), Ok(()), "{key:?}");
    }
}
