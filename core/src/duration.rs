//! Durations as people write them in a configuration: `300s`, `5m`, `250ms`, `24h`, `7d`, `0`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time as written: a whole number and one of `ms`, `s`, `m`, `h`, `d`. A bare `0` needs no unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(pub Duration);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write a number with a unit, such as 250ms, 60s, 5m or 24h")]
pub struct NotADuration(String);

impl FromStr for TimeSpan {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let fail = || NotADuration(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| fail())?;
        let factor = match unit.trim_start() {
            "" if number == 0 => 1,
            unit => UNITS.iter().find_map(|&(name, factor)| (name == unit).then_some(factor)).ok_or_else(fail)?,
        };
        number.checked_mul(factor).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(fail)
    }
}

impl fmt::Display for TimeSpan {
    /// The largest unit that divides it without a rest; anything finer than a millisecond is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (unit, factor) = UNITS
            .into_iter()
            .skip(1) // 24h reads better than 1d where people think in hours
            .find(|(_, factor)| ms >= u128::from(*factor) && ms.is_multiple_of(u128::from(*factor)))
            .unwrap_or(("s", 1_000));
        write!(f, "{}{unit}", ms / u128::from(factor))
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected is a duration such as 250ms, 60s, 5m or 24h")]
        enum Text {
            Number(u64),
            Words(String),
        }
        let words = match Text::deserialize(deserializer)? {
            Text::Number(number) => number.to_string(),
            Text::Words(words) => words,
        };
        words.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: 250ms, 60s, 5m, 24h, 7d. A bare 0 needs no unit.",
            "oneOf": [
                { "const": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$|^0$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("60s", 60_000),
            ("5 m", 300_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(text.parse(), Ok(TimeSpan(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "60", "s", "-1s", "1.5s", "60 sec"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written_back() {
        for ms in [0, 1, 250, 1_000, 90_000, 3_600_000, 86_400_000] {
            let span = TimeSpan(Duration::from_millis(ms));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
