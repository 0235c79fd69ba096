//! The oracle: a process that knows what producers were promised, reads what arrived, and judges.
//!
//! ```text
//!   hydrant-load ── claim, acked, refused ──> [ claims ] <── judge ── [ arrivals ] <── objects ── MinIO, folders
//!                                                 │
//!                                              verdict
//! ```
//!
//! Destinations are stores, whose objects hold records, and services that take records apart: a table, a receiver of
//! requests. Of those the judge sees what came in one go, as if it were an object. Where a destination refuses records for
//! what is in them, these must lie in its dead letters and all others must not.
//!
//! A record is *issued* when a producer claims its id, *obliged* when the service answered 200 for it, *refused* when
//! the answer said that it was not taken, and otherwise *indeterminate*: it may arrive or not. Then
//! `obliged ⊆ arrived ⊆ issued − refused`, each once, whole, and in order within an object. The oracle is never
//! killed, so it keeps everything in memory: four bits a record.

mod arrivals;
mod claims;
mod decode;
mod judge;
mod places;
mod serve;
mod table;
mod witness;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::arrivals::Arrivals;
pub use self::claims::Claims;
pub use self::serve::serve;
pub use self::witness::Witness;

/// What a run is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides each payload.
    pub seed: u64,
    /// The streams; a stream's number is its index.
    pub streams: Vec<StreamPlan>,
}

/// One stream of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPlan {
    /// Its name.
    pub name: String,
    /// What its records are.
    #[serde(default)]
    pub records: Records,
    /// What stands behind each record.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// Where its records arrive: its destination, and the store of its dead letters. Nothing else arrives there.
    pub places: Vec<PlacePlan>,
    /// Where its dead letters arrive, if they are told apart: the records that its destination refuses lie here, and no
    /// others. One that takes nothing at all has no place, and all of them lie here.
    #[serde(default)]
    pub letters: Option<PlacePlan>,
}

/// What the records of a stream are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// [Frames](crate::frame), and records too short for one.
    #[default]
    Frames,
    /// [Documents](crate::document), one to a line.
    Documents,
}

/// What stands behind each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    /// Nothing.
    #[default]
    None,
    /// A line feed.
    Newline,
}

impl Delimiter {
    /// Its bytes.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Newline => b"\n",
        }
    }
}

/// A place where objects arrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PlacePlan {
    /// All files below a folder of this machine.
    Folder(std::path::PathBuf),
    /// All objects of a bucket whose keys start with a prefix.
    S3 {
        /// `http://host:port`, path style.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// What keys start with.
        prefix: String,
    },
    /// The rows of a table of PostgreSQL: `record` is what came, `tx` the transaction that brought it, `seq` its place there.
    Table(String),
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Decides each payload of the run.
    pub seed: u64,
    /// All streams together.
    pub total: Counts,
    /// Each stream by itself.
    pub streams: Vec<(String, Counts)>,
    /// The first few things that are wrong, in words.
    pub examples: Vec<String>,
}

/// What was counted of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records that got an id.
    pub issued: u64,
    /// Records that were acknowledged.
    pub obliged: u64,
    /// Records whose answer was lost.
    pub indeterminate: u64,
    /// Records that were not taken.
    pub refused: u64,
    /// Acknowledged records of no bytes in a stream without delimiter: nobody can see them arrive.
    pub invisible: u64,
    /// Records found, each counted once.
    pub arrived: u64,
    /// Of those, the ones that lie in dead letters that are told apart.
    pub letters: u64,
    /// Objects found.
    pub objects: u64,
    /// Their bytes as stored.
    pub stored_bytes: u64,
    /// Their bytes uncompressed.
    pub record_bytes: u64,
    /// Objects found again under another mark with the same bytes: harmless.
    pub rewritten: u64,
    /// Files that are no objects: temporary ones that a killed process left.
    pub leftovers: u64,
    /// Wrong: acknowledged and not there.
    pub lost: u64,
    /// Wrong: there and never issued, or refused.
    pub invented: u64,
    /// Wrong: objects that are no whole stream, bytes that are no record, records with other bytes.
    pub torn: u64,
    /// Wrong: there more than once.
    pub duplicated: u64,
    /// Wrong: before a record in its object that the log must have had before it.
    pub misordered: u64,
    /// Wrong: objects that changed their bytes or disappeared.
    pub unstable: u64,
    /// Wrong: dead letters that the destination would take, and records there that it refuses.
    pub misplaced: u64,
}

impl Counts {
    /// How many things are wrong.
    pub fn wrong(&self) -> u64 {
        self.lost + self.invented + self.torn + self.duplicated + self.misordered + self.unstable + self.misplaced
    }

    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.issued, other.issued),
            (&mut self.obliged, other.obliged),
            (&mut self.indeterminate, other.indeterminate),
            (&mut self.refused, other.refused),
            (&mut self.invisible, other.invisible),
            (&mut self.arrived, other.arrived),
            (&mut self.objects, other.objects),
            (&mut self.stored_bytes, other.stored_bytes),
            (&mut self.record_bytes, other.record_bytes),
            (&mut self.rewritten, other.rewritten),
            (&mut self.leftovers, other.leftovers),
            (&mut self.lost, other.lost),
            (&mut self.invented, other.invented),
            (&mut self.torn, other.torn),
            (&mut self.duplicated, other.duplicated),
            (&mut self.misordered, other.misordered),
            (&mut self.unstable, other.unstable),
            (&mut self.letters, other.letters),
            (&mut self.misplaced, other.misplaced),
        ];
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
    }
}
