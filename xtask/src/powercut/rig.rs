//! The rig: a disk that records what it is told, a file system on it, and images of what it may hold after a power cut.
//!
//! ```text
//!   server ── file system ── loop device ── FUSE ── nbdfuse ── nbdkit: recorder.py ──> record
//! ```
//!
//! Needs root, `/dev/fuse`, loop devices and a few Debian packages. Everything lies in memory, so that hundreds of images
//! cost no disk its life.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cargo::run;
use crate::process::{Life, Process, wait_until};
use crate::tools::debian;

/// Bytes of a disk: xfs wants 300 MiB.
pub(super) const DISK_BYTES: u64 = 320 << 20;

/// nbdfuse serves its file within this time.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A file system that lets go within this time is unmounted.
const FREE_WITHIN: Duration = Duration::from_secs(30);

/// The recorder.
const PLUGIN: &str = include_str!("recorder.py");

/// File systems that people keep logs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Makes an empty one.
    pub(crate) fn make(self, disk: &Path) -> Result<()> {
        let mut command = match self {
            Self::Ext4 => Command::new("mkfs.ext4"),
            Self::Xfs => Command::new("mkfs.xfs"),
        };
        command.arg("-q").args((self == Self::Ext4).then_some("-F")).args((self == Self::Xfs).then_some("-f"));
        command.arg(disk);
        run("make a file system", command)
    }
}

/// Says why this machine cannot do it, after having installed what can be installed.
///
/// # Errors
/// One sentence.
pub(crate) fn is_possible() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root can mount");
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).try_exists()? {
            bail!("this machine has no {device}");
        }
    }
    debian(&[
        ("nbdkit", "nbdkit"),
        ("nbdkit", "nbdkit-plugin-python"),
        ("nbdfuse", "libnbd-bin"),
        ("mkfs.ext4", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
    ])
}

/// A file that nbdkit serves, which can be used as a disk. Dropping it ends it; nothing may be mounted from it any more.
pub(crate) struct Fuse {
    process: Option<Process>,
    folder: PathBuf,
}

impl Fuse {
    /// Serves a disk of so many bytes; `words` are what nbdkit is told.
    ///
    /// # Errors
    /// When the rig does not work here.
    pub(crate) fn start(folder: &Path, bytes: u64, words: &[String]) -> Result<Self> {
        let mut fuse = Self { process: None, folder: folder.join("fuse") };
        fs::create_dir_all(&fuse.folder).context("make a folder for the disk")?;
        let disk = fuse.disk();
        let mut command = Command::new("nbdfuse");
        command.arg(&disk).args(["--command", "nbdkit", "-s", "--exit-with-parent"]).args(words);
        let mut process = Process::spawn("nbdfuse", command, &folder.join("rig.log"), Life::WithUs)?;
        process.wait_ready(READY_WITHIN, || disk.metadata().is_ok_and(|disk| disk.len() == bytes))?;
        fuse.process = Some(process);
        Ok(fuse)
    }

    /// The disk, as a file.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            drop(process);
            // One that was killed leaves its mount behind.
            drop(Command::new("umount").args(["-q", "-l"]).arg(&self.folder).output());
        }
    }
}

/// A disk that records. Dropping it ends it; what it wrote down stays.
pub(super) struct Recorder {
    fuse: Fuse,
    record: PathBuf,
}

impl Recorder {
    /// Starts one with everything it needs in this folder.
    ///
    /// # Errors
    /// When the rig does not work here.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let (plugin, record) = (folder.join("recorder.py"), folder.join("record"));
        fs::write(&plugin, PLUGIN).context("write the recorder")?;
        let words = [
            "python".to_owned(),
            plugin.display().to_string(),
            format!("bytes={DISK_BYTES}"),
            format!("log={}", record.display()),
        ];
        Ok(Self { fuse: Fuse::start(folder, DISK_BYTES, &words)?, record })
    }

    /// The disk, as a file.
    pub(super) fn disk(&self) -> PathBuf {
        self.fuse.disk()
    }

    /// Ends it; where its record lies. Nothing may be mounted from it any more.
    pub(super) fn finish(self) -> PathBuf {
        drop(self.fuse);
        self.record
    }
}

/// A mounted file system. Dropping it unmounts it.
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts a file as a disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(disk: &Path, at: &Path) -> Result<Self> {
        Self::with(disk, at, "loop")
    }

    /// The same with these options, `loop` among them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn with(disk: &Path, at: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at).context("make a mount point")?;
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(disk).arg(at);
        run("mount", mount)?;
        Ok(Self { at: at.to_owned() })
    }

    /// Writes out everything that the kernel holds for it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn sync(&self) -> Result<()> {
        let mut sync = Command::new("sync");
        sync.arg("-f").arg(&self.at);
        run("sync", sync)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmount = |lazy: &[&str]| Command::new("umount").args(lazy).arg(&self.at).output();
        let is_free = wait_until(FREE_WITHIN, || unmount(&[]).is_ok_and(|output| output.status.success()));
        if !is_free {
            drop(unmount(&["-l"]));
        }
    }
}

/// Copies a sparse file, holes and all.
///
/// # Errors
/// When it cannot be copied.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("--sparse=auto").arg(from).arg(to);
    run("copy an image", copy)
}
