//! Records that are JSON and name themselves, for destinations that look into them: a table, an index.
//!
//! ```text
//!   {"stream":2,"id":17,"n":17,"body":"…"}      taken
//!   {"stream":2,"id":18,"n":"none","body":"…"}  refused by the destination: what it keeps of n is a number
//!   {"stream":2,"id":19,"n":19,"body":"…"       cannot be sent: it is no JSON
//! ```
//!
//! As [`frame`](crate::frame)s, a function of the run's seed and of the id: a reader makes the record again and compares every
//! byte. None holds a line feed, so they lie one to a line.

use crate::frame::Name;
use crate::random::Random;

/// What each begins with.
pub const START: &[u8] = b"{\"stream\":";

/// One of so many is refused by the destination, and as many cannot be sent.
const POISON_EVERY: u64 = 128;

/// Pieces of bodies: what has to be escaped somewhere on the way, what has more than a byte, and what has neither.
const PIECES: &[&str] =
    &["checkout ", "payments ", r"\\", r"\n", r"\u0001", r#"\""#, "\u{e4}", "\u{1f512}", "{}", "$1;--"];

/// What becomes of a record at a destination that keeps a number in `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is taken.
    Taken,
    /// The destination refuses it.
    Refused,
    /// It cannot be sent.
    Unfit,
}

/// What becomes of the record of this name.
pub fn fate(seed: u64, name: Name) -> Fate {
    match Random::of(&[seed.rotate_left(32), u64::from(name.stream), name.id]).below(POISON_EVERY) {
        0 => Fate::Refused,
        1 => Fate::Unfit,
        _ => Fate::Taken,
    }
}

/// Appends the record of this name.
pub fn write(seed: u64, name: Name, out: &mut Vec<u8>) {
    let Name { stream, id } = name;
    let fate = fate(seed, name);
    let n = if fate == Fate::Refused { "\"none\"".to_owned() } else { id.to_string() };
    let mut text = format!("{{\"stream\":{stream},\"id\":{id},\"n\":{n},\"body\":\"");
    body(&mut Random::of(&[!seed, u64::from(stream), id]), &mut text);
    text.push_str(if fate == Fate::Unfit { "\"" } else { "\"}" });
    out.extend_from_slice(text.as_bytes());
}

fn body(random: &mut Random, text: &mut String) {
    let len = match random.below(4096) {
        0 => random.index(100_000),
        1..256 => random.index(8_000),
        _ => random.index(400),
    };
    let end = text.len() + len;
    while text.len() < end {
        text.push_str(random.pick(PIECES));
    }
}

/// The name of the record that this line is, if it is one.
pub fn name(line: &[u8]) -> Option<Name> {
    let rest = std::str::from_utf8(line.strip_prefix(START)?).ok()?;
    let (stream, rest) = rest.split_once(",\"id\":")?;
    let (id, _) = rest.split_once(",\"n\":")?;
    Some(Name { stream: stream.parse().ok()?, id: id.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SEED: u64 = 11;

    fn document(id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(SEED, Name { stream: 3, id }, &mut out);
        out
    }

    #[test]
    fn each_names_itself_and_is_what_its_fate_says() {
        let mut seen = [0; 3];
        for id in 0..5_000 {
            let (name_of, line) = (Name { stream: 3, id }, document(id));
            assert_eq!(name(&line), Some(name_of));
            assert!(!line.contains(&b'\n'));
            let json = serde_json::from_slice::<Value>(&line);
            match fate(SEED, name_of) {
                Fate::Taken => assert_eq!(json.unwrap()["n"], id),
                Fate::Refused => assert_eq!(json.unwrap()["n"], "none"),
                Fate::Unfit => assert!(json.is_err()),
            }
            seen[fate(SEED, name_of) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    }

    #[test]
    fn what_is_no_document_has_no_name() {
        for line in [&b""[..], b"{\"stream\":x,\"id\":1,\"n\":", b"{\"stream\":1,\"id\":-1,\"n\":1", b"\x01HyF"] {
            assert_eq!(name(line), None);
        }
    }
}
