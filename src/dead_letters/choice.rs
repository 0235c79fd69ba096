//! Choice: which dead letters are meant. Pure.

use hydrant_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::encode::letter::Letter;

/// The kind by which whole objects are chosen.
pub const OBJECT: &str = "object";

/// Which dead letters are meant: those that every part of it takes. The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Refused at this moment or later, in milliseconds since 1970. Of a whole object it is not told when it was given
    /// up; its oldest record counts.
    pub since: u64,
    /// Refused for this (`invalid`), or in this stage (`encode`); or `object`: whole objects.
    pub kind: Option<String>,
    /// The record holds this text. No whole object is taken then.
    pub text: Option<String>,
}

impl Choice {
    /// Whether a dead letter is meant.
    pub fn takes(&self, letter: &Letter) -> bool {
        letter.attempt_ending_timestamp >= self.since
            && self.kind.as_ref().is_none_or(|kind| *kind == letter.error_code || *kind == letter.stage)
            && self.text.as_ref().is_none_or(|text| holds(&letter.raw_data, text.as_bytes()))
    }

    /// Whether a whole object is meant whose oldest record arrived then.
    pub fn takes_whole(&self, oldest_arrival: Timestamp) -> bool {
        oldest_arrival.as_millis() >= self.since
            && self.kind.as_ref().is_none_or(|kind| kind == OBJECT)
            && self.text.is_none()
    }
}

fn holds(record: &[u8], text: &[u8]) -> bool {
    text.is_empty() || record.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            attempts_made: 1,
            arrival_timestamp: 900,
            error_code: "invalid".to_owned(),
            error_message: "no".to_owned(),
            attempt_ending_timestamp: 1000,
            raw_data: b"order \xff 4711".to_vec(),
            piece_id: "17".to_owned(),
            stage: "encode".to_owned(),
            outcome_unknown: false,
        }
    }

    #[test]
    fn a_letter_is_meant_when_every_part_of_the_choice_takes_it() {
        let kind = |kind: &str| Choice { kind: Some(kind.to_owned()), ..Choice::default() };
        let text = |text: &str| Choice { text: Some(text.to_owned()), ..Choice::default() };
        let since = |since| Choice { since, ..Choice::default() };
        for (choice, record, object) in [
            (Choice::default(), true, true),
            (since(900), true, true),
            (since(901), true, false),
            (since(1000), true, false),
            (since(1001), false, false),
            (kind("invalid"), true, false),
            (kind("encode"), true, false),
            (kind("deliver"), false, false),
            (kind(OBJECT), false, true),
            (text("4711"), true, false),
            (text(""), true, false),
            (text("4712"), false, false),
            (text("a text that is longer than the record"), false, false),
            (Choice { text: Some("4711".to_owned()), ..kind("deliver") }, false, false),
        ] {
            assert_eq!(choice.takes(&letter()), record, "{choice:?}");
            assert_eq!(choice.takes_whole(Timestamp::from_millis(900)), object, "{choice:?}");
        }
    }
}
