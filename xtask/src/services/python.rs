//! Python with boto3 and the AWS CLI: the clients that tests put with, and the readers that read objects back.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Addresses;
use crate::cargo::run;
use crate::progress::say;
use crate::tools::{Cache, debian};

/// Released together: the CLI pins the library.
const PACKAGES: &[&str] = &["boto3==1.43.11", "awscli==1.45.11"];

/// Prints the interpreter's own path when it has what tests need.
const PROBE: &str = "import sys, boto3, awscli; print(sys.executable)";

/// A Python that has what tests need.
pub(super) struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The machine's own if it has the packages, else one of ours in the cache folder.
    ///
    /// # Errors
    /// When there is no Python, or the packages cannot be installed.
    pub(super) fn find(cache: &Cache) -> Result<Self> {
        debian(&[("python3", "python3")])?;
        if let Some(interpreter) = probe(Path::new("python3")) {
            return Ok(Self { interpreter });
        }
        let folder = cache.installed("python", |folder| venv(folder, PACKAGES))?;
        Ok(Self { interpreter: folder.join("bin/python3") })
    }

    /// A call of it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.stdin(Stdio::null());
        command
    }

    /// Where tests find it and the AWS CLI.
    ///
    /// # Errors
    /// When a path is not text.
    pub(super) fn environment(&self) -> Result<Addresses> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("path of python is not text");
        Ok([
            ("HYDRANT_TEST_PYTHON".to_owned(), text(&self.interpreter)?),
            ("HYDRANT_TEST_AWS".to_owned(), text(&self.interpreter.with_file_name("aws"))?),
        ]
        .into())
    }
}

/// The interpreter behind a name, if it has the packages and the AWS CLI beside it.
fn probe(name: &Path) -> Option<PathBuf> {
    let output = Command::new(name).args(["-c", PROBE]).stderr(Stdio::null()).output().ok()?;
    let interpreter = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && interpreter.with_file_name("aws").is_file()).then_some(interpreter)
}

/// Makes a virtual environment with packages.
///
/// # Errors
/// When Python cannot make one or a package cannot be installed.
pub(super) fn venv(folder: &Path, packages: &[&str]) -> Result<()> {
    say(&format!("python: install {} once", packages.join(", ")));
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(folder).stdin(Stdio::null()).stdout(std::io::stderr());
    if make.status().is_ok_and(|status| !status.success()) {
        // Debian keeps the module that makes virtual environments in a package of its own.
        debian(&[("python3-venv", "python3-venv")])?;
        run("make a virtual environment", make)?;
    }
    let mut install = Command::new(folder.join("bin/python3"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    install.stdin(Stdio::null());
    run("install Python packages", install)
}
