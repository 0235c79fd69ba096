//! The oracle of the simulation: asks of each record whether it is where it belongs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Simulation;
use super::destinations::{LETTERS, is_poison, number_of};
use super::world::Promise;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// All that happened, as one number.
    pub(super) history: u64,
    pub(super) lives: u64,
    pub(super) acknowledged: u64,
    pub(super) objects: u64,
    /// Records that a service took, and those that are dead letters.
    pub(super) pieces: u64,
    pub(super) letters: u64,
    /// Of these, records that a service has too: the process that stored them did not live to write it down, the next ones met
    /// failures only until their time was over, and the dead letters say that the outcome is not known.
    pub(super) doubtful: u64,
}

impl Simulation {
    /// Asks of each record whether it is where it belongs.
    pub(super) fn judge(&self) -> Result<Outcome, String> {
        let mut outcome = Outcome { lives: self.lives, ..Outcome::default() };
        let (mut arrived, mut doubtful) = (BTreeMap::<String, u32>::new(), BTreeMap::<String, u32>::new());
        for store in self.stores.values() {
            for (key, bytes) in &*store.objects.lock().unwrap() {
                outcome.objects += 1;
                if key.contains(LETTERS) {
                    for (record, is_unknown) in letters(bytes) {
                        outcome.letters += 1;
                        let counted = if is_unknown { &mut doubtful } else { &mut arrived };
                        *counted.entry(record).or_default() += 1;
                    }
                    continue;
                }
                let lines = decoded(key, bytes);
                if !lines.iter().map(|line| number_of(line)).is_sorted() {
                    return Err(format!("{key}: records do not keep their order inside an object"));
                }
                for line in lines {
                    *arrived.entry(line).or_default() += 1;
                }
            }
        }
        for service in self.services.values() {
            let stored = service.stored.lock().unwrap();
            outcome.pieces += stored.len() as u64;
            if stored.values().any(|record| is_poison(record)) {
                return Err(format!("{}: it is said to have stored what it never stores", service.name));
            }
            let pairs = stored.iter().zip(stored.iter().skip(1));
            if pairs.into_iter().any(|((a, one), (b, next))| a.0 == b.0 && number_of(one) > number_of(next)) {
                return Err(format!("{}: records do not keep their order inside a batch", service.name));
            }
            stored.values().for_each(|record| *arrived.entry(record.clone()).or_default() += 1);
        }
        for (record, times) in doubtful {
            match arrived.get(&record) {
                Some(1) if times == 1 => outcome.doubtful += 1,
                _ => *arrived.entry(record).or_default() += times,
            }
        }
        for (record, promise) in &*self.world.promises.lock().unwrap() {
            let times = arrived.remove(record).unwrap_or_default();
            let is_kept = match promise {
                Promise::Acknowledged => times == 1,
                Promise::Open => times <= 1,
                Promise::Refused => times == 0,
            };
            if !is_kept {
                return Err(format!("{record:.40} ({} bytes): {promise:?}, and arrived {times} times", record.len()));
            }
            outcome.acknowledged += u64::from(*promise == Promise::Acknowledged);
        }
        if let Some((stranger, _)) = arrived.first_key_value() {
            return Err(format!("nobody put {stranger:.40}"));
        }
        self.world.note(outcome.acknowledged.to_le_bytes());
        Ok(Outcome { history: self.world.history.load(Ordering::Relaxed), ..outcome })
    }
}

/// The records of dead letters, and whether the service may have them all the same.
fn letters(bytes: &[u8]) -> Vec<(String, bool)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let record = |line: &str| {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        let raw = base64_simd::STANDARD.decode_to_vec(letter["rawData"].as_str().unwrap()).unwrap();
        (String::from_utf8(raw).unwrap(), letter["outcomeUnknown"].as_bool().unwrap())
    };
    text.lines().map(record).collect()
}

/// The lines of an object.
fn decoded(key: &str, bytes: &[u8]) -> Vec<String> {
    use std::io::Read;
    let mut text = String::new();
    match key.rsplit_once('.') {
        Some((_, "gz")) => {
            flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        }
        Some((_, "zst")) => text = String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap(),
        _ => text = String::from_utf8(bytes.to_vec()).unwrap(),
    }
    text.lines().map(str::to_owned).collect()
}
