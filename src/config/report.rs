//! What was found out about a document, ready to be shown: to people with the lines in question, to programs as JSON.
//!
//! In: problems with their paths, and the document. Out: text. Secrets are masked before anything is drawn.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use hydrant_core::problem::{DocPath, Problem};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use serde_json::{Value, json};

use super::document::{Document, LineColumn};

/// Most findings that are shown of one document. Who mends a hundred will look again.
pub(super) const FINDINGS_MAX: usize = 100;

/// Most characters of a line that are shown; what is longer is cut around what is meant.
const LINE_BYTES_MAX: usize = 160;

/// Everything found in one document, in the order in which it stands there.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    document: String,
    findings: Vec<Finding>,
    /// Whether there were more than are kept.
    more: bool,
}

/// One thing to know about a document.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    severity: Severity,
    path: DocPath,
    message: String,
    hint: Option<String>,
    snippet: Snippet,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It must be mended.
    Error,
    /// It works, and is probably not what was meant.
    Warning,
}

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// ASCII without colours: for files and pipes.
    Plain,
    /// With colours and box-drawing characters: for terminals.
    Fancy,
}

/// The masked document with the part to mark.
#[derive(Clone, PartialEq, Eq)]
struct Snippet {
    document: String,
    text: Arc<str>,
    marked: Range<usize>,
    /// Where the part begins in the document as it is.
    place: LineColumn,
}

/// Which part of a place is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Key,
    Value,
    /// This range and no other.
    Exactly(usize, usize),
}

/// A problem before it is looked up in the document.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) severity: Severity,
    pub(super) problem: Problem,
    pub(super) mark: Mark,
}

impl Report {
    /// Looks every problem up and sorts them by place. `secret_keys` as in [`Document::masked`].
    pub(super) fn new(document: &Document, noted: Vec<Noted>, secret_keys: &[String]) -> Self {
        let masked = document.masked(secret_keys);
        let text: Arc<str> = printable(masked.text()).into();
        let range_of = |noted: &Noted| match noted.mark {
            Mark::Key => document.key(&noted.problem.at),
            Mark::Value => document.value(&noted.problem.at),
            Mark::Exactly(start, end) => start..end,
        };
        let mut placed: Vec<_> = noted.into_iter().map(|noted| (range_of(&noted), noted)).collect();
        placed.sort_by_key(|(range, _)| range.start);
        let more = placed.len() > FINDINGS_MAX;
        placed.truncate(FINDINGS_MAX);
        let finding = |(range, noted): (Range<usize>, Noted)| {
            let Noted { severity, problem: Problem { at: path, message, hint }, .. } = noted;
            let path = masked.path(&path);
            let (message, hint) = (masked.clean(&message), hint.map(|hint| masked.clean(&hint)));
            let place = document.line_column(range.start);
            let snippet = Snippet {
                document: document.name().to_owned(),
                text: Arc::clone(&text),
                marked: masked.range(&range),
                place,
            };
            Finding { severity, path, message, hint, snippet }
        };
        let findings = placed.into_iter().map(finding).collect();
        Self { document: document.name().to_owned(), findings, more }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The first that must be mended.
    pub fn first_error(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity == Severity::Error)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// One line about all of it: `hydrant.yaml: 2 problems`.
    pub fn summary(&self) -> String {
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let words = |count, one: &str| {
            let (more, s) = (if self.more { "more than " } else { "" }, if count == 1 { "" } else { "s" });
            format!("{more}{count} {one}{s}")
        };
        match (count(Severity::Error), count(Severity::Warning)) {
            (errors, 0) => format!("{}: {}", self.document, words(errors, "problem")),
            (0, warnings) => format!("{}: {}", self.document, words(warnings, "warning")),
            (errors, warnings) => {
                format!("{}: {}, {}", self.document, words(errors, "problem"), words(warnings, "warning"))
            }
        }
    }

    /// All of it for people, each finding with its lines.
    pub fn render(&self, look: Look) -> String {
        let theme = match look {
            Look::Plain => GraphicalTheme::none(),
            Look::Fancy => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).with_context_lines(1);
        let mut text = String::new();
        for finding in &self.findings {
            // Writing to a string cannot fail; a finding that cannot be drawn is still told.
            if handler.render_report(&mut text, finding).is_err() {
                text.push_str(&finding.line());
            }
            text.push('\n');
        }
        text
    }

    /// All of it for programs.
    pub fn to_json(&self) -> Value {
        self.findings.iter().map(Finding::to_json).collect()
    }
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Where in the document, by keys.
    pub fn path(&self) -> &DocPath {
        &self.path
    }

    /// What, as a sentence without its place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where in the file: `hydrant.yaml:3:5`.
    pub fn place(&self) -> String {
        format!("{}:{}:{}", self.snippet.document, self.snippet.place.line, self.snippet.place.column)
    }

    /// All of it on one line, for logs.
    pub fn line(&self) -> String {
        format!("{}: {self}", self.place())
    }

    fn to_json(&self) -> Value {
        json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "path": self.path.to_string(),
            "line": self.snippet.place.line,
            "column": self.snippet.place.column,
            "message": self.message,
            "hint": self.hint,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.steps() {
            [] => f.write_str(&self.message),
            _ => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.findings).finish()
    }
}

impl std::error::Error for Finding {}

impl Diagnostic for Finding {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.snippet)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let marked = self.snippet.marked.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(None, marked))))
    }
}

/// The text with every control character but tabs and line ends replaced by one of the same length, so that ranges
/// hold: a document must not steer the terminal that it is shown in.
fn printable(text: &str) -> String {
    let mut characters = text.chars().peekable();
    let mut printable = String::with_capacity(text.len());
    while let Some(c) = characters.next() {
        let ends_line = c == '\n' || c == '\r' && characters.peek() == Some(&'\n');
        printable.push(match c {
            _ if ends_line || c == '\t' || !c.is_control() => c,
            _ if c.is_ascii() => '?',
            _ => '\u{b7}',
        });
    }
    printable
}

impl SourceCode for Snippet {
    /// Gives the span alone when no context is asked for, as it is to learn the place; else the whole line that the
    /// span begins on, cut around the span if it is long.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_before: usize,
        _context_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        if context_before == 0 {
            return Ok(Box::new(MietteSpanContents::new_named(
                self.document.clone(),
                &[],
                *span,
                self.place.line - 1,
                self.place.column - 1,
                1,
            )));
        }
        let before = self.text.get(..span.offset()).ok_or(MietteError::OutOfBounds)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text.get(span.offset()..).and_then(|rest| rest.find('\n'));
        let line_end = line_end.map_or(self.text.len(), |at| span.offset() + at);
        let start = line_start.max(self.text.ceil_char_boundary(span.offset().saturating_sub(LINE_BYTES_MAX / 2)));
        let end = line_end.min(self.text.floor_char_boundary(start + LINE_BYTES_MAX));
        let shown = self.text.get(start..end).unwrap_or_default();
        let line = before.matches('\n').count();
        let place = SourceSpan::from(start..end);
        let name = self.document.clone();
        Ok(Box::new(MietteSpanContents::new_named(name, shown.as_bytes(), place, line, 0, 1)))
    }
}
