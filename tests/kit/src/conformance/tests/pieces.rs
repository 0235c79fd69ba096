//! A sink of pieces in memory that keeps every promise, with transactions and without, and one flaw for each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::sink::Encoded;
use hydrant_core::{BatchId, ByteSize, Fault, FaultCode, Limits, Piece, PieceSink, Report, Verdict};

use crate::conformance::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    TriesTwice,
    TakesSilenceForSuccess,
    ForgetsAPiece,
    CountsPiecesAnew,
    SaysDeliveredTooEarly,
    StoresOthers,
    StoresWithoutATransaction,
    LeavesLitter,
    StoresAgain,
    EncodesAnew,
    CommitsTheRest,
    RefusesNeighbours,
    WaitsForOthers,
    RefusesWhatCanBeMended,
    RetriesWhatCannot,
    ShowsSecrets,
    ShowsRecords,
}

/// What no piece may hold: the destination finds one out, the encoder the other.
const BAD_OVER_THERE: &str = "bad-over-there";
const BAD_HERE: &str = "bad-here";

#[derive(Clone, Debug)]
struct Memory(Arc<State>);

#[derive(Debug)]
struct State {
    flaw: Flaw,
    is_transactional: bool,
    pieces: Mutex<BTreeMap<(BatchId, u32), (Bytes, u64)>>,
    litter: AtomicBool,
    attempts: AtomicU64,
    encodings: AtomicU64,
    broken: Mutex<Option<Breakage>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// Holds an attempt back.
const STALL: Breakage = Breakage::new("stalled", FaultCode::TimedOut);

impl Memory {
    fn new(flaw: Flaw, is_transactional: bool) -> Self {
        Self(Arc::new(State {
            flaw,
            is_transactional,
            pieces: Mutex::default(),
            litter: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            encodings: AtomicU64::new(0),
            broken: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }))
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.0.flaw == flaw
    }

    fn store(&self, batch: &Batch, ordinal: u32, piece: &Piece) {
        let mut pieces = self.0.pieces.lock().unwrap();
        let data = if self.has(Flaw::StoresOthers) { piece.data.slice(1..) } else { piece.data.clone() };
        let (_, writes) = pieces.entry((batch.id, ordinal)).or_insert((data, 0));
        if *writes == 0 || self.has(Flaw::StoresAgain) {
            *writes += 1;
        }
    }

    fn fault(&self, code: FaultCode) -> Fault {
        let message = match self.0.flaw {
            Flaw::ShowsSecrets => "the password is hunter2",
            Flaw::ShowsRecords => "cannot store canary-of-a-record-0",
            _ => "scripted",
        };
        Fault::new(code, message)
    }

    /// What becomes of the pieces that were sent.
    async fn take(&self, batch: &Batch, sent: &[(u32, Piece)], broken: Option<&Breakage>) -> Vec<(u32, Verdict)> {
        let is_bad = |piece: &Piece| holds(piece, BAD_OVER_THERE);
        let refusal = |piece: &Piece| match is_bad(piece) || self.has(Flaw::RefusesNeighbours) {
            true if self.has(Flaw::RetriesWhatCannot) => Verdict::Retry(self.fault(FaultCode::Invalid)),
            true => Verdict::Refused(self.fault(FaultCode::Invalid)),
            false => Verdict::Retry(self.fault(FaultCode::Conflict)),
        };
        let has_bad = sent.iter().any(|(_, piece)| is_bad(piece));
        if self.0.is_transactional && has_bad && !self.has(Flaw::CommitsTheRest) {
            return sent.iter().map(|(ordinal, piece)| (*ordinal, refusal(piece))).collect();
        }
        let mut verdicts = Vec::new();
        for (at, (ordinal, piece)) in sent.iter().enumerate() {
            if at == sent.len() / 2 && (!self.0.is_transactional || self.has(Flaw::StoresWithoutATransaction)) {
                tokio::task::yield_now().await;
            }
            let is_struck = broken.is_some_and(|it| it.effect == Effect::StoredInPart) && at % 2 == 1;
            verdicts.push((
                *ordinal,
                match broken {
                    _ if is_bad(piece) => refusal(piece),
                    Some(broken) if is_struck => Verdict::Retry(self.fault(broken.code)),
                    _ => {
                        self.store(batch, *ordinal, piece);
                        Verdict::Delivered
                    }
                },
            ));
        }
        verdicts
    }
}

fn holds(piece: &Piece, text: &str) -> bool {
    piece.data.windows(text.len()).any(|window| window == text.as_bytes())
}

#[async_trait]
impl PieceSink for Memory {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: ByteSize::mib(6), pieces_max: 500, attempts_in_flight_max: 4 }
    }

    fn destination(&self) -> String {
        "memory".to_owned()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        let mut encoded = Encoded::default();
        let count = self.0.encodings.fetch_add(1, Ordering::Relaxed);
        if self.has(Flaw::EncodesAnew) {
            encoded.body.push(count.to_string().into());
        }
        for (ordinal, piece) in &batch.pieces {
            if holds(piece, BAD_HERE) {
                encoded.refused.push((*ordinal, self.fault(FaultCode::TooLarge)));
            } else {
                encoded.body.push(piece.data.clone());
            }
        }
        encoded
    }

    async fn deliver(&self, batch: &Batch, _: &Encoded) -> Report {
        let _turn = if self.has(Flaw::WaitsForOthers) { Some(self.0.one_at_a_time.lock().await) } else { None };
        self.0.attempts.fetch_add(if self.has(Flaw::TriesTwice) { 2 } else { 1 }, Ordering::Relaxed);
        let broken = self.0.broken.lock().unwrap().clone();
        if broken.as_ref().is_some_and(|broken| broken.name == STALL.name) {
            std::future::pending::<()>().await;
        }
        if let Some(broken) = broken.as_ref().filter(|broken| broken.effect == Effect::Nothing) {
            let fault = Fault { retry_after: broken.retry_after, ..self.fault(broken.code) };
            return Report::All(match self.0.flaw {
                Flaw::RefusesWhatCanBeMended => Verdict::Refused(fault),
                Flaw::SaysDeliveredTooEarly => Verdict::Delivered,
                _ => Verdict::Retry(fault),
            });
        }
        if self.has(Flaw::LeavesLitter) {
            self.0.litter.store(true, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
        let mut verdicts = self.take(batch, &batch.pieces, broken.as_ref()).await;
        if let Some(broken) = broken.filter(|broken| broken.effect == Effect::StoredUnheard) {
            return Report::All(match self.0.flaw {
                Flaw::TakesSilenceForSuccess => Verdict::Delivered,
                _ => Verdict::Retry(self.fault(broken.code)),
            });
        }
        match self.0.flaw {
            Flaw::ForgetsAPiece => drop(verdicts.pop()),
            Flaw::CountsPiecesAnew => {
                for (number, (ordinal, _)) in (0..).zip(&mut verdicts) {
                    *ordinal = number;
                }
            }
            _ => {}
        }
        Report::Each(verdicts)
    }
}

#[async_trait]
impl PieceWorld for Memory {
    fn sink(&self) -> Arc<dyn PieceSink> {
        Arc::new(self.clone())
    }

    fn patient_sink(&self) -> Arc<dyn PieceSink> {
        self.sink()
    }

    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>> {
        let pieces = self.0.pieces.lock().unwrap();
        let count = |(ordinal, piece): &(u32, Piece)| {
            let Some((data, writes)) = pieces.get(&(batch.id, *ordinal)) else { return Ok(0) };
            ensure!(*data == piece.data, "promise 3: piece {ordinal} has other bytes");
            Ok(*writes)
        };
        batch.pieces.iter().map(count).collect()
    }

    async fn litter(&self) -> Result<Vec<String>> {
        let has_litter = self.0.litter.load(Ordering::Relaxed);
        Ok(if has_litter { vec!["temporary".to_owned()] } else { Vec::new() })
    }

    fn attempts(&self) -> u64 {
        self.0.attempts.load(Ordering::Relaxed)
    }

    fn breakages(&self) -> Vec<Breakage> {
        let mut breakages = vec![
            Breakage::new("full", FaultCode::Full),
            Breakage::new("throttled", FaultCode::Throttled).asking_for(Duration::from_secs(7)),
            Breakage::unheard("reset after commit", FaultCode::Interrupted),
        ];
        if !self.0.is_transactional {
            breakages.push(Breakage::in_part("every second one is throttled", FaultCode::Throttled));
        }
        breakages
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        *self.0.broken.lock().unwrap() = Some(breakage.clone());
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.0.broken.lock().unwrap() = None;
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        self.break_by(&STALL).await
    }

    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)> {
        vec![
            (format!("{text} {BAD_OVER_THERE}").into(), FaultCode::Invalid),
            (format!("{text} {BAD_HERE}").into(), FaultCode::TooLarge),
        ]
    }

    fn is_transactional(&self) -> bool {
        self.0.is_transactional
    }

    fn secrets(&self) -> Vec<String> {
        vec!["hunter2".to_owned()]
    }
}

mod a_sink_without_transactions_that_keeps_every_promise {
    use super::*;

    crate::piece_sink_conformance!(async { Memory::new(Flaw::None, false) });
}

mod a_sink_with_transactions_that_keeps_every_promise {
    use super::*;

    crate::piece_sink_conformance!(async { Memory::new(Flaw::None, true) });
}

async fn fails(flaw: Flaw, is_transactional: bool, promise: u8) {
    let world = Memory::new(flaw, is_transactional);
    let result = match promise {
        1 => makes_one_attempt_at_a_batch(&world).await,
        2 => answers_for_every_piece(&world).await,
        3 => confirms_each_piece_before_it_says_so(&world).await,
        4 => drops_an_attempt_without_harm(&world).await,
        5 => delivers_twice_as_once(&world).await,
        6 => commits_all_or_nothing(&world).await,
        7 => works_on_many_batches_at_once(&world).await,
        8 => refuses_only_faults_of_a_piece(&world).await,
        _ => keeps_secrets_of_pieces(&world).await,
    };
    let message = format!("{:#}", result.expect_err("the check must find the flaw"));
    assert!(message.contains(&format!("promise {promise}")), "{flaw:?}: {message}");
}

#[tokio::test(start_paused = true)]
async fn each_check_finds_the_flaw_it_is_there_for() {
    for (flaw, is_transactional, promise) in [
        (Flaw::TriesTwice, false, 1),
        (Flaw::TakesSilenceForSuccess, false, 2),
        (Flaw::RefusesWhatCanBeMended, false, 2),
        (Flaw::ForgetsAPiece, false, 2),
        (Flaw::CountsPiecesAnew, false, 2),
        (Flaw::SaysDeliveredTooEarly, false, 3),
        (Flaw::StoresOthers, false, 3),
        (Flaw::StoresWithoutATransaction, true, 4),
        (Flaw::LeavesLitter, false, 4),
        (Flaw::StoresAgain, false, 5),
        (Flaw::EncodesAnew, true, 5),
        (Flaw::CommitsTheRest, true, 6),
        (Flaw::RefusesNeighbours, true, 6),
        (Flaw::WaitsForOthers, false, 7),
        (Flaw::RefusesWhatCanBeMended, true, 8),
        (Flaw::RetriesWhatCannot, true, 8),
        (Flaw::ShowsSecrets, false, 9),
        (Flaw::ShowsRecords, true, 9),
    ] {
        fails(flaw, is_transactional, promise).await;
    }
}
