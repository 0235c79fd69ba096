//! Standard output, as commands write to it: lines for people or JSON for programs, whichever was asked for.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;

/// Who reads the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// People.
    #[default]
    Text,
    /// Programs: one JSON value per line.
    Json,
}

impl Format {
    /// What a command line asks for that could not be parsed as a whole.
    pub(super) fn wanted_by(arguments: &[OsString]) -> Self {
        let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        let json = words.contains(&"--output=json") || words.windows(2).any(|pair| pair == ["--output", "json"]);
        if json { Self::Json } else { Self::Text }
    }
}

/// Where a command's answer goes.
pub struct Output {
    format: Format,
    to: Box<dyn Write + Send>,
}

impl Output {
    /// Standard output.
    pub fn stdout(format: Format) -> Self {
        Self::to(format, io::stdout())
    }

    /// Any other place.
    pub fn to(format: Format, writer: impl Write + Send + 'static) -> Self {
        Self { format, to: Box::new(writer) }
    }

    /// Who reads.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes a line for people. Nothing when a program reads.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub fn say(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.write(format!("{line}\n").as_bytes()),
            Format::Json => Ok(()),
        }
    }

    /// Writes to standard error what people should know beside the answer. Nothing when a program reads.
    pub fn note(&self, text: impl fmt::Display) {
        if self.format == Format::Text {
            // Nobody is left to tell when standard error is gone.
            io::stderr().write_all(text.to_string().as_bytes()).unwrap_or_default();
        }
    }

    /// Writes a value for programs, on one line. Nothing when a person reads.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub fn answer(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => {
                let mut line =
                    serde_json::to_vec(value).map_err(|error| Failure::caused("write the answer", &error))?;
                line.push(b'\n');
                self.write(&line)
            }
        }
    }

    /// Writes bytes as they are, whoever reads.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.to.write_all(bytes).and_then(|()| self.to.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::reader_gone(),
            _ => Failure::caused("write to standard output", &error),
        })
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).finish_non_exhaustive()
    }
}
