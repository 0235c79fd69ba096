//! Where simulated records go: stores and services that fail as they please, and keep what they took.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::batch::Batch;
use hydrant_core::sink::Encoded;
use hydrant_core::{BatchId, ByteSize, Fault, FaultCode, Limits, Object, ObjectSink, PieceSink, Report, Verdict};

use super::world::World;

/// A store that keeps what it is given, when it feels like it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: String,
    pub(super) world: Arc<World>,
    pub(super) objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Store {
    fn keep(&self, object: &Object, bytes: &[u8]) {
        let before = self.objects.lock().unwrap().insert(object.key.clone(), bytes.to_vec());
        assert!(before.is_none_or(|before| before == bytes), "{}: a key was used again with other bytes", object.key);
    }

    fn has(&self, key: &str) -> bool {
        self.objects.lock().unwrap().contains_key(key)
    }

    /// Whether an answer may be lost, or an object refused. Both together would make an honest duplicate.
    fn never_gives_up(&self) -> bool {
        self.name != "hasty"
    }
}

#[async_trait]
impl ObjectSink for Store {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: ByteSize::gib(1), pieces_max: u32::MAX, attempts_in_flight_max: 3 }
    }

    fn destination(&self) -> String {
        format!("sim://{}", self.name)
    }

    async fn place(&self, object: &Object) -> Verdict {
        let random = &self.world.random;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < object.body.len() {
            match object.body.read_at(bytes.len() as u64, 7000).await {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(error) => return Verdict::Retry(Fault::new(FaultCode::Damaged, error.to_string())),
            }
        }
        tokio::time::sleep(random.millis(200)).await;
        let fate = if self.world.is_wild.load(Ordering::Relaxed) { random.below(20) } else { 0 };
        self.world.note(format!("{} {} {fate}", self.name, object.key));
        let retry = |code| Verdict::Retry(Fault::new(code, "as it pleases"));
        match fate {
            0..12 => self.keep(object, &bytes),
            12 if self.never_gives_up() => {
                self.keep(object, &bytes);
                return retry(FaultCode::Interrupted);
            }
            13 if !self.never_gives_up() && !self.has(&object.key) => {
                return Verdict::Refused(Fault::new(FaultCode::TooLarge, "as it pleases"));
            }
            14 => std::future::pending().await,
            15 => return retry(FaultCode::Forbidden),
            16 => tokio::time::sleep(Duration::from_secs(10)).await,
            _ => {}
        }
        if fate < 12 { Verdict::Delivered } else { retry(FaultCode::Unavailable) }
    }
}

/// A service that takes pieces when it feels like it, and knows a piece again by the batch that it comes with and its
/// place in it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) world: Arc<World>,
    pub(super) stored: Mutex<BTreeMap<(BatchId, u32), String>>,
}

impl Service {
    /// What becomes of one piece.
    fn judge(&self, id: (BatchId, u32), record: &str) -> Option<Verdict> {
        let fault = |code| Fault::new(code, "as it pleases");
        let mut stored = self.stored.lock().unwrap();
        if let Some(before) = stored.get(&id) {
            assert_eq!(before, record, "a name was used again for another piece");
            return Some(Verdict::Delivered);
        }
        let is_wild = self.world.is_wild.load(Ordering::Relaxed);
        match if is_wild { self.world.random.below(30) } else { 0 } {
            _ if is_poison(record) => return Some(Verdict::Refused(fault(FaultCode::Invalid))),
            0..20 => {}
            // Whoever gives up on what may be stored makes an honest duplicate.
            20 | 21 if self.name == "patient" => {
                stored.insert(id, record.to_owned());
                return None;
            }
            22 => return Some(Verdict::Retry(fault(FaultCode::Forbidden))),
            _ => return Some(Verdict::Retry(fault(FaultCode::Throttled))),
        }
        stored.insert(id, record.to_owned());
        Some(Verdict::Delivered)
    }
}

/// Never acceptable, whatever the service feels like.
pub(super) fn is_poison(record: &str) -> bool {
    number_of(record) % 23 == 5
}

#[async_trait]
impl PieceSink for Service {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: ByteSize::mib(1), pieces_max: 40, attempts_in_flight_max: 2 }
    }

    fn destination(&self) -> String {
        format!("sim://{}", self.name)
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let too_long = batch.pieces.iter().filter(|(_, piece)| piece.data.len() > 8500);
        let refused = too_long.map(|(ordinal, _)| (*ordinal, Fault::new(FaultCode::TooLarge, "too long"))).collect();
        Encoded { body: Vec::new(), refused }
    }

    async fn deliver(&self, batch: &Batch, _: &Encoded) -> Report {
        let random = &self.world.random;
        tokio::time::sleep(random.millis(200)).await;
        let fate = if self.world.is_wild.load(Ordering::Relaxed) { random.below(16) } else { 0 };
        self.world.note(format!("{} {} {} {fate}", self.name, batch.id, batch.pieces.len()));
        match fate {
            12 => return Report::All(Verdict::Retry(Fault::new(FaultCode::Unreachable, "as it pleases"))),
            13 => std::future::pending().await,
            14 => std::panic::resume_unwind(Box::new("as it pleases")),
            _ => {}
        }
        let pieces = batch.pieces.iter();
        let verdicts = pieces.filter_map(|(ordinal, piece)| {
            let record = std::str::from_utf8(&piece.data).unwrap();
            Some((*ordinal, self.judge((batch.id, *ordinal), record)?))
        });
        Report::Each(verdicts.collect())
    }

    fn error_type(&self) -> &'static str {
        LETTERS
    }
}

/// What the names of dead letters hold, unlike those of redirected objects.
pub(super) const LETTERS: &str = "sim-failed";

/// The number of a record, which grows with the time of its put.
pub(super) fn number_of(record: &str) -> u64 {
    record.split(' ').nth(1).unwrap().parse().unwrap()
}
