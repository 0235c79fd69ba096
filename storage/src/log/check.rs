//! Checking a log: every byte that matters is read, every damage is told with its place. Never writes.
//!
//! In: the folder, and what the ledger knows. Out: what the log holds, and what is wrong with it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hydrant_core::{Position, Span};

use super::rack::Entry;
use super::recover::{Access, Opened, chain, missing_between, open_files};
use super::segment::{FRAMES_START, Found, Header};
use super::walk::{Step, Walker};
use super::{OpenError, Options, tail};
use crate::buffers::Buffers;
use crate::files::Files;

/// What was read in the folder of a log.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) segments: u64,
    /// Confirmed to their last byte.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// From the first record that it may hold to the last.
    pub(crate) span: Span,
    pub(crate) damages: Vec<Damage>,
}

/// One thing that is not as it was written.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) path: PathBuf,
    pub(crate) offset: Option<u64>,
    pub(crate) what: String,
}

/// What a ledger says of its log. Without one nobody knows what was forgotten, so nothing is missed at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// As [`Options::forgotten`].
    pub(crate) forgotten: Position,
    /// As [`Options::floor`].
    pub(crate) floor: Position,
}

/// One past the last record of the log in `dir`, `floor` where it has none. Reads no more than it must.
pub(crate) fn end(dir: &Path, incarnation: u64, floor: Position, files: &dyn Files) -> Result<Position, OpenError> {
    let floor = floor.max(Position::FIRST);
    let newest = match open_files(dir, &Options::new(incarnation), files, Access::ReadOnly) {
        Ok(Opened { mut segments, .. }) => segments.pop(),
        Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some((segment, len_made)) = newest else { return Ok(floor) };
    let path = segment.path.clone();
    let tail = tail::scan(&segment.into(), len_made, floor).map_err(OpenError::io("read segment", &path))?;
    Ok(tail.entry.end.position)
}

/// Reads the log in `dir`, as [`Log::open`](super::Log::open) would find it. A folder that is not there is a log
/// without records.
pub(crate) fn check(
    dir: &Path,
    incarnation: u64,
    known: Option<Known>,
    files: &dyn Files,
) -> Result<Checked, OpenError> {
    let options = &Options::new(incarnation);
    let mut segments = match open_files(dir, options, files, Access::ReadOnly) {
        Ok(Opened { segments, .. }) => segments,
        Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let first = segments.first().map_or(Position::FIRST, |(segment, _)| segment.previous_end);
    let Known { forgotten, floor } = known.unwrap_or(Known { forgotten: first, floor: first });
    let (forgotten, floor) = (forgotten.max(Position::FIRST), floor.max(Position::FIRST));
    let newest = segments.pop();
    let mut entries = chain(segments, newest.as_ref());
    let mut checked = Checked { span: Span { first: forgotten, end: floor }, ..Checked::default() };
    if let Some((segment, len_made)) = newest {
        let (path, len) = (segment.path.clone(), segment.len);
        let tail = tail::scan(&segment.into(), len_made, floor).map_err(OpenError::io("read segment", &path))?;
        checked.span.end = tail.entry.end.position;
        entries.push_back(tail.entry);
        if len < len_made {
            let what = format!("cut from {len_made} to {len} bytes; records may be missing");
            checked.damages.push(Damage { path, offset: Some(len), what });
        }
    } else if forgotten < floor {
        let what = format!("records {forgotten}..{floor}: no segment is left");
        checked.damages.push(Damage { path: dir.to_owned(), offset: None, what });
    }
    checked.missing(dir, &entries, forgotten);
    for entry in &entries {
        checked.segments += 1;
        checked.bytes += entry.segment.len;
        checked.span.first = checked.span.first.min(entry.segment.base);
        checked.header(entry, options).map_err(OpenError::io("read segment header", &entry.segment.path))?;
        checked.frames(entry, forgotten).map_err(OpenError::io("read segment", &entry.segment.path))?;
    }
    Ok(checked)
}

impl Checked {
    fn missing(&mut self, dir: &Path, entries: &VecDeque<Entry>, forgotten: Position) {
        for lost in missing_between(entries, forgotten) {
            let what = format!("records {}: {}", lost.span, lost.why);
            self.damages.push(Damage { path: dir.to_owned(), offset: None, what });
        }
    }

    /// Both copies of the header: one is enough to read the segment, but the other is then all that is left.
    fn header(&mut self, entry: &Entry, options: &Options) -> std::io::Result<()> {
        let segment = &entry.segment;
        let mut bytes = vec![0; usize::try_from(FRAMES_START).unwrap_or_default()];
        let count = segment.file.read_at(0, &mut bytes)?;
        bytes.truncate(count);
        let what = match Header::parse(&bytes) {
            Found::Header(header) if header.encode() == bytes => {
                let named = super::segment::path(Path::new(""), segment.base);
                let right = segment.path.file_name() == named.file_name() && header.incarnation == options.incarnation;
                if right {
                    return Ok(());
                }
                "named as another segment"
            }
            Found::Header(_) => "one copy of the header is not as it was written",
            Found::Foreign(_) | Found::Unreadable => "both copies of the header are unreadable",
        };
        self.damages.push(Damage { path: segment.path.clone(), offset: Some(0), what: what.to_owned() });
        Ok(())
    }

    fn frames(&mut self, entry: &Entry, forgotten: Position) -> std::io::Result<()> {
        let (segment, mut at) = (&entry.segment, entry.segment.base);
        let Some(mut walker) =
            Walker::new(segment, FRAMES_START, entry.end.offset, tail::CHUNK_BYTES, Buffers::default())
        else {
            self.unreadable(entry, FRAMES_START, Span { first: at, end: entry.end.position }, forgotten);
            return Ok(());
        };
        while at < entry.end.position {
            let start = walker.offset();
            let end = match walker.step(at)? {
                Step::Frame(whole) if whole.header.span().end <= entry.end.position => {
                    self.records += u64::from(whole.header.count);
                    at = whole.header.span().end;
                    continue;
                }
                Step::Frame(_) => entry.end.position,
                Step::Damaged { end } => end,
                Step::Hole { end } => end.unwrap_or(entry.end.position),
            };
            let span = Span { first: at, end: end.min(entry.end.position) };
            self.unreadable(entry, start, span, forgotten);
            at = span.end;
        }
        Ok(())
    }

    fn unreadable(&mut self, entry: &Entry, offset: u64, span: Span, forgotten: Position) {
        let span = Span { first: span.first.max(forgotten), end: span.end };
        if !span.is_empty() {
            let what = format!("records {span} cannot be read");
            self.damages.push(Damage { path: entry.segment.path.clone(), offset: Some(offset), what });
        }
    }
}
