//! Reasons: what OpenSearch says of a document, made fit to be stored and shown.
//!
//! Its sentences quote what they are about: the value of a field, the beginning of the document, some bytes of a word
//! that is too long. Faults hold no record bytes, so a sentence ends where it begins to quote, and what it shares with a
//! value of the record is left out, however it got there. Names of fields stay: they are what the reader looks for.
//!
//! ```text
//!   failed to parse field [age] of type [long] in document with id 'B-0000007'. Preview of field's value: 'secret'
//!   └─────────────── told ────────────────────┘
//! ```

use std::borrow::Cow;

/// Longest kind of error that is shown. OpenSearch's have 20 to 50 bytes.
const KIND_BYTES_MAX: usize = 80;

/// Longest sentence that is shown.
const TOLD_BYTES_MAX: usize = 300;

/// What begins a quotation, or what no reader needs.
const ENDS: &[&str] = &["'", "\"", "\n", ". Preview of", " in document with id", " at [Source"];

/// What stands for something left out.
const LEFT_OUT: char = '…';

/// Bytes that a sentence and a value do not have in common by chance. Ordinary words are shorter.
const SHARED_BYTES: usize = 8;

/// A kind of error, if it looks like one. What does not is not shown: it may be anything.
pub(super) fn kind(text: &str) -> Option<String> {
    let is_word = !text.is_empty()
        && text.len() <= KIND_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_word.then(|| text.to_owned())
}

/// The kind of an error that goes by the name of its class, as old servers have it.
pub(super) fn snake_case(class: &str) -> String {
    let mut kind = String::new();
    for c in class.trim().chars().take(KIND_BYTES_MAX) {
        if c.is_ascii_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.push(c.to_ascii_lowercase());
    }
    kind
}

/// What may be told of a reason given for `record`, and of its cause where the reason itself names nothing, as `failed to
/// parse` does: names stand in brackets.
pub(super) fn told_with_cause(reason: &str, cause: &str, record: &[u8]) -> String {
    let reason = told(reason, record);
    if reason.contains('[') {
        return reason;
    }
    let cause = told(cause, record);
    if cause.is_empty() { reason } else { format!("{reason}: {cause}") }
}

/// What may be told of a reason given for `record`.
pub(super) fn told(reason: &str, record: &[u8]) -> String {
    let reason = with_field_in_brackets(reason);
    let end = ENDS.iter().filter_map(|mark| reason.find(mark)).min().unwrap_or(reason.len());
    let reason = reason.get(..reason.floor_char_boundary(end.min(TOLD_BYTES_MAX))).unwrap_or_default();
    let mut shared = Shared::new(reason);
    for value in Values(std::str::from_utf8(record).unwrap_or_default()) {
        shared.compare(&value);
    }
    shared.left_out().trim_end_matches([' ', ',', ';', ':']).to_owned()
}

/// A sentence of Lucene's that has the name of a field in quotes, with the name as all others have it.
fn with_field_in_brackets(reason: &str) -> Cow<'_, str> {
    let parts = reason.split_once("field=\"").and_then(|(before, rest)| Some((before, rest.split_once('"')?)));
    match parts {
        Some((before, (name, after))) => format!("{before}field [{name}]{after}").into(),
        None => reason.into(),
    }
}

/// What a sentence and the values of a record have in common.
struct Shared<'a> {
    reason: &'a str,
    /// Every run of [`SHARED_BYTES`] in the sentence, sorted, with where it stands.
    runs: Vec<(u64, usize)>,
    /// The bytes that are to be left out.
    marks: Vec<bool>,
}

impl<'a> Shared<'a> {
    fn new(reason: &'a str) -> Self {
        let mut runs: Vec<(u64, usize)> = runs(reason).map(|(at, run)| (run, at)).collect();
        runs.sort_unstable();
        Self { reason, runs, marks: vec![false; reason.len()] }
    }

    /// Marks what the sentence shares with `value`: a run too long for chance, or all of a short one in brackets.
    fn compare(&mut self, value: &str) {
        for (_, run) in runs(value) {
            let first = self.runs.partition_point(|(other, _)| *other < run);
            let same = self.runs.iter().skip(first).take_while(|(other, _)| *other == run);
            let places: Vec<usize> = same.map(|(_, at)| *at).collect();
            self.mark(&places, SHARED_BYTES);
        }
        if !value.is_empty() && value.len() < SHARED_BYTES {
            let is_bracketed = |at: usize| {
                let (before, rest) = self.reason.split_at_checked(at).unwrap_or_default();
                let after = rest.get(value.len()..).unwrap_or_default();
                before.ends_with(['[', '(']) && after.starts_with([']', ')'])
            };
            let places: Vec<usize> =
                self.reason.match_indices(value).map(|(at, _)| at).filter(|at| is_bracketed(*at)).collect();
            self.mark(&places, value.len());
        }
    }

    fn mark(&mut self, places: &[usize], len: usize) {
        for at in places {
            self.marks.iter_mut().skip(*at).take(len).for_each(|mark| *mark = true);
        }
    }

    /// The sentence without it.
    fn left_out(&self) -> String {
        let mut text = String::with_capacity(self.reason.len());
        let mut was_shared = false;
        for (at, c) in self.reason.char_indices() {
            let is_shared = self.marks.iter().skip(at).take(c.len_utf8()).any(|mark| *mark);
            match (is_shared, was_shared) {
                (false, _) => text.push(c),
                (true, false) => text.push(LEFT_OUT),
                (true, true) => {}
            }
            was_shared = is_shared;
        }
        text
    }
}

/// Every run of [`SHARED_BYTES`] bytes of a text, as a number, with where it stands.
fn runs(text: &str) -> impl Iterator<Item = (usize, u64)> {
    let bytes = text.as_bytes().windows(SHARED_BYTES).enumerate();
    bytes.filter_map(|(at, run)| Some((at, u64::from_ne_bytes(run.try_into().ok()?))))
}

/// The values in a JSON document, which is known to be one: texts and numbers, but no names of fields.
struct Values<'a>(&'a str);

impl<'a> Iterator for Values<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        const BETWEEN: &[char] = &['{', '}', '[', ']', ',', ':', ' ', '\t', '\r', '\n'];
        loop {
            self.0 = self.0.trim_start_matches(BETWEEN);
            if self.0.is_empty() {
                return None;
            }
            let Some(text) = self.0.strip_prefix('"') else {
                let (scalar, rest) = split_before(self.0, |c| BETWEEN.contains(&c));
                self.0 = rest;
                return Some(scalar.into());
            };
            let (inside, rest) = split_string(text);
            self.0 = rest;
            if !rest.trim_start().starts_with(':') {
                return Some(unescaped(inside));
            }
        }
    }
}

/// What stands before the end of a string, and what behind it.
fn split_string(text: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let (inside, rest) = split_before(text, |c| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    (inside, rest.strip_prefix('"').unwrap_or_default())
}

fn split_before(text: &str, is_end: impl FnMut(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(is_end).unwrap_or(text.len())).unwrap_or((text, ""))
}

fn unescaped(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return inside.into();
    }
    serde_json::from_str::<String>(&format!("\"{inside}\"")).map_or(inside.into(), Cow::Owned)
}
