//! Commit threads: a few that serve all logs, so that one log's sync overlaps with another's writes.
//!
//! In: logs that have something in their queue. Out: calls of [`Shared::round`], one at a time for each log.
//!
//! ```text
//!   append ──> queue of the log ──(first one)──> ready ──> a thread: one round ──┐
//!                                                  ^                             │
//!                                                  └──── more came meanwhile ────┘
//! ```
//!
//! Holds no state of a log. Without threads it does the same on the thread that asks, so that a simulation decides
//! when a round happens.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hydrant_core::ByteSize;

use super::recent::Room;
use super::shared::Shared;

/// The threads that write the logs of a process. Dropping it finishes what is queued and stops them; appends after
/// that are refused as closed.
#[derive(Debug)]
pub struct Committers {
    pool: Arc<Pool>,
    room: Room,
    threads: Vec<JoinHandle<()>>,
}

impl Committers {
    /// Starts that many threads. With none, nothing is written but by [`serve`](Self::serve).
    ///
    /// Two are enough for one disk: one syncs while the other writes. More help when logs lie on several disks.
    ///
    /// # Errors
    /// When the system does not give a thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut committers = Self { pool: Arc::default(), room: Room::default(), threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let pool = Arc::clone(&committers.pool);
            let builder = std::thread::Builder::new().name(format!("commit-{number}"));
            committers.threads.push(builder.spawn(move || while pool.serve_one(Wait::ForWork) {})?);
        }
        Ok(committers)
    }

    /// Keeps up to this many bytes of what was just written in memory, for readers that follow closely. Holds for logs that
    /// are opened afterwards; without it they read everything back from the disk.
    #[must_use]
    pub fn with_memory(mut self, bytes: ByteSize) -> Self {
        self.room = Room::new(bytes);
        self
    }

    /// Does on this thread all that waits to be done.
    pub fn serve(&self) {
        while self.pool.serve_one(Wait::Never) {}
    }

    pub(super) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }

    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }
}

impl Drop for Committers {
    fn drop(&mut self) {
        self.pool.ready().stopping = true;
        self.pool.wake.notify_all();
        self.serve();
        for thread in self.threads.drain(..) {
            // A thread ends only by returning: rounds that panic are caught where they are called.
            thread.join().ok();
        }
    }
}

/// Logs with work, and who waits for such.
#[derive(Debug, Default)]
pub(super) struct Pool {
    ready: Mutex<Ready>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Ready {
    logs: VecDeque<Arc<Shared>>,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    ForWork,
    Never,
}

impl Pool {
    /// Has a log served that is not waiting or being served now. `false` when the threads have stopped.
    pub(super) fn push(&self, log: Arc<Shared>) -> bool {
        let mut ready = self.ready();
        if ready.stopping {
            return false;
        }
        ready.logs.push_back(log);
        drop(ready);
        self.wake.notify_one();
        true
    }

    /// Serves one log; `false` when there is none, and after the last when stopping.
    fn serve_one(&self, wait: Wait) -> bool {
        let Some((log, is_last)) = self.next(wait) else { return false };
        if is_last && wait == Wait::ForWork {
            log.gather();
        }
        if log.round() {
            let mut ready = self.ready();
            ready.logs.push_back(log);
            // This thread comes back for it at once, unless another log was before it.
            if ready.logs.len() > 1 {
                drop(ready);
                self.wake.notify_one();
            }
        }
        true
    }

    /// The next log, and whether no other waits.
    fn next(&self, wait: Wait) -> Option<(Arc<Shared>, bool)> {
        let mut ready = self.ready();
        while ready.logs.is_empty() && wait == Wait::ForWork && !ready.stopping {
            ready = self.wake.wait(ready).unwrap_or_else(PoisonError::into_inner);
        }
        let log = ready.logs.pop_front()?;
        Some((log, ready.logs.is_empty()))
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        // Nothing that is done under the lock can panic.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
