//! The promises of a piece sink, one check each.
//!
//! A check breaks the destination, or the attempt, and looks at two things: what the sink said of each piece, and how
//! often each piece arrived, as others read the destination. It never waits for time to pass, only for what must
//! happen, and gives up after [`CHECK_MAX`](super::CHECK_MAX).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::sink::Encoded;
use hydrant_core::{
    BatchId, Fault, FaultCode, PartitionKeys, Piece, PieceId, PieceSink, Position, Report, Timestamp, Verdict,
};

use super::breakage::{Breakage, Effect};
use super::{ATTEMPT_MAX, RECORD_CANARY, shows_nothing_of, within};
use crate::random::Random;

/// Pieces of a batch, and bytes of each: one, a large one, many small ones, some of middle size.
const SHAPES: [(usize, usize); 4] = [(1, 100), (1, 200_000), (500, 300), (40, 20_000)];

/// An attempt that is dropped is dropped at its first, second, … wait, up to this one.
const POLLS_MAX: usize = 64;

/// Longest time until what was sent shows, or until the rest of a dropped attempt is gone over there.
const SETTLES_WITHIN: Duration = Duration::from_mins(1);

/// How often that is looked at.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A destination with its sink, and ways to break it.
#[async_trait]
pub trait PieceWorld: Send + Sync {
    /// Tells runs apart on a destination that keeps pieces from one to the next: the same in one world, another in
    /// each. Nought where the destination is new.
    fn salt(&self) -> u64 {
        0
    }

    /// A sink as a new process would build it, on the destination in its present state. An attempt that hangs gives up
    /// within seconds.
    fn sink(&self) -> Arc<dyn PieceSink>;

    /// The same, but an attempt that hangs goes on for minutes.
    fn patient_sink(&self) -> Arc<dyn PieceSink>;

    /// A record that the destination takes, of about `len` bytes, with `text` in it: of letters, digits and hyphens.
    /// JSON on one line where the destination does not ask for something else.
    fn record(&self, text: &str, len: usize) -> Bytes {
        let fill = "abcdefgh".repeat(len.saturating_sub(text.len() + 20).div_ceil(8));
        format!(r#"{{"text":"{text}","fill":"{fill}"}}"#).into()
    }

    /// How often each piece of the batch has arrived, in the order of its pieces, read by other means than the sink. A
    /// piece counts only with the bytes it should have.
    ///
    /// # Errors
    /// When the destination cannot be read, or holds something of this batch that should not be there.
    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>>;

    /// Whatever else a user would find there that belongs to no piece.
    async fn litter(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// How many attempts have reached the destination.
    fn attempts(&self) -> u64;

    /// The ways to break it.
    fn breakages(&self) -> Vec<Breakage>;

    /// Breaks it. Holds for sinks that are made afterwards.
    async fn break_by(&self, breakage: &Breakage) -> Result<()>;

    /// Makes it whole again, for sinks that are made afterwards.
    async fn mend(&self) -> Result<()>;

    /// Holds back the next attempt for as long as it lives. [`mend`](Self::mend) ends that for the attempts that come
    /// afterwards, on whichever sink, and not for the one that is held.
    async fn stall(&self) -> Result<()>;

    /// Records that it can never take through a fault of their own, each with `text` in it and with the code that says
    /// so. None where it takes everything.
    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)>;

    /// Whether the pieces of a batch are taken together or not at all.
    fn is_transactional(&self) -> bool {
        false
    }

    /// Whether a batch that comes again has no effect. Where it does not, pieces are only promised to arrive.
    fn knows_batches_again(&self) -> bool {
        true
    }

    /// Texts that no fault may show.
    fn secrets(&self) -> Vec<String>;
}

/// A batch of `count` records of about `len` bytes, which the world's salt and `seed` decide.
pub fn batch(world: &dyn PieceWorld, seed: u64, count: usize, len: usize) -> Batch {
    let records = (0..count).map(|number| world.record(&text(world, seed, number), len)).collect();
    of(world, seed, records)
}

/// A batch of these records; its name is decided by the world's salt and by `seed`.
pub fn of(world: &dyn PieceWorld, seed: u64, records: Vec<Bytes>) -> Batch {
    let mut random = Random::of(&[world.salt(), seed]);
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        half.copy_from_slice(&random.next_u64().to_be_bytes());
    }
    let arrived_at = Timestamp::from_millis(1_790_000_000_000 + seed);
    let piece = |(ordinal, data): (u32, Bytes)| {
        let id = PieceId::whole(Position::new(seed * 100_000 + u64::from(ordinal) + 1));
        (ordinal, Piece { id, arrived_at, keys: PartitionKeys::default(), data })
    };
    Batch {
        id: BatchId::from_random(id),
        sealed_at: Timestamp::from_millis(1_790_000_001_234 + seed),
        pieces: (0..).zip(records).map(piece).collect(),
    }
}

fn text(world: &dyn PieceWorld, seed: u64, number: usize) -> String {
    format!("{RECORD_CANARY}-{:x}-{seed}-{number}", world.salt())
}

/// One attempt at a batch: what the sink says of each piece. Where the encoder refuses some, nothing is sent, and the others
/// are to be tried again.
///
/// # Errors
/// When a piece has no verdict, or two; when others have one; when the attempt takes too long.
pub async fn attempt(sink: &dyn PieceSink, batch: &Batch) -> Result<BTreeMap<u32, Verdict>> {
    let encoded = sink.encode(batch);
    let given: Vec<u32> = batch.pieces.iter().map(|(ordinal, _)| *ordinal).collect();
    if !encoded.refused.is_empty() {
        let refused: Vec<u32> = encoded.refused.iter().map(|(ordinal, _)| *ordinal).collect();
        let is_in_order = refused.is_sorted_by(|one, next| one < next);
        let is_given = refused.iter().all(|ordinal| given.contains(ordinal));
        ensure!(is_in_order && is_given, "promise 2: of pieces {given:?} the encoder refuses {refused:?}");
        let not_sent = |ordinal| (ordinal, Verdict::Retry(Fault::new(FaultCode::Internal, "nothing was sent")));
        let mut verdicts: BTreeMap<u32, Verdict> = given.into_iter().map(not_sent).collect();
        verdicts.extend(encoded.refused.into_iter().map(|(ordinal, fault)| (ordinal, Verdict::Refused(fault))));
        return Ok(verdicts);
    }
    let report = tokio::time::timeout(ATTEMPT_MAX, sink.deliver(batch, &encoded))
        .await
        .with_context(|| format!("the attempt took longer than {ATTEMPT_MAX:?}"))?;
    match report {
        Report::All(verdict) => Ok(given.into_iter().map(|ordinal| (ordinal, verdict.clone())).collect()),
        Report::Each(each) => {
            let named: Vec<u32> = each.iter().map(|(ordinal, _)| *ordinal).collect();
            ensure!(named == given, "promise 2: pieces {given:?} were sent, the report speaks of {named:?}");
            Ok(each.into_iter().collect())
        }
    }
}

/// Promise 1: one call is one attempt. A sink does not retry, however the attempt ends.
///
/// # Errors
/// When it is broken; the same for the other checks.
pub async fn makes_one_attempt_at_a_batch(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let mut seed = 100;
        let mut one = async |name: &str| {
            seed += 1;
            let before = world.attempts();
            let _any = deliver(world, &batch(world, seed, 5, 200)).await.context(name.to_owned())?;
            let made = world.attempts() - before;
            ensure!(made <= 1, "promise 1, {name}: one call made {made} attempts");
            anyhow::Ok(())
        };
        one("nothing is wrong").await?;
        for breakage in world.breakages() {
            world.break_by(&breakage).await?;
            one(breakage.name).await?;
            world.mend().await?;
        }
        Ok(())
    })
    .await
}

/// Promise 2: each piece that was sent has its verdict, by its ordinal in the batch as sealed, and no other has one. An
/// unknown outcome is `Retry`, under the code that says what is known.
///
/// # Errors
/// When it is broken.
pub async fn answers_for_every_piece(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let mut later = batch(world, 200, 20, 300);
        later.pieces.retain(|(ordinal, _)| ordinal % 3 == 1);
        ensure_all_delivered(&deliver(world, &later).await?, "promise 2, pieces 1, 4, 7 …")?;
        for (breakage, seed) in world.breakages().into_iter().zip(201..) {
            world.break_by(&breakage).await?;
            let verdicts = deliver(world, &batch(world, seed, 20, 2_000)).await.context(breakage.name)?;
            world.mend().await?;
            let mut delivered = 0;
            for (ordinal, verdict) in &verdicts {
                let fault = match verdict {
                    Verdict::Retry(fault) => fault,
                    Verdict::Delivered if breakage.effect == Effect::StoredInPart => {
                        delivered += 1;
                        continue;
                    }
                    other => bail!("promise 2, {}, piece {ordinal}: {other:?}", breakage.name),
                };
                ensure!(fault.code == breakage.code, "promise 2, {}: {fault}", breakage.name);
                ensure!(fault.retry_after == breakage.retry_after, "promise 2, {}: {fault:?}", breakage.name);
            }
            let is_mixed = (1..verdicts.len()).contains(&delivered);
            ensure!(is_mixed == (breakage.effect == Effect::StoredInPart), "promise 2, {}: {delivered}", breakage.name);
        }
        Ok(())
    })
    .await
}

/// Promise 3: `Delivered` means that the piece is there, whole.
///
/// # Errors
/// When it is broken.
pub async fn confirms_each_piece_before_it_says_so(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        for ((count, len), seed) in SHAPES.into_iter().zip(300..) {
            let batch = batch(world, seed, count, len);
            ensure_all_delivered(&deliver(world, &batch).await?, "promise 3")?;
            let counts = world.arrived(&batch).await?;
            is_there_once(world, &counts, &format!("promise 3, {count} pieces of {len} bytes"))?;
        }
        for (breakage, seed) in world.breakages().into_iter().zip(350..) {
            world.break_by(&breakage).await?;
            let batch = batch(world, seed, 10, 1_000);
            let verdicts = deliver(world, &batch).await.context(breakage.name)?;
            world.mend().await?;
            if breakage.effect == Effect::StoredUnheard {
                // The sink may hear of the end before the destination has done its work.
                let shows = async || anyhow::Ok(world.arrived(&batch).await?.iter().all(|count| *count == 1));
                ensure!(soon(shows).await?, "promise 3, {}: the world is not as it says", breakage.name);
                continue;
            }
            for ((ordinal, verdict), count) in verdicts.iter().zip(world.arrived(&batch).await?) {
                let said = *verdict == Verdict::Delivered;
                ensure!(
                    said == (count == 1),
                    "promise 3, {}: piece {ordinal} is there {count} times, and the sink says {verdict:?}",
                    breakage.name,
                );
            }
        }
        Ok(())
    })
    .await
}

/// Promise 4: an attempt that is dropped, wherever it stands, leaves nothing that a later one could not overwrite or
/// ignore: the next attempts deliver, and each piece is there once. What a transaction holds is there whole or not at
/// all.
///
/// # Errors
/// When it is broken.
pub async fn drops_an_attempt_without_harm(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        for polls in 1..=POLLS_MAX {
            let batch = batch(world, 400 + polls as u64, 200, 2_000);
            let sink = world.sink();
            let encoded = sink.encode(&batch);
            let ended = tokio::time::timeout(ATTEMPT_MAX, poll(sink.deliver(&batch, &encoded), polls)).await?.is_some();
            drop(sink);
            let counts = world.arrived(&batch).await?;
            let is_even = counts.iter().all(|count| Some(count) == counts.first());
            ensure!(
                !world.is_transactional() || is_even,
                "promise 4, dropped at wait {polls}: half a transaction: {counts:?}"
            );
            let what = format!("promise 4, dropped at wait {polls}");
            is_delivered_at_last(world, &batch, &what).await?;
            if ended {
                break; // it needs fewer waits than that
            }
        }
        let litter = world.litter().await?;
        ensure!(litter.is_empty(), "promise 4: left behind: {litter:?}");
        Ok(())
    })
    .await
}

/// Promise 5: the same batch has the same bytes, from any sink; and delivering twice has the effect of delivering once, in
/// this process and the next, and also when the first time was not heard of.
///
/// # Errors
/// When it is broken.
pub async fn delivers_twice_as_once(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let whole = batch(world, 500, 60, 700);
        let mut rest = whole.clone();
        rest.pieces.retain(|(ordinal, _)| ordinal % 2 == 0);
        let sink = world.sink();
        for batch in [&whole, &rest] {
            let first = bytes_of(sink.encode(batch));
            ensure!(first == bytes_of(sink.encode(batch)), "promise 5: encoded again, the bytes are others");
            ensure!(first == bytes_of(world.sink().encode(batch)), "promise 5: the next process makes other bytes");
        }
        for (again, sink) in [("first", &sink), ("again", &sink), ("in the next process", &world.sink())] {
            ensure_all_delivered(&attempt(&**sink, &whole).await?, &format!("promise 5, {again}"))?;
        }
        is_there_once(world, &world.arrived(&whole).await?, "promise 5")?;

        for (breakage, seed) in world.breakages().into_iter().zip(510..) {
            world.break_by(&breakage).await?;
            let mut owed = batch(world, seed, 10, 1_000);
            let verdicts = deliver(world, &owed).await.context(breakage.name)?;
            world.mend().await?;
            let all = owed.clone();
            owed.pieces.retain(|(ordinal, _)| verdicts.get(ordinal) != Some(&Verdict::Delivered));
            let what = format!("promise 5, after {}", breakage.name);
            is_delivered_at_last(world, &owed, &what).await?;
            is_there_once(world, &world.arrived(&all).await?, &what)?;
        }
        Ok(())
    })
    .await
}

/// Promise 6: a batch that holds a piece that is refused. A transaction takes nothing of what was sent until every piece
/// is accepted, and says `Retry` of the others; a sink without transactions says of each what became of it. In the end
/// the good ones are there once.
///
/// # Errors
/// When it is broken.
pub async fn commits_all_or_nothing(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let bad = world.unacceptable(&text(world, 600, 99));
        let mut groups: Vec<Vec<&Bytes>> = bad.iter().map(|(record, _)| vec![record]).collect();
        groups.push(bad.iter().map(|(record, _)| record).collect());
        for (group, seed) in groups.into_iter().zip(601..) {
            let good = (0..7).map(|number| world.record(&text(world, seed, number), 200));
            let mut records: Vec<Bytes> = good.collect();
            for (place, record) in group.into_iter().enumerate() {
                records.insert((place * 2 + 1).min(records.len()), record.clone());
            }
            settles(world, of(world, seed, records), &bad).await?;
        }
        Ok(())
    })
    .await
}

/// Attempts at a batch until nothing of it is owed, with a look at the destination after each.
async fn settles(world: &dyn PieceWorld, mut owed: Batch, bad: &[(Bytes, FaultCode)]) -> Result<()> {
    let whole = owed.clone();
    let code = |piece: &Piece| bad.iter().find_map(|(record, code)| (*record == piece.data).then_some(*code));
    // Each attempt settles a piece, or the sink makes no headway.
    for _ in 0..whole.pieces.len() {
        let verdicts = deliver(world, &owed).await?;
        let has_refused = verdicts.values().any(|verdict| matches!(verdict, Verdict::Refused(_)));
        let is_rolled_back = world.is_transactional() && has_refused;
        let counts = world.arrived(&owed).await?;
        for (((ordinal, piece), verdict), count) in owed.pieces.iter().zip(verdicts.values()).zip(counts) {
            let is_right = match (verdict, code(piece)) {
                (Verdict::Refused(fault), Some(code)) => count == 0 && fault.code == code,
                (Verdict::Refused(_), None) | (Verdict::Delivered, Some(_)) | (Verdict::Discarded(_), _) => false,
                (Verdict::Delivered, None) => count == 1 && !is_rolled_back,
                (Verdict::Retry(_), _) => count == 0,
            };
            ensure!(is_right, "promise 6: piece {ordinal} is there {count} times, and the sink says {verdict:?}");
        }
        owed.pieces.retain(|(ordinal, _)| matches!(verdicts.get(ordinal), Some(Verdict::Retry(_))));
        if owed.pieces.is_empty() {
            for ((ordinal, piece), count) in whole.pieces.iter().zip(world.arrived(&whole).await?) {
                let expected = u64::from(code(piece).is_none());
                ensure!(count == expected, "promise 6: in the end piece {ordinal} is there {count} times");
            }
            return Ok(());
        }
    }
    bail!("promise 6: after {} attempts {} pieces are still owed", whole.pieces.len(), owed.pieces.len())
}

/// Promise 7: many attempts at once on one sink, up to its limit, none of which waits for another.
///
/// # Errors
/// When it is broken.
pub async fn works_on_many_batches_at_once(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let sink = world.patient_sink();
        let limit = u64::from(sink.limits().attempts_in_flight_max);
        ensure!(limit >= 1, "promise 7: no attempt is allowed");
        let before = world.attempts();
        world.stall().await?;
        let slow = tokio::spawn({
            let (sink, batch) = (Arc::clone(&sink), batch(world, 700, 5, 200));
            async move { sink.deliver(&batch, &sink.encode(&batch)).await }
        });
        let reached = async || Ok(world.attempts() > before);
        ensure!(soon(reached).await?, "promise 7: the first attempt does not reach the destination");
        world.mend().await?;
        let batches: Vec<Batch> = (1..limit).map(|seed| batch(world, 700 + seed, 20, 500)).collect();
        let mut attempts = tokio::task::JoinSet::new();
        for batch in &batches {
            let (sink, batch) = (Arc::clone(&sink), batch.clone());
            attempts.spawn(async move { attempt(&*sink, &batch).await });
        }
        while let Some(verdicts) = attempts.join_next().await {
            let verdicts = verdicts?.context("promise 7: one waits for another")?;
            ensure_all_delivered(&verdicts, "promise 7")?;
        }
        ensure!(!slow.is_finished(), "promise 7: the attempt that is held back has ended");
        slow.abort();
        for batch in &batches {
            is_there_once(world, &world.arrived(batch).await?, "promise 7")?;
        }
        Ok(())
    })
    .await
}

/// Promise 8: `Refused` is only for faults of a piece itself; whatever can be mended is `Retry`, and is delivered once it
/// is mended.
///
/// # Errors
/// When it is broken.
pub async fn refuses_only_faults_of_a_piece(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        for (breakage, seed) in world.breakages().into_iter().zip(800..) {
            world.break_by(&breakage).await?;
            let mut owed = batch(world, seed, 10, 300);
            let verdicts = deliver(world, &owed).await.context(breakage.name)?;
            world.mend().await?;
            let gone = |verdict: &&Verdict| matches!(verdict, Verdict::Refused(_) | Verdict::Discarded(_));
            let refused = verdicts.values().find(gone);
            ensure!(refused.is_none(), "promise 8, {}: {refused:?}", breakage.name);
            owed.pieces.retain(|(ordinal, _)| verdicts.get(ordinal) != Some(&Verdict::Delivered));
            is_delivered_at_last(world, &owed, &format!("promise 8, {} is mended", breakage.name)).await?;
        }
        for ((record, code), seed) in world.unacceptable(&text(world, 890, 0)).into_iter().zip(890..) {
            let batch = of(world, seed, vec![record]);
            let verdicts = deliver(world, &batch).await?;
            let is_refused = matches!(verdicts.get(&0), Some(Verdict::Refused(fault)) if fault.code == code);
            ensure!(is_refused, "promise 8, a record that should be refused as {code}: {verdicts:?}");
            ensure!(world.arrived(&batch).await? == [0], "promise 8: what was refused is there");
        }
        Ok(())
    })
    .await
}

/// Promise 9: faults carry no credentials and no record bytes, even where the destination quotes them.
///
/// # Errors
/// When it is broken.
pub async fn keeps_secrets_of_pieces(world: &dyn PieceWorld) -> Result<()> {
    within(async {
        let mut secrets = world.secrets();
        secrets.push(RECORD_CANARY.to_owned());
        for (breakage, seed) in world.breakages().into_iter().zip(900..) {
            world.break_by(&breakage).await?;
            for verdict in deliver(world, &batch(world, seed, 5, 300)).await.context(breakage.name)?.values() {
                shows_nothing_of(&secrets, breakage.name, verdict)?;
            }
            world.mend().await?;
        }
        for ((record, _), seed) in world.unacceptable(&text(world, 990, 0)).into_iter().zip(990..) {
            for verdict in deliver(world, &of(world, seed, vec![record])).await?.values() {
                shows_nothing_of(&secrets, "a record that is refused", verdict)?;
            }
        }
        let destination = world.sink().destination();
        let told = secrets.iter().find(|secret| destination.contains(secret.as_str()));
        ensure!(told.is_none(), "promise 9: the destination {destination:?} shows {told:?}");
        Ok(())
    })
    .await
}

/// One attempt by a new sink.
async fn deliver(world: &dyn PieceWorld, batch: &Batch) -> Result<BTreeMap<u32, Verdict>> {
    attempt(&*world.sink(), batch).await
}

/// Attempts by new sinks until all is delivered: what an earlier attempt left may stand in the way for a moment, such as a
/// lock of a session whose end has not been noticed. Then each piece is there once.
async fn is_delivered_at_last(world: &dyn PieceWorld, owed: &Batch, what: &str) -> Result<()> {
    let mut rest = owed.clone();
    let mut last = BTreeMap::new();
    let delivered = soon(async || {
        if rest.pieces.is_empty() {
            return Ok(true); // a batch without pieces is never sent
        }
        last = deliver(world, &rest).await.context(what.to_owned())?;
        let refused = last.values().find(|verdict| matches!(verdict, Verdict::Refused(_)));
        ensure!(refused.is_none(), "{what}: {refused:?}");
        rest.pieces.retain(|(ordinal, _)| last.get(ordinal) != Some(&Verdict::Delivered));
        Ok(rest.pieces.is_empty())
    });
    let delivered = delivered.await?;
    ensure!(delivered, "{what}: then {last:?}");
    is_there_once(world, &world.arrived(owed).await?, what)
}

/// Whether something comes to be true before long.
async fn soon(mut is_true: impl AsyncFnMut() -> Result<bool>) -> Result<bool> {
    let looks = SETTLES_WITHIN.as_millis() / LOOK_AGAIN_AFTER.as_millis();
    for _ in 0..looks {
        if is_true().await? {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    Ok(false)
}

fn is_there_once(world: &dyn PieceWorld, counts: &[u64], what: &str) -> Result<()> {
    let is_right = |count: &u64| if world.knows_batches_again() { *count == 1 } else { *count >= 1 };
    ensure!(counts.iter().all(is_right), "{what}: pieces are there so many times: {counts:?}");
    Ok(())
}

fn ensure_all_delivered(verdicts: &BTreeMap<u32, Verdict>, what: &str) -> Result<()> {
    let other = verdicts.iter().find(|(_, verdict)| **verdict != Verdict::Delivered);
    ensure!(other.is_none(), "{what}: {other:?}");
    Ok(())
}

fn bytes_of(encoded: Encoded) -> (Vec<u8>, Vec<(u32, Fault)>) {
    (encoded.body.concat(), encoded.refused)
}

/// Polls a future so many times at most; nothing if it has not ended by then.
async fn poll<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => {
            left = left.saturating_sub(1);
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}
