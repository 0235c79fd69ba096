//! `hydrant init [FILE]`: a starter configuration, commented, that runs as it is.
//!
//! Never overwrites a file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use super::{Failure, Output};

/// What is written. It is one of the files of `config/`, so a test has started it.
const STARTER: &str = include_str!("../../config/starter.yaml");

/// Writes a commented starter configuration that runs as it is.
///
/// It declares one stream into a local folder and shows, commented out, what else there is. A file that exists is
/// not touched.
#[derive(Debug, ClapArgs)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hydrant init                      writes ./hydrant.yaml
  hydrant init my.yaml
  hydrant init - | less             writes to standard output"
)]
pub(super) struct Args {
    /// Where to write it; `-` for standard output.
    #[arg(value_name = "FILE", default_value = "hydrant.yaml")]
    file: PathBuf,
}

/// Writes the starter.
///
/// # Errors
/// When the file exists already or cannot be written.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    if args.file == Path::new("-") {
        return out.write(STARTER.as_bytes());
    }
    let file = args.file.display().to_string();
    write_new(&args.file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::failed("the file exists already; name another one, or remove it first")
                .at(&file)
                .with_code("exists")
        }
        _ => Failure::caused(format!("write {file}"), &error),
    })?;
    out.say(format_args!("{file} is written. What now:\n  hydrant check {file}\n  hydrant run {file}"))?;
    out.answer(&json!({ "written": args.file }))
}

fn write_new(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(STARTER.as_bytes())
}
