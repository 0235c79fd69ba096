//! The protocol to the letter: the head and body of a request in, its records out, or the rule that it breaks. Pure.
//!
//! Source: the service's "HTTP endpoint delivery request and response specifications". Nothing that a lenient receiver
//! would overlook is overlooked here: a header more, a field more, a second gzip member.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::http::Head;

/// Most records of a request, most bytes of its body before compression, most characters of a record in base64.
const RECORDS_MAX: usize = 10_000;
const BODY_BYTES_MAX: u64 = 64 << 20;
const DATA_CHARS_MAX: usize = 1_365_336;

/// Headers that HTTP itself brings along.
const HEADERS_OF_HTTP: [&str; 5] = ["host", "accept", "content-length", "content-type", "content-encoding"];

/// Headers of the protocol.
const HEADERS_OF_FIREHOSE: [&str; 7] = [
    "x-amz-firehose-protocol-version",
    "x-amz-firehose-request-id",
    "x-amz-firehose-source-arn",
    "x-amz-firehose-access-key",
    "x-amz-firehose-common-attributes",
    "user-agent",
    "x-amzn-trace-id",
];

/// What the receiver expects of every request.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// How records lie in it.
    pub form: Form,
    /// The key that must come with it; none may come where there is none.
    pub access_key: Option<String>,
    /// The attributes that must come with it; none may come where there are none.
    pub common_attributes: BTreeMap<String, String>,
    /// Whether the body must be compressed; either is good where it is not said.
    pub is_gzip: Option<bool>,
}

/// How the records of a request lie in its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the service sends them.
    #[default]
    Firehose,
    /// A plain request: JSON texts, each on a line of its own.
    Ndjson,
    /// A plain request: one JSON array.
    JsonArray,
    /// A plain request: each on a line of its own, whatever it is.
    Lines,
    /// Nobody looks: for benches, where reading would cost more than what is measured. Every request is taken, and none of
    /// its records is remembered.
    Unread,
}

/// A request that breaks no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its id.
    pub(super) id: String,
    /// When it was made, in milliseconds since the epoch, if its form says so.
    pub(super) timestamp: Option<u64>,
    /// Its records, in order.
    pub(super) records: Vec<Bytes>,
}

/// Whether the caller may come in: its key is the right one.
pub(super) fn admits(rules: &Rules, head: &Head) -> bool {
    rules.form != Form::Firehose || head.header("x-amz-firehose-access-key") == rules.access_key.as_deref()
}

/// Reads a request.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn read(rules: &Rules, head: &Head, body: &[u8]) -> Result<Request> {
    if rules.form == Form::Unread {
        let id = required(head, "x-amz-firehose-request-id")?.to_owned();
        return Ok(Request { id, timestamp: None, records: Vec::new() });
    }
    ensure!(head.method == "POST", "the method is {}", head.method);
    for (at, (name, _)) in head.headers.iter().enumerate() {
        let is_first = head.headers.iter().position(|(other, _)| other == name) == Some(at);
        ensure!(is_first, "header {name} comes twice");
    }
    let body = unpacked(rules, head, body)?;
    if rules.form == Form::Firehose { read_firehose(rules, head, &body) } else { read_plain(rules.form, head, &body) }
}

fn read_firehose(rules: &Rules, head: &Head, body: &[u8]) -> Result<Request> {
    let known = |name: &str| HEADERS_OF_HTTP.contains(&name) || HEADERS_OF_FIREHOSE.contains(&name);
    let other = head.headers.iter().find(|(name, _)| !known(name));
    ensure!(other.is_none(), "a header that the protocol does not know: {other:?}");
    is(head, "x-amz-firehose-protocol-version", "1.0")?;
    is(head, "content-type", "application/json")?;
    is(head, "user-agent", "Amazon Kinesis Data Firehose Agent/1.0")?;
    let arn = required(head, "x-amz-firehose-source-arn")?;
    ensure!(arn.starts_with("arn:aws:firehose:") && arn.contains(":deliverystream/"), "no ARN of a stream: {arn}");
    ensure!(is_trace_id(required(head, "x-amzn-trace-id")?), "no trace id");
    read_attributes(rules, head)?;
    let id = required(head, "x-amz-firehose-request-id")?;
    ensure!(is_guid(id), "no request id: {id}");

    let Value::Object(mut document) = serde_json::from_slice(body).context("the body is no JSON")? else {
        bail!("the body is no object")
    };
    ensure!(document.remove("requestId") == Some(id.into()), "the request id of the body is another");
    let timestamp = document.remove("timestamp").and_then(|it| it.as_u64()).context("the timestamp is no integer")?;
    let Some(Value::Array(records)) = document.remove("records") else { bail!("there are no records") };
    ensure!(document.is_empty(), "the body holds more: {:?}", document.keys());
    ensure!((1..=RECORDS_MAX).contains(&records.len()), "{} records", records.len());
    let records = records.into_iter().map(read_record).collect::<Result<Vec<Bytes>>>()?;
    Ok(Request { id: id.to_owned(), timestamp: Some(timestamp), records })
}

fn read_record(record: Value) -> Result<Bytes> {
    let Value::Object(mut record) = record else { bail!("a record is no object") };
    let Some(Value::String(data)) = record.remove("data") else { bail!("a record has no data") };
    ensure!(record.is_empty(), "a record holds more: {:?}", record.keys());
    ensure!(data.len() <= DATA_CHARS_MAX, "a record has {} characters", data.len());
    Ok(base64_simd::STANDARD.decode_to_vec(data).context("a record is no base64")?.into())
}

fn read_attributes(rules: &Rules, head: &Head) -> Result<()> {
    let sent = head.header("x-amz-firehose-common-attributes").map(serde_json::from_str::<Value>).transpose()?;
    let expected = (!rules.common_attributes.is_empty()).then(|| {
        let each = rules.common_attributes.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        let attributes: Map<String, Value> = each.collect();
        serde_json::json!({ "commonAttributes": attributes })
    });
    ensure!(sent == expected, "common attributes are {sent:?}");
    Ok(())
}

fn read_plain(form: Form, head: &Head, body: &[u8]) -> Result<Request> {
    let id = required(head, "idempotency-key")?;
    ensure!(is_guid(id), "no idempotency key: {id}");
    let records: Vec<Bytes> = if form == Form::JsonArray {
        let records: Vec<&RawValue> = serde_json::from_slice(body).context("no JSON array")?;
        records.into_iter().map(|record| Bytes::copy_from_slice(record.get().as_bytes())).collect()
    } else {
        let lines = body.strip_suffix(b"\n").context("the last line does not end")?;
        lines.split(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect()
    };
    if form == Form::Ndjson {
        let bad = records.iter().position(|record| serde_json::from_slice::<Value>(record).is_err());
        ensure!(bad.is_none(), "line {bad:?} is no JSON");
    }
    Ok(Request { id: id.to_owned(), timestamp: None, records })
}

/// The body as it was before compression: of one gzip member, with nothing behind it.
fn unpacked(rules: &Rules, head: &Head, body: &[u8]) -> Result<Vec<u8>> {
    ensure!(head.header("transfer-encoding").is_none(), "the body comes in chunks");
    let encoding = head.header("content-encoding");
    let is_gzip = match encoding {
        None => false,
        Some("gzip") => true,
        Some(other) => bail!("content-encoding is {other}"),
    };
    ensure!(rules.is_gzip.is_none_or(|expected| expected == is_gzip), "content-encoding is {encoding:?}");
    let mut plain = Vec::new();
    if is_gzip {
        let mut decoder = GzDecoder::new(body);
        (&mut decoder).take(BODY_BYTES_MAX + 1).read_to_end(&mut plain).context("the body is no gzip")?;
        let rest = decoder.into_inner().len();
        ensure!(rest == 0 || plain.len() as u64 > BODY_BYTES_MAX, "{rest} bytes behind the gzip member");
    } else {
        plain.extend_from_slice(body);
    }
    ensure!(plain.len() as u64 <= BODY_BYTES_MAX, "the body has more than {BODY_BYTES_MAX} bytes");
    Ok(plain)
}

fn required<'a>(head: &'a Head, name: &str) -> Result<&'a str> {
    head.header(name).with_context(|| format!("header {name} is missing"))
}

fn is(head: &Head, name: &str, expected: &str) -> Result<()> {
    let value = required(head, name)?;
    ensure!(value == expected, "header {name} is {value}");
    Ok(())
}

/// Lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| is_hex(group))
}

fn is_trace_id(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    matches!(groups.as_slice(), ["Root=1", time, rest] if time.len() == 8 && rest.len() == 24 && is_hex(time) && is_hex(rest))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
