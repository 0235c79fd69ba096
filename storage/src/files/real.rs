//! The disk of this machine: `std::fs`, and from `rustix` what it lacks (vectored writes at an offset, `fdatasync`
//! under its own name, `fallocate`, `statvfs`).
//!
//! Nothing here is clever: each call is one or two system calls, short writes are finished, interrupted ones are
//! made again, and an error goes to the caller untouched. What to do about it is decided above.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, fdatasync, statvfs};
use rustix::io::{Errno, pwritev};

use super::{File, Files};

/// Most parts that one `pwritev` takes on Linux (`IOV_MAX`).
const PARTS_MAX: usize = 1024;

/// Records may be secret, so nobody but the owner of the process may read what it writes.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(parent) = dir.parent() else { return Err(error) };
                self.create_dir_all(parent)?;
                fs::DirBuilder::new().mode(DIR_MODE).create(dir)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(dir)?.is_dir() => {}
            Err(error) => return Err(error),
        }
        // Also when it existed: an earlier run may have died between making the folder and this.
        match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // Storage makes no name that is not UTF-8, so such a one is somebody else's and nothing looks for it.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let disk = statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize)) // without what is kept for root
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

/// An open file of this machine.
#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for some in parts.chunks(PARTS_MAX) {
            at += self.write_some_at(at, some)?;
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let before = self.len()?;
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // A file system that cannot allocate (NFS, some overlays) gets zeros, which is slower and takes as much.
            Err(Errno::OPNOTSUPP) => self.write_zeros(before, len).map_err(no_room),
            Err(errno) => Err(no_room(errno.into())),
        }
        // `fallocate` may have made a part of it before the disk was full, and the file would keep that.
        .or_else(|error| self.0.set_len(before).and(Err(error)))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.0)?)
    }
}

impl RealFile {
    /// Writes all of at most [`PARTS_MAX`] parts; returns how many bytes that was.
    fn write_some_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut written = write_once(&self.0, offset, parts)?;
        if written < total {
            // A short write is rare (a signal, a full disk); only then is the list of parts copied to be advanced.
            let mut rest = parts.to_vec();
            let mut rest = rest.as_mut_slice();
            IoSlice::advance_slices(&mut rest, written);
            while written < total {
                let more = write_once(&self.0, offset + written as u64, rest)?;
                written += more;
                IoSlice::advance_slices(&mut rest, more);
            }
        }
        Ok(total as u64)
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = from;
        while at < to {
            let count = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
            self.0.write_all_at(zeros.get(..count).unwrap_or_default(), at)?;
            at += count as u64;
        }
        Ok(())
    }
}

/// One `pwritev` of at least one byte, made again when a signal came first.
fn write_once(file: &fs::File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match pwritev(file, parts, offset) {
            Ok(0) if parts.iter().any(|part| !part.is_empty()) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A used-up quota is a full disk to us: it passes when somebody makes room.
fn no_room(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_many_parts_is_read_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        RealFiles.create_dir_all(path.parent().unwrap()).unwrap();
        RealFiles.create_dir_all(path.parent().unwrap()).unwrap();
        let file = RealFiles.create(&path).unwrap();
        let bytes: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
        // More parts than one system call takes, empty ones among them.
        let parts: Vec<IoSlice<'_>> =
            bytes.chunks(7).flat_map(|part| [IoSlice::new(part), IoSlice::new(&[])]).collect();
        file.write_at(100, &parts).unwrap();
        file.sync().unwrap();
        let mut read = vec![0xff; 100 + bytes.len() + 10];
        assert_eq!(file.read_at(0, &mut read).unwrap(), 100 + bytes.len());
        assert_eq!(&read[..100], &[0; 100]);
        assert_eq!(&read[100..100 + bytes.len()], &bytes);
    }

    #[test]
    fn allocating_makes_a_file_longer_never_shorter_and_keeps_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFiles.create(&dir.path().join("file")).unwrap();
        file.write_at(0, &[IoSlice::new(b"kept")]).unwrap();
        file.allocate(1 << 20).unwrap();
        file.allocate(1 << 10).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        let mut read = [1; 8];
        file.read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"kept\0\0\0\0");
        file.truncate(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
    }

    #[test]
    fn names_are_listed_sorted_and_a_taken_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            RealFiles.create(&dir.path().join(name)).unwrap();
        }
        let kind = RealFiles.create(&dir.path().join("a")).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
        RealFiles.rename(&dir.path().join("a"), &dir.path().join("c")).unwrap();
        RealFiles.remove(&dir.path().join("b")).unwrap();
        RealFiles.sync_dir(dir.path()).unwrap();
        assert_eq!(RealFiles.list(dir.path()).unwrap(), ["c"]);
        assert_eq!(RealFiles.list(&dir.path().join("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Whether a disk was asked can only be seen where there is none to ask: a device or `/proc` refuses.
    #[test]
    fn syncs_of_files_folders_and_new_names_reach_the_system() {
        let invalid = |outcome: io::Result<()>| assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        invalid(RealFiles.open_read_only(Path::new("/dev/null")).unwrap().sync());
        invalid(RealFiles.sync_dir(Path::new("/proc")));
        invalid(RealFiles.create_dir_all(Path::new("/proc/self")));
    }
}
