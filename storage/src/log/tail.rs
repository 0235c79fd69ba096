//! The tail: what the newest segment holds, of which no later one speaks.
//!
//! In: the segment; up to where the ledger says that records were durable.
//! Out: where it ends, what of it is lost, from which position on to continue.
//!
//! ```text
//!   ──[ frame ]──[ frame ]──( hole )──[ frame ]──( hole )── zeros, or an earlier life
//!                               │         │         │
//!          below the highest `durable_to` │         above it: a torn tail, cut;
//!          that any frame or the ledger   │         frames behind it are cut too
//!          names: damage, lost            └─ goes on
//! ```
//!
//! A cut leaves the bytes where they are: the next segment's header says where this one ends.

use std::io::{self, IoSlice};
use std::sync::Arc;

use hydrant_core::{Position, Span};

use super::frame;
use super::rack::{Entry, Index, Mark};
use super::segment::{FRAMES_START, Segment};
use super::walk::{Step, Walker};
use super::{Lost, OpenError};
use crate::buffers::Buffers;
use crate::crash::{self, Point};
use crate::files::File;

/// How much is read at once.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// What the newest segment holds.
pub(super) struct Tail {
    pub(super) entry: Entry,
    /// At least one past every position that the segment may have used.
    pub(super) next: Position,
    pub(super) lost: Vec<Lost>,
    /// Where the frames of the last round start: nothing in the file says that they were durable.
    pub(super) unproven: u64,
}

/// Reads the newest segment through and makes durable what was found. Everything below `floor` was durable once.
pub(super) fn secure(segment: Segment, len_made: u64, floor: Position) -> Result<Tail, OpenError> {
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
    crash::reach(Point::OpenRewritten);
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
    let Some(mut walker) = Walker::new(segment, FRAMES_START, segment.len, CHUNK_BYTES, Buffers::default()) else {
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
