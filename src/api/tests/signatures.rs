//! Signatures: whatever the SDK's own signer signs is taken, and nothing else.

use aws_lc_rs::digest;
use http::Method;
use http::request::Parts;
use hydrant_core::Timestamp;
use proptest::prelude::*;

use super::kit::{DATE, KEY_ID, NOW, REGION, SECRET, Signing, credential, request};
use crate::api::auth::Gate;
use crate::api::error::ServiceError;

fn gate() -> Gate {
    Gate::new(REGION, &[credential("other", "x"), credential(KEY_ID, SECRET)], "decoy")
}

fn judge(gate: &Gate, parts: &Parts, body: &[u8], now: Timestamp) -> Result<(), ServiceError> {
    let claim = gate.examine(parts, now)?.expect("the gate is not open");
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    gate.verify(&claim, parts, &hash)
}

#[track_caller]
fn check_taken(signing: &Signing<'_>) {
    let (parts, body) = request(signing).into_parts();
    if let Err(error) = judge(&gate(), &parts, &body, NOW) {
        panic!("{error:?}\n{parts:#?}");
    }
}

#[track_caller]
fn check_refused(parts: &Parts, body: &[u8], code: &str, message: &str) {
    let error = judge(&gate(), parts, body, NOW).expect_err("must be refused");
    assert_eq!((error.shape().1, error.to_string().as_str()), (code, message));
}

#[test]
fn what_the_sdk_signs_is_taken() {
    let plain = Signing::default();
    check_taken(&plain);
    for path in [
        "/",
        "//",
        "/a/b",
        "/a//b/",
        "/a/./b/../c",
        "/..",
        "/a/..",
        "/a%20b",
        "/a%2Fb",
        "/%E3%81%82",
        "/a:@!$&'()*,;=~",
        "/x/.",
    ] {
        check_taken(&Signing { path, ..plain.clone() });
    }
    for path in [
        "/?",
        "/?a=b",
        "/?b=1&a=2&a=1",
        "/?a",
        "/?a=&b",
        "/?=v",
        "/?a=b=c",
        "/?a+b=c+d",
        "/?a%20b=%7e%41%2f",
        "/?q=%zz%",
        "/?a=/?:@",
        "/?&&a=1&",
    ] {
        check_taken(&Signing { path, ..plain.clone() });
    }
    for value in ["", "a  b   c", "  padded  ", "\"a  b\"", "a\tb", "a, b,c", "x=y; z", "ends "] {
        check_taken(&Signing {
            headers: &[("x-amz-meta", value), ("my-header", "2"), ("x-amz-meta", "  second  one ")],
            ..plain.clone()
        });
    }
    check_taken(&Signing { method: Method::PUT, body: b"\0\xff", ..plain.clone() });
    check_taken(&Signing { body: b"", ..plain.clone() });
    check_taken(&Signing { session_token: Some("a token/+="), ..plain.clone() });
    check_taken(&Signing { payload_header: true, ..plain });
}

proptest! {
    #[test]
    fn whatever_the_sdk_signs_is_taken(
        path in "(/([a-z0-9.~:@!$&'()*,;=_-]|%[0-7][0-9A-Fa-f]){0,4}){1,4}",
        query in "(\\?([a-z0-9.~:@!$'()*,;/_=&+-]|%[0-7][0-9A-Fa-f]|%[g-z]){0,16})?",
        value in "[ -~\t]{0,20}",
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        // That one is a signature in the query, which is refused before anything else.
        prop_assume!(!query.to_ascii_lowercase().contains("x-amz-"));
        let path = path + &query;
        let headers = [("x-amz-thing", value.as_str())];
        let (parts, body) = request(&Signing { path: &path, headers: &headers, body: &body, ..Signing::default() }).into_parts();
        prop_assert_eq!(judge(&gate(), &parts, &body, NOW), Ok(()));
    }
}

#[test]
fn http2_signs_its_authority_for_the_host() {
    let (mut parts, body) = request(&Signing::default()).into_parts();
    parts.headers.remove("host");
    parts.uri = "http://localhost:4573/".parse().unwrap();
    assert_eq!(judge(&gate(), &parts, &body, NOW), Ok(()));
    parts.uri = "http://localhost:4574/".parse().unwrap();
    assert!(judge(&gate(), &parts, &body, NOW).is_err());
}

#[test]
fn a_date_header_will_do_where_there_is_no_other() {
    // No SDK does this any more, so the request is signed by hand, with the SDK's two primitives.
    for date in ["20260830T123600Z", "Sun, 30 Aug 2026 12:36:00 GMT"] {
        let (mut parts, body) = request(&Signing::default()).into_parts();
        parts.headers.clear();
        parts.headers.insert("host", "h".parse().unwrap());
        parts.headers.insert("date", date.parse().unwrap());
        let hash = |data: &[u8]| {
            let digest = digest::digest(&digest::SHA256, data);
            digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
        };
        let canonical = format!("POST\n/\n\ndate:{date}\nhost:h\n\ndate;host\n{}", hash(&body));
        let scope = format!("{DATE}/{REGION}/firehose/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n20260830T123600Z\n{scope}\n{}", hash(canonical.as_bytes()));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(NOW.as_millis());
        let key = aws_sigv4::sign::v4::generate_signing_key(SECRET, time, REGION, "firehose");
        let signature = aws_sigv4::sign::v4::calculate_signature(key, to_sign.as_bytes());
        let header =
            format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders=date;host, Signature={signature}");
        parts.headers.insert("authorization", header.parse().unwrap());
        assert_eq!(judge(&gate(), &parts, &body, NOW), Ok(()), "{date}");
    }
}

#[test]
fn a_signature_lives_five_minutes_either_way() {
    let (parts, body) = request(&Signing::default()).into_parts();
    let at = |offset: i64| Timestamp::from_millis(NOW.as_millis().checked_add_signed(offset).unwrap());
    for fine in [-300_000, 0, 300_000] {
        assert_eq!(judge(&gate(), &parts, &body, at(fine)), Ok(()), "{fine} ms");
    }
    let late = judge(&gate(), &parts, &body, at(300_001)).unwrap_err();
    assert_eq!(
        late.to_string(),
        "Signature expired: 20260830T123600Z is now earlier than 20260830T123600Z (20260830T124100Z - 5 min.)"
    );
    let early = judge(&gate(), &parts, &body, at(-301_000)).unwrap_err();
    assert_eq!(
        early.to_string(),
        "Signature not yet current: 20260830T123600Z is still later than 20260830T123559Z (20260830T123059Z + 5 min.)"
    );
    assert_eq!((late.shape().1, early.shape().1), ("InvalidSignatureException", "InvalidSignatureException"));
}

#[test]
fn the_day_may_change_between_two_requests() {
    let gate = gate();
    for day in [0, 1, 0, 1] {
        let now = Timestamp::from_millis(NOW.as_millis() + day * 86_400_000);
        let (parts, body) = request(&Signing { now, ..Signing::default() }).into_parts();
        assert_eq!(judge(&gate, &parts, &body, now), Ok(()), "day {day}");
    }
}

#[test]
fn each_reason_to_refuse_has_its_own_words() {
    let fresh = || request(&Signing::default()).into_parts();
    let (mut parts, body) = fresh();
    parts.headers.remove("authorization");
    check_refused(&parts, &body, "MissingAuthenticationTokenException", "Missing Authentication Token");

    let (parts, body) = request(&Signing { key_id: "nobody", ..Signing::default() }).into_parts();
    check_refused(
        &parts,
        &body,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    );

    let (parts, body) = request(&Signing { region: "eu-west-1", ..Signing::default() }).into_parts();
    check_refused(&parts, &body, "InvalidSignatureException", "Credential should be scoped to region 'us-east-1'.");

    let (parts, body) = request(&Signing { service: "kinesis", ..Signing::default() }).into_parts();
    let words = "Credential should be scoped to correct service: 'firehose'.";
    check_refused(&parts, &body, "InvalidSignatureException", words);

    let (mut parts, body) = fresh();
    let header = parts.headers["authorization"].to_str().unwrap().replace(DATE, "20260831");
    parts.headers.insert("authorization", header.parse().unwrap());
    let words = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.";
    check_refused(&parts, &body, "InvalidSignatureException", words);

    let (mut parts, body) = fresh();
    parts.headers.remove("x-amz-date");
    let words = "The request requires one 'X-Amz-Date' or one 'Date' header.";
    check_refused(&parts, &body, "IncompleteSignatureException", words);

    let (parts, body) = request(&Signing { path: "/?X-Amz-Signature=abc", ..Signing::default() }).into_parts();
    let words = "Signatures in the query string are not supported; sign with headers.";
    check_refused(&parts, &body, "IncompleteSignatureException", words);

    for unsigned in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""] {
        let headers = [("x-amz-content-sha256", unsigned)];
        let (parts, body) = request(&Signing { headers: &headers, ..Signing::default() }).into_parts();
        let words =
            "x-amz-content-sha256 must be the SHA-256 of the body; unsigned and chunked payloads are not supported.";
        check_refused(&parts, &body, "IncompleteSignatureException", words);
    }

    let (parts, _) = request(&Signing { payload_header: true, ..Signing::default() }).into_parts();
    let words = "The body does not have the hash that x-amz-content-sha256 gives.";
    check_refused(&parts, b"another", "InvalidSignatureException", words);
}

#[test]
fn headers_that_say_what_is_asked_must_be_signed() {
    for name in ["host", "x-amz-date", "x-amz-target", "content-type"] {
        let (parts, body) = request(&Signing { leave_unsigned: Some(name), ..Signing::default() }).into_parts();
        let words = format!("'{name}' must be one of the SignedHeaders.");
        check_refused(&parts, &body, "IncompleteSignatureException", &words);
    }
}

#[test]
fn an_authorization_header_has_one_spelling() {
    let (parts, body) = request(&Signing::default()).into_parts();
    let good = parts.headers["authorization"].to_str().unwrap();
    let upper = |text: &str| {
        let (start, signature) = text.rsplit_once('=').unwrap();
        format!("{start}={}", signature.to_uppercase())
    };
    for bad in [
        String::new(),
        good.replace("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
        good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        good.replace("AWS4-HMAC-SHA256", "Basic"),
        good.replace("Signature=", "Signature=0"),
        good.replace("aws4_request", "aws4_requests"),
        good.replace("Credential=", "Credential=/"),
        good.replace(&format!("Credential={KEY_ID}/"), "Credential="),
        good.replace(", SignedHeaders=", "; SignedHeaders="),
        good.replace("SignedHeaders=content-type;host", "SignedHeaders=host;content-type"),
        good.replace("SignedHeaders=content-type;host", "SignedHeaders=content-type;host;host"),
        good.replace("SignedHeaders=content-type;host", "SignedHeaders=Content-Type;host"),
        good.replace("SignedHeaders=", "SignedHeaders=;"),
        format!("{good}, Signature={}", "0".repeat(64)),
        format!("{good}, More=1"),
        upper(good),
    ] {
        let (mut parts, _) = request(&Signing::default()).into_parts();
        parts.headers.insert("authorization", bad.parse().unwrap());
        let error = judge(&gate(), &parts, &body, NOW).expect_err(&bad);
        assert_eq!(error.shape().0, 403, "{bad}: {error:?}");
    }
    let (mut parts, _) = request(&Signing::default()).into_parts();
    parts.headers.append("authorization", good.parse().unwrap());
    check_refused(&parts, &body, "IncompleteSignatureException", "There is more than one Authorization header.");
}

#[test]
fn a_time_has_one_spelling() {
    for bad in [
        "",
        "20260830T123600",
        "20260830t123600Z",
        "20260830T123600z",
        "2026083OT123600Z",
        "20260230T123600Z",
        "20261330T123600Z",
        "20260830T243600Z",
        "20260830T126000Z",
        "20260830T123660Z",
        "20260830T1236000Z",
        "2026-08-30T12:36Z",
        "+0260830T123600Z",
    ] {
        let (mut parts, body) = request(&Signing::default()).into_parts();
        parts.headers.insert("x-amz-date", bad.parse().unwrap());
        let words = "'x-amz-date' must be a time such as 20150830T123600Z.";
        check_refused(&parts, &body, "IncompleteSignatureException", words);
    }
}

#[test]
fn without_credentials_only_names_of_this_machine_are_served() {
    let served = |gate: &Gate, host: &str| {
        let (mut parts, _) = request(&Signing::default()).into_parts();
        parts.headers.insert("host", host.parse().unwrap());
        gate.check_host(&parts).is_ok()
    };
    let open = Gate::new(REGION, &[], "decoy");
    for host in ["localhost", "LOCALHOST:4573", "127.0.0.1:4573", "127.1.2.3", "[::1]:4573", "[::1]"] {
        assert!(served(&open, host), "{host}");
    }
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4573", "10.0.0.1", "[::2]", "", "::1", "a b"]
    {
        assert!(!served(&open, host), "{host}");
        assert!(served(&gate(), host), "a signature makes up for the name: {host}");
    }
    let (mut parts, _) = request(&Signing::default()).into_parts();
    parts.headers.append("host", "evil.example".parse().unwrap());
    assert!(open.check_host(&parts).is_err(), "one of two names is another's");
    parts.headers.remove("host");
    assert!(open.check_host(&parts).is_err(), "no name");
    parts.uri = "http://localhost:4573/".parse().unwrap();
    assert!(open.check_host(&parts).is_ok());
    parts.uri = "http://evil.example/".parse().unwrap();
    assert!(open.check_host(&parts).is_err());
}

#[test]
fn without_credentials_anybody_may_call() {
    let open = Gate::new(REGION, &[], "decoy");
    let (mut parts, _) = request(&Signing { key_id: "nobody", region: "mars", ..Signing::default() }).into_parts();
    assert!(open.examine(&parts, NOW).unwrap().is_none());
    parts.headers.clear();
    assert!(open.examine(&parts, NOW).unwrap().is_none());
}
