//! What of a document must not be shown: everything that stands where a secret belongs, or looks as if it did.
//!
//! In: the text of a document, and the keys that are known to hold secrets. Out: the same text with each such value
//! replaced by `***`, and for every byte range where it lies there.
//!
//! A literal secret is refused, but it is refused *because it stands there*, so every text that could quote it goes
//! through here. The rule errs on the side of stars: misspelled keys count, and so does whatever is indented below.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use hydrant_core::problem::{DocPath, Step};

use super::nearest::distance;

/// What stands in the place of a secret.
const STARS: &str = "***";

/// Parts of a key's name that tell of a secret.
const TELLING: [&str; 9] =
    ["secret", "passw", "passphrase", "token", "private", "credential", "apikey", "cookie", "signature"];

/// Whole names of keys, and last words of them, that tell of a secret.
const TELLING_WORDS: [&str; 5] = ["key", "auth", "pwd", "authorization", "sig"];

/// The keys of one of `server.credentials`.
const CREDENTIAL: [&str; 2] = ["access_key_id", "secret_access_key"];

/// Longest value that a message may repeat, in bytes. Names are shorter, and secrets of services are longer.
const PLAIN_BYTES_MAX: usize = 32;

/// Shortest value, and shortest part of one, that is looked for in messages: what is shorter stands in any text.
const VALUE_BYTES_MIN: usize = 4;
const PART_BYTES_MIN: usize = 6;

/// Shortest value that is hidden wherever else it stands in the document. What is shorter may be a word of ours.
const ELSEWHERE_BYTES_MIN: usize = 16;

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
    /// What was hidden, whole and in parts, longest first.
    values: Vec<String>,
}

impl Masked {
    /// The text without these ranges of it. Names of `known` keys may be shown wherever they stand.
    pub(super) fn new<'a>(
        text: &str,
        hidden: impl IntoIterator<Item = Range<usize>>,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<&str> = known.chain(CREDENTIAL).chain(REFERENCE).collect();
        let hidden = merged(hidden.into_iter().filter(|range| text.get(range.clone()).is_some()).collect());
        let values = values(hidden.iter().filter_map(|range| text.get(range.clone())), &known);
        let hidden = merged(hidden.into_iter().chain(elsewhere(text, &values)).collect());
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        for range in &hidden {
            masked.push_str(text.get(copied..range.start).unwrap_or_default());
            masked.push_str(STARS);
            copied = range.end;
        }
        masked.push_str(text.get(copied..).unwrap_or_default());
        Self { text: masked, hidden, values }
    }

    /// A sentence about the document without anything that is hidden in it, and fit for a terminal.
    pub(super) fn clean(&self, sentence: &str) -> String {
        let mut clean = sentence.to_owned();
        for value in &self.values {
            if clean.contains(value.as_str()) {
                clean = clean.replace(value, STARS);
            }
        }
        let mut shown = String::with_capacity(clean.len());
        let mut copied = 0;
        for range in merged(in_addresses(&clean)) {
            shown.push_str(clean.get(copied..range.start).unwrap_or_default());
            shown.push_str(STARS);
            copied = range.end;
        }
        shown.push_str(clean.get(copied..).unwrap_or_default());
        escaped(&shown)
    }

    /// A path without anything that is hidden.
    pub(super) fn path(&self, path: &DocPath) -> DocPath {
        let mut so_far = DocPath::root();
        for step in path.steps() {
            so_far = match step {
                Step::Index(index) => so_far.item(*index),
                Step::Key(key) if is_secret_key(&so_far.field(key.as_str())) => so_far.field(STARS),
                Step::Key(key) => so_far.field(self.clean(key)),
            };
        }
        so_far
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

/// Where long ones of these values stand in a text once more: what is a secret in one place is one in every other.
fn elsewhere<'a>(text: &'a str, values: &'a [String]) -> impl Iterator<Item = Range<usize>> + 'a {
    let long = values.iter().filter(|value| value.len() >= ELSEWHERE_BYTES_MIN);
    long.flat_map(|value| text.match_indices(value.as_str()).map(|(at, found)| at..at + found.len()))
}

/// What is looked for in messages: each hidden text as a whole, and its parts.
fn values<'a>(hidden: impl Iterator<Item = &'a str>, known: &[&str]) -> Vec<String> {
    let apart = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '{' | '}' | '[' | ']' | ',' | ':');
    let mut values = BTreeSet::new();
    for text in hidden {
        let whole = text.trim_matches(apart);
        values.extend(Some(whole).filter(|whole| whole.len() >= VALUE_BYTES_MIN));
        values.extend(text.split(apart).filter(|part| part.len() >= PART_BYTES_MIN));
    }
    let mut values: Vec<String> =
        values.into_iter().filter(|value| !known.contains(value)).map(str::to_owned).collect();
    values.sort_by_key(|value| Reverse(value.len()));
    values
}

/// The text with control characters written out, so that it cannot steer a terminal.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if c.is_control() {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
        escaped
    })
}

/// Whether a value is so short and simple that a message may repeat it.
fn is_plain(value: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !value.is_empty() && value.len() <= PLAIN_BYTES_MAX && value.chars().all(allowed)
}

/// A value as a message names it: itself if it is plain.
pub(super) fn quoted(value: &str) -> String {
    if is_plain(value) { format!("`{value}`") } else { "this".to_owned() }
}

/// A sentence without the quoted values in it that are not plain.
pub(super) fn without_values(sentence: &str) -> String {
    let Some(start) = sentence.find(['`', '"']) else { return sentence.to_owned() };
    let (before, rest) = sentence.split_at(start);
    let quote = if rest.starts_with('"') { '"' } else { '`' };
    let inner = rest.get(1..).unwrap_or_default();
    match inner.find(quote) {
        Some(end) if inner.get(..end).is_some_and(is_plain) => {
            let (value, after) = inner.split_at(end + 1);
            format!("{before}{quote}{value}{}", without_values(after))
        }
        // A value may hold quotes, so it ends where our own words begin for the last time, or at the last quote.
        Some(_) => {
            let ours = inner.rfind(&format!("{quote} is ")).or_else(|| inner.rfind(quote));
            let after = ours.and_then(|end| inner.get(end + 1..)).unwrap_or_default();
            format!("{before}this value{after}")
        }
        None => format!("{before}this value"),
    }
}

/// Whether it can be the name of an environment variable as people name them.
pub(super) fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Whether a value in a document, as it is written there, may be shown as an access key id.
fn is_access_key_id(written: &str) -> bool {
    is_plain(&unquoted(written).replace('.', "_"))
}

fn unquoted(written: &str) -> &str {
    written.trim().trim_matches(['"', '\''])
}

/// Whether the value at `path` must not be shown: a key on the way to it tells of a secret, and it is not the name
/// inside a reference or the public half of a credential. `written` is the value as it stands in the document. Streams
/// and stores are named freely, so their names tell nothing.
pub(super) fn is_secret(path: &DocPath, written: &str, known: &[String]) -> bool {
    let steps = path.steps();
    let tells_at = |(depth, step): (usize, &Step)| {
        matches!(step, Step::Key(key) if tells(key, known)) && !(is_named_freely(path) && depth == 1)
    };
    let Some(telling) = steps.iter().enumerate().position(tells_at) else { return false };
    match steps.get(telling..).unwrap_or_default() {
        [.., Step::Key(above), Step::Key(key)] if key == "env" && tells(above, known) => {
            !is_variable(unquoted(written))
        }
        [.., Step::Key(above), Step::Key(key)] if key == "file" && tells(above, known) => false,
        [Step::Key(above), Step::Index(_), Step::Key(key)] if is_credentials(above) && key == "access_key_id" => {
            !is_access_key_id(written)
        }
        _ => true,
    }
}

/// Whether the last key of `path` must not be shown: an unknown one where a credential stands may be one itself.
pub(super) fn is_secret_key(path: &DocPath) -> bool {
    let [above @ .., Step::Key(key)] = path.steps() else { return false };
    let below = above.iter().enumerate().any(|(depth, step)| {
        matches!(step, Step::Key(key) if is_credentials(key)) && !(is_named_freely(path) && depth == 1)
    });
    below && !CREDENTIAL.contains(&key.as_str()) && !REFERENCE.contains(&key.as_str())
}

fn is_named_freely(path: &DocPath) -> bool {
    matches!(path.steps().first(), Some(Step::Key(section)) if section == "streams" || section == "stores")
}

/// Whether a key is `credentials`, or was meant to be.
fn is_credentials(key: &str) -> bool {
    distance(&key.to_lowercase(), "credentials") <= 2
}

/// How the lines below a secret's key are treated.
#[derive(Clone, Copy)]
enum Below {
    /// The value has begun on the key's line: whatever is indented deeper belongs to it.
    Value { indent: usize },
    /// Nothing stood behind the key: lines with a key of their own speak for themselves.
    Mapping { indent: usize },
    /// The key was `credentials`: lines show nothing but what is known to be open.
    Credentials { indent: usize },
    /// The value has begun with a quote that was not closed, wherever the lines begin.
    Quoted { quote: char, indent: usize },
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
        let belongs = |key: usize| indent > key || !has_key(content);
        match below {
            Some(Below::Quoted { quote, indent }) => {
                hidden.push(whole);
                below = Some(if content.contains(quote) {
                    Below::Value { indent }
                } else {
                    Below::Quoted { quote, indent }
                });
            }
            Some(Below::Value { indent: key }) if belongs(key) => hidden.push(whole),
            Some(Below::Credentials { indent: key }) if belongs(key) => {
                if !is_open(content) {
                    let value = start_of_value(content, spaces);
                    hidden.push(start + value..whole.end);
                    if let Some(quote) = unclosed(content.get(value..).unwrap_or_default()) {
                        below = Some(Below::Quoted { quote, indent: key });
                    }
                }
            }
            Some(Below::Mapping { indent: key }) if belongs(key) && !has_key(content) => hidden.push(whole),
            Some(Below::Mapping { indent: key }) if indent > key && is_reference(content) => {}
            _ => {
                let value = secret_value(content, known);
                below = match &value {
                    Some(value) if value.is_empty() && has_credentials(content) => Some(Below::Credentials { indent }),
                    Some(value) if value.is_empty() => Some(Below::Mapping { indent }),
                    Some(value) => Some(match unclosed(content.get(value.clone()).unwrap_or_default()) {
                        Some(quote) => Below::Quoted { quote, indent },
                        None => Below::Value { indent },
                    }),
                    None => below.filter(|below| matches!(below, Below::Mapping { indent: key } if indent > *key)),
                };
                hidden.extend(value.map(|value| start + value.start..start + value.end));
                hidden.extend(in_addresses(content).into_iter().map(|part| start + part.start..start + part.end));
            }
        }
    }
    hidden
}

/// The quote that a value begins with and that its line does not close.
fn unclosed(value: &str) -> Option<char> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    (!value.get(1..)?.contains(quote)).then_some(quote)
}

/// Whether a line below `credentials` shows nothing but the public half, a reference, or the way there.
fn is_open(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t', '-']);
    let Some((key, value)) = line.split_once(':') else { return line.trim().is_empty() };
    let value = value.trim();
    match key.trim() {
        "access_key_id" => unclosed(value).is_none() && is_access_key_id(value),
        "secret_access_key" => value.is_empty() || value.strip_prefix('{').is_some_and(is_reference),
        _ => is_reference(line),
    }
}

/// Where the value of a line below `credentials` begins; the line itself, from `spaces` on, when its key is not known.
fn start_of_value(line: &str, spaces: usize) -> usize {
    let Some((key, value)) = line.split_once(": ") else { return spaces };
    let known = CREDENTIAL.contains(&key.trim_start_matches([' ', '\t', '-']));
    if known { line.len() - value.trim_start().len() } else { spaces }
}

/// Whether a line begins with the key `credentials`, or with what was meant to be it.
fn has_credentials(line: &str) -> bool {
    let key = line.split(':').next().unwrap_or_default();
    is_credentials(key.trim_matches([' ', '\t', '-', '"', '\'']))
}

/// Of a line with addresses in it: names and passwords before the `@`, and everything behind a `?`.
fn in_addresses(line: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut start_of_next = 0;
    for word in line.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`')) {
        let start = start_of_next;
        start_of_next += word.len();
        let word = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
        let from = word.find("://").map_or(0, |at| at + "://".len());
        let rest = word.get(from..).unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        // What is no port behind a colon is a password, which may hold a slash.
        let password = authority.split_once(':').is_some_and(|(_, port)| port.contains(|c: char| !c.is_ascii_digit()));
        let searched = if from == 0 || password { rest } else { authority };
        hidden.extend(searched.rfind('@').map(|at| start + from..start + from + at));
        hidden.extend(word.find('?').map(|at| start + at + 1..start + word.len()));
    }
    hidden
}

/// Of a line that has a secret's key: what follows the key, empty if that may be shown.
fn secret_value(line: &str, known: &[String]) -> Option<Range<usize>> {
    after_key(line, known).or_else(|| after_key_without_colon(line, known))
}

/// What follows a secret's key whose colon was forgotten.
fn after_key_without_colon(line: &str, known: &[String]) -> Option<Range<usize>> {
    let apart = |c: char| matches!(c, ' ' | '\t' | '{' | '[' | ',' | '"' | '\'' | '#');
    line.match_indices([' ', '\t']).find_map(|(at, _)| {
        let word = line.get(..at)?.trim_end_matches(['"', '\'']);
        let word = word.rsplit(apart).next()?.trim_start_matches('-');
        let is_key = word.contains(['_', '-']) && word.len() <= 64 && !word.contains([':', '=']) && tells(word, known);
        (is_key && !line.get(at..)?.trim().is_empty()).then_some(at + 1..line.len())
    })
}

fn after_key(line: &str, known: &[String]) -> Option<Range<usize>> {
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

/// Whether a text begins with a reference whose name can be one.
fn is_reference(text: &str) -> bool {
    let Some((key, name)) = text.split_once(':') else { return false };
    match key.trim().trim_matches(['"', '\'']) {
        "env" => is_variable(unquoted(name.split([',', '}', '#']).next().unwrap_or_default())),
        "file" => true,
        _ => false,
    }
}

/// Whether a key tells that its value is a secret.
fn tells(key: &str, known: &[String]) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    TELLING.iter().any(|part| key.contains(part))
        || TELLING_WORDS.iter().any(|word| key.rsplit('_').next() == Some(word))
        || known.iter().any(|known| distance(&key, known) <= MISSPELLED_MAX)
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
