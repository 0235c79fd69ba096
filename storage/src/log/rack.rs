//! The rack: the segments of a log in their order, how far each is durable, and the spare files.
//!
//! In: a new segment; how far the newest has become durable; up to where all is forgotten.
//! Out: for a position, the segment that holds it; a spare file to write over.
//!
//! ```text
//!    forget ──┐                                              ┌── durable end
//!             v                                              v
//!   (spares) ─┴─[ segment ]─[ segment ]─[ segment ]─[ segment  ·····]
//!                      ^ reader                        ^ reader
//! ```
//!
//! The lock guards two short lists and is never held during I/O. A reader gets a segment only together with how far
//! it may read. A segment that some reader still holds is not written over but removed, so what the reader has open
//! stays what it was.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_core::{Position, Span};

use super::segment::{self, FRAMES_START, Layout, Segment};
use crate::crash::{self, Point};
use crate::files::{File, Files};
use crate::poison::Poison;
use crate::space::Share;

/// Most spare files that a log keeps. One checkpoint's worth at a steady rate: more only hold space that others
/// could use, fewer mean that a fast log allocates.
pub(super) const SPARES_MAX: usize = 4;

/// How far apart the places are that a segment remembers, in bytes, so that a reader finds its start without
/// walking the whole segment.
const INDEX_STEP: u64 = 1 << 20;

/// A place in a segment: the record at `position` is in the frame that starts at `offset`, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: Position,
    pub(super) offset: u64,
}

/// Places in a segment where frames start, in their order and not too many.
#[derive(Debug, Default)]
pub(super) struct Index(Vec<Mark>);

impl Index {
    /// Remembers that a frame starts here, if no place close by is known.
    pub(super) fn note(&mut self, mark: Mark) {
        if mark.offset >= self.0.last().map_or(FRAMES_START, |last| last.offset) + INDEX_STEP {
            self.0.push(mark);
        }
    }

    /// Forgets places behind the end.
    pub(super) fn cut(&mut self, end: Position) {
        self.0.retain(|mark| mark.position < end);
    }

    /// The last known place at or before `position`, in a segment that starts at `base`.
    fn before(&self, position: Position, base: Position) -> Mark {
        let behind = self.0.partition_point(|mark| mark.position <= position);
        let known = behind.checked_sub(1).and_then(|last| self.0.get(last)).copied();
        known.unwrap_or(Mark { position: base, offset: FRAMES_START })
    }
}

/// A segment and how far it may be read.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) segment: Arc<Segment>,
    /// One past the last record, and where no byte may be read any more.
    pub(super) end: Mark,
    pub(super) index: Index,
}

/// A file without a use.
#[derive(Debug)]
pub(super) struct Spare {
    /// What it is named by; zero for a new file, which has another kind of name.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) len: u64,
}

/// Where a reader finds the record it wants next.
#[derive(Debug)]
pub(super) enum Place {
    /// In this segment. `missing` names records that lay between the reader and this segment and are in none.
    In { segment: Arc<Segment>, start: Mark, end: Mark, missing: Option<Span> },
    /// All that is durable lies behind the reader, which goes on at `end`.
    CaughtUp { end: Position, missing: Option<Span> },
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: u64,
    pub(super) spare_bytes: u64,
    pub(super) records: u64,
    pub(super) segments: usize,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Rack {
    pub(super) dir: PathBuf,
    pub(super) files: Arc<dyn Files>,
    pub(super) share: Arc<Share>,
    lists: Mutex<Lists>,
    /// Segments that no reader is given any more and whose files are still to be put away. The lock makes forgetting
    /// one at a time; it is held during I/O, and only by those who forget.
    condemned: Mutex<Condemned>,
    /// Held while the folder is synced, so that a commit thread and one who forgets do so one after the other.
    folder: Mutex<Poison>,
}

#[derive(Debug)]
struct Condemned {
    segments: Vec<Arc<Segment>>,
    /// The number of the next spare file: above all that are in use, so that none is named over another.
    next_spare: u64,
}

/// What recovery found, and what changes after it.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) entries: VecDeque<Entry>,
    pub(super) spares: Vec<Spare>,
    /// One past the last durable record.
    pub(super) end: Position,
    /// Records below were given up by everybody; if one is not there, it is not missed.
    pub(super) forgotten: Position,
    /// Whether the last entry is being written to.
    pub(super) active: bool,
}

/// Why files could not be put away.
#[derive(Debug)]
pub(super) enum ForgetError {
    /// The sync of the folder failed, so nothing that it says can be relied on.
    Unsure(io::Error),
    /// Tried again with the next call.
    Later(io::Error),
}

impl Rack {
    pub(super) fn new(dir: PathBuf, files: Arc<dyn Files>, share: Arc<Share>, lists: Lists) -> Self {
        let next_spare = lists.spares.iter().map(|spare| spare.number + 1).max().unwrap_or_default();
        let condemned = Mutex::new(Condemned { segments: Vec::new(), next_spare });
        Self { dir, files, share, lists: Mutex::new(lists), condemned, folder: Mutex::default() }
    }

    /// Where the record at `position` is, or the first one after it.
    pub(super) fn find(&self, position: Position) -> Place {
        let lists = self.lists();
        let missing = |to: Position| {
            let span = Span { first: position.max(lists.forgotten), end: to };
            (!span.is_empty()).then_some(span)
        };
        let behind = lists.entries.partition_point(|entry| entry.end.position <= position);
        let Some(entry) = lists.entries.get(behind) else {
            return Place::CaughtUp { end: lists.end.max(position), missing: missing(lists.end) };
        };
        let segment = Arc::clone(&entry.segment);
        let missing = missing(segment.previous_end);
        Place::In { start: entry.index.before(position, segment.base), end: entry.end, missing, segment }
    }

    /// How far this segment may be read, if it is not forgotten.
    pub(super) fn end_of(&self, segment: &Arc<Segment>) -> Option<Mark> {
        let lists = self.lists();
        let at = lists.entries.partition_point(|entry| entry.segment.base < segment.base);
        lists.entries.get(at).filter(|entry| Arc::ptr_eq(&entry.segment, segment)).map(|entry| entry.end)
    }

    /// One past the last durable record.
    pub(super) fn end(&self) -> Position {
        self.lists().end
    }

    /// The records at or above `from` that lie in segments of this layout, in order.
    pub(super) fn spans_of(&self, layout: Layout, from: Position) -> Vec<Span> {
        let lists = self.lists();
        let of_layout = lists.entries.iter().filter(|entry| entry.segment.layout == layout);
        let spans = of_layout.map(|entry| Span { first: entry.segment.base.max(from), end: entry.end.position });
        spans.filter(|span| !span.is_empty()).collect()
    }

    /// Where the first segment that is kept starts; the durable end when there is none.
    pub(super) fn first_kept(&self) -> Position {
        let lists = self.lists();
        lists.entries.front().map_or(lists.end, |entry| entry.segment.base)
    }

    /// Puts a new segment at the end, without records yet.
    pub(super) fn push(&self, segment: Arc<Segment>) {
        let end = Mark { position: segment.base, offset: FRAMES_START };
        let mut lists = self.lists();
        lists.entries.push_back(Entry { segment, end, index: Index::default() });
        lists.active = true;
    }

    /// Lets readers read the newest segment up to `end`. At `start` a frame starts.
    pub(super) fn publish(&self, end: Mark, start: Mark) {
        let mut lists = self.lists();
        lists.end = end.position;
        if let Some(newest) = lists.entries.back_mut() {
            newest.end = end;
            newest.index.note(start);
        }
    }

    /// A spare file with room for `len` bytes.
    pub(super) fn take_spare(&self, len: u64) -> Option<Spare> {
        let spares = &mut self.lists().spares;
        let fits = spares.iter().position(|spare| spare.len >= len)?;
        Some(spares.swap_remove(fits))
    }

    /// Puts a spare file back that was taken and not used.
    pub(super) fn return_spare(&self, spare: Spare) {
        self.lists().spares.push(spare);
    }

    /// Removes all spare files and gives their space back; says whether there was any.
    pub(super) fn free_spares(&self) -> bool {
        let spares = std::mem::take(&mut self.lists().spares);
        let mut freed = false;
        for spare in spares {
            match self.files.remove(&spare.path) {
                Ok(()) => {
                    self.share.give(spare.len);
                    freed = true;
                }
                Err(error) => {
                    tracing::warn!(path = %spare.path.display(), %error, "spare segment could not be removed");
                    self.return_spare(spare);
                    break;
                }
            }
        }
        freed
    }

    /// Puts away each segment that lies wholly below `upto`, but for the one being written. Spares are kept of at
    /// least `spare_bytes_min`. On return nothing forgotten comes back at the next open.
    pub(super) fn forget(&self, upto: Position, spare_bytes_min: u64) -> Result<(), ForgetError> {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        let Condemned { segments, next_spare } = &mut *condemned;
        let mut room = self.condemn(upto, segments);
        if segments.is_empty() {
            return Ok(());
        }
        crash::reach(Point::RecycleListed);
        let (mut spares, mut freed) = (Vec::new(), 0);
        let mut outcome = Ok(());
        while let Some(segment) = segments.pop() {
            // Readers get segments only from the list, so once nobody else holds this one, nobody ever will.
            let keep = room > 0 && segment.len >= spare_bytes_min && Arc::strong_count(&segment) == 1;
            let spare_path = segment::spare_path(&self.dir, *next_spare);
            let put_away =
                if keep { self.files.rename(&segment.path, &spare_path) } else { self.files.remove(&segment.path) };
            if let Err(error) = put_away {
                segments.push(segment);
                outcome = Err(ForgetError::Later(error));
                break;
            }
            crash::reach(Point::RecyclePutAway);
            if keep {
                room -= 1;
                let (file, number) = (Arc::clone(&segment.file), *next_spare);
                spares.push(Spare { number, path: spare_path, file, len: segment.len });
                *next_spare += 1;
            } else {
                freed += segment.len;
            }
        }
        // Only then may a spare be written over: else its old name could come back with the new bytes under it.
        self.sync_dir().map_err(ForgetError::Unsure)?;
        crash::reach(Point::RecycleSynced);
        self.lists().spares.append(&mut spares);
        if freed > 0 {
            self.share.give(freed);
        }
        outcome
    }

    /// Makes the names in the folder durable. After a failure it never succeeds again: the failed sync may have left
    /// a later one nothing to do, and the names that it was for nowhere.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        let poison = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = poison.check().and_then(|()| poison.guard(self.files.sync_dir(&self.dir)));
        checked.map_err(io::Error::other)
    }

    /// Takes segments below `upto` off the list; says how many more spares may be kept.
    fn condemn(&self, upto: Position, segments: &mut Vec<Arc<Segment>>) -> usize {
        let mut lists = self.lists();
        lists.forgotten = lists.forgotten.max(upto);
        let in_use = usize::from(lists.active);
        while lists.entries.len() > in_use && lists.entries.front().is_some_and(|entry| entry.end.position <= upto) {
            segments.extend(lists.entries.pop_front().map(|entry| entry.segment));
        }
        SPARES_MAX.saturating_sub(lists.spares.len())
    }

    pub(super) fn held(&self) -> Held {
        let lists = self.lists();
        let spare_bytes = lists.spares.iter().map(|spare| spare.len).sum();
        let used: u64 = lists.entries.iter().map(|entry| entry.segment.len).sum();
        let count = |entry: &Entry| Span { first: entry.segment.base, end: entry.end.position }.count();
        Held {
            bytes: used + spare_bytes,
            spare_bytes,
            records: lists.entries.iter().map(count).sum(),
            segments: lists.entries.len(),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        // Whoever panicked with the lock held changed one list in one step, so what is there is whole.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
