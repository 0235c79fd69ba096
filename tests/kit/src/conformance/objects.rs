//! The promises of an object sink, one check each.
//!
//! A check breaks the destination, or the attempt, and looks at two things: what the sink said, and what lies in the
//! destination as others read it. It never waits for time to pass, only for what must happen, and gives up after
//! [`CHECK_MAX`](super::CHECK_MAX).

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::{BatchId, FaultCode, Object, ObjectSink, Verdict};

use super::blobs::{MemoryBlob, StallingBlob, UnreadableBlob};
use super::breakage::{Breakage, Effect};
use super::{ATTEMPT_MAX, RECORD_CANARY, shows_nothing_of, within};
use crate::random::Random;

/// Sizes around the parts in which sinks read and send: none, one byte, a part and its neighbours, several parts.
const SIZES: [usize; 7] = [0, 1, (256 << 10) - 1, 256 << 10, (1 << 20) + 1, 3 << 20, (5 << 20) + 17];

/// Sinks read a body up to twice, in parts of 256 KiB or more; this many reads are the most that 2 MiB take.
const READS_MAX: usize = 18;

/// A destination with its sink, and ways to break it.
#[async_trait]
pub trait ObjectWorld: Send + Sync {
    /// Tells runs apart on a destination that keeps objects from one to the next: the same in one world, another in
    /// each. Nought where the destination is new.
    fn salt(&self) -> u64 {
        0
    }

    /// A sink as a new process would build it, on the destination in its present state.
    fn sink(&self) -> Arc<dyn ObjectSink>;

    /// What lies under `key`, read by other means than the sink.
    async fn stored(&self, key: &str) -> Result<Option<Bytes>>;

    /// Every key in the destination, and whatever else a user would find there.
    async fn keys(&self) -> Result<Vec<String>>;

    /// How many attempts have reached the destination. Nothing where it cannot tell.
    fn attempts(&self) -> Option<u64>;

    /// How often the object under `key` was written. Nothing where the destination cannot tell.
    async fn writes(&self, _key: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The ways to break it.
    fn breakages(&self) -> Vec<Breakage>;

    /// Breaks it. Holds for sinks that are made afterwards.
    async fn break_by(&self, breakage: &Breakage) -> Result<()>;

    /// Makes it whole again, for sinks that are made afterwards.
    async fn mend(&self) -> Result<()>;

    /// Objects that it can never take through a fault of their own, each with the code that says so.
    fn unacceptable(&self) -> Vec<(Object, FaultCode)>;

    /// Texts that no fault may show.
    fn secrets(&self) -> Vec<String>;
}

/// The folder of the keys of a world's objects.
pub fn folder(salt: u64) -> String {
    format!("conformance/{salt:016x}/")
}

/// An object of `len` bytes that salt and seed decide, under a key that holds its batch's id.
pub fn object(salt: u64, seed: u64, len: usize) -> Object {
    let mut random = Random::of(&[salt, seed]);
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        half.copy_from_slice(&random.next_u64().to_be_bytes());
    }
    let batch = BatchId::from_random(id);
    let mut bytes = RECORD_CANARY.repeat(1 + len / 512).into_bytes();
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    Object {
        batch,
        key: format!("{}{seed}/a=1 b+c%2F{batch}.gz", folder(salt)),
        content_type: "application/octet-stream".to_owned(),
        content_encoding: Some("gzip".to_owned()),
        metadata: Vec::new(),
        body: Arc::new(MemoryBlob(bytes.into())),
    }
}

/// Promise 1: one call is one attempt. A sink does not retry, however the attempt ends.
///
/// # Errors
/// When it is broken; the same for the other checks.
pub async fn makes_one_attempt(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        let mut seed = 100;
        let mut one = async |name: &str| {
            seed += 1;
            let before = world.attempts();
            let _any = place(world, &object(world.salt(), seed, 1000)).await.context(name.to_owned())?;
            if let (Some(before), Some(after)) = (before, world.attempts()) {
                ensure!(after - before <= 1, "promise 1, {name}: one call made {} attempts", after - before);
            }
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

/// Promise 2: an unknown outcome is `Retry`, under the code that says what is known, and so is a body that cannot
/// be read.
///
/// # Errors
/// When it is broken.
pub async fn answers_for_every_outcome(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        for (breakage, seed) in world.breakages().into_iter().zip(200..) {
            world.break_by(&breakage).await?;
            let object = object(world.salt(), seed, 2 << 20);
            let verdict = place(world, &object).await.context(breakage.name)?;
            world.mend().await?;
            let Verdict::Retry(fault) = verdict else { bail!("promise 2, {}: {verdict:?}", breakage.name) };
            ensure!(fault.code == breakage.code, "promise 2, {}: {fault}", breakage.name);
            ensure!(fault.retry_after == breakage.retry_after, "promise 2, {}: {fault:?}", breakage.name);
        }
        for reads in [0, 1, 8, 9] {
            let whole = object(world.salt(), 290 + reads as u64, 2 << 20);
            let bytes = bytes_of(&whole).await?;
            let object = Object { body: Arc::new(UnreadableBlob::after(reads, bytes)), ..whole };
            let verdict = place(world, &object).await?;
            let is_damaged = matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Damaged);
            // A sink may need fewer reads than that.
            let is_read = verdict == Verdict::Delivered;
            ensure!(is_damaged || is_read, "promise 2, body unreadable after {reads} reads: {verdict:?}");
            let stored = world.stored(&object.key).await?;
            ensure!(stored.is_some() == is_read, "promise 2, body unreadable after {reads} reads: something is stored");
        }
        Ok(())
    })
    .await
}

/// Promise 3: `Delivered` means that the object is there, whole.
///
/// # Errors
/// When it is broken.
pub async fn confirms_before_it_says_so(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        for (len, seed) in SIZES.into_iter().zip(300..) {
            let object = object(world.salt(), seed, len);
            let verdict = place(world, &object).await?;
            ensure!(verdict == Verdict::Delivered, "promise 3, {len} bytes: {verdict:?}");
            is_whole(world, &object, "promise 3").await?;
        }
        for (breakage, seed) in world.breakages().into_iter().zip(350..) {
            world.break_by(&breakage).await?;
            let object = object(world.salt(), seed, 1000);
            let verdict = place(world, &object).await.context(breakage.name)?;
            world.mend().await?;
            let stored = world.stored(&object.key).await?;
            let expected = breakage.effect == Effect::StoredUnheard;
            ensure!(verdict != Verdict::Delivered || stored.is_some(), "promise 3, {}: not there", breakage.name);
            ensure!(stored.is_some() == expected, "promise 3, {}: the world is not as it says", breakage.name);
        }
        Ok(())
    })
    .await
}

/// Promise 4: an attempt that is dropped, wherever it stands, leaves nothing that a later one could not overwrite or
/// ignore: the name holds nothing or the whole, and the next attempt delivers.
///
/// # Errors
/// When it is broken.
pub async fn is_dropped_without_harm(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        let mut placed = Vec::new();
        for reads in 0..READS_MAX {
            let whole = object(world.salt(), 400 + reads as u64, 2 << 20);
            let blob = Arc::new(StallingBlob::after(reads, bytes_of(&whole).await?));
            let stalling = Object { body: Arc::<StallingBlob>::clone(&blob), ..whole.clone() };
            let sink = world.sink();
            tokio::select! {
                // A sink that needs fewer reads ends by itself.
                _ = sink.place(&stalling) => {}
                () = blob.stalled() => {}
            }
            drop(sink);
            let after_drop = world.stored(&whole.key).await?;
            let bytes = bytes_of(&whole).await?;
            ensure!(after_drop.is_none_or(|stored| stored == bytes), "promise 4, after {reads} reads: half an object");
            let verdict = place(world, &whole).await?;
            ensure!(verdict == Verdict::Delivered, "promise 4, after {reads} reads: then {verdict:?}");
            is_whole(world, &whole, "promise 4").await?;
            placed.push(whole.key);
        }
        let mut litter = world.keys().await?;
        litter.retain(|key| !placed.contains(key));
        ensure!(litter.is_empty(), "promise 4: left behind: {litter:?}");
        Ok(())
    })
    .await
}

/// Promise 5: delivering twice has the effect of delivering once, in this process and the next, and also when the
/// first time was not heard of. A name that holds other bytes is never taken for one's own.
///
/// # Errors
/// When it is broken.
pub async fn repeats_without_effect(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        let first = object(world.salt(), 500, 300_000);
        let sink = world.sink();
        for (again, sink) in [("first", &sink), ("again", &sink), ("in the next process", &world.sink())] {
            let verdict = attempt(&**sink, &first).await?;
            ensure!(verdict == Verdict::Delivered, "promise 5, {again}: {verdict:?}");
        }
        is_whole(world, &first, "promise 5").await?;
        let writes = world.writes(&first.key).await?;
        ensure!(writes.is_none_or(|writes| writes == 1), "promise 5: written {writes:?} times");

        for (breakage, seed) in world.breakages().into_iter().zip(510..) {
            world.break_by(&breakage).await?;
            let object = object(world.salt(), seed, 1000);
            let _any = place(world, &object).await.context(breakage.name)?;
            world.mend().await?;
            let verdict = place(world, &object).await?;
            ensure!(verdict == Verdict::Delivered, "promise 5, after {}: {verdict:?}", breakage.name);
            is_whole(world, &object, breakage.name).await?;
            let writes = world.writes(&object.key).await?;
            ensure!(writes.is_none_or(|writes| writes == 1), "promise 5, {}: written {writes:?} times", breakage.name);
        }

        let other = Object { key: first.key.clone(), ..object(world.salt(), 501, 300_000) };
        let verdict = place(world, &other).await?;
        ensure!(matches!(verdict, Verdict::Retry(_)), "promise 5, the name of another: {verdict:?}");
        is_whole(world, &first, "promise 5, the other one's object").await
    })
    .await
}

/// Promise 7: many attempts at once on one sink, up to its limit, none of which waits for another.
///
/// # Errors
/// When it is broken.
pub async fn works_many_at_once(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        let sink = world.sink();
        let limit = u64::from(sink.limits().attempts_in_flight_max);
        ensure!(limit >= 1, "promise 7: no attempt is allowed");
        let slow = object(world.salt(), 700, 2 << 20);
        let blob = Arc::new(StallingBlob::after(1, bytes_of(&slow).await?));
        let stalling = Object { body: Arc::<StallingBlob>::clone(&blob), ..slow };
        let slow = tokio::spawn({
            let sink = Arc::clone(&sink);
            async move { sink.place(&stalling).await }
        });
        blob.stalled().await;
        let objects: Vec<Object> = (1..limit).map(|seed| object(world.salt(), 700 + seed, 200_000)).collect();
        let mut attempts = tokio::task::JoinSet::new();
        for object in &objects {
            let (sink, object) = (Arc::clone(&sink), object.clone());
            attempts.spawn(async move { attempt(&*sink, &object).await });
        }
        while let Some(verdict) = attempts.join_next().await {
            let verdict = verdict?.context("promise 7: one waits for another")?;
            ensure!(verdict == Verdict::Delivered, "promise 7: {verdict:?}");
        }
        slow.abort();
        for object in &objects {
            is_whole(world, object, "promise 7").await?;
        }
        Ok(())
    })
    .await
}

/// Promise 8: `Refused` is only for faults of the object itself; whatever can be mended is `Retry`, and is delivered
/// once it is mended.
///
/// # Errors
/// When it is broken.
pub async fn refuses_only_faults_of_the_record(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        for (breakage, seed) in world.breakages().into_iter().zip(800..) {
            world.break_by(&breakage).await?;
            let object = object(world.salt(), seed, 1000);
            let verdict = place(world, &object).await.context(breakage.name)?;
            world.mend().await?;
            let is_gone = matches!(verdict, Verdict::Refused(_) | Verdict::Discarded(_));
            ensure!(!is_gone, "promise 8, {}: {verdict:?}", breakage.name);
            let verdict = place(world, &object).await?;
            ensure!(verdict == Verdict::Delivered, "promise 8, {} is mended: {verdict:?}", breakage.name);
        }
        let before = world.keys().await?;
        for (object, code) in world.unacceptable() {
            let verdict = place(world, &object).await?;
            let is_refused = matches!(&verdict, Verdict::Refused(fault) if fault.code == code);
            ensure!(is_refused, "promise 8, {:?}: {verdict:?}", object.key);
        }
        ensure!(world.keys().await? == before, "promise 8: what was refused is stored");
        Ok(())
    })
    .await
}

/// Promise 9: faults carry no credentials and no record bytes, even where the destination quotes them.
///
/// # Errors
/// When it is broken.
pub async fn keeps_secrets(world: &dyn ObjectWorld) -> Result<()> {
    within(async {
        let mut secrets = world.secrets();
        secrets.push(RECORD_CANARY.to_owned());
        for (breakage, seed) in world.breakages().into_iter().zip(900..) {
            world.break_by(&breakage).await?;
            let metadata = vec![("note".to_owned(), RECORD_CANARY.to_owned())];
            let object = Object { metadata, ..object(world.salt(), seed, 1000) };
            shows_nothing_of(&secrets, breakage.name, &place(world, &object).await.context(breakage.name)?)?;
            world.mend().await?;
        }
        for (object, _) in world.unacceptable() {
            shows_nothing_of(&secrets, "an object that is refused", &place(world, &object).await?)?;
        }
        let destination = world.sink().destination();
        let told = secrets.iter().find(|secret| destination.contains(secret.as_str()));
        ensure!(told.is_none(), "promise 9: the destination {destination:?} shows {told:?}");
        Ok(())
    })
    .await
}

/// One attempt by a new sink.
async fn place(world: &dyn ObjectWorld, object: &Object) -> Result<Verdict> {
    attempt(&*world.sink(), object).await
}

async fn attempt(sink: &dyn ObjectSink, object: &Object) -> Result<Verdict> {
    tokio::time::timeout(ATTEMPT_MAX, sink.place(object))
        .await
        .with_context(|| format!("the attempt took longer than {ATTEMPT_MAX:?}"))
}

async fn bytes_of(object: &Object) -> Result<Bytes> {
    let len = usize::try_from(object.body.len())?;
    Ok(object.body.read_at(0, len).await?)
}

async fn is_whole(world: &dyn ObjectWorld, object: &Object, what: &str) -> Result<()> {
    let stored = world.stored(&object.key).await?.with_context(|| format!("{what}: {} is not there", object.key))?;
    let expected = bytes_of(object).await?;
    ensure!(stored == expected, "{what}: {} of {} bytes, or others", stored.len(), expected.len());
    Ok(())
}
