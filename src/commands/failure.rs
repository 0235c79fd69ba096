//! Why a command ended without doing what it was told: for people a line on standard error, for programs
//! `{"error":{"code","message","at"}}`, for both an exit code. Holds no secrets and no record bytes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;

use super::Format;
use crate::config::{Finding, LoadError, Look, Report};

/// Why a command ended without doing what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: Kind,
    code: &'static str,
    message: String,
    at: Option<String>,
    details: Details,
}

/// The kinds of failure, one exit code each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was tried and did not work: exit code 1.
    Failed,
    /// The command line makes no sense: exit code 2.
    Usage,
    /// The configuration is wrong: exit code 3.
    Configuration,
    /// What lies on disk is damaged: exit code 4.
    Damage,
    /// Whoever read our output went away, as `head` does. Not worth a word; exit code 0.
    ReaderGone,
}

/// What is shown beside the message.
#[derive(Debug)]
enum Details {
    None,
    /// Shown instead of the message where people read: it says the same, longer.
    Text(String),
    /// Everything that is wrong with a document.
    Report(Box<Report>),
    /// For programs only: a member of the error beside the usual ones.
    Value(&'static str, serde_json::Value),
}

impl Failure {
    /// Something that was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, "failed", message)
    }

    /// As [`failed`](Self::failed): `act` names what was tried ("open hydrant.yaml"), `cause` why it did not work,
    /// with all its sources.
    pub fn caused(act: impl std::fmt::Display, cause: &dyn std::error::Error) -> Self {
        let chain: Vec<String> =
            std::iter::successors(Some(cause), |error| error.source()).map(ToString::to_string).collect();
        Self::failed(format!("{act}: {}", chain.join(": ")))
    }

    /// A command line that parses and still makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", message)
    }

    /// A configuration that is wrong.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration, "configuration", message)
    }

    /// Damage on disk.
    pub fn damage(message: impl Into<String>) -> Self {
        Self::new(Kind::Damage, "damage", message)
    }

    /// The same failure under a more exact code for programs: stable, `lower_snake_case`.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// The same failure with what somebody else says of it behind the message.
    #[must_use]
    pub fn because(self, why: &str) -> Self {
        Self { message: format!("{}: {why}", self.message), ..self }
    }

    /// The same failure with one more member for programs.
    #[must_use]
    pub fn with_value(self, name: &'static str, value: serde_json::Value) -> Self {
        self.with_details(Details::Value(name, value))
    }

    /// The same failure with its place: `hydrant.yaml:3:5`, a path, an address.
    #[must_use]
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        Self { at: Some(place.to_string()), ..self }
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code that says so.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::ReaderGone => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Configuration => 3,
            Kind::Damage => 4,
        })
    }

    pub(super) fn reader_gone() -> Self {
        Self::new(Kind::ReaderGone, "reader_gone", "the reader of the output went away")
    }

    pub(super) fn from_clap(error: &clap::Error) -> Self {
        let rendered = error.render();
        let text = if wants_colour(&std::io::stderr()) { rendered.ansi().to_string() } else { rendered.to_string() };
        Self::usage(sentence(&rendered.to_string())).with_details(Details::Text(text))
    }

    /// What is written to standard error.
    pub fn render(&self, format: Format) -> String {
        match (format, &self.details) {
            _ if self.kind == Kind::ReaderGone => String::new(),
            (Format::Json, details) => {
                let mut error = json!({ "code": self.code, "message": self.message, "at": self.at });
                match details {
                    Details::Report(report) => error["problems"] = report.to_json(),
                    Details::Value(name, value) => error[*name] = value.clone(),
                    Details::None | Details::Text(_) => {}
                }
                format!("{}\n", json!({ "error": error }))
            }
            (Format::Text, Details::Text(text)) => text.clone(),
            (Format::Text, Details::Report(report)) => {
                format!("{}error: {}\n", report.render(look()), report.summary())
            }
            (Format::Text, Details::None | Details::Value(..)) => match &self.at {
                Some(at) => format!("error: {at}: {}\n", self.message),
                None => format!("error: {}\n", self.message),
            },
        }
    }

    /// Writes it to standard error.
    pub(super) fn print(&self, format: Format) {
        // Nobody is left to tell when standard error is gone too; the exit code still says it.
        std::io::stderr().write_all(self.render(format).as_bytes()).unwrap_or_default();
    }

    fn with_details(self, details: Details) -> Self {
        Self { details, ..self }
    }

    fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), at: None, details: Details::None }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable { path, source } => {
                Self::configuration(format!("cannot be read: {source}")).at(path.display()).with_code("unreadable")
            }
            LoadError::Invalid(report) => {
                let at = report.first_error().map(Finding::place);
                Self { at, ..Self::configuration(report.summary()) }.with_details(Details::Report(Box::new(report)))
            }
        }
    }
}

/// How findings are drawn on standard error.
pub(super) fn look() -> Look {
    if wants_colour(&std::io::stderr()) { Look::Fancy } else { Look::Plain }
}

/// Whether colours are welcome there: on a terminal, unless `NO_COLOR` says no (<https://no-color.org>) or it can show
/// none.
pub(super) fn wants_colour(to: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    to.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// What a parser of command lines says, on one line: its first paragraph with what is listed there, and its tips, but
/// not the usage behind them.
fn sentence(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    let told = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told: Vec<&str> = told.map(str::trim).filter(|line| !line.is_empty()).collect();
    told.join(" ")
}
