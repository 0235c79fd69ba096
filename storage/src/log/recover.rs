//! Recovery: what the files of a log say after any end of the process that wrote them.
//!
//! In: the folder, and what the ledger and the outbox know (which positions were given, which are forgotten).
//! Out: the rack as it may be read, the position to go on from, and what was cut or is lost.
//!
//! ```text
//!   ──[ frame ]──[ frame ]──( hole )──[ frame ]──( hole )── zeros
//!                               │         │         │
//!          below the highest `durable_to` │         above it: a torn tail, cut;
//!          that any frame, segment or the │         frames behind it are cut too
//!          ledger names: damage, lost     └─ goes on
//! ```
//!
//! Only the newest segment is read through. That an older one was whole when the next one was made is written in the
//! header of the next one, so its damage is found, and said, by whoever reads it. Allocates nothing on the disk.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_core::{Position, Span};

use super::frame;
use super::rack::{Entry, Index, Lists, Mark, SPARES_MAX, Spare};
use super::segment::{self, FRAMES_START, Found, Name, Segment};
use super::walk::{Step, Walker};
use super::{Lost, OpenError, Options};
use crate::files::{File, Files};

/// How much of the newest segment is read at once.
const CHUNK_BYTES: usize = 1 << 20;

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
    let Opened { mut segments, spares, named_to } = open_files(dir, options, files)?;
    // Names first: what follows may be acted on.
    files.sync_dir(dir).map_err(OpenError::io("sync folder", dir))?;
    let newest = segments.pop();
    let mut entries = chain(segments, newest.as_ref());
    let tail = newest.map(|(segment, len_made)| tail_of(segment, len_made, floor)).transpose()?;
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

/// The files of a log by their use.
struct Opened {
    /// In the order of their positions, each with the length that its header says it was made with.
    segments: Vec<(Segment, u64)>,
    spares: Vec<Spare>,
    /// Above every position that a file is named after, so that no new file takes the name of another.
    named_to: Position,
}

fn open_files(dir: &Path, options: &Options, files: &dyn Files) -> Result<Opened, OpenError> {
    let (mut segments, mut spares, mut named_to) = (Vec::new(), Vec::new(), Position::ZERO);
    for name in files.list(dir).map_err(OpenError::io("list folder", dir))? {
        let path = dir.join(&name);
        match Name::of(&name) {
            Name::Segment(base) => {
                named_to = named_to.max(base.plus(1));
                segments.push(open_segment(path, base, options, files)?);
            }
            Name::Spare(number) if spares.len() < SPARES_MAX => {
                let file = files.open(&path).map_err(OpenError::io("open spare segment", &path))?;
                let len = file.len().map_err(OpenError::io("measure spare segment", &path))?;
                spares.push(Spare { number, path, file, len });
            }
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
    files: &dyn Files,
) -> Result<(Segment, u64), OpenError> {
    let file = files.open(&path).map_err(OpenError::io("open segment", &path))?;
    let (found, len) = read_header(&*file).map_err(OpenError::io("read segment header", &path))?;
    match found {
        Found::Header(header) if header.incarnation != options.incarnation => {
            let (found, expected) = (header.incarnation, options.incarnation);
            Err(OpenError::OtherStream { path: path.display().to_string(), found, expected })
        }
        // The header is believed rather than the name: it has a checksum, and names can be swapped.
        Found::Header(header) => {
            let segment::Header { base, previous_end, salt, .. } = header;
            Ok((Segment { base, previous_end, salt: Some(salt), len, path, file }, header.len))
        }
        Found::Foreign(version) => Err(OpenError::Version { path: path.display().to_string(), version }),
        Found::Unreadable => {
            let len_made = len.max(options.segment_bytes_max.get()).max(options.queue_bytes_max.get());
            Ok((Segment { base, previous_end: base, salt: None, len, path, file }, len_made))
        }
    }
}

/// The header of a segment, and the length of its file.
pub(super) fn read_header(file: &dyn File) -> io::Result<(Found, u64)> {
    let mut bytes = vec![0; usize::try_from(FRAMES_START).unwrap_or_default()];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok((segment::Header::parse(&bytes), file.len()?))
}

/// All segments but the newest: each was whole up to what the next one says was its end.
fn chain(older: Vec<(Segment, u64)>, newest: Option<&(Segment, u64)>) -> VecDeque<Entry> {
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
fn missing_between(entries: &VecDeque<Entry>, forgotten: Position) -> impl Iterator<Item = Lost> {
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

/// What the newest segment holds.
pub(super) struct Tail {
    pub(super) entry: Entry,
    /// At least one past every position that the segment may have used.
    pub(super) next: Position,
    pub(super) lost: Vec<Lost>,
    /// Where the frames of the last round start: nothing in the file says that they were durable.
    pub(super) unproven: u64,
}

/// Makes the newest segment durable as it is, reads it through, and cuts or reports what cannot be read. Everything
/// below `floor` was durable once.
fn tail_of(segment: Segment, len_made: u64, floor: Position) -> Result<Tail, OpenError> {
    let path = segment.path.clone();
    let segment = Arc::new(segment);
    let tail = scan(&segment, len_made, floor).map_err(OpenError::io("read segment", &path))?;
    // A process that died may have left bytes that only the page cache holds. They would be read, acted on, and gone
    // after the next power cut. If it died of a failed sync, the kernel may even think that they are on the disk, and
    // sync nothing: so what no later frame vouches for is written once more.
    match rewrite(&*segment.file, tail.unproven, tail.entry.end.offset) {
        // Only a file system that writes to another place asks for room. Then a sync must do.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(path = %path.display(), %error, "the end of the log could not be written again");
        }
        written => written.map_err(OpenError::io("write segment again", &path))?,
    }
    segment.file.sync().map_err(OpenError::io("sync segment", &path))?;
    Ok(tail)
}

/// Reads a part of a file and writes the same bytes back, so that the kernel takes them for changed.
fn rewrite(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    let mut buffer = vec![0; CHUNK_BYTES];
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let part = buffer.split_at_mut(wanted).0;
        let count = file.read_at(at, part)?;
        if count == 0 {
            break;
        }
        file.write_at(at, &[IoSlice::new(part.split_at(count).0)])?;
        at += count as u64;
    }
    Ok(())
}

/// Reads a segment through that no later one vouches for. Writes nothing.
pub(super) fn scan(segment: &Arc<Segment>, len_made: u64, floor: Position) -> io::Result<Tail> {
    let base = segment.base;
    // Each record takes at least four bytes in a table, so no position beyond this was used here.
    let used_at_most = base.plus(segment.len.max(len_made) / 4);
    let Some(mut walker) = Walker::new(segment, FRAMES_START, segment.len, CHUNK_BYTES) else {
        let end = believed_end(segment)?.max(floor);
        let why = "both copies of the segment's header are unreadable".to_owned();
        let lost = vec![Lost { span: Span { first: base, end }, why }];
        let end = Mark { position: end, offset: segment.len };
        let entry = Entry { segment: Arc::clone(segment), end, index: Index::default() };
        return Ok(Tail { entry, next: used_at_most.max(end.position), lost, unproven: end.offset });
    };
    let mut at = Mark { position: base, offset: FRAMES_START };
    let mut scan = Scan { durable: floor, round: Mark { position: Position::ZERO, ..at }, ..Scan::default() };
    while at.offset < segment.len {
        let start = at;
        match walker.step(at.position)? {
            Step::Frame(whole) => {
                scan.index.note(start);
                scan.durable = scan.durable.max(whole.header.durable_to);
                // All frames of a round say the same, so the first that says more than those before starts a round.
                if whole.header.durable_to > scan.round.position {
                    scan.round = Mark { position: whole.header.durable_to, offset: start.offset };
                }
                at.position = whole.header.span().end;
            }
            Step::Damaged { end } => {
                // A request is durable whole or not at all, so what names one record of it speaks for the others.
                let named = scan.durable > start.position;
                scan.durable = if named { scan.durable.max(end) } else { scan.durable };
                scan.holes.push((start, Some(end)));
                at.position = end;
            }
            Step::Hole { end } => {
                scan.holes.push((start, end));
                at.position = end.unwrap_or(at.position);
            }
        }
        at.offset = walker.offset();
    }
    if at.position < scan.durable {
        // The file ends where a frame ends, and yet there was more.
        scan.holes.push((at, None));
    }
    let (end, mut lost) = scan.verdict(at);
    // The name of this segment is taken, so the next one must have another.
    let mut next = at.position.max(end.position).max(base.plus(1));
    if !lost.is_empty() || segment.len < len_made {
        next = next.max(used_at_most);
    }
    if segment.len < len_made {
        let why = format!("the file was cut from {len_made} to {} bytes; more may be missing here", segment.len);
        lost.push(Lost { span: Span { first: end.position, end: end.position }, why });
    }
    let Scan { mut index, round, .. } = scan;
    index.cut(end.position);
    Ok(Tail { entry: Entry { segment: Arc::clone(segment), end, index }, next, lost, unproven: round.offset })
}

/// What a scan has met.
#[derive(Default)]
struct Scan {
    /// The highest position of which something says that all below it was durable.
    durable: Position,
    /// Where something could not be read, and at which position reading went on, if it did.
    holes: Vec<(Mark, Option<Position>)>,
    /// Where the last round started, and what its frames say was durable before it.
    round: Mark,
    index: Index,
}

impl Scan {
    /// Where the segment ends, and what is lost before that. `at` is where the scan ended.
    fn verdict(&self, at: Mark) -> (Mark, Vec<Lost>) {
        let mut lost = Vec::new();
        for &(start, end) in &self.holes {
            let durable = Span { first: start.position, end: end.unwrap_or(self.durable).min(self.durable) };
            if !durable.is_empty() {
                lost.push(Lost { span: durable, why: "a damaged frame".to_owned() });
            }
            if end.is_none_or(|end| end > self.durable) {
                // Past here nothing was acknowledged. A reader must come by the damage to report it, and no further.
                let offset = if durable.is_empty() { start.offset } else { at.offset };
                return (Mark { position: start.position.max(durable.end), offset }, lost);
            }
        }
        (at, lost)
    }
}

/// One past the last record of a segment without a readable header, as far as its frames can be believed unchecked.
fn believed_end(segment: &Segment) -> io::Result<Position> {
    let (mut position, mut offset) = (segment.base, FRAMES_START);
    let mut bytes = [0; frame::HEADER_BYTES];
    while segment.file.read_at(offset, &mut bytes)? == bytes.len() {
        match frame::Header::parse_unchecked(&bytes) {
            Some(header) if header.first == position => {
                position = header.span().end;
                offset += header.frame_len();
            }
            _ => break,
        }
    }
    Ok(position)
}
