//! The protocol: the bytes of a request, and what an answer means. Pure.
//!
//! Records become a body by their [`Form`]; status, headers and body of an answer become a verdict by the [`Rules`]. What an
//! operator can mend is to be tried again. Texts hold statuses and our own words, never what the endpoint said: it may
//! quote a key or a record.

#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use hydrant_core::batch::Batch;
use hydrant_core::{BatchId, Fault, FaultCode, Timestamp, Verdict};
use hydrant_outbound::SendError;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::packer::Packer;

/// Most bytes of a record. Source: the service's schema of a request, which allows 1,365,336 characters of base64.
const RECORD_BYTES_MAX: usize = 1_024_000;

/// What a request in the service's format is made of beside its records, at most: an id, a timestamp, punctuation.
const FRAME_BYTES: u64 = 200;

/// How records lie in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the service sends them: base64 in JSON.
    Firehose,
    /// JSON texts, each on a line of its own.
    Ndjson,
    /// A JSON array of them.
    JsonArray,
    /// As they are, each with these bytes behind it.
    Raw(&'static [u8]),
}

/// How answers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What makes an answer one of success.
    pub(crate) success: Success,
    /// Answers that mean that the records are at fault.
    pub(crate) refusals: Vec<u16>,
    /// The same, where the records are to be thrown away.
    pub(crate) discards: Vec<u16>,
}

/// What makes an answer one of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    /// 200, and a document that names the request.
    Acknowledged,
    /// Any of these statuses.
    Statuses(Vec<u16>),
    /// Any status from 200 to 299.
    Any,
}

impl Form {
    /// Most bytes of records that surely fit a body of `body_bytes_max`, when there are `pieces_max` of them.
    pub(crate) fn records_bytes_max(self, body_bytes_max: u64, pieces_max: u32) -> u64 {
        let room = body_bytes_max.saturating_sub(FRAME_BYTES + self.bytes_around() * u64::from(pieces_max));
        if self == Self::Firehose { room / 4 * 3 } else { room }
    }

    /// Most bytes that a record costs beside its own; in base64 its last group is filled up.
    fn bytes_around(self) -> u64 {
        match self {
            Self::Firehose => r#"{"data":""},"#.len() as u64 + 4,
            Self::Ndjson | Self::JsonArray => 1,
            Self::Raw(delimiter) => delimiter.len() as u64,
        }
    }

    /// The pieces that can never be sent, by ordinal.
    pub(crate) fn refusals(self, batch: &Batch, body_bytes_max: u64) -> Vec<(u32, Fault)> {
        let alone_max = self.records_bytes_max(body_bytes_max, 1);
        let record_bytes_max = match self {
            Self::Firehose => alone_max.min(RECORD_BYTES_MAX as u64),
            Self::Ndjson | Self::JsonArray | Self::Raw(_) => alone_max,
        };
        let refusal = |data: &[u8]| {
            if data.len() as u64 > record_bytes_max {
                let message = format!("the record has {} bytes, and {record_bytes_max} may be sent", data.len());
                return Some(Fault::new(FaultCode::TooLarge, message));
            }
            let is_good = !matches!(self, Self::Ndjson | Self::JsonArray) || is_json(data);
            (!is_good).then(|| Fault::new(FaultCode::Invalid, "the record is not JSON"))
        };
        batch.pieces.iter().filter_map(|(ordinal, piece)| Some((*ordinal, refusal(&piece.data)?))).collect()
    }

    /// Puts the request's body together. None of the pieces is one that is refused.
    pub(crate) fn write(self, batch: &Batch, packer: &mut Packer) {
        let records = batch.pieces.iter().map(|(_, piece)| &piece.data);
        match self {
            Self::Firehose => {
                let (id, timestamp) = (batch.id, batch.sealed_at.as_millis());
                packer.put(format!(r#"{{"requestId":"{id}","timestamp":{timestamp},"records":["#).as_bytes());
                for (number, record) in records.enumerate() {
                    packer.put(if number == 0 { br#"{"data":""# } else { br#",{"data":""# });
                    packer.put_base64(record);
                    packer.put(br#""}"#);
                }
                packer.put(b"]}");
            }
            Self::Ndjson => {
                for record in records {
                    packer.put(&on_one_line(record));
                    packer.put(b"\n");
                }
            }
            Self::JsonArray => {
                for (number, record) in records.enumerate() {
                    packer.put(if number == 0 { b"[" } else { b"," });
                    packer.put(record);
                }
                packer.put(b"]");
            }
            Self::Raw(delimiter) => {
                for record in records {
                    packer.put(record);
                    packer.put(delimiter);
                }
            }
        }
    }
}

fn is_json(record: &[u8]) -> bool {
    std::str::from_utf8(record).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// The same JSON text on one line: line breaks, which JSON allows between tokens only, become blanks.
fn on_one_line(json: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let blank = |byte: &u8| if is_break(byte) { b' ' } else { *byte };
    if json.iter().any(is_break) { json.iter().map(blank).collect() } else { json.into() }
}

/// The value of `X-Amz-Firehose-Common-Attributes`: JSON, in ASCII as headers are.
pub(crate) fn common_attributes(attributes: &BTreeMap<String, String>) -> String {
    let json = serde_json::json!({ "commonAttributes": attributes }).to_string();
    let mut ascii = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii() {
            ascii.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _written = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// The value of `X-Amzn-Trace-Id`: the moment of the seal and 96 bits of the batch's id, so that it is the same in each
/// attempt too.
pub(crate) fn trace_id(id: BatchId, sealed_at: Timestamp) -> String {
    let seconds = sealed_at.as_secs() & 0xffff_ffff;
    let digits: String = id.to_string().chars().filter(char::is_ascii_hexdigit).take(24).collect();
    format!("Root=1-{seconds:08x}-{digits}")
}

impl Rules {
    /// What an answer to the request of this id means.
    pub(crate) fn judge(&self, answer: &Response<Bytes>, id: BatchId) -> Verdict {
        let status = answer.status().as_u16();
        let is_success = match &self.success {
            Success::Acknowledged if status == 200 => {
                return match acknowledgement(answer, id) {
                    Ok(()) => Verdict::Delivered,
                    Err(reason) => Verdict::Retry(Fault::new(
                        FaultCode::Protocol,
                        format!("the endpoint answered 200, but {reason}"),
                    )),
                };
            }
            Success::Acknowledged => false,
            Success::Statuses(statuses) => statuses.contains(&status),
            Success::Any => answer.status().is_success(),
        };
        if is_success {
            return Verdict::Delivered;
        }
        let message = match status {
            300..=399 => format!("the endpoint answered {status}, and redirects are not followed"),
            _ => format!("the endpoint answered {status}"),
        };
        let of_records = if status == 413 { FaultCode::TooLarge } else { FaultCode::Invalid };
        if self.refusals.contains(&status) {
            return Verdict::Refused(Fault::new(of_records, message));
        }
        if self.discards.contains(&status) {
            return Verdict::Discarded(Fault::new(of_records, message));
        }
        let retry_after = retry_after(answer.headers());
        Verdict::Retry(Fault { code: code_of(answer.status()), message, retry_after })
    }
}

/// What an endpoint says of a request that it has taken. Source: the service's schema of a response, which allows nothing
/// else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Acknowledgement<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[expect(dead_code, reason = "must be there and be an integer; what it says does not matter")]
    timestamp: i64,
    #[expect(dead_code, reason = "may be there")]
    error_message: Option<IgnoredAny>,
}

/// Checks a 200 against the rules for answers. One that breaks them counts as none: it may come from somebody else, such as
/// a proxy that asks for a login.
fn acknowledgement(answer: &Response<Bytes>, id: BatchId) -> Result<(), &'static str> {
    let headers = answer.headers();
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let content_type = types.next().filter(|_| types.next().is_none()).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json")) {
        return Err("its content type is not application/json");
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err("its body is encoded");
    }
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return Err("it does not say how long it is");
    }
    let Ok(acknowledgement) = serde_json::from_slice::<Acknowledgement<'_>>(answer.body()) else {
        return Err("its body is not the document that the protocol asks for");
    };
    if acknowledgement.request_id == id.to_string() { Ok(()) } else { Err("it names another request") }
}

/// The kind of failure. 4xx that nobody has given a meaning of their own mean that the endpoint and we do not fit.
fn code_of(status: StatusCode) -> FaultCode {
    match status.as_u16() {
        300..=399 | 404 | 410 => FaultCode::NotFound,
        401 | 407 => FaultCode::Unauthenticated,
        402 | 403 => FaultCode::Forbidden,
        408 => FaultCode::TimedOut,
        409 | 423 => FaultCode::Conflict,
        413 => FaultCode::TooLarge,
        425 | 429 => FaultCode::Throttled,
        400..=499 => FaultCode::Invalid,
        507 => FaultCode::Full,
        500..=599 => FaultCode::Unavailable,
        _ => FaultCode::Protocol,
    }
}

/// When the endpoint wants to be asked again: a number of seconds, or a moment, which counts from the answer's own date,
/// so that it does not matter what our clock says.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wish = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wish.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text| jiff::fmt::rfc2822::parse(text).ok().map(|moment| moment.timestamp().as_second());
    let wait = moment(wish)?.saturating_sub(moment(text(header::DATE)?)?);
    u64::try_from(wait).ok().map(Duration::from_secs)
}

/// The fault in an exchange that brought no answer.
pub(crate) fn unanswered(error: &SendError) -> Fault {
    let code = match error {
        SendError::Unreachable(_) => FaultCode::Unreachable,
        SendError::TimedOut(_) => FaultCode::TimedOut,
        SendError::Interrupted => FaultCode::Interrupted,
        SendError::Malformed | SendError::AnswerTooLong(_) => FaultCode::Protocol,
        SendError::Unreadable(_) => FaultCode::Damaged,
        SendError::Invalid(_) => FaultCode::Internal,
    };
    Fault::new(code, error.to_string())
}

#[cfg(test)]
mod tests;
