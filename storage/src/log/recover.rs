//! Recovery: what the files of a log say after any end of the process that wrote them.
//!
//! In: the folder, and what the ledger and the outbox know (which positions were given, which are forgotten).
//! Out: the rack as it may be read, the position to go on from, and what was cut or is lost.
//!
//! ```text
//!   [ 1 … ]──[ 40 … ]──[ 97 … ]──[ 130 …    ]
//!       ^ end: the next header's word    ^ end: by reading it (tail.rs)
//! ```
//!
//! Only the newest segment is read through. That an older one was whole when the next one was made is written in the
//! header of the next one, so its damage is found, and said, by whoever reads it. Allocates nothing on the disk.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_core::{Position, Span};

use super::rack::{Entry, Index, Lists, Mark, SPARES_MAX, Spare};
use super::segment::{self, FRAMES_START, Found, Layout, Name, Segment};
use super::{Lost, OpenError, Options, tail};
use crate::crash::{self, Point};
use crate::files::{File, Files};

/// What recovery found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) lists: Lists,
    /// The position that the next record gets. Above `lists.end` where positions were used and not kept.
    pub(super) next: Position,
    pub(super) lost: Vec<Lost>,
    /// Bytes of files that lie there.
    pub(super) bytes: u64,
}

/// Reads the folder of a log. On return, all that is told of is durable.
pub(super) fn recover(dir: &Path, options: &Options, files: &dyn Files) -> Result<Recovered, OpenError> {
    let forgotten = options.forgotten.max(Position::FIRST);
    let floor = options.floor.max(forgotten);
    let Opened { mut segments, spares, named_to } = open_files(dir, options, files, Access::Change)?;
    // Names first: what follows may be acted on.
    files.sync_dir(dir).map_err(OpenError::io("sync folder", dir))?;
    crash::reach(Point::OpenNames);
    let newest = segments.pop();
    let mut entries = chain(segments, newest.as_ref());
    let tail = newest.map(|(segment, len_made)| tail::secure(segment, len_made, floor)).transpose()?;
    let (mut end, mut next, mut lost) = (floor, floor.max(named_to), Vec::new());
    if let Some(tail) = tail {
        end = tail.entry.end.position;
        next = next.max(tail.next);
        lost = tail.lost;
        entries.push_back(tail.entry);
    } else if forgotten < floor {
        let span = Span { first: forgotten, end: floor };
        lost.push(Lost { span, why: "no segment is left".to_owned() });
    }
    lost = missing_between(&entries, forgotten).chain(lost).filter_map(|lost| from_on(forgotten, lost)).collect();
    let bytes = entries.iter().map(|entry| entry.segment.len).chain(spares.iter().map(|spare| spare.len)).sum();
    let lists = Lists { entries, spares, end, forgotten, active: false };
    Ok(Recovered { lists, next, lost, bytes })
}

/// Whether files may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Change,
    ReadOnly,
}

impl Access {
    fn open(self, path: &Path, files: &dyn Files) -> io::Result<Arc<dyn File>> {
        match self {
            Self::Change => files.open(path),
            Self::ReadOnly => files.open_read_only(path),
        }
    }
}

/// The files of a log by their use.
pub(super) struct Opened {
    /// In the order of their positions, each with the length that its header says it was made with.
    pub(super) segments: Vec<(Segment, u64)>,
    pub(super) spares: Vec<Spare>,
    /// Above every position that a file is named after, so that no new file takes the name of another.
    named_to: Position,
}

/// Opens all files of a log. Removes those without a use, if it may.
pub(super) fn open_files(
    dir: &Path,
    options: &Options,
    files: &dyn Files,
    access: Access,
) -> Result<Opened, OpenError> {
    let (mut segments, mut spares, mut named_to) = (Vec::new(), Vec::new(), Position::ZERO);
    for name in files.list(dir).map_err(OpenError::io("list folder", dir))? {
        let path = dir.join(&name);
        match Name::of(&name) {
            Name::Segment(base) => {
                named_to = named_to.max(base.plus(1));
                let file = access.open(&path, files).map_err(OpenError::io("open segment", &path))?;
                segments.push(open_segment(path, base, options, file)?);
            }
            Name::Spare(number) if spares.len() < SPARES_MAX => {
                let file = access.open(&path, files).map_err(OpenError::io("open spare segment", &path))?;
                let len = file.len().map_err(OpenError::io("measure spare segment", &path))?;
                spares.push(Spare { number, path, file, len });
            }
            Name::Spare(_) | Name::Unfinished if access == Access::ReadOnly => {}
            Name::Spare(_) | Name::Unfinished => files.remove(&path).map_err(OpenError::io("remove", &path))?,
            Name::Stranger => tracing::warn!(path = %path.display(), "not a file of the log, left alone"),
        }
    }
    segments.sort_by_key(|(segment, _)| segment.base);
    // A copy that somebody made has the same records as its original.
    segments.dedup_by(|copy, original| {
        let same = copy.0.base == original.0.base;
        if same {
            tracing::warn!(path = %copy.0.path.display(), "second segment with the same records, left alone");
        }
        same
    });
    Ok(Opened { segments, spares, named_to })
}

fn open_segment(
    path: PathBuf,
    base: Position,
    options: &Options,
    file: Arc<dyn File>,
) -> Result<(Segment, u64), OpenError> {
    let (found, len) = read_header(&*file).map_err(OpenError::io("read segment header", &path))?;
    match found {
        Found::Header(header) if header.incarnation != options.incarnation => {
            let (found, expected) = (header.incarnation, options.incarnation);
            Err(OpenError::OtherStream { path: path.display().to_string(), found, expected })
        }
        // The header is believed rather than the name: it has a checksum, and names can be swapped.
        Found::Header(header) => {
            let segment::Header { layout, base, previous_end, salt, .. } = header;
            Ok((Segment { layout, base, previous_end, salt: Some(salt), len, path, file }, header.len))
        }
        Found::Foreign(version) => Err(OpenError::Version { path: path.display().to_string(), version }),
        Found::Unreadable => {
            let len_made = len.max(options.segment_bytes_max.get()).max(options.queue_bytes_max.get());
            // Nothing in it can be read, whatever its layout is.
            let layout = Layout::Plain;
            Ok((Segment { layout, base, previous_end: base, salt: None, len, path, file }, len_made))
        }
    }
}

/// The header of a segment, and the length of its file.
fn read_header(file: &dyn File) -> io::Result<(Found, u64)> {
    let mut bytes = vec![0; usize::try_from(FRAMES_START).unwrap_or_default()];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok((segment::Header::parse(&bytes), file.len()?))
}

/// All segments but the newest: each was whole up to what the next one says was its end.
pub(super) fn chain(older: Vec<(Segment, u64)>, newest: Option<&(Segment, u64)>) -> VecDeque<Entry> {
    let mut next_previous_end = newest.map(|(segment, _)| segment.previous_end).unwrap_or_default();
    let mut entries = VecDeque::new();
    for (segment, _) in older.into_iter().rev() {
        let end = Mark { position: next_previous_end.max(segment.base), offset: segment.len };
        next_previous_end = segment.previous_end;
        entries.push_front(Entry { segment: Arc::new(segment), end, index: Index::default() });
    }
    entries
}

/// Records that the headers name and no segment holds.
pub(super) fn missing_between(entries: &VecDeque<Entry>, forgotten: Position) -> impl Iterator<Item = Lost> {
    let before = std::iter::once(forgotten).chain(entries.iter().map(|entry| entry.end.position));
    let after = entries.iter().map(|entry| entry.segment.previous_end);
    let spans: Vec<Span> = before.zip(after).map(|(first, end)| Span { first, end }).collect();
    let gone = |span| Lost { span, why: "no segment holds these records".to_owned() };
    spans.into_iter().filter(|span| !span.is_empty()).map(gone)
}

/// What of it is not forgotten anyway.
fn from_on(forgotten: Position, mut lost: Lost) -> Option<Lost> {
    let unknown = lost.span.is_empty();
    lost.span.first = lost.span.first.max(forgotten);
    (unknown || !lost.span.is_empty()).then_some(lost)
}
