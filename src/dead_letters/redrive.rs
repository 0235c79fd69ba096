//! Redrive: dead letters are put back where they were meant to go.
//!
//! In: a stream that runs, its dead-letter store, which letters are meant. Out: each of those letters once in the stream's
//! log, and each of those objects that went to the store whole once at the place that it was meant for.
//!
//! ```text
//!   object ── line by line ──> not put back before, meant ──> a part ──> log: records, and which lines they are
//!     └── whole ──> placed on condition, byte for byte ──> checkpoint of the ledger
//! ```
//!
//! * What names a letter is the batch that its object was, which stands in the object's key, and its line. Both never change.
//! * A part is one frame of the log, which holds the records and names their lines: there whole, or not at all. So
//!   nothing can happen between the record and the mark, and no journal of intentions is needed.
//! * What the log forgets, the ledger has: the packing loop tells of each frame before it is sealed, and a checkpoint comes
//!   before the log forgets. A start reads both. Ledger and log say which version they are only when they hold such
//!   marks, so a program that knows nothing of them refuses to start, instead of putting everything back again.
//! * A whole object never enters the log. Placing it once more changes nothing; the ledger hears of it in the end, so that
//!   it is not asked for again. A crash in between costs an attempt.
//! * One redrive of a stream at a time. A part that is under way is waited for, whoever left.
//! * A letter whose destination may have the record all the same would perhaps be there twice, so it is left unless asked for.
//! * A record that was put back arrives anew: it has a new number and the time of the redrive. Refused again, it becomes
//!   another dead letter. What a letter is for the frame has a bit for records that were processed already, for the
//!   time when there is something that processes them.
//!
//! Never deletes anything in the store.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{BatchId, Fault, Object, ObjectSink, Timestamp, Verdict};
use hydrant_storage::log::{AppendError, Payloads};
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::redriven::Origin;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Choice, Content, Found, Letters, ReadError, Shelf, Whole};
use crate::stream::redriven::OBJECTS_MAX;
use crate::streams::{LiveStream, State};

/// Most records in a part: as many as the service takes in a request.
const PART_RECORDS_MAX: usize = 500;

/// Bytes of records at which a part is large enough: as much as packing reads at once.
const PART_BYTES: usize = 1 << 20;

/// How long a log without room is left alone.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Attempts to place an object before the redrive gives up. Whoever asked is there and can ask again.
const ATTEMPTS: u32 = 3;

/// Whole objects placed before the ledger hears of them.
const PLACED_MAX: usize = 64;

/// What is to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which dead letters.
    pub choice: Choice,
    /// Most records and objects; `None` for all.
    pub limit: Option<u64>,
    /// Also those which the destination may have all the same.
    pub even_if_stored: bool,
    /// Nothing is put back; it is only told what would be.
    pub dry_run: bool,
}

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Objects of dead letters that were looked at.
    pub objects: u64,
    /// Records put back.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whole objects placed.
    pub placed: u64,
    /// Records and whole objects that were put back earlier.
    pub earlier: u64,
    /// Records that were left, as the destination may have them.
    pub perhaps_stored: u64,
    /// Whole objects that were left, as they were meant for another place than the stream would give them now.
    pub elsewhere: u64,
    /// Whole objects that their store refused again.
    #[serde(default)]
    pub refused: u64,
    /// Lines and objects that are no dead letters, or are damaged.
    pub broken: u64,
    /// What it waits for just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// Why a redrive ended early. What was put back until then is remembered.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// Somebody else redrives this stream.
    #[error("another redrive of this stream is under way")]
    Busy,
    /// The stream takes nothing before it is mended.
    #[error("the stream has failed: {0}")]
    Failed(String),
    /// The store does not give an object, or the names of those it has.
    #[error("{}{error}", place(.key.as_deref()))]
    Unread {
        /// The object, if it was one.
        key: Option<String>,
        /// Why.
        error: ReadError,
    },
    /// The log does not take records.
    #[error("the log takes no records: {0}")]
    Log(#[from] AppendError),
    /// An object cannot be placed.
    #[error("{key}: {fault}")]
    NotPlaced {
        /// Its key in the dead-letter store.
        key: String,
        /// What its store says.
        fault: Fault,
    },
    /// Letters of as many objects were put back as can be remembered.
    #[error("letters of {OBJECTS_MAX} objects were put back, and no more can be remembered for this stream")]
    TooMany,
    /// It was told to stop, or nobody listens any more.
    #[error("stopped")]
    Stopped,
}

fn place(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

/// A redrive of one stream.
pub struct Redrive {
    /// The stream.
    pub stream: Arc<LiveStream>,
    /// Its dead letters.
    pub shelf: Shelf,
    /// Where its objects go, if it writes objects.
    pub primary: Option<Arc<dyn ObjectSink>>,
    /// What is to be put back.
    pub order: Order,
    /// When it was asked for. What it puts back and what is refused again is not its business.
    pub begun: Timestamp,
    /// Told how far it is.
    pub progress: watch::Sender<Tally>,
    /// Says when to stop.
    pub stop: CancellationToken,
}

impl Redrive {
    /// Does it. To be run to its end: a part under way must not be left.
    ///
    /// # Errors
    /// See [`RedriveError`].
    pub async fn run(self) -> Result<Tally, RedriveError> {
        let _turn = self.stream.redriven().turn().ok_or(RedriveError::Busy)?;
        let marks = Arc::clone(self.stream.redriven());
        self.while_it_lives("what was put back earlier", marks.wait_complete()).await?;
        let left = self.order.limit.unwrap_or(u64::MAX);
        let mut job = Job { redrive: &self, tally: Tally::default(), left, placed: Vec::new() };
        let done = job.all().await;
        let saved = job.save().await;
        done.and(saved)?;
        Ok(job.tally)
    }

    /// Waits, as long as that can end.
    async fn while_it_lives(&self, what: &str, wait: impl Future<Output = ()>) -> Result<(), RedriveError> {
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased; // what was added is added, whatever else there is
                () = &mut wait => return Ok(()),
                () = self.stop.cancelled() => return Err(RedriveError::Stopped),
                () = tokio::time::sleep(ROOM_WAIT) => {}
            }
            if let State::Failed(ailment) = self.stream.health().state()
                && ailment.is_final
            {
                return Err(RedriveError::Failed(ailment.message));
            }
            self.progress.send_modify(|tally| tally.waits_for = Some(what.to_owned()));
        }
    }
}

/// A redrive under way.
struct Job<'a> {
    redrive: &'a Redrive,
    tally: Tally,
    /// How many records and objects may still be put back.
    left: u64,
    /// Whole objects of which the ledger has not heard yet.
    placed: Vec<(BatchId, Ordinals)>,
}

/// Records of one object that are put back together.
#[derive(Default)]
struct Part {
    data: Vec<u8>,
    lengths: Vec<u32>,
    ordinals: Ordinals,
}

impl Job<'_> {
    async fn all(&mut self) -> Result<(), RedriveError> {
        let mut walk = self.redrive.shelf.walk();
        while self.left > 0 {
            let found = walk.next().await.map_err(|fault| RedriveError::Unread { key: None, error: fault.into() })?;
            let Some(found) = found else { break };
            self.tally.objects += 1;
            self.object(&found).await?;
            self.tell();
        }
        Ok(())
    }

    async fn object(&mut self, found: &Found) -> Result<(), RedriveError> {
        if self.redrive.stop.is_cancelled() {
            return Err(RedriveError::Stopped);
        }
        let content = match self.redrive.shelf.open(found).await {
            Ok(content) => content,
            Err(error) => return self.unread(found, error),
        };
        match content {
            Content::Letters(letters) => self.letters(found, letters).await,
            Content::Whole(whole) if self.redrive.order.choice.takes_whole(found.named.oldest_arrival) => {
                self.whole(found, whole).await
            }
            Content::Whole(_) => Ok(()),
            Content::Unknown => {
                self.tally.broken += 1;
                Ok(())
            }
        }
    }

    async fn letters(&mut self, found: &Found, mut letters: Letters) -> Result<(), RedriveError> {
        let (object, order) = (found.named.batch, &self.redrive.order);
        let known = self.redrive.stream.redriven().of(object);
        let mut part = Part::default();
        while self.left > 0 {
            let next = match letters.next().await {
                Ok(next) => next,
                Err(error) => {
                    self.unread(found, error)?;
                    break;
                }
            };
            match next {
                None => break,
                Some((_, None)) => self.tally.broken += 1,
                Some((_, Some(letter))) if !order.choice.takes(&letter) => {}
                Some((_, Some(letter))) if letter.arrival_timestamp >= self.redrive.begun.as_millis() => {}
                Some((ordinal, _)) if known.contains(ordinal) => self.tally.earlier += 1,
                Some((_, Some(letter))) if letter.outcome_unknown && !order.even_if_stored => {
                    self.tally.perhaps_stored += 1;
                }
                Some((ordinal, Some(letter))) => {
                    self.left -= 1;
                    part.add(ordinal, &letter.raw_data);
                    if part.is_large() {
                        self.append(object, std::mem::take(&mut part)).await?;
                    }
                }
            }
        }
        self.append(object, part).await
    }

    /// An object that cannot be read, or not to its end. Others behind it may be.
    fn unread(&mut self, found: &Found, error: ReadError) -> Result<(), RedriveError> {
        if !error.is_of_object() {
            return Err(RedriveError::Unread { key: Some(found.key.clone()), error });
        }
        tracing::warn!(object = found.key, %error, "an object of dead letters cannot be read; the others are");
        self.tally.broken += 1;
        Ok(())
    }

    /// Puts records back, all or none, and waits as long as the log has no room.
    async fn append(&mut self, object: BatchId, part: Part) -> Result<(), RedriveError> {
        let (records, bytes) = (part.lengths.len() as u64, part.data.len() as u64);
        if records == 0 {
            return Ok(());
        }
        if !self.redrive.order.dry_run {
            self.check_room(object)?;
            let origin = Origin { object, ordinals: part.ordinals, is_processed: false };
            let payloads = Payloads { data: part.data.into(), lengths: part.lengths };
            loop {
                match self.redrive.stream.append_redriven(payloads.clone(), &origin).await {
                    Ok(_) => break,
                    Err(AppendError::Full | AppendError::Unavailable(_)) => self.wait("room in the log").await?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.tally.records += records;
        self.tally.bytes += bytes;
        self.tell();
        if self.redrive.stop.is_cancelled() { Err(RedriveError::Stopped) } else { Ok(()) }
    }

    async fn whole(&mut self, found: &Found, whole: Whole) -> Result<(), RedriveError> {
        let object = found.named.batch;
        if !self.redrive.stream.redriven().of(object).is_empty() {
            self.tally.earlier += 1;
            return Ok(());
        }
        let is_its_place = self.redrive.shelf.is_meant_for(found, &whole.intended);
        let is_meant = |sink: &&Arc<dyn ObjectSink>| is_its_place && sink.destination() == whole.intended.store;
        let Some(primary) = self.redrive.primary.as_ref().filter(is_meant).cloned() else {
            self.tally.elsewhere += 1;
            return Ok(());
        };
        self.left -= 1;
        if !self.redrive.order.dry_run {
            self.check_room(object)?;
            if !self.place(found, whole, &*primary).await? {
                self.tally.refused += 1;
                return Ok(());
            }
            self.placed.push((object, Ordinals::all(1)));
            if self.placed.len() >= PLACED_MAX {
                self.save().await?;
            }
        }
        self.tally.placed += 1;
        Ok(())
    }

    /// Places an object where it was meant to go; `false` when its store refuses it.
    async fn place(&mut self, found: &Found, whole: Whole, primary: &dyn ObjectSink) -> Result<bool, RedriveError> {
        let Whole { intended, stored } = whole;
        let object = Object {
            batch: found.named.batch,
            key: intended.key,
            content_type: stored.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            content_encoding: stored.content_encoding,
            metadata: stored.metadata,
            body: stored.body,
        };
        let mut attempt = 1;
        loop {
            match primary.place(&object).await {
                Verdict::Delivered => return Ok(true),
                Verdict::Refused(fault) | Verdict::Discarded(fault) => {
                    tracing::warn!(object = found.key, error = %fault, "a whole object is refused again; it stays");
                    return Ok(false);
                }
                Verdict::Retry(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.wait("the store that an object was meant for").await?;
                }
                Verdict::Retry(fault) => {
                    return Err(RedriveError::NotPlaced { key: found.key.clone(), fault });
                }
            }
        }
    }

    /// Has the ledger hear of objects that were placed.
    async fn save(&mut self) -> Result<(), RedriveError> {
        let placed = std::mem::take(&mut self.placed);
        if placed.is_empty() {
            return Ok(());
        }
        self.redrive.while_it_lives("the ledger", self.redrive.stream.redriven().save(placed)).await
    }

    fn check_room(&self, object: BatchId) -> Result<(), RedriveError> {
        if self.redrive.stream.redriven().has_room_for(object) { Ok(()) } else { Err(RedriveError::TooMany) }
    }

    async fn wait(&mut self, what: &str) -> Result<(), RedriveError> {
        self.tally.waits_for = Some(what.to_owned());
        self.tell();
        self.tally.waits_for = None;
        let stopped = tokio::time::timeout(ROOM_WAIT, self.redrive.stop.cancelled()).await.is_ok();
        if stopped { Err(RedriveError::Stopped) } else { Ok(()) }
    }

    fn tell(&self) {
        self.redrive.progress.send_replace(self.tally.clone());
    }
}

impl Part {
    fn add(&mut self, ordinal: u32, record: &[u8]) {
        self.data.extend_from_slice(record);
        self.lengths.push(u32::try_from(record.len()).unwrap_or(u32::MAX)); // a line is far shorter
        self.ordinals.insert(ordinal);
    }

    fn is_large(&self) -> bool {
        self.lengths.len() >= PART_RECORDS_MAX || self.data.len() >= PART_BYTES
    }
}
