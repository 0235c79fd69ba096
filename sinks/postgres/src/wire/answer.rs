//! Complaints of PostgreSQL: whose fault it is, which row it speaks of, and what may be shown of it.
//!
//! Codes decide, never words: messages come in the server's language. Only what is a fault of a record is blamed on a row;
//! what an operator can mend, what passes by itself and what is not known here is to be tried again.
//!
//! Source of codes: PostgreSQL documentation, appendix A. Detail and context quote values and are never shown; of the
//! primary message whatever may be a value is cut.

use hydrant_core::{Fault, FaultCode};

/// Longest text of a complaint that is shown, in bytes. Names have at most 63.
const SHOWN_BYTES_MAX: usize = 240;

/// Marks between which messages quote values, in the languages that PostgreSQL speaks.
const QUOTES: [char; 11] = ['"', '“', '”', '„', '«', '»', '‹', '›', '「', '」', '\u{201f}'];

/// What PostgreSQL said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// SQLSTATE.
    pub(crate) code: String,
    /// The primary message, in the server's language.
    pub(crate) message: String,
    /// Where it happened, innermost first, one line for each call.
    pub(crate) context: Option<String>,
    /// The constraint that was violated.
    pub(crate) constraint: Option<String>,
    /// The column that it is about.
    pub(crate) column: Option<String>,
}

/// Whose fault a complaint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// A record's.
    Row(Fault),
    /// Nobody's, or an operator's.
    Again(Fault),
}

impl Complaint {
    /// Whose fault it is.
    pub(crate) fn judge(&self) -> Judgement {
        let (class, _) = self.code.split_at_checked(2).unwrap_or_default();
        match (class, self.code.as_str()) {
            // The COPY itself is not as the server expects; no record can be blamed.
            (_, "22P04") => Judgement::Again(self.fault(FaultCode::Protocol)),
            // A partition is missing, which is an operator's to add; a CHECK has a name.
            (_, "23514") if self.constraint.is_none() => Judgement::Again(self.fault(FaultCode::NotFound)),
            ("22" | "23", _) | (_, "P0001") => Judgement::Row(self.fault(FaultCode::Invalid)),
            ("54", _) => Judgement::Row(self.fault(FaultCode::TooLarge)),
            (class, code) => Judgement::Again(self.fault(again(class, code))),
        }
    }

    /// The row of the COPY into `table` that it speaks of, from 1. Nothing where it speaks of none, or in another
    /// language than English.
    pub(crate) fn line(&self, table: &str) -> Option<usize> {
        let (digits, _) = self.behind_line(table)?;
        digits.parse().ok()
    }

    /// The digits of the row, and what follows them.
    fn behind_line(&self, table: &str) -> Option<(&str, &str)> {
        let start = |line: &'_ str| -> Option<usize> {
            line.strip_prefix("COPY ")?.strip_prefix(table)?.strip_prefix(", line ").map(str::len)
        };
        // Values may hold newlines, and come behind the first line that begins like this.
        let line = self.context.as_deref()?.lines().find(|line| start(line).is_some())?;
        let (_, rest) = line.split_at_checked(line.len() - start(line)?)?;
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest.split_at_checked(end)
    }

    /// The same complaint with the column that the context of a COPY into `table` names, if it is one of `columns`.
    pub(crate) fn with_column_of(mut self, table: &str, columns: &[String]) -> Self {
        if self.column.is_none()
            && let Some((_, behind)) = self.behind_line(table)
            && let Some(behind) = behind.strip_prefix(", column ")
        {
            let named = columns.iter().filter(|column| behind.starts_with(column.as_str()));
            self.column = named.max_by_key(|column| column.len()).cloned();
        }
        self
    }

    /// The fault under this code.
    pub(crate) fn fault(&self, code: FaultCode) -> Fault {
        let mut text = format!("{} {}", self.code, self.shown());
        for (what, name) in [("constraint", &self.constraint), ("column", &self.column)] {
            let Some(name) = name.as_ref().map(|name| format!("\"{name}\"")) else { continue };
            if !text.contains(&name) {
                text = format!("{text}, {what} {name}");
            }
        }
        Fault::new(code, text)
    }

    /// Whether a function of the database complained, such as a trigger's.
    fn is_of_a_function(&self) -> bool {
        self.code == "P0001" || self.context.as_deref().is_some_and(|context| context.contains("PL/"))
    }

    /// The primary message, without anything that may be a value.
    fn shown(&self) -> String {
        let names_only = self.code.starts_with("23") || is_about_objects(&self.code);
        let text = match self.code.as_str() {
            // Whoever wrote the function chose the words, and may have quoted anything.
            _ if self.is_of_a_function() => "refused by a function of the database".to_owned(),
            _ if names_only => self.message.clone(),
            _ => without_bytes(&without_quoted(&self.message)),
        };
        let end = (0..=SHOWN_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.get(..end.unwrap_or(0)).unwrap_or_default().replace(|character: char| character.is_control(), " ")
    }
}

/// Whether messages under this code quote names of objects, users and settings, and no values of records.
fn is_about_objects(code: &str) -> bool {
    ["08", "28", "3D", "3F", "42", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}

/// Cut from the first quote to the last: values may hold quotes themselves.
fn without_quoted(message: &str) -> String {
    let (Some(first), Some(last)) = (message.find(QUOTES), message.rfind(QUOTES)) else { return message.to_owned() };
    let before = message.get(..first).unwrap_or_default();
    let after = message.get(last..).unwrap_or_default().trim_start_matches(QUOTES);
    format!("{before}\"…\"{after}")
}

/// Cut at the first byte that is shown as `0x…`.
fn without_bytes(message: &str) -> String {
    match message.split_once("0x") {
        Some((before, _)) => before.trim_end_matches([' ', ':']).to_owned(),
        None => message.to_owned(),
    }
}

/// What kind of fault a code is that no record is to blame for.
fn again(class: &str, code: &str) -> FaultCode {
    match (class, code) {
        ("28", _) => FaultCode::Unauthenticated,
        (_, "42501" | "25006") => FaultCode::Forbidden,
        ("3D" | "3F", _) | (_, "42P01" | "42703" | "42704" | "42883") => FaultCode::NotFound,
        // The table is not as the configuration says.
        ("0A" | "21" | "42", _) => FaultCode::Invalid,
        (_, "53100" | "53400") => FaultCode::Full,
        (_, "53300") => FaultCode::Throttled,
        ("40", _) | (_, "55P03" | "55006") => FaultCode::Conflict,
        (_, "57014" | "25P03") => FaultCode::TimedOut,
        ("08", _) => FaultCode::Interrupted,
        _ => FaultCode::Unavailable,
    }
}
