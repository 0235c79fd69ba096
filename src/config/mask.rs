//! What of a document must not be shown: everything that stands where a secret belongs, or looks as if it did.
//!
//! In: the text of a document, and the keys that are known to hold secrets. Out: the same text with each such value
//! replaced by `***`, and for every byte range where it lies there.
//!
//! A literal secret is refused, but it is refused *because it stands there*, so every text that could quote it goes
//! through here. The rule errs on the side of stars: misspelled keys count, and so does whatever is indented below.

use std::ops::Range;

use hydrant_core::problem::{DocPath, Step};

use super::nearest::distance;

/// What stands in the place of a secret.
const STARS: &str = "***";

/// Parts of a key's name that tell of a secret.
const TELLING: [&str; 6] = ["secret", "passw", "passphrase", "token", "private", "credential_key"];

/// How many letters of a known key may be wrong and its value still be a secret.
const MISSPELLED_MAX: usize = 4;

/// Keys below a secret's key that say where it is. Their values are names, not secrets.
const REFERENCE: [&str; 2] = ["env", "file"];

/// Text without its secrets.
#[derive(Debug)]
pub(super) struct Masked {
    text: String,
    /// Replaced ranges of the original, ascending, apart from each other.
    hidden: Vec<Range<usize>>,
}

impl Masked {
    /// The text without these ranges of it.
    pub(super) fn new(text: &str, hidden: impl IntoIterator<Item = Range<usize>>) -> Self {
        let hidden = merged(hidden.into_iter().filter(|range| text.get(range.clone()).is_some()).collect());
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        for range in &hidden {
            masked.push_str(text.get(copied..range.start).unwrap_or_default());
            masked.push_str(STARS);
            copied = range.end;
        }
        masked.push_str(text.get(copied..).unwrap_or_default());
        Self { text: masked, hidden }
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of the original lies in this text.
    pub(super) fn range(&self, original: &Range<usize>) -> Range<usize> {
        self.offset(original.start, 0)..self.offset(original.end, STARS.len())
    }

    /// Where a byte of the original lies; one that is hidden, `inside` bytes into the stars.
    fn offset(&self, original: usize, inside: usize) -> usize {
        let mut removed = 0;
        let mut added = 0;
        for range in &self.hidden {
            if original <= range.start {
                break;
            }
            if original < range.end {
                return range.start - removed + added + inside;
            }
            removed += range.len();
            added += STARS.len();
        }
        original - removed + added
    }
}

/// Whether the value at `path` must not be shown: a key on the way to it tells of a secret, and it is not the name
/// inside a reference. Streams and stores are named freely, so their names tell nothing.
pub(super) fn is_secret(path: &DocPath, known: &[String]) -> bool {
    let named_freely =
        matches!(path.steps().first(), Some(Step::Key(section)) if section == "streams" || section == "stores");
    let mut steps = path.steps().iter().enumerate();
    let telling =
        steps.any(|(depth, step)| matches!(step, Step::Key(key) if tells(key, known)) && !(named_freely && depth == 1));
    let below: Vec<&Step> = steps.map(|(_, step)| step).collect();
    telling && !matches!(below.as_slice(), [Step::Key(key)] if REFERENCE.contains(&key.as_str()))
}

/// How the lines below a secret's key are treated.
#[derive(Clone, Copy)]
enum Below {
    /// The value has begun on the key's line: whatever is indented deeper belongs to it.
    Value { indent: usize },
    /// Nothing stood behind the key: lines with a key of their own speak for themselves.
    Mapping { indent: usize },
}

/// The parts of a text that must not be shown, as far as lines and indentation tell. Needs no valid document.
pub(super) fn by_text(text: &str, known: &[String]) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut start_of_next = 0;
    let mut below: Option<Below> = None;
    for line in text.split_inclusive('\n') {
        let start = start_of_next;
        start_of_next += line.len();
        let content = line.trim_end();
        let spaces = content.len() - content.trim_start().len();
        if spaces == content.len() {
            continue;
        }
        let whole = start + spaces..start + content.len();
        let indent = content.len() - content.trim_start_matches([' ', '\t', '-']).len();
        match below {
            Some(Below::Value { indent: key }) if indent > key => hidden.push(whole),
            Some(Below::Mapping { indent: key }) if indent > key && !has_key(content) => hidden.push(whole),
            Some(Below::Mapping { indent: key }) if indent > key && is_reference(content) => {}
            _ => {
                let value = secret_value(content, known);
                below = match &value {
                    Some(value) if value.is_empty() => Some(Below::Mapping { indent }),
                    Some(_) => Some(Below::Value { indent }),
                    None => below.filter(|below| matches!(below, Below::Mapping { indent: key } if indent > *key)),
                };
                hidden.extend(value.map(|value| start + value.start..start + value.end));
                hidden.extend(user_info(content).map(|part| start + part.start..start + part.end));
            }
        }
    }
    hidden
}

/// Of a line with an address in it: the name and password before the `@`.
fn user_info(line: &str) -> Option<Range<usize>> {
    let from = line.find("://")? + "://".len();
    let authority = line.get(from..)?.split(['/', '"', '\'', ' ']).next()?;
    authority.rfind('@').map(|at| from..from + at)
}

/// Of a line that has a secret's key: what follows the key, empty if that may be shown.
fn secret_value(line: &str, known: &[String]) -> Option<Range<usize>> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    line.match_indices([':', '=']).find_map(|(colon, _)| {
        let before = line.get(..colon)?.trim_end().trim_end_matches(['"', '\'']);
        let key = before.rsplit(|c| !is_part(c)).next()?;
        if !tells(key, known) {
            return None;
        }
        let rest = line.get(colon + 1..)?;
        let value = rest.trim_start();
        let from = colon + 1 + rest.len() - value.len();
        let shown = value.is_empty() || value.strip_prefix('{').is_some_and(|inner| is_reference(inner.trim_start()));
        Some(if shown { 0..0 } else { from..line.len() })
    })
}

/// Whether a line begins with a key.
fn has_key(line: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let key_of = |key: &str| !key.is_empty() && key.chars().all(is_part);
    let colon = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|key| (key, "")));
    colon.is_some_and(|(key, _)| key_of(key.trim().trim_start_matches("- ").trim_matches(['"', '\''])))
}

fn is_reference(text: &str) -> bool {
    let key = text.split_once(':').map(|(key, _)| key.trim().trim_matches(['"', '\'']));
    key.is_some_and(|key| REFERENCE.contains(&key))
}

/// Whether a key tells that its value is a secret.
fn tells(key: &str, known: &[String]) -> bool {
    let key = key.to_lowercase();
    TELLING.iter().any(|part| key.contains(part)) || known.iter().any(|known| distance(&key, known) <= MISSPELLED_MAX)
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

#[cfg(test)]
mod tests;
