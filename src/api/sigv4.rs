//! Signature Version 4, the receiving half: the bytes that a client must have signed, and the key it signed with.
//!
//! In: a request as it was received, the client's own list of signed headers, and the hash of the body.
//! Out: the string to sign, and a key to check a signature with. Pure; reads no clock and knows no credentials.
//!
//! ```text
//!   canonical request = method \n path \n query \n headers \n signed header names \n hash of the body
//!   string to sign    = AWS4-HMAC-SHA256 \n time \n scope \n hash of the canonical request
//!   key               = HMAC chain of secret, day, region, service, "aws4_request"
//! ```
//!
//! Source: "Signature Version 4 signing process" of the IAM guide; checked against the `aws-sigv4` crate.

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;

/// The one algorithm.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What every credential scope ends with.
pub(super) const SCOPE_END: &str = "aws4_request";

/// An `Authorization` header, taken apart but not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authorization {
    /// Whose key it claims to be.
    pub(super) key_id: String,
    /// Day, region, service and end of the scope, as sent.
    pub(super) scope: [String; 4],
    /// Names of the signed headers: in lower case, in order, none twice.
    pub(super) signed_headers: Vec<String>,
    /// The signature.
    pub(super) signature: [u8; 32],
}

impl Authorization {
    /// Takes a header apart: `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, fields in any order.
    ///
    /// # Errors
    /// A sentence for the client; it repeats nothing of the header, which may hold more than was meant.
    pub(super) fn parse(header: &str) -> Result<Self, &'static str> {
        let fields = header
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or("Authorization header requires the algorithm AWS4-HMAC-SHA256.")?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim_matches(' ').split_once('=').ok_or("Authorization header is malformed.")?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err("Authorization header holds an unknown parameter."),
            };
            if slot.replace(value).is_some() {
                return Err("Authorization header holds a parameter twice.");
            }
        }
        let (key_id, scope) = parse_credential(credential.ok_or("Authorization header requires 'Credential'.")?)?;
        Ok(Self {
            key_id,
            scope,
            signed_headers: parse_names(signed.ok_or("Authorization header requires 'SignedHeaders'.")?)?,
            signature: parse_hex(signature.ok_or("Authorization header requires 'Signature'.")?)
                .ok_or("'Signature' must be 64 lower-case hexadecimal digits.")?,
        })
    }

    /// Whether a header is among the signed ones. `name` is in lower case.
    pub(super) fn signs(&self, name: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed == name)
    }
}

/// Key ids may hold slashes in theory, so the scope is what the last four parts are.
fn parse_credential(credential: &str) -> Result<(String, [String; 4]), &'static str> {
    const WHY: &str = "'Credential' must be KEY-ID/DATE/REGION/SERVICE/aws4_request.";
    let mut parts = credential.rsplitn(5, '/').map(str::to_owned);
    let mut next = || parts.next().ok_or(WHY);
    let (end, service, region, day, key_id) = (next()?, next()?, next()?, next()?, next()?);
    if key_id.is_empty() { Err(WHY) } else { Ok((key_id, [day, region, service, end])) }
}

/// A list that is not sorted would leave open which bytes were signed.
fn parse_names(list: &str) -> Result<Vec<String>, &'static str> {
    let names: Vec<String> = list.split(';').map(str::to_owned).collect();
    let plain = |name: &String| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    if names.iter().all(plain) && names.is_sorted_by(|left, right| left < right) {
        Ok(names)
    } else {
        Err("'SignedHeaders' must be lower-case names in order, none twice.")
    }
}

/// 64 lower-case hexadecimal digits. Upper case is refused, so that a signature has one spelling.
pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Lower-case hexadecimal.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
    }
}

/// What the client signed: algorithm, `time` (as `20150830T123600Z`), scope, and the hash of the canonical request.
pub(super) fn string_to_sign(
    parts: &Parts,
    authorization: &Authorization,
    time: &str,
    body_hash: &[u8; 32],
) -> Vec<u8> {
    let canonical = canonical_request(parts, &authorization.signed_headers, body_hash);
    let mut out = Vec::with_capacity(256);
    for line in [ALGORITHM, time] {
        out.extend(line.as_bytes());
        out.push(b'\n');
    }
    for (index, part) in authorization.scope.iter().enumerate() {
        if index > 0 {
            out.push(b'/');
        }
        out.extend(part.as_bytes());
    }
    out.push(b'\n');
    push_hex(&mut out, digest::digest(&digest::SHA256, &canonical).as_ref());
    out
}

/// The canonical form of a request, over the headers that the client says it signed. A header it names but did not
/// send counts as empty, which no signer does, so its signature fails.
fn canonical_request(parts: &Parts, signed_headers: &[String], body_hash: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend(parts.method.as_str().as_bytes());
    out.push(b'\n');
    push_path(&mut out, parts.uri.path());
    out.push(b'\n');
    push_query(&mut out, parts.uri.query().unwrap_or_default());
    out.push(b'\n');
    for name in signed_headers {
        out.extend(name.as_bytes());
        out.push(b':');
        push_header(&mut out, parts, name);
        out.push(b'\n');
    }
    out.push(b'\n');
    for (index, name) in signed_headers.iter().enumerate() {
        if index > 0 {
            out.push(b';');
        }
        out.extend(name.as_bytes());
    }
    out.push(b'\n');
    push_hex(&mut out, body_hash);
    out
}

/// Without empty and dot segments, and encoded once more than it came: the service is not S3.
fn push_path(out: &mut Vec<u8>, path: &str) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    for segment in &segments {
        out.push(b'/');
        push_encoded(out, segment.as_bytes().iter().copied());
    }
    let is_folder = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    if segments.is_empty() || is_folder {
        out.push(b'/');
    }
}

/// Each name and value decoded as it came and encoded by the one rule, then sorted.
fn push_query(out: &mut Vec<u8>, query: &str) {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encoded_again(name), encoded_again(value))
        })
        .collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend(name);
        out.push(b'=');
        out.extend(value);
    }
}

fn encoded_again(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    push_encoded(&mut out, Decoded { rest: text.as_bytes() });
    out
}

/// Bytes of a query name or value: `%41` is `A`, `+` is a space, a `%` without two digits is itself.
struct Decoded<'a> {
    rest: &'a [u8],
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let [b'%', high, low, rest @ ..] = self.rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.rest = rest;
            return Some(high << 4 | low);
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(if *first == b'+' { b' ' } else { *first })
    }
}

/// `%XX` in upper case for everything but letters, digits and `-._~`.
fn push_encoded(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// All values of a header, joined by commas; spaces at the ends dropped and runs of them folded into one. HTTP/2 has
/// no `host` header: there it is the authority.
fn push_header(out: &mut Vec<u8>, parts: &Parts, name: &str) {
    if name == HOST.as_str() && !parts.headers.contains_key(HOST) {
        out.extend(parts.uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        return;
    }
    for (index, value) in values(&parts.headers, name).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        for (index, word) in words.enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            out.extend(word);
        }
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes)
}

/// The key of one day, region and service.
pub(super) fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> hmac::Key {
    let step = |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes());
    let day = step(format!("AWS4{secret}").as_bytes(), day);
    let region = step(day.as_ref(), region);
    let service = step(region.as_ref(), service);
    hmac::Key::new(hmac::HMAC_SHA256, step(service.as_ref(), SCOPE_END).as_ref())
}
