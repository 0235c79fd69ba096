//! Letter: one refused piece as a line of a dead-letter object. Pure; `docs/formats/dead-letters.md` has the table.
//!
//! In: the piece, why and when it was refused, what the destination knows it by. Out: a line of JSON in the service's own
//! envelope for error records, with our members beside the service's; and from such a line, what was told in it. Never
//! holds anything of the destination's credentials, and the record only as base64.

use base64_simd::STANDARD as BASE64;
use hydrant_core::sink::Sent;
use hydrant_storage::ledger::{Refusal, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The `Content-Type` of an object of such lines: what the service gives all of its objects.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// Members up to `data_id` are the service's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    attempts_made: u32,
    arrival_timestamp: u64,
    error_code: &'a str,
    error_message: &'a str,
    attempt_ending_timestamp: u64,
    raw_data: String,
    subsequence_number: u32,
    data_id: String,
    piece_id: String,
    stage: &'static str,
    outcome_unknown: bool,
    batch_id: String,
    ordinal: u32,
    #[serde(flatten)]
    known_as: Map<String, Value>,
}

/// The line of one piece, with its end.
///
/// # Panics
/// Never: everything in it can be written as JSON.
pub fn line(sent: Sent<'_>, why: &Refusal, known_as: Vec<(&'static str, String)>) -> Vec<u8> {
    let Sent { batch, ordinal, piece, .. } = sent;
    let line = Line {
        attempts_made: why.attempts,
        arrival_timestamp: piece.arrived_at.as_millis(),
        error_code: &why.code,
        error_message: &why.message,
        attempt_ending_timestamp: why.at.as_millis(),
        raw_data: BASE64.encode_to_string(&piece.data),
        subsequence_number: piece.id.sub,
        data_id: format!("{}.{}", piece.id.position, piece.id.sub),
        piece_id: piece.id.to_string(),
        stage: match why.stage {
            Stage::Encode => "encode",
            Stage::Deliver => "deliver",
        },
        outcome_unknown: why.outcome_unknown,
        batch_id: batch.to_string(),
        ordinal,
        known_as: known_as.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default(); // texts and numbers only: this cannot fail
    bytes.push(b'\n');
    bytes
}

/// A dead letter as it is read back: what a person or a redrive needs of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// Attempts that ended.
    pub attempts_made: u32,
    /// When the record was accepted, in milliseconds since 1970.
    pub arrival_timestamp: u64,
    /// The kind of fault.
    pub error_code: String,
    /// What the destination said.
    pub error_message: String,
    /// When the last attempt ended, in milliseconds since 1970.
    pub attempt_ending_timestamp: u64,
    /// The record.
    #[serde(deserialize_with = "record")]
    pub raw_data: Vec<u8>,
    /// Which piece it is.
    pub piece_id: String,
    /// Who refused it: `encode`, `deliver`.
    pub stage: String,
    /// Whether the destination may have it all the same.
    pub outcome_unknown: bool,
}

impl Letter {
    /// Reads a line, with or without its end; `None` for one that is no dead letter.
    pub fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

fn record<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(text)?;
    BASE64.decode_to_vec(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use hydrant_core::{BatchId, PartitionKeys, Piece, PieceId, Position, Timestamp};

    use super::*;

    /// What a redrive and other people's tools read: a change here is a change of the format.
    #[test]
    fn a_letter_is_this_line() {
        let piece = Piece {
            id: PieceId::whole(Position::new(17)),
            arrived_at: Timestamp::from_millis(1_594_265_943_615),
            keys: PartitionKeys::default(),
            data: "a \"record\"".into(),
        };
        let why = Refusal {
            stage: Stage::Deliver,
            code: "invalid".to_owned(),
            message: "no such column: \"a\"".to_owned(),
            attempts: 5,
            at: Timestamp::from_millis(1_594_266_081_318),
            outcome_unknown: false,
        };
        let batch = BatchId::from_bytes([7; 16]);
        let sent = Sent { batch, sealed_at: Timestamp::default(), ordinal: 3, piece: &piece };
        let line = String::from_utf8(line(sent, &why, vec![("esIndexName", "web".to_owned())])).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"attemptsMade":5,"arrivalTimestamp":1594265943615,"errorCode":"invalid","#,
                r#""errorMessage":"no such column: \"a\"","attemptEndingTimestamp":1594266081318,"#,
                r#""rawData":"YSAicmVjb3JkIg==","subsequenceNumber":0,"dataId":"17.0","pieceId":"17","#,
                r#""stage":"deliver","outcomeUnknown":false,"batchId":"07070707-0707-0707-0707-070707070707","#,
                r#""ordinal":3,"esIndexName":"web"}"#,
                "\n"
            )
        );
        let letter = Letter::read(line.as_bytes()).unwrap();
        let expected = Letter {
            attempts_made: 5,
            arrival_timestamp: 1_594_265_943_615,
            error_code: why.code,
            error_message: why.message,
            attempt_ending_timestamp: 1_594_266_081_318,
            raw_data: b"a \"record\"".to_vec(),
            piece_id: "17".to_owned(),
            stage: "deliver".to_owned(),
            outcome_unknown: false,
        };
        assert_eq!(letter, expected);
        for broken in [&line[1..], line.replace("YSAi", "YSA*").as_str(), "", "{}", "17"] {
            assert_eq!(Letter::read(broken.as_bytes()), None, "{broken}");
        }
    }
}
