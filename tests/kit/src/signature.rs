//! Signature Version 4 of a request: a few lines over SHA-256 and HMAC, written apart from the server's verification so
//! that a misreading of the rules is not made twice.
//!
//! In: the request as it will be sent, and when. Out: the `Authorization` header. Never sends anything.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;

use crate::http::Head;

/// Signs requests of one caller for one service in one region.
pub struct Signer {
    access_key_id: String,
    secret_access_key: String,
    region: String,
    service: String,
    /// The signing key of the day it was last needed; deriving it takes four rounds of HMAC.
    of_day: Option<(String, hmac::Key)>,
}

/// A request before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Upper-case.
    pub method: &'a str,
    /// As on the request line, percent-encoded once.
    pub path: &'a str,
    /// As on the request line without `?`: encoded, and in the order of its names.
    pub query: &'a str,
    /// The headers to sign, names in lower case and in order; `host` and `x-amz-date` must be there.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body, in lower-case hex.
    pub body_sha256: &'a str,
}

impl Signer {
    /// Signs as this caller.
    pub fn new(access_key_id: &str, secret_access_key: &str, region: &str, service: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            of_day: None,
        }
    }

    /// The value of the `Authorization` header. `date` is the value of `x-amz-date`, see [`amz_date`].
    pub fn authorization(&mut self, request: &Unsigned<'_>, date: &str) -> String {
        let signed: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let signed = signed.join(";");
        let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
        for (name, value) in request.headers {
            canonical.push_str(&[name, ":", value.trim(), "\n"].concat());
        }
        canonical.push_str(&["\n", &signed, "\n", request.body_sha256].concat());

        let day = date.get(..8).unwrap_or(date);
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let signature = hex(hmac::sign(self.key(day), text.as_bytes()).as_ref());
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            self.access_key_id
        )
    }

    fn key(&mut self, day: &str) -> &hmac::Key {
        if self.of_day.as_ref().is_none_or(|(of, _)| of != day) {
            self.of_day = None;
        }
        let (_, key) = self.of_day.get_or_insert_with(|| {
            let mut secret = format!("AWS4{}", self.secret_access_key).into_bytes();
            for part in [day, &self.region, &self.service, "aws4_request"] {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
                secret = hmac::sign(&key, part.as_bytes()).as_ref().to_vec();
            }
            (day.to_owned(), hmac::Key::new(hmac::HMAC_SHA256, &secret))
        });
        key
    }
}

/// Whether this caller has signed a request, with all that AWS wants to be covered: its host and every header of AWS's own.
/// The hash of the body is taken as the head has it.
pub(crate) fn is_signed_by(caller: &mut Signer, head: &Head) -> bool {
    let mut check = || {
        let authorization = head.header("authorization")?;
        let (_, names) = authorization.split_once("SignedHeaders=")?;
        let (names, _) = names.split_once(',')?;
        let headers: Vec<(&str, &str)> =
            names.split(';').map(|name| Some((name, head.header(name)?))).collect::<Option<_>>()?;
        let is_own = |name: &str| name == "host" || name.starts_with("x-amz-");
        let is_covered = |name: &str| headers.iter().any(|(signed, _)| *signed == name);
        if head.headers.iter().any(|(name, _)| is_own(name) && !is_covered(name)) {
            return None;
        }
        let unsigned = Unsigned {
            method: &head.method,
            path: &head.path,
            query: &head.query,
            headers: &headers,
            body_sha256: head.header("x-amz-content-sha256")?,
        };
        let expected = caller.authorization(&unsigned, head.header("x-amz-date")?);
        let signature = |text: &str| Some(text.split_once("Signature=")?.1.trim().to_owned());
        Some(signature(&expected)? == signature(authorization)?)
    };
    check() == Some(true)
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The moment as `x-amz-date` has it: `20261121T120607Z`.
pub fn amz_date(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the signing guide ("Examples of how to derive a signing key", `ListUsers`).
    #[test]
    fn the_published_example_gets_its_published_signature() {
        let mut signer = Signer::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "iam");
        let request = Unsigned {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ],
            body_sha256: &sha256_hex(b""),
        };
        assert_eq!(
            signer.authorization(&request, "20150830T123600Z"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn the_key_follows_the_day() {
        let mut signer = Signer::new("a", "b", "us-east-1", "firehose");
        let sign = |signer: &mut Signer, date: &str| {
            let request = Unsigned { method: "POST", path: "/", query: "", headers: &[("host", "x")], body_sha256: "" };
            signer.authorization(&request, date)
        };
        let first = sign(&mut signer, "20260101T000000Z");
        assert_ne!(sign(&mut signer, "20260102T000000Z"), first);
        assert_eq!(sign(&mut signer, "20260101T000000Z"), first);
    }

    #[test]
    fn dates_are_written_in_the_basic_form() {
        assert_eq!(amz_date("2026-11-21T12:06:07.999Z".parse().unwrap()), "20261121T120607Z");
    }
}
