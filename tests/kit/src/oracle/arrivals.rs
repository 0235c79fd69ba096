//! Arrivals: what lies in the places of all streams, read once, and watched for changes.
//!
//! In: the plan's places. Out: each new object to the judge. An object that changes its bytes or disappears after it was
//! seen is wrong: names are never used again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::decode::decode;
use super::judge::{Held, judge};
use super::places::Place;
use super::{Claims, Plan};
use crate::signature::sha256_hex;

/// What was read so far.
#[derive(Debug)]
pub struct Arrivals {
    places: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    stream: usize,
    place: Place,
    /// Which of the stream's records may be there.
    held: Held,
    seen: HashMap<String, Seen>,
    leftovers: u64,
}

#[derive(Debug)]
struct Seen {
    mark: String,
    digest: String,
    gone: bool,
}

impl Arrivals {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// When a place cannot be named; none is looked at.
    pub fn new(plan: &Plan) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        for (stream, plan) in plan.streams.iter().enumerate() {
            let held = if plan.letters.is_some() { Held::Taken } else { Held::Any };
            let letters = if plan.places.is_empty() { Held::Letters } else { Held::Refused };
            let of_records = plan.places.iter().map(|place| (place, held));
            for (place, held) in of_records.chain(plan.letters.as_ref().map(|place| (place, letters))) {
                places.push(Watched { stream, place: Place::open(place)?, held, seen: HashMap::new(), leftovers: 0 });
            }
        }
        Ok(Self { places })
    }

    /// Reads what is new everywhere and has it judged. Returns how many objects were read.
    ///
    /// # Errors
    /// When a place cannot be listed or read; what was read before that counts.
    pub fn poll(&mut self, claims: &Mutex<Claims>) -> anyhow::Result<u64> {
        self.places.iter_mut().map(|place| place.poll(claims)).sum()
    }
}

impl Watched {
    fn poll(&mut self, claims: &Mutex<Claims>) -> anyhow::Result<u64> {
        let (listed, leftovers) = self.place.list()?;
        self.count(claims, |counts| counts.leftovers = counts.leftovers + leftovers - self.leftovers);
        self.leftovers = leftovers;
        let mut read = 0;
        let present: HashSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        let gone: Vec<String> = self
            .seen
            .iter()
            .filter(|(key, seen)| !seen.gone && !present.contains(key.as_str()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.unstable(claims, &key, "disappeared");
            if let Some(seen) = self.seen.get_mut(&key) {
                seen.gone = true;
            }
        }
        for object in listed {
            if self.seen.get(&object.key).is_some_and(|seen| seen.mark == object.mark) {
                continue;
            }
            let bytes = self.place.read(&object.key)?;
            read += 1;
            self.take(claims, &object.key, object.mark, bytes);
        }
        Ok(read)
    }

    fn take(&mut self, claims: &Mutex<Claims>, key: &str, mark: String, bytes: Vec<u8>) {
        let digest = sha256_hex(&bytes);
        let seen = Seen { mark, digest: digest.clone(), gone: false };
        if let Some(before) = self.seen.insert(key.to_owned(), seen) {
            if before.digest == digest {
                self.count(claims, |counts| counts.rewritten += 1);
            } else {
                self.unstable(claims, key, "changed its bytes");
            }
            return;
        }
        let stored = bytes.len() as u64;
        self.count(claims, |counts| {
            counts.objects += 1;
            counts.stored_bytes += stored;
        });
        let place = format!("{} {key}", self.place.name());
        let delimiter = lock(claims).stream(self.stream).map(|stream| stream.delimiter).unwrap_or_default();
        match decode(key, bytes, delimiter.as_bytes()) {
            Ok(records) => {
                self.count(claims, |counts| counts.record_bytes += records.len() as u64);
                judge(&mut lock(claims), self.stream, &place, self.held, &records);
            }
            Err(error) => {
                self.count(claims, |counts| counts.torn += 1);
                lock(claims).example(|| format!("{place}: {error:#}"));
            }
        }
    }

    fn unstable(&self, claims: &Mutex<Claims>, key: &str, what: &str) {
        self.count(claims, |counts| counts.unstable += 1);
        lock(claims).example(|| format!("{} {key}: {what}", self.place.name()));
    }

    fn count(&self, claims: &Mutex<Claims>, change: impl FnOnce(&mut super::Counts)) {
        if let Some(stream) = lock(claims).stream_mut(self.stream) {
            change(&mut stream.counts);
        }
    }
}

pub(super) fn lock(claims: &Mutex<Claims>) -> std::sync::MutexGuard<'_, Claims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}
