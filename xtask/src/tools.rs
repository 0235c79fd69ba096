//! Tools and downloads: what is missing is installed once, into one cache folder, or by the system's package manager.
//!
//! The folder is `$HYDRANT_CACHE`, or `~/.cache/hydrant`. Nothing else outside the target folder is written to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, run};
use crate::machine::answer;
use crate::progress::say;

/// The cache folder.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the folder and makes it.
    ///
    /// # Errors
    /// When neither `HYDRANT_CACHE` nor `HOME` is set, or the folder cannot be made.
    pub(crate) fn open() -> Result<Self> {
        let root = match (env::var_os("HYDRANT_CACHE"), env::var_os("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, Some(home)) => PathBuf::from(home).join(".cache/hydrant"),
            (None, None) => bail!("set HYDRANT_CACHE to a folder for tools and downloads"),
        };
        fs::create_dir_all(&root).with_context(|| format!("make cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// A path in the folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A folder that `install` fills when it is not there whole. One process installs it, the others wait.
    ///
    /// It is filled where it stays, as virtual environments cannot be moved, and is whole once the mark lies in it: what
    /// an interrupted installation left is removed and made again.
    ///
    /// # Errors
    /// Those of `install`, and when the folder cannot be written.
    pub(crate) fn installed(&self, name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.path("tools").join(name);
        let mark = folder.join(WHOLE);
        if mark.try_exists()? {
            return Ok(folder);
        }
        fs::create_dir_all(self.path("tools")).context("make the folder of tools")?;
        let lock = File::create(self.path(&format!("tools/{name}.lock"))).context("open the lock")?;
        lock.lock().context("wait for the lock")?;
        if mark.try_exists()? {
            return Ok(folder);
        }
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        install(&folder).with_context(|| format!("install {name}"))?;
        File::create(&mark).context("mark the installation as whole")?;
        Ok(folder)
    }

    /// The program of a crate, compiled on the first use. A program of the same name on `PATH` is not taken: its
    /// version would be unknown.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn crate_program(&self, name: &str, version: &str) -> Result<PathBuf> {
        let folder = self.installed(&format!("{name}-{version}"), |folder| {
            say(&format!("install {name} {version}: compiled once, a few minutes"));
            let mut install = cargo(&["install", "--quiet", "--locked", "--version", version, name, "--root"]);
            // Not optimised: these tools run for seconds, and so compile in half the time.
            install.arg(folder).args(["--profile", "dev"]).env("CARGO_TARGET_DIR", folder.join("target"));
            run(name, install)?;
            remove(&folder.join("target"))
        })?;
        Ok(folder.join("bin").join(name))
    }
}

/// The file that says that an installation came to its end.
const WHOLE: &str = "installed-whole";

/// Removes a folder with all it holds; it need not be there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a program can be found on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Makes sure that programs are there, by Debian packages when they are missing and we may install.
///
/// # Errors
/// One line that says which packages to install.
pub(crate) fn debian(needed: &[(&str, &str)]) -> Result<()> {
    let packages: Vec<&str> =
        needed.iter().filter(|(program, _)| on_path(program).is_none()).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() || on_path("apt-get").is_none() {
        bail!("please install these packages: {list}");
    }
    say(&format!("install Debian packages: {list}"));
    // The package lists may be missing or old on a fresh machine; a failed update shows in the installation.
    drop(apt(&["update", "-qq"]));
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments).with_context(|| format!("install Debian packages: {list}"))
}

/// Runs apt-get; what it says is shown only when it fails.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    let output = command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).output();
    let output = output.context("start apt-get")?;
    if !output.status.success() {
        bail!("apt-get: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Docker Compose: the plug-in where there is one, else the program of its own.
///
/// # Errors
/// When there is none and it cannot be installed.
pub(crate) fn compose() -> Result<Command> {
    if answer("docker", &["compose", "version"]).is_some() {
        let mut command = Command::new("docker");
        command.arg("compose");
        return Ok(command);
    }
    debian(&[("docker-compose", "docker-compose")])?;
    Ok(Command::new("docker-compose"))
}
