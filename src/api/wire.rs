//! The JSON of the service: bodies to values, values to answers. Wire names appear in this module and its
//! neighbours only. Pure.
//!
//! A body of records is read once and changed in place. JSON is parsed over the received buffer, so that a record is
//! known by where its base64 lies; then each is decoded where it lies and moved to the front, behind the one before:
//!
//! ```text
//!   {"DeliveryStreamName":"web","Records":[{"Data":"aGVsbG8="},{"Data":"d29ybGQ="}]}
//!   helloworld                                              and the lengths 5, 5
//! ```
//!
//! So a request needs one buffer, whatever it holds, and nothing is allocated per record. Every constraint is checked
//! before the first record is decoded.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use base64_simd::{AsOut, STANDARD as BASE64};
use bytes::Bytes;
use hydrant_core::{Position, Span};
use hydrant_storage::buffers::Buffer;
use hydrant_storage::log::Payloads;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::ServiceError;
use super::record_id::RecordId;
use super::violations::{Constraint, Violations};

/// Most records of a batch. Source: service API reference, `PutRecordBatch`.
const RECORDS_MAX: usize = 500;
/// Most bytes of a record, decoded. Source: service API reference, `Record`.
pub(super) const RECORD_BYTES_MAX: usize = 1_024_000;
/// Most bytes of a batch, decoded. Source: service API reference, `PutRecordBatch`.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

/// Records for a stream, checked and decoded.
#[derive(Debug)]
pub(super) struct Put {
    /// The stream.
    pub(super) stream: String,
    /// The records.
    pub(super) payloads: Payloads,
}

/// Which of the two operations a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutKind {
    /// `PutRecord`.
    One,
    /// `PutRecordBatch`.
    Batch,
}

impl Put {
    /// Reads the body of a put.
    ///
    /// # Errors
    /// [`ServiceError::Serialization`] for JSON or base64 that is none, [`ServiceError::Validation`] naming every
    /// member that breaks a constraint, [`ServiceError::InvalidArgument`] for more than 4 MiB.
    pub(super) fn read(kind: PutKind, body: impl Into<Buffer>) -> Result<Self, ServiceError> {
        let mut body = body.into();
        let (stream, slots) = match kind {
            PutKind::One => locate_one(&body)?,
            PutKind::Batch => locate_batch(&body)?,
        };
        let lengths = decode_in_place(&mut body, slots)?;
        // A body may be mostly white space. What is queued for the log must not hold much more than it counts; base64 and
        // a buffer that was at hand make it up to twice and a half as much.
        let is_loose = body.capacity() / 3 > body.len();
        let data = if is_loose { Bytes::copy_from_slice(&body) } else { body.freeze() };
        Ok(Self { stream, payloads: Payloads { data, lengths } })
    }
}

/// The base64 of a record: where it is, and how many bytes it decodes to.
struct Slot {
    place: Place,
    len: usize,
}

enum Place {
    /// In the body.
    Within(Range<usize>),
    /// It was written with escapes, so it was copied.
    Apart(Vec<u8>),
}

fn locate_one(body: &[u8]) -> Result<(String, Vec<Slot>), ServiceError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Input<'a> {
        #[serde(borrow)]
        delivery_stream_name: Option<Cow<'a, str>>,
        #[serde(borrow)]
        record: Option<Object<Record<'a>>>,
    }
    let input: Input<'_> = parse(body)?;
    let mut violations = Violations::default();
    let stream = violations.stream_name(input.delivery_stream_name.as_deref());
    let mut slots = Vec::with_capacity(1);
    match input.record {
        None => violations.add("record", Constraint::NotNull),
        Some(Object(record)) => slots.extend(Slot::of(record, body, || "record.data".to_owned(), &mut violations)?),
    }
    violations.none()?;
    Ok((stream, slots))
}

fn locate_batch(body: &[u8]) -> Result<(String, Vec<Slot>), ServiceError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Input<'a> {
        #[serde(borrow)]
        delivery_stream_name: Option<Cow<'a, str>>,
        #[serde(borrow)]
        records: Option<Records<'a>>,
    }
    let input: Input<'_> = parse(body)?;
    let mut violations = Violations::default();
    let stream = violations.stream_name(input.delivery_stream_name.as_deref());
    let mut slots = Vec::new();
    match input.records {
        None => violations.add("records", Constraint::NotNull),
        Some(records) => {
            violations.range_of_len("records", records.count, 1, RECORDS_MAX);
            slots.reserve_exact(records.kept.len());
            for (index, record) in records.kept.into_iter().enumerate() {
                match record {
                    None => violations.add(&format!("records.{}.member", index + 1), Constraint::NotNull),
                    Some(Object(record)) => {
                        let path = || format!("records.{}.member.data", index + 1);
                        slots.extend(Slot::of(record, body, path, &mut violations)?);
                    }
                }
            }
        }
    }
    violations.none()?;
    let decoded: usize = slots.iter().map(|slot| slot.len).sum();
    if decoded > BATCH_BYTES_MAX {
        return Err(ServiceError::InvalidArgument("Records size exceeds 4 MB limit".to_owned()));
    }
    Ok((stream, slots))
}

impl Slot {
    /// Finds the text of a record. `None`, and a violation, when it has none or too much.
    fn of(
        record: Record<'_>,
        body: &[u8],
        path: impl Fn() -> String,
        violations: &mut Violations,
    ) -> Result<Option<Self>, ServiceError> {
        let Some(Blob(text)) = record.data else {
            violations.add(&path(), Constraint::NotNull);
            return Ok(None);
        };
        let len = BASE64.decoded_length(&text).map_err(|_| not_base64())?;
        if len > RECORD_BYTES_MAX {
            violations.add(&path(), Constraint::LenAtMost(RECORD_BYTES_MAX));
            return Ok(None);
        }
        let place = match text {
            Cow::Owned(text) => Place::Apart(text),
            Cow::Borrowed(text) => {
                // Borrowed text is a part of the body, so this is where it starts.
                let start = text.as_ptr().addr() - body.as_ptr().addr();
                Place::Within(start..start + text.len())
            }
        };
        Ok(Some(Self { place, len }))
    }
}

fn not_base64() -> ServiceError {
    ServiceError::Serialization("Data is not base64.".to_owned())
}

/// Decodes all records to the front of the body, in order, and cuts the rest off. Decoding shrinks, so the front
/// never reaches what is still to be decoded.
fn decode_in_place(body: &mut Buffer, slots: Vec<Slot>) -> Result<Vec<u32>, ServiceError> {
    let mut lengths = Vec::with_capacity(slots.len());
    let mut end = 0;
    for Slot { place, len } in slots {
        match place {
            Place::Within(range) => {
                let (front, back) = body.split_at_mut_checked(range.start).ok_or_else(not_base64)?;
                let text = back.get_mut(..range.len()).ok_or_else(not_base64)?;
                if let Some(room) = front.get_mut(end..end + len) {
                    BASE64.decode(text, room.as_out()).map_err(|_| not_base64())?;
                } else {
                    // As long as what lies in front is shorter than the record: with the first few of a batch.
                    BASE64.decode_inplace(text).map_err(|_| not_base64())?;
                    body.copy_within(range.start..range.start + len, end);
                }
            }
            Place::Apart(mut text) => {
                let data = BASE64.decode_inplace(&mut text).map_err(|_| not_base64())?;
                body.get_mut(end..end + len).ok_or_else(not_base64)?.copy_from_slice(data);
            }
        }
        end += len;
        lengths.push(u32::try_from(len).map_err(|_| not_base64())?);
    }
    body.truncate(end);
    Ok(lengths)
}

/// Reads a body as one JSON object; an empty one as `{}`. Unknown members are passed over, as the service does.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ServiceError> {
    let body = if body.is_empty() { b"{}" } else { body };
    match serde_json::from_slice(body) {
        Ok(Object(input)) => Ok(input),
        Err(error) => {
            // The parser's own words may repeat what was sent, at any length.
            let what = match error.classify() {
                serde_json::error::Category::Eof => "The JSON ends too early",
                serde_json::error::Category::Data => "A member has the wrong type or is given twice",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "The JSON is malformed",
            };
            let (line, column) = (error.line(), error.column());
            Err(ServiceError::Serialization(format!("{what}, at line {line} column {column}.")))
        }
    }
}

/// A JSON object. What is derived for a struct would take an array of its members as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// One record as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    #[serde(borrow)]
    data: Option<Blob<'a>>,
}

/// The text of a blob. As bytes, because base64 is checked anyway when it is decoded.
struct Blob<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Blob<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 string")
            }

            fn visit_borrowed_bytes<E: Error>(self, text: &'de [u8]) -> Result<Blob<'de>, E> {
                Ok(Blob(Cow::Borrowed(text)))
            }

            fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Blob<'de>, E> {
                Ok(Blob(Cow::Owned(text.to_vec())))
            }
        }
        deserializer.deserialize_bytes(Text)
    }
}

/// The records of a batch: as many as one may have, and how many there were. A body has room for a million.
struct Records<'a> {
    kept: Vec<Option<Object<Record<'a>>>>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Records<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Records<'de>, A::Error> {
                let mut records = Records { kept: Vec::new(), count: 0 };
                while let Some(record) = list.next_element()? {
                    records.count += 1;
                    if records.count <= RECORDS_MAX {
                        records.kept.push(record);
                    }
                }
                Ok(records)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Answers to puts are written by hand: they are the same few words for every record.
///
/// Compact, in the service's order of keys, without nulls: a client in C looks for the bytes `"FailedPutCount":0`,
/// and takes a null in `ErrorCode` for a string.
pub(super) fn put_record_answer(incarnation: u64, span: Span) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend(br#"{"Encrypted":false,"RecordId":""#);
    RecordId { incarnation, position: span.first }.push(&mut out);
    out.extend(br#""}"#);
    out
}

/// The answer to a batch that was stored: one entry per record, in the order of the request.
pub(super) fn batch_stored_answer(incarnation: u64, span: Span) -> Vec<u8> {
    let mut out = Vec::with_capacity(80 + usize::try_from(span.count()).unwrap_or_default() * (RecordId::LEN + 16));
    out.extend(br#"{"Encrypted":false,"FailedPutCount":0,"RequestResponses":["#);
    for number in span.first.get()..span.end.get() {
        if number > span.first.get() {
            out.push(b',');
        }
        out.extend(br#"{"RecordId":""#);
        RecordId { incarnation, position: Position::new(number) }.push(&mut out);
        out.extend(br#""}"#);
    }
    out.extend(b"]}");
    out
}

/// The answer to a batch for which there was no room: `count` entries that ask to be sent again.
pub(super) fn batch_throttled_answer(count: usize) -> Vec<u8> {
    let mut out = format!(r#"{{"Encrypted":false,"FailedPutCount":{count},"RequestResponses":["#).into_bytes();
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        out.extend(br#"{"ErrorCode":"ServiceUnavailableException","ErrorMessage":"Slow down."}"#);
    }
    out.extend(b"]}");
    out
}
