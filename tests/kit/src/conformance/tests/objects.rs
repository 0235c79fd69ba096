//! A sink of objects in memory that keeps every promise, and one flaw for each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::{ByteSize, Fault, FaultCode, Limits, Object, ObjectSink, Verdict};

use crate::conformance::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    TriesTwice,
    TakesSilenceForSuccess,
    SaysDeliveredTooEarly,
    StoresHalf,
    LeavesLitter,
    WritesAgain,
    TakesAnyNameForItsOwn,
    WaitsForOthers,
    RefusesWhatCanBeMended,
    RetriesWhatCannot,
    ShowsSecrets,
    ShowsRecords,
}

#[derive(Clone, Debug)]
struct Memory(Arc<State>);

#[derive(Debug)]
struct State {
    flaw: Flaw,
    objects: Mutex<BTreeMap<String, (Bytes, u64)>>,
    attempts: AtomicU64,
    broken: Mutex<Option<Breakage>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

const TOO_LARGE: usize = 6 << 20;

impl Memory {
    fn new(flaw: Flaw) -> Self {
        Self(Arc::new(State {
            flaw,
            objects: Mutex::default(),
            attempts: AtomicU64::new(0),
            broken: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }))
    }

    fn store(&self, key: &str, bytes: Bytes) {
        let mut objects = self.0.objects.lock().unwrap();
        let writes = objects.get(key).map_or(0, |(_, writes)| *writes);
        objects.insert(key.to_owned(), (bytes, writes + 1));
    }

    fn fault(&self, breakage: &Breakage) -> Fault {
        let message = match self.0.flaw {
            Flaw::ShowsSecrets => "the password is hunter2",
            Flaw::ShowsRecords => "cannot store canary-of-a-record",
            _ => "scripted",
        };
        Fault { code: breakage.code, message: message.to_owned(), retry_after: breakage.retry_after }
    }
}

#[async_trait]
impl ObjectSink for Memory {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: ByteSize::mib(6), pieces_max: u32::MAX, attempts_in_flight_max: 4 }
    }

    fn destination(&self) -> String {
        "memory".to_owned()
    }

    async fn place(&self, object: &Object) -> Verdict {
        let flaw = self.0.flaw;
        let _turn = if flaw == Flaw::WaitsForOthers { Some(self.0.one_at_a_time.lock().await) } else { None };
        self.0.attempts.fetch_add(if flaw == Flaw::TriesTwice { 2 } else { 1 }, Ordering::Relaxed);
        if object.body.len() >= TOO_LARGE as u64 {
            let fault = Fault::new(FaultCode::TooLarge, "too large");
            return if flaw == Flaw::RetriesWhatCannot { Verdict::Retry(fault) } else { Verdict::Refused(fault) };
        }
        let broken = self.0.broken.lock().unwrap().clone();
        if let Some(broken) = broken.as_ref().filter(|broken| broken.effect == Effect::Nothing) {
            return match flaw {
                Flaw::RefusesWhatCanBeMended => Verdict::Refused(self.fault(broken)),
                Flaw::SaysDeliveredTooEarly => Verdict::Delivered,
                _ => Verdict::Retry(self.fault(broken)),
            };
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < object.body.len() {
            match object.body.read_at(bytes.len() as u64, 256 << 10).await {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(_) => return Verdict::Retry(Fault::new(FaultCode::Damaged, "unreadable")),
            }
            if flaw == Flaw::StoresHalf {
                self.store(&object.key, bytes.clone().into());
            } else if flaw == Flaw::LeavesLitter {
                self.store(&format!("{}.tmp", object.key), bytes.clone().into());
            }
        }
        let existing = self.0.objects.lock().unwrap().get(&object.key).map(|(existing, _)| existing.clone());
        let is_taken = existing.as_ref().is_some_and(|existing| *existing != bytes && flaw != Flaw::StoresHalf);
        if is_taken && flaw != Flaw::TakesAnyNameForItsOwn {
            return Verdict::Retry(Fault::new(FaultCode::Conflict, "taken"));
        }
        if existing.is_none() || flaw == Flaw::WritesAgain {
            self.store(&object.key, bytes.into());
        }
        match broken {
            Some(_) if flaw == Flaw::TakesSilenceForSuccess => Verdict::Delivered,
            Some(broken) => Verdict::Retry(self.fault(&broken)),
            None => Verdict::Delivered,
        }
    }
}

#[async_trait]
impl ObjectWorld for Memory {
    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::new(self.clone())
    }

    async fn stored(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.0.objects.lock().unwrap().get(key).map(|(bytes, _)| bytes.clone()))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        Ok(self.0.objects.lock().unwrap().keys().cloned().collect())
    }

    fn attempts(&self) -> Option<u64> {
        Some(self.0.attempts.load(Ordering::Relaxed))
    }

    async fn writes(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.0.objects.lock().unwrap().get(key).map(|(_, writes)| *writes))
    }

    fn breakages(&self) -> Vec<Breakage> {
        vec![
            Breakage::new("full", FaultCode::Full),
            Breakage::new("throttled", FaultCode::Throttled).asking_for(Duration::from_secs(7)),
            Breakage::unheard("reset after commit", FaultCode::Interrupted),
        ]
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        *self.0.broken.lock().unwrap() = Some(breakage.clone());
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.0.broken.lock().unwrap() = None;
        Ok(())
    }

    fn unacceptable(&self) -> Vec<(Object, FaultCode)> {
        vec![(object(0, 1, TOO_LARGE), FaultCode::TooLarge)]
    }

    fn secrets(&self) -> Vec<String> {
        vec!["hunter2".to_owned()]
    }
}

mod a_sink_that_keeps_every_promise {
    use super::*;

    crate::object_sink_conformance!(async { Memory::new(Flaw::None) });
}

async fn fails(flaw: Flaw, promise: u8) {
    let world = Memory::new(flaw);
    let result = match promise {
        1 => makes_one_attempt(&world).await,
        2 => answers_for_every_outcome(&world).await,
        3 => confirms_before_it_says_so(&world).await,
        4 => is_dropped_without_harm(&world).await,
        5 => repeats_without_effect(&world).await,
        7 => works_many_at_once(&world).await,
        8 => refuses_only_faults_of_the_record(&world).await,
        _ => keeps_secrets(&world).await,
    };
    let message = format!("{:#}", result.expect_err("the check must find the flaw"));
    assert!(message.contains(&format!("promise {promise}")), "{flaw:?}: {message}");
}

#[tokio::test]
async fn each_check_finds_the_flaw_it_is_there_for() {
    for (flaw, promise) in [
        (Flaw::TriesTwice, 1),
        (Flaw::TakesSilenceForSuccess, 2),
        (Flaw::RefusesWhatCanBeMended, 2),
        (Flaw::SaysDeliveredTooEarly, 3),
        (Flaw::StoresHalf, 4),
        (Flaw::LeavesLitter, 4),
        (Flaw::WritesAgain, 5),
        (Flaw::TakesAnyNameForItsOwn, 5),
        (Flaw::RefusesWhatCanBeMended, 8),
        (Flaw::RetriesWhatCannot, 8),
        (Flaw::ShowsSecrets, 9),
        (Flaw::ShowsRecords, 9),
    ] {
        fails(flaw, promise).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_check_for_many_at_once_finds_a_sink_that_waits() {
    fails(Flaw::WaitsForOthers, 7).await;
}
