//! Log records of a web shop that does not exist: the same number is always the same record. Pure.

use std::fmt::Write;

const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "GET", "POST", "PUT", "DELETE"];
const STATUSES: [u16; 16] = [200, 200, 200, 200, 200, 200, 200, 200, 200, 201, 204, 301, 304, 404, 429, 500];
const PATHS: [&str; 8] =
    ["/", "/products", "/products/search", "/cart", "/cart/items", "/checkout", "/orders", "/account/settings"];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "shop-mobile/7.3.1 (Android 16)",
];

/// The record of this number: one JSON object of some 400 bytes, without a line feed.
pub(super) fn record(number: u32) -> String {
    let mut dice = Dice(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (seconds, millis) = (number / 1000, number % 1000);
    let (minute, second) = (seconds / 60 % 60, seconds % 60);
    let mut text = format!("{{\"record\":{number},\"time\":\"2026-11-21T12:{minute:02}:{second:02}.{millis:03}Z\",");
    // Writing to a String never fails.
    write!(
        text,
        "\"host\":\"web-{}\",\"method\":\"{}\",\"path\":\"{}\",\"query\":\"sku={}&page={}\",\"status\":{},\
         \"duration_ms\":{},\"bytes\":{},\"client\":\"198.51.100.{}\",\"session\":\"{:016x}\",\"trace\":\"{:016x}{:016x}\",\
         \"agent\":\"{}\"}}",
        dice.below(12),
        dice.one_of(&METHODS),
        dice.one_of(&PATHS),
        dice.below(90_000) + 10_000,
        dice.below(20),
        dice.one_of(&STATUSES),
        dice.below(900) + 3,
        dice.below(60_000),
        dice.below(256),
        dice.next(),
        dice.next(),
        dice.next(),
        dice.one_of(&AGENTS),
    )
    .unwrap_or_default();
    text
}

/// The number of a record, read from what [`record`] made.
pub(super) fn number(line: &[u8]) -> Option<u32> {
    let rest = line.strip_prefix(b"{\"record\":")?;
    let digits = rest.iter().position(|byte| *byte == b',')?;
    str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

/// Small and repeatable: the xorshift64* generator.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap_or(0);
        choices.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_json_line_that_tells_its_number_and_is_the_same_each_time() {
        for wanted in [0, 1, 99_999, u32::MAX] {
            let text = record(wanted);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["record"], wanted);
            assert!(!text.contains('\n'));
            assert_eq!(number(text.as_bytes()), Some(wanted));
            assert_eq!(text, record(wanted));
            assert!((300..=520).contains(&text.len()), "{} bytes", text.len());
        }
        assert_eq!(number(b"hello"), None);
    }
}
