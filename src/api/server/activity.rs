//! What a connection is doing, and until when it may.
//!
//! ```text
//!   idle ── first byte ──> head ── request ──> serving ── answer ──> idle
//!   `idle`                 `header_within`     the limits of the body
//! ```
//!
//! HTTP/2 carries frames that belong to no request, so once a connection has turned out to speak it, only idle and
//! serving count. Kept in atomics because streams of HTTP/2 end in other tasks; each is a fact of its own, none
//! guards another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Version;
use tokio::time::Instant;

use crate::api::Limits;

/// No head has begun; no head is odd.
const NONE: u64 = u64::MAX;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    serving: AtomicUsize,
    /// Milliseconds from `opened` to the end of the last request.
    idle_since: AtomicU64,
    /// Milliseconds from `opened` to the first byte of a head that is not complete, or [`NONE`].
    head_since: AtomicU64,
    is_http2: AtomicBool,
    /// Requests so far.
    requests: AtomicU64,
    /// The number of the first request whose end is not plain, or [`NONE`]. Known before the request is served.
    odd_request: AtomicU64,
    /// The last request was answered before all of its body was read.
    is_cut: AtomicBool,
    /// The time for a head is over: nothing more is read.
    is_over: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            serving: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NONE),
            is_http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            odd_request: AtomicU64::new(NONE),
            is_cut: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NONE - 1)
    }

    /// Bytes have come.
    pub(super) fn read(&self) {
        if self.serving.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NONE {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// The request of this number, counted from 0, says in no plain way where it ends. Nothing behind it counts.
    pub(super) fn found_odd(&self, number: u64) {
        self.odd_request.store(number, Relaxed);
    }

    /// A head is complete: its request is being served until the answer is dropped.
    pub(super) fn serving(self: &Arc<Self>, version: Version) -> Serving {
        self.is_http2.store(version == Version::HTTP_2, Relaxed);
        self.serving.fetch_add(1, Relaxed);
        self.head_since.store(NONE, Relaxed);
        let is_plain = self.requests.fetch_add(1, Relaxed) < self.odd_request.load(Relaxed);
        Serving { activity: Arc::clone(self), is_plain }
    }

    /// Whether the client of the last request may still be sending its body.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Ends the wait for a head that has begun. `false` when none has, or nobody could be told in HTTP/1.
    pub(super) fn give_up_head(&self) -> bool {
        let is_waiting = self.head_since.load(Relaxed) != NONE && !self.is_http2.load(Relaxed);
        self.is_over.fetch_or(is_waiting, Relaxed);
        is_waiting
    }

    /// Whether the wait for a head has ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Until when the connection may go on as it is. `None` while a request is being served.
    pub(super) fn deadline(&self, limits: &Limits, full: bool) -> Option<Instant> {
        if self.serving.load(Relaxed) > 0 {
            return None;
        }
        let head = self.head_since.load(Relaxed);
        let (since, within) = if head != NONE && !self.is_http2.load(Relaxed) {
            (head, limits.header_within)
        } else {
            (self.idle_since.load(Relaxed), if full { limits.idle_when_full } else { limits.idle })
        };
        Some(self.opened + Duration::from_millis(since) + within)
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(super) struct Serving {
    activity: Arc<Activity>,
    /// Whether it is plain where the request ends. Always so in HTTP/2.
    pub(super) is_plain: bool,
}

impl Serving {
    /// The answer comes before the end of the body: the connection ends behind it, and the client may still be sending.
    pub(super) fn cut(&self) {
        self.activity.is_cut.store(true, Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.activity.idle_since.store(self.activity.now(), Relaxed);
        self.activity.serving.fetch_sub(1, Relaxed);
    }
}
