//! `cargo xtask check`: the gates. All of them run, then all that failed are named, so one call shows everything there is
//! to mend.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cargo::{cargo, run as finish};
use crate::machine::workspace;
use crate::progress::say;
use crate::tools::{self, Cache};

/// Options of `check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these gates.
    #[arg(value_enum)]
    gates: Vec<Gate>,
}

/// A gate, in the order in which they run: the quickest to say no first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Gate {
    /// The code is formatted.
    Fmt,
    /// Every dependency that is declared is used.
    Unused,
    /// Licences, sources and banned crates.
    Supply,
    /// What is published has no crash points and no simulated disk.
    Release,
    /// `docker-compose.yml` is well-formed, without an engine.
    Compose,
    /// No lint fires in any crate or test.
    Clippy,
    /// The documentation builds and every link in it leads somewhere.
    Doc,
}

/// Runs the gates.
///
/// # Errors
/// Names every gate that did not pass.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cache = Cache::open()?;
    let chosen = if args.gates.is_empty() { Gate::value_variants() } else { &args.gates };
    let mut failed = Vec::new();
    for gate in chosen {
        let name = gate_name(*gate);
        say(&format!("check {name}"));
        if let Err(error) = gate.pass(&cache) {
            say(&format!("check {name}: {error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("gates that did not pass: {}", failed.join(", "));
    }
    say("check: every gate passed");
    Ok(())
}

impl Gate {
    fn pass(self, cache: &Cache) -> Result<()> {
        match self {
            Self::Fmt => finish("fmt", cargo(&["fmt", "--all", "--check"])),
            Self::Clippy => finish(
                "clippy",
                cargo(&[
                    "clippy",
                    "--quiet",
                    "--keep-going",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]),
            ),
            Self::Doc => {
                let mut doc = cargo(&["doc", "--quiet", "--keep-going", "--locked", "--workspace", "--no-deps"]);
                doc.env("RUSTDOCFLAGS", "-D warnings");
                finish("doc", doc)
            }
            Self::Supply => supply(cache),
            Self::Unused => unused(cache),
            Self::Release => release(),
            Self::Compose => compose(),
        }
    }
}

/// Licences, sources and bans. Advisories need their database from the network and are no gate.
fn supply(cache: &Cache) -> Result<()> {
    // The crates of other platforms too, which no build on this one has asked for.
    finish("fetch", cargo(&["fetch", "--quiet", "--locked"]))?;
    // A workspace of its own, built only when somebody fuzzes: its lock file would fall behind unseen.
    finish(
        "fetch for tests/fuzz",
        cargo(&["fetch", "--quiet", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"]),
    )?;
    let deny = cache.crate_program("cargo-deny", "0.20.2")?;
    let mut command = Command::new(deny);
    command.args(["--locked", "--offline", "--workspace", "check", "bans", "licenses", "sources"]);
    finish("cargo-deny", in_workspace(command))
}

fn unused(cache: &Cache) -> Result<()> {
    let machete = cache.crate_program("cargo-machete", "0.9.2")?;
    finish("cargo-machete", in_workspace(Command::new(machete)))
}

/// Features that only tests ask for are not in the program as it is built for itself.
fn release() -> Result<()> {
    let mut tree = cargo(&["tree", "--locked", "--offline", "--package", "hydrant", "--edges", "features,no-dev"]);
    let output = tree.args(["--invert", "hydrant-storage"]).output().context("start cargo tree")?;
    let features = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !features.contains("hydrant-storage") {
        bail!("cargo tree: {}\n{features}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    for feature in ["crash-points", "sim"] {
        if features.contains(&format!("feature \"{feature}\"")) {
            bail!("the program would be built with the feature {feature} of hydrant-storage\n{features}");
        }
    }
    Ok(())
}

fn compose() -> Result<()> {
    let file = workspace().join("docker-compose.yml");
    if !file.try_exists().context("look for docker-compose.yml")? {
        bail!("there is no docker-compose.yml");
    }
    let mut command = tools::compose()?;
    command.args(["config", "-q"]);
    finish("docker-compose config", in_workspace(command))
}

fn in_workspace(mut command: Command) -> Command {
    command.current_dir(workspace()).stdin(std::process::Stdio::null());
    command
}

fn gate_name(gate: Gate) -> String {
    format!("{gate:?}").to_lowercase()
}
