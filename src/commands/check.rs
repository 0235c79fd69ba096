//! `hydrant check FILE`: all that is wrong with a configuration, in one go. Connects to nothing and changes nothing.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use hydrant_core::secret::Secrets;
use serde_json::json;

use super::failure::look;
use super::{Failure, Output};
use crate::config::{self, AnySecrets, Loaded, LocalSecrets};

/// Says all that is wrong with a configuration, in one go.
///
/// Reads the file and the secrets it refers to, and applies every rule. Connects to nothing: whether a bucket is there
/// shows when the server runs. Warnings do not make it fail.
#[derive(Debug, ClapArgs)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hydrant check hydrant.yaml
  hydrant check hydrant.yaml --skip-secrets       where the secrets are not at hand, as in CI
  hydrant check hydrant.yaml --output json        for programs
  hydrant check --schema > schema.json            for editors: completion and checks while you type

Exit code 3 says that something is wrong with it."
)]
pub(super) struct Args {
    /// The configuration.
    #[arg(value_name = "FILE", required_unless_present = "schema")]
    file: Option<PathBuf>,
    /// Do not look whether the secrets are there.
    #[arg(long)]
    skip_secrets: bool,
    /// Print the JSON Schema of configurations instead.
    #[arg(long, conflicts_with_all = ["file", "skip_secrets"])]
    schema: bool,
}

/// Checks.
///
/// # Errors
/// When the file cannot be read, and when something is wrong with it.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    match &args.file {
        Some(file) => {
            let secrets: &dyn Secrets = if args.skip_secrets { &AnySecrets } else { &LocalSecrets };
            tell(file, &config::load(file, None, secrets)?, out)
        }
        None => out.write(config::schema_text().as_bytes()),
    }
}

fn tell(file: &Path, loaded: &Loaded, out: &mut Output) -> Result<(), Failure> {
    let Loaded { spec, warnings } = loaded;
    out.note(warnings.render(look()));
    let names: Vec<&str> = spec.streams.keys().map(String::as_str).collect();
    let streams = match names.as_slice() {
        [] => "no streams".to_owned(),
        [one] => format!("1 stream ({one})"),
        several => format!("{} streams ({})", several.len(), several.join(", ")),
    };
    out.say(format_args!("{} is valid: {streams}", file.display()))?;
    out.answer(&json!({ "valid": true, "streams": names, "warnings": warnings.to_json() }))
}
