//! Crash points: named places between two steps at which a test ends this very process, so that a kill is aimed and not
//! left to chance. And slips: bugs made on purpose, with which the tests show that they would find one.
//!
//! Both are in a program only with the feature `crash-points`, and then off unless an environment variable names one.
//! Without the feature every call here is empty or constant, and nothing of it is left in the program. Only
//! dev-dependencies ask for the feature, so tests, torture and bench share one build that has it, and whatever is
//! published is built without; the gate `release` of `cargo xtask check` holds that.
//!
//! | variable | |
//! |---|---|
//! | `HYDRANT_CRASH_AT=seal.named:3` | the process kills itself when it comes to the point for the third time |
//! | `HYDRANT_SLIP=send-before-seal` | it makes this mistake |
//!
//! A point does nothing else: no wait, no lock, no branch that depends on it.

/// Declares an enumeration whose variants have names.
macro_rules! named {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])+ $variant:ident = $name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$doc])+ $variant,)+ }

        #[cfg(feature = "crash-points")]
        impl $kind {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

named! {
    /// A place between two steps. The name says the station and what has just happened there.
    Point {
        /// A file was allocated for a segment; or a spare was taken.
        AppendAllocated = "append.allocated",
        /// The header of a segment is written and synced; the file has its old name.
        AppendHeaded = "append.headed",
        /// A segment has its name; the folder is not synced.
        AppendNamed = "append.named",
        /// Requests have their positions; nothing is written.
        AppendTaken = "append.taken",
        /// Frames are written, not synced.
        AppendWritten = "append.written",
        /// Frames are synced; nobody was answered.
        AppendSynced = "append.synced",
        /// The first of several requests was answered, or the only one.
        AppendAnswered = "append.answered",
        /// A batch file is allocated under its temporary name.
        SealAllocated = "seal.allocated",
        /// A batch file is written, not synced.
        SealWritten = "seal.written",
        /// A batch file is synced under its temporary name.
        SealSynced = "seal.synced",
        /// A batch file has its name; the folder is not synced.
        SealNamed = "seal.named",
        /// A batch is durable; the delivery loop has not heard of it.
        SealDurable = "seal.durable",
        /// A draft has room for more; nothing is written there.
        DraftAllocated = "draft.allocated",
        /// A unit is written to its draft, not synced.
        DraftWritten = "draft.written",
        /// The head of a draft is written; the file is not cut to its length.
        DraftHeaded = "draft.headed",
        /// The reserve has grown; the batch that needs it is not written.
        ReserveGrown = "reserve.grown",
        /// The reserve is small again.
        ReserveShrunk = "reserve.shrunk",
        /// The reserve has the temporary name of a batch of dead letters; it is not cut to its length.
        ReserveTurned = "reserve.turned",
        /// The destination has answered for pieces of a batch, of which others are left; the ledger has not heard of it.
        AnswerTold = "answer.told",
        /// Entries of the ledger are written, an `Answered` among them, not synced.
        AnswerWritten = "answer.written",
        /// An `Answered` is durable; the next attempt is not made.
        AnswerRecorded = "answer.recorded",
        /// Refused pieces were read from their batches; nothing of their dead letters is written.
        BuryGathered = "bury.gathered",
        /// A file of dead letters is synced under its temporary name.
        BurySynced = "bury.synced",
        /// A file of dead letters has its name; the folder is not synced.
        BuryNamed = "bury.named",
        /// A batch of dead letters is durable; the ledger has not heard of it.
        BuryDurable = "bury.durable",
        /// Entries of the ledger are written, a `Buried` among them, not synced.
        BuryWritten = "bury.written",
        /// A `Buried` is durable; nothing that relies on it is done.
        BuryRecorded = "bury.recorded",
        /// The destination has confirmed a batch, or the pieces that were left of it; the ledger has not heard of it.
        SettleDelivered = "settle.delivered",
        /// Entries of the ledger are written, a `Settled` among them, not synced.
        SettleWritten = "settle.written",
        /// A `Settled` is durable; the batch file is still there.
        SettleRecorded = "settle.recorded",
        /// A settled batch file is unlinked; the folder is not synced.
        SettleUnlinked = "settle.unlinked",
        /// It was decided to turn a batch to the dead-letter store; the ledger has not heard of it.
        RedirectDecided = "redirect.decided",
        /// Entries of the ledger are written, a `Redirected` among them, not synced.
        RedirectWritten = "redirect.written",
        /// A `Redirected` is durable; nothing was sent to the dead-letter store.
        RedirectRecorded = "redirect.recorded",
        /// The dead-letter store has confirmed a batch; the ledger has not heard of it.
        RedirectPlaced = "redirect.placed",
        /// Unlinks are durable; no checkpoint is begun.
        CheckpointBegun = "checkpoint.begun",
        /// A new ledger file is written under its temporary name, not synced.
        CheckpointWritten = "checkpoint.written",
        /// A new ledger file is synced under its temporary name.
        CheckpointSynced = "checkpoint.synced",
        /// A new ledger file has its name; the folder is not synced.
        CheckpointNamed = "checkpoint.named",
        /// A new ledger file is durable; the old one is still there.
        CheckpointDurable = "checkpoint.durable",
        /// The old ledger file is unlinked; the log was not told.
        CheckpointUnlinked = "checkpoint.unlinked",
        /// A damaged batch file has its other name; the folder is not synced.
        AsideNamed = "aside.named",
        /// Damaged batch files are durably out of the way; the ledger owes them still.
        AsideDurable = "aside.durable",
        /// The ledger owes damaged batches no more; nothing of them is packed again.
        AsideRecorded = "aside.recorded",
        /// Segments are off the list; their files are as they were.
        RecycleListed = "recycle.listed",
        /// A segment became a spare file or was removed; the folder is not synced.
        RecyclePutAway = "recycle.put-away",
        /// The names of spares are durable; none was offered for use.
        RecycleSynced = "recycle.synced",
        /// The data directory is locked; no stream was looked at.
        OpenLocked = "open.locked",
        /// A stream's outbox is swept and read.
        OpenOutbox = "open.outbox",
        /// A stream's ledger is read and its tail renewed.
        OpenLedger = "open.ledger",
        /// Settled files that an earlier process left are unlinked, orphans are adopted.
        OpenRecovered = "open.recovered",
        /// Unfinished segments are removed and names are synced; the newest segment was not read.
        OpenNames = "open.names",
        /// The end of the log was written again and is not synced.
        OpenRewritten = "open.rewritten",
        /// Every stream is open; nothing listens.
        OpenStreams = "open.streams",
    }
}

named! {
    /// A bug made on purpose.
    Slip {
        /// Producers are answered, and their records written a little later.
        AcknowledgeBeforeWrite = "acknowledge-before-write",
        /// An object is placed at its destination before its batch file is there.
        SendBeforeSeal = "send-before-seal",
        /// A batch file is unlinked before the ledger knows that nothing of it is owed.
        UnlinkBeforeSettled = "unlink-before-settled",
        /// Separate pieces count as delivered though their destination did not say so.
        SettleUnconfirmed = "settle-unconfirmed",
        /// Pieces that an attempt left are sent again before the ledger knows of those that it did not leave.
        AttemptBeforeAnswered = "attempt-before-answered",
        /// Frames of the log are said to be synced and are not.
        SkipSyncs = "skip-syncs",
    }
}

#[cfg(feature = "crash-points")]
pub use self::armed::{linger, reach, slips};

/// Ends the process if it was asked to end here.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn reach(_point: Point) {}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn slips(_slip: Slip) -> bool {
    false
}

/// Gives a slip time to do harm.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn linger() {}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Point, Slip};

    /// Long enough for an answer to reach its producer and the producer's witness, on a busy machine.
    const LINGER: Duration = Duration::from_millis(200);

    struct Aim {
        point: Point,
        /// How often the point is still to be reached.
        left: AtomicU64,
    }

    static AIM: OnceLock<Option<Aim>> = OnceLock::new();
    static SLIP: OnceLock<Option<Slip>> = OnceLock::new();

    /// Ends the process if it was asked to end here: as `kill -9` does, with nothing flushed and nobody told.
    #[inline]
    pub fn reach(point: Point) {
        let Some(aim) = AIM.get_or_init(|| asked("HYDRANT_CRASH_AT", Aim::parse)) else { return };
        if aim.point == point && aim.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            loop {
                // It cannot fail, and no thread comes back from it.
                kill_process(getpid(), Signal::KILL).ok();
            }
        }
    }

    /// Whether this mistake is to be made.
    #[inline]
    pub fn slips(slip: Slip) -> bool {
        *SLIP.get_or_init(|| asked("HYDRANT_SLIP", Slip::named)) == Some(slip)
    }

    /// Gives a slip time to do harm.
    #[expect(clippy::disallowed_methods, reason = "stands in for a slow disk; only when a slip is asked for")]
    pub fn linger() {
        std::thread::sleep(LINGER);
    }

    /// What a variable asks for. A test that asks for what is not there would prove nothing, so that is the end.
    fn asked<T>(variable: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = std::env::var(variable).ok()?;
        let parsed = parse(&value);
        if parsed.is_none() {
            tracing::error!(variable, value, "there is no such crash point or slip");
            std::process::abort();
        }
        parsed
    }

    impl Aim {
        /// `point` or `point:times`, from 1.
        fn parse(text: &str) -> Option<Self> {
            let (name, times) = text.split_once(':').unwrap_or((text, "1"));
            let left = times.parse().ok().filter(|times| *times > 0)?;
            Some(Self { point: Point::named(name)?, left: AtomicU64::new(left) })
        }
    }
}
