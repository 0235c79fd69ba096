//! What arrived: reads the objects back as anybody would, and ticks off every record.
//!
//! In: the folder of objects. Out: which objects came, how many records are missing or came twice, and some lines. An
//! object counts when it is one whole gzip member whose lines all end.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep};

use super::records;
use crate::commands::Failure;

/// How often the folder is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Largest object that is read, decoded. The settings seal at 5 MiB.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// How many lines and objects are shown.
const SHOWN: usize = 3;

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The objects, in the order in which they were found.
    pub(super) objects: Vec<Object>,
    /// Records that came more than once.
    pub(super) duplicates: u32,
    /// Some lines of them.
    pub(super) lines: Vec<String>,
    seen: Vec<bool>,
    distinct: u32,
    since_last_ack: Duration,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    path: PathBuf,
    /// As it lies there.
    stored: u64,
    /// Decoded.
    bytes: u64,
}

/// Records are missing.
#[derive(Debug, thiserror::Error)]
#[error("{absent} of {expected} records did not arrive within {} s", within.as_secs())]
pub(super) struct Missing {
    absent: u32,
    expected: u32,
    within: Duration,
}

/// Watches the folder.
pub(super) struct Watch {
    folder: PathBuf,
    known: BTreeSet<PathBuf>,
    expected: u32,
    arrivals: Arrivals,
}

impl Watch {
    /// Starts to watch; objects that lie there already do not count.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub(super) fn start(folder: &Path, expected: u32) -> Result<Self, Failure> {
        let known = objects(folder).map_err(|error| Failure::caused(format!("read {}", folder.display()), &error))?;
        let seen = vec![false; usize::try_from(expected).unwrap_or(usize::MAX)];
        let arrivals = Arrivals { seen, ..Arrivals::default() };
        Ok(Self { folder: folder.to_owned(), known, expected, arrivals })
    }

    /// Reads objects as they come, until every record is there.
    ///
    /// # Errors
    /// How many records are missing when the time is over.
    pub(super) async fn until_all_are_there(
        &mut self,
        within: Duration,
        bar: &ProgressBar,
    ) -> Result<Arrivals, Missing> {
        let start = Instant::now();
        loop {
            self.read_new_objects();
            bar.set_position(self.arrivals.distinct.into());
            let absent = self.expected.saturating_sub(self.arrivals.distinct);
            if absent == 0 {
                self.arrivals.since_last_ack = start.elapsed();
                return Ok(std::mem::take(&mut self.arrivals));
            }
            if start.elapsed() > within {
                return Err(Missing { absent, expected: self.expected, within });
            }
            sleep(POLL).await;
        }
    }

    /// Reads what was not there before. What cannot be read is left out: its records stay missing.
    fn read_new_objects(&mut self) {
        for path in objects(&self.folder).unwrap_or_default() {
            if !self.known.contains(&path)
                && let Ok((stored, raw)) = read(&path)
            {
                self.arrivals.add(Object { path: path.clone(), stored, bytes: raw.len() as u64 }, &raw);
                self.known.insert(path);
            }
        }
    }
}

impl Arrivals {
    fn add(&mut self, object: Object, raw: &[u8]) {
        for line in raw.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
            let number = records::number(line).and_then(|number| usize::try_from(number).ok());
            match number.and_then(|number| self.seen.get_mut(number)) {
                Some(seen) if *seen => self.duplicates += 1,
                Some(seen) => {
                    *seen = true;
                    self.distinct += 1;
                }
                // Somebody else's record: the server takes them from whoever has the keys.
                None => {}
            }
            if self.lines.len() < SHOWN {
                self.lines.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        self.objects.push(object);
    }

    /// Bytes of all objects, as they lie there.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.stored).sum()
    }

    /// The largest objects.
    pub(super) fn largest(&self) -> Vec<&Object> {
        let mut objects: Vec<&Object> = self.objects.iter().collect();
        objects.sort_by_key(|object| std::cmp::Reverse(object.stored));
        objects.truncate(SHOWN);
        objects
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw: u64 = self.objects.iter().map(|object| object.bytes).sum();
        write!(
            f,
            "every record, {} twice, in {} objects, {:.1} s after the last answer; {} of lines in {} of gzip",
            self.duplicates,
            self.objects.len(),
            self.since_last_ack.as_secs_f64(),
            megabytes(raw),
            megabytes(self.stored_bytes()),
        )
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  {}", megabytes(self.stored), self.path.display())
    }
}

fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}

/// Size and decoded bytes of an object.
fn read(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let file = File::open(path)?;
    let stored = file.metadata()?.len();
    let mut raw = Vec::new();
    GzDecoder::new(file).take(OBJECT_BYTES_MAX).read_to_end(&mut raw)?;
    Ok((stored, raw))
}

/// The objects in a folder and below it; none when it is not there.
fn objects(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.append(&mut objects(&entry.path())?);
        } else if entry.path().extension().is_some_and(|extension| extension == "gz") {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn place(folder: &Path, name: &str, numbers: impl Iterator<Item = u32>) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        for number in numbers {
            writeln!(encoder, "{}", records::record(number)).unwrap();
        }
        fs::create_dir_all(folder.join("2026/11")).unwrap();
        fs::write(folder.join("2026/11").join(name), encoder.finish().unwrap()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_ticked_off_once_and_those_of_earlier_runs_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        place(folder.path(), "earlier.gz", 0..10);
        let mut watch = Watch::start(folder.path(), 10).unwrap();
        place(folder.path(), "a.gz", 0..6);
        place(folder.path(), "b.gz", 5..9);
        let missing = watch.until_all_are_there(Duration::from_secs(1), &ProgressBar::hidden()).await.unwrap_err();
        assert_eq!(missing.absent, 1);
        place(folder.path(), "c.gz", 9..10);
        let arrivals = watch.until_all_are_there(Duration::from_secs(1), &ProgressBar::hidden()).await.unwrap();
        assert_eq!((arrivals.objects.len(), arrivals.duplicates, arrivals.lines.len()), (3, 1, SHOWN));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_cut_off_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(folder.path(), 100).unwrap();
        place(folder.path(), "a.gz", 0..100);
        let path = folder.path().join("2026/11/a.gz");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let outcome = watch.until_all_are_there(Duration::from_secs(1), &ProgressBar::hidden()).await;
        assert_eq!(outcome.unwrap_err().absent, 100);
    }
}
