//! Byte budget: how many bytes of records all streams together may hold in memory, and who gives way when it is
//! used up.
//!
//! In: a packing loop asks for room before it reads a slice. Out: a [`Grant`], given back when the bytes are sealed.
//! When somebody waits and no seal under way would make room, the stream that holds most in open buffers is told to
//! seal (`pressure`). While a stream below its share waits, streams above theirs get nothing.
//!
//! A grant may outgrow the budget (a slice can turn out larger than was asked for); the next asker then waits for
//! longer. Nobody waits for room while a seal of theirs waits for them, so somebody can always go on.
//!
//! Never touches record bytes; it only counts them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_core::ByteSize;
use tokio::sync::Notify;

/// The budget of the process.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    accounts: Vec<Entry>,
}

/// What one stream holds.
#[derive(Debug)]
struct Entry {
    open: u64,
    sealing: u64,
    waiting: bool,
    pressure: Arc<Notify>,
}

impl Entry {
    fn held(&self) -> u64 {
        self.open + self.sealing
    }

    fn is_active(&self) -> bool {
        self.waiting || self.held() > 0
    }
}

/// A stream's account with the budget. Made once per stream and kept as long as the process.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    index: usize,
    pressure: Arc<Notify>,
}

/// Bytes that a stream holds. Dropping it gives them back.
#[derive(Debug)]
pub struct Grant {
    budget: Arc<Budget>,
    index: usize,
    bytes: u64,
    sealing: bool,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: ByteSize) -> Arc<Self> {
        Arc::new(Self { limit: limit.get(), state: Mutex::default(), freed: Notify::new() })
    }

    /// Opens an account.
    pub fn account(self: &Arc<Self>) -> Account {
        let pressure = Arc::new(Notify::new());
        let mut state = self.lock();
        state.accounts.push(Entry { open: 0, sealing: 0, waiting: false, pressure: Arc::clone(&pressure) });
        Account { budget: Arc::clone(self), index: state.accounts.len() - 1, pressure }
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` for the account if it may have them now; otherwise tells whoever should give way.
    fn try_take(&self, index: usize, bytes: u64) -> bool {
        let mut state = self.lock();
        let may = state.fits(self.limit, index, bytes);
        if may {
            state.used += bytes;
        } else if let Some(victim) = state.victim(self.limit, bytes) {
            victim.notify_one();
        }
        if let Some(entry) = state.accounts.get_mut(index) {
            entry.waiting = !may;
            entry.open += if may { bytes } else { 0 };
        }
        may
    }
}

impl State {
    fn fits(&self, limit: u64, index: usize, bytes: u64) -> bool {
        if self.used == 0 {
            return true; // the budget always fits one unit, however large it is
        }
        if self.used + bytes > limit {
            return false;
        }
        let share = limit / self.accounts.iter().filter(|entry| entry.is_active()).count().max(1) as u64;
        let above = self.accounts.get(index).is_some_and(|entry| entry.held() > share);
        let others_wait =
            self.accounts.iter().enumerate().any(|(i, entry)| i != index && entry.waiting && entry.held() <= share);
        !(above && others_wait)
    }

    /// Who should seal: whoever holds most in open buffers, unless the seals under way will make room anyway.
    fn victim(&self, limit: u64, bytes: u64) -> Option<&Notify> {
        let sealing: u64 = self.accounts.iter().map(|entry| entry.sealing).sum();
        if self.used - sealing + bytes <= limit && sealing > 0 {
            return None;
        }
        let fullest = self.accounts.iter().max_by_key(|entry| entry.open)?;
        (fullest.open > 0).then_some(&*fullest.pressure)
    }
}

impl Account {
    /// Waits for room for `bytes`. Cancel safe: a dropped wait holds nothing.
    pub async fn reserve(&self, bytes: u64) -> Grant {
        let _waits = Waits { account: self };
        loop {
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable(); // before looking, so that no give-back is missed in between
            if self.budget.try_take(self.index, bytes) {
                return Grant { budget: Arc::clone(&self.budget), index: self.index, bytes, sealing: false };
            }
            freed.await;
        }
    }

    /// An empty grant, to be resized.
    pub fn nothing(&self) -> Grant {
        Grant { budget: Arc::clone(&self.budget), index: self.index, bytes: 0, sealing: false }
    }

    /// Resolves when this stream should seal to make room for others. Cancel safe.
    pub async fn pressed(&self) {
        self.pressure.notified().await;
    }
}

/// Clears the mark of a wait, also when the wait is dropped.
struct Waits<'a> {
    account: &'a Account,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut state = self.account.budget.lock();
        if let Some(entry) = state.accounts.get_mut(self.account.index) {
            entry.waiting = false;
        }
    }
}

impl Grant {
    /// How many bytes it covers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it cover `bytes`: gives back what is over, overdraws what is missing.
    pub fn resize(&mut self, bytes: u64) {
        let before = self.bytes;
        self.bytes = bytes;
        self.change(before, bytes);
    }

    /// Marks the bytes as being sealed: they will be given back without anybody having to ask.
    pub fn sealing(&mut self) {
        if std::mem::replace(&mut self.sealing, true) {
            return;
        }
        let mut state = self.budget.lock();
        if let Some(entry) = state.accounts.get_mut(self.index) {
            entry.open -= self.bytes;
            entry.sealing += self.bytes;
        }
    }

    fn change(&self, before: u64, after: u64) {
        let mut state = self.budget.lock();
        state.used = state.used - before + after;
        if let Some(entry) = state.accounts.get_mut(self.index) {
            let held = if self.sealing { &mut entry.sealing } else { &mut entry.open };
            *held = *held - before + after;
        }
        drop(state);
        if after < before {
            self.budget.freed.notify_waiters();
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.change(self.bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn soon<T>(wait: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(1), wait).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_up_to_the_limit_and_again_when_it_comes_back() {
        let budget = Budget::new(ByteSize::bytes(100));
        let account = budget.account();
        let first = account.reserve(60).await;
        assert!(soon(account.reserve(60)).await.is_none());
        drop(first);
        assert_eq!(account.reserve(60).await.bytes(), 60);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_budget_fits_anything() {
        let account = Budget::new(ByteSize::bytes(100)).account();
        assert_eq!(account.reserve(1_000).await.bytes(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_most_is_pressed_and_seals_under_way_are_waited_for() {
        let budget = Budget::new(ByteSize::bytes(100));
        let (large, small, asks) = (budget.account(), budget.account(), budget.account());
        let mut held = large.reserve(60).await;
        let _other = small.reserve(30).await;
        assert!(soon(asks.reserve(20)).await.is_none());
        assert!(soon(large.pressed()).await.is_some(), "the largest holder is told to seal");
        assert!(soon(small.pressed()).await.is_none());
        held.sealing();
        assert!(soon(asks.reserve(20)).await.is_none());
        assert!(soon(large.pressed()).await.is_none(), "its seal is under way, nobody need seal for this");
        assert!(soon(small.pressed()).await.is_none());
        drop(held);
        assert!(soon(asks.reserve(20)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_below_its_share_comes_before_one_above() {
        let budget = Budget::new(ByteSize::bytes(100));
        let (greedy, modest) = (budget.account(), budget.account());
        let mut held = greedy.reserve(90).await;
        let modest_waits = modest.reserve(40);
        tokio::pin!(modest_waits);
        assert!(soon(&mut modest_waits).await.is_none());
        held.resize(80);
        assert!(soon(greedy.reserve(10)).await.is_none(), "it is above its share and another one waits");
        held.resize(60);
        assert!(soon(&mut modest_waits).await.is_some());
    }
}
