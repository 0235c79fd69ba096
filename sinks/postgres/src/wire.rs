//! What goes over the wire: records as rows of a text COPY, and what PostgreSQL's complaints mean. Pure.
//!
//! ```text
//!   record ──raw────────────────────────────────> escaped field ──┐
//!          └─columns─> [ pick: JSON path ─> value ] ─> fields ────┴─> row, ended by a newline ─> body
//! ```
//!
//! A row costs no allocation: it is written behind the others, and taken back if the record turns out not to fit. What a
//! value may be in its column's type is PostgreSQL's to say; refused here is only what no row of text can hold.

mod answer;
mod escape;
mod pick;

use std::io::Write as _;

use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::sink::Encoded;
use hydrant_core::{Fault, FaultCode, Piece};
use serde_json::value::RawValue;

pub(crate) use answer::{Complaint, Judgement};
pub(crate) use pick::{NotAPath, Path};

use self::escape::{NotText, escape, escape_hex, escape_json_string};
use self::pick::Picker;
use crate::config::{Column, Row, is_json};

/// NULL in a text COPY.
const NULL: &[u8] = b"\\N";

/// How a record becomes a row.
#[derive(Debug)]
pub(crate) enum Layout {
    /// One column holds the record as it came, as text.
    Text,
    /// One column holds the record's bytes.
    Bytes,
    /// Columns take values out of the record, which is JSON.
    Columns {
        /// What is taken out of the record, in the order of the slots.
        picker: Picker,
        /// What becomes of it, in the order of the table's columns.
        fields: Vec<Field>,
    },
}

/// How one column gets its value.
#[derive(Debug)]
pub(crate) struct Field {
    name: String,
    from: From,
    /// Whether the column holds JSON, so that strings keep their quotes.
    is_json: bool,
    /// Stands for an absent value or null: escaped, or [`NULL`]; nothing if there must be one.
    otherwise: Option<Vec<u8>>,
    /// Values that count as null, escaped.
    nulls: Vec<Vec<u8>>,
}

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    /// The n-th value that was picked.
    Slot(usize),
    /// When the record was accepted.
    ArrivedAt,
}

impl Layout {
    /// The layout of a row as configured.
    ///
    /// # Errors
    /// When a path cannot be read; none is expected after validation.
    pub(crate) fn new(row: &Row) -> Result<Self, NotAPath> {
        let columns = match row {
            Row::Raw(raw) if raw.r#type.eq_ignore_ascii_case("bytea") => return Ok(Self::Bytes),
            Row::Raw(_) => return Ok(Self::Text),
            Row::Columns(columns) => columns,
        };
        let mut picker = Picker::default();
        let fields = columns.iter().map(|column| Field::new(column, &mut picker)).collect::<Result<_, _>>()?;
        Ok(Self::Columns { picker, fields })
    }

    /// All records of a batch as the body of a COPY, and those that cannot be in it.
    pub(crate) fn encode(&self, batch: &Batch) -> Encoded {
        let len: usize = batch.pieces.iter().map(|(_, piece)| piece.data.len()).sum();
        // An eighth more for escapes, which JSON seldom has more of; bytes are two digits each.
        let mut body =
            Vec::with_capacity(batch.pieces.len() + if matches!(self, Self::Bytes) { 2 * len } else { len + len / 8 });
        let mut slots = Vec::new();
        let mut refused = Vec::new();
        for (ordinal, piece) in &batch.pieces {
            let start = body.len();
            match self.row(&mut body, piece, &mut slots) {
                Ok(()) => body.push(b'\n'),
                Err(reason) => {
                    body.truncate(start);
                    refused.push((*ordinal, Fault::new(FaultCode::Invalid, reason)));
                }
            }
        }
        Encoded { body: vec![Bytes::from(body)], refused }
    }

    fn row<'a>(
        &self,
        body: &mut Vec<u8>,
        piece: &'a Piece,
        slots: &mut Vec<Option<&'a RawValue>>,
    ) -> Result<(), String> {
        match self {
            Self::Bytes => {
                escape_hex(body, &piece.data);
                Ok(())
            }
            Self::Text => escape(body, text(piece)?).map_err(sentence),
            Self::Columns { picker, fields } => {
                picker.pick(text(piece)?, slots).map_err(|error| {
                    // Its own text may quote the record.
                    format!("22P02 invalid JSON at line {} column {}", error.line(), error.column())
                })?;
                for (number, field) in fields.iter().enumerate() {
                    if number > 0 {
                        body.push(b'\t');
                    }
                    field.write(body, piece, slots).map_err(|reason| format!("{reason}, column \"{}\"", field.name))?;
                }
                Ok(())
            }
        }
    }
}

impl Field {
    fn new(column: &Column, picker: &mut Picker) -> Result<Self, NotAPath> {
        let from = match column.path()? {
            Some(path) => From::Slot(picker.add(&path)),
            None => From::ArrivedAt,
        };
        let escaped = |text: &str| {
            let mut escaped = Vec::new();
            // Validation has refused what cannot be written.
            let _written = escape(&mut escaped, text);
            escaped
        };
        let otherwise = match &column.default {
            Some(default) => Some(escaped(default)),
            None => (!column.required).then(|| NULL.to_vec()),
        };
        let nulls = column.null_if.iter().map(|text| escaped(text)).collect();
        Ok(Self { name: column.name.clone(), from, is_json: is_json(&column.r#type), otherwise, nulls })
    }

    fn write(&self, body: &mut Vec<u8>, piece: &Piece, slots: &[Option<&RawValue>]) -> Result<(), String> {
        let slot = match self.from {
            From::Slot(slot) => slot,
            From::ArrivedAt => return write_time(body, piece),
        };
        let raw = slots.get(slot).copied().flatten().map(RawValue::get).filter(|raw| *raw != "null");
        let Some(raw) = raw else { return self.write_otherwise(body) };
        let start = body.len();
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inside) if !self.is_json => escape_json_string(body, inside).map_err(sentence)?,
            _ => escape(body, raw).map_err(sentence)?,
        }
        if body.get(start..).is_some_and(|written| self.nulls.iter().any(|null| null == written)) {
            body.truncate(start);
            return self.write_otherwise(body);
        }
        Ok(())
    }

    fn write_otherwise(&self, body: &mut Vec<u8>) -> Result<(), String> {
        let value = self.otherwise.as_ref().ok_or("23502 a value is required and there is none")?;
        body.extend_from_slice(value);
        Ok(())
    }
}

/// A record as text.
fn text(piece: &Piece) -> Result<&str, String> {
    std::str::from_utf8(&piece.data).map_err(|_| sentence(NotText::Encoding))
}

/// PostgreSQL's own code and words, without the bytes that it would show.
fn sentence(why: NotText) -> String {
    match why {
        NotText::Encoding | NotText::Nul => "22021 invalid byte sequence for encoding \"UTF8\"".to_owned(),
        NotText::Escape => "22P05 unsupported Unicode escape sequence".to_owned(),
    }
}

/// The moment of arrival, in ISO 8601 with its offset, which means the same under every `DateStyle` and time zone.
fn write_time(body: &mut Vec<u8>, piece: &Piece) -> Result<(), String> {
    let moment =
        i64::try_from(piece.arrived_at.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let moment = moment.ok_or("22008 time of arrival out of range")?;
    write!(body, "{moment}").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
