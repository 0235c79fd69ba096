//! The places for connections: so many in all, so many for one address, and a few newcomers that may wait for one.
//!
//! In: a newcomer's address. Out: a place, which is given back when it is dropped, or none. Whoever accepts
//! connections asks with [`Places::enter`], which never waits; the waiting is done by the newcomer's own task.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::api::Limits;

/// How long a newcomer waits for an idle connection to be closed. One tick more than idle ones get when all places
/// are taken.
const ROOM_WAIT: Duration = Duration::from_millis(1500);

/// Most newcomers that wait while all places are taken; each holds a socket. As many as a burst of a fleet's
/// reconnects, and too few to matter among the files of a process.
const WAITING_MAX: usize = 64;

/// All places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    waiting: Semaphore,
    /// True while all are taken.
    full: watch::Sender<bool>,
    /// How many connections each address has, those that wait for a place among them.
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
    per_loopback: usize,
}

/// What a newcomer has of its address's share, with or without a place of its own.
#[derive(Debug)]
pub(super) struct Share {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

impl Places {
    pub(super) fn new(all: usize, limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            waiting: Semaphore::new(WAITING_MAX),
            full: watch::Sender::new(false),
            taken: Arc::default(),
            per_address: limits.connections_per_address,
            per_loopback: limits.connections_per_loopback,
        }
    }

    /// Counts a newcomer. `None` when its address has as many connections as it may.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Share> {
        let address = client_of(address);
        let most = if address.is_loopback() { self.per_loopback } else { self.per_address };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { address, taken: Arc::clone(&self.taken) })
    }

    /// A place for whoever has entered; waits a moment for one when there is none. `None` when nobody leaves, and at
    /// once when too many wait already.
    ///
    /// Cancel safe: a dropped call gives everything back.
    pub(super) async fn take(&self, share: Share) -> Option<Place> {
        self.tell_if_full();
        let permit = if let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() {
            permit
        } else {
            let _waiting = self.waiting.try_acquire().ok()?;
            timeout(ROOM_WAIT, Arc::clone(&self.all).acquire_owned()).await.ok()?.ok()?
        };
        self.tell_if_full();
        Some(Place { _permit: permit, _share: share })
    }

    /// Says whether all places are taken, and when that changes. Looked at when somebody comes, not when somebody
    /// leaves: each change wakes every connection.
    pub(super) fn is_full(&self) -> watch::Receiver<bool> {
        self.full.subscribe()
    }

    /// Has idle connections closed early until somebody comes and finds room.
    pub(super) fn ask_for_room(&self) {
        self.full.send_replace(true);
    }

    fn tell_if_full(&self) {
        let full = self.all.available_permits() == 0;
        self.full.send_if_modified(|was| std::mem::replace(was, full) != full);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// What stands for a client: an IPv4 address, or the network of an IPv6 address, of which one client has all 2^64.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, per_address: usize, per_loopback: usize) -> Places {
        let limits = Limits {
            connections_per_address: per_address,
            connections_per_loopback: per_loopback,
            ..Limits::default()
        };
        Places::new(all, &limits)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let places = places(10, 2, 3);
        let mut shares: Vec<Share> = (0..2).filter_map(|_| places.enter(address("10.0.0.1"))).collect();
        assert!(places.enter(address("10.0.0.1")).is_none());
        assert!(places.enter(address("::ffff:10.0.0.1")).is_none(), "the same address in other words");
        assert!(places.enter(address("10.0.0.2")).is_some());
        shares.pop();
        assert!(places.enter(address("10.0.0.1")).is_some());
        drop(shares);
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of an address that left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_loopback_has_a_share_of_its_own() {
        let places = places(10, 1, 2);
        let held = places.enter(address("2001:db8:0:1::1"));
        assert!(held.is_some() && places.enter(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(places.enter(address("2001:db8:0:2::1")).is_some());
        for loopback in ["127.0.0.1", "::1"] {
            let held: Vec<Option<Share>> = (0..3).map(|_| places.enter(address(loopback))).collect();
            assert_eq!(held.iter().flatten().count(), 2, "{loopback}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_for_a_place_and_too_many_do_not() {
        let places = Arc::new(places(1, 1000, 1000));
        let first = places.take(places.enter(address("10.0.0.1")).unwrap()).await.unwrap();
        let mut newcomers = Vec::new();
        for _ in 0..=WAITING_MAX {
            let (places, share) = (Arc::clone(&places), places.enter(address("10.0.0.2")).unwrap());
            newcomers.push(tokio::spawn(async move { places.take(share).await.is_some() }));
        }
        let (last, newcomers) = newcomers.split_last_mut().unwrap();
        assert!(!last.await.unwrap(), "one too many is told at once");
        assert!(*places.is_full().borrow());
        drop(first);
        // Each gives its place to the next at once.
        for newcomer in newcomers {
            assert!(newcomer.await.unwrap());
        }
        assert!(places.take(places.enter(address("10.0.0.3")).unwrap()).await.is_some());
    }
}
