//! Seal: a full buffer becomes a batch file.
//!
//! In: what a buffer held. Out: the header of a batch that lies durably in the outbox, under a name and with bytes
//! that never change again. Compression runs on the pool. Nothing is sent before this has succeeded, and a failed
//! seal leaves nothing behind: the log still has the records.
//!
//! A large object is not held until then: its units are compressed while the next records come in, and what they
//! become lies in a draft of the outbox. Units are compressed side by side and written in order: each hands the draft
//! on to the next.
//!
//! ```text
//!   unit ── compress ─┐    unit ── compress ─┐     last ── compress ─┐
//!                     v                      v                       v
//!   baton ─────────> write ──── baton ────> write ──── baton ────> write ── seal
//! ```
//!
//! A batch of separate pieces goes the same road uncompressed.
//!
//! A unit that fails drops the baton, and with it the draft; those behind it find it gone.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::compression::Compression;
use hydrant_core::{BatchId, Clock, Entropy, Span, Timestamp};
use hydrant_storage::outbox::{Content, Draft, Header, Outbox, SealError, SinkMark};
use hydrant_storage::runs::Runs;
use hydrant_storage::space::Claim;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::budget::Grant;
use super::buffer::{Held, Reason};
use super::lane::Lane;
use super::pool::{Pool, finish};
use crate::blocks::BLOCK_BYTES;
use crate::config::spec::{ObjectsSpec, SinkSpec};
use crate::encode::compress::{self, Back, Front, Made};
use crate::encode::name::NameParts;

/// Seals and units of one lane that may be under way at once. The pool bounds how many of them compute.
pub const SEALS_MAX: u32 = 4;

/// What a seal needs to know of its lane; shared by the seals under way.
#[derive(Debug)]
pub struct Sealer {
    stream: String,
    version: u64,
    spec: SinkSpec,
    mark: SinkMark,
    outbox: Outbox,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pool: Pool,
    permits: Arc<Semaphore>,
}

/// How a seal, or a unit of one, ended.
#[derive(Debug)]
pub enum Outcome {
    /// The batch is sealed, or is not.
    Sealed(Reason, Result<Box<Header>, SealError>),
    /// A unit lies in the draft of its batch, or the draft is gone.
    Spilled(Result<(), SealError>),
    /// A unit before this one failed, and has said why.
    Superseded,
}

/// A large batch whose records are still coming in. Dropping it removes its draft; the log has the records.
#[derive(Debug)]
pub struct Open {
    batch: BatchId,
    front: Front,
    turn: oneshot::Receiver<Baton>,
}

/// What is handed from unit to unit.
#[derive(Debug)]
struct Baton {
    draft: Draft,
    back: Back,
    /// Covers what is kept between units.
    grant: Grant,
    /// One of [`SEALS_MAX`], for as long as there is a draft.
    permit: Option<OwnedSemaphorePermit>,
}

impl Sealer {
    /// A sealer for the batches of a lane.
    pub fn new(lane: &Lane, outbox: Outbox) -> Self {
        Self {
            stream: lane.spec.name.clone(),
            version: lane.version,
            spec: lane.spec.sink.clone(),
            mark: lane.mark(),
            outbox,
            clock: Arc::clone(&lane.edges.clock),
            entropy: Arc::clone(&lane.edges.entropy),
            pool: lane.edges.pool.clone(),
            permits: Arc::clone(&lane.seals),
        }
    }

    /// Seals what a buffer held. The grant is given back when that has ended, whichever way.
    ///
    /// Cancel safe: a batch file that is being written is finished, told or not. Its permit of [`SEALS_MAX`] lasts
    /// until then, so a lane that holds all of them can be opened again and will find every file.
    pub async fn seal(self: Arc<Self>, mut held: Held, grant: Grant, reason: Reason) -> Outcome {
        let (raw, compression) = (std::mem::take(&mut held.data), self.compression());
        let header = Box::new(self.header(self.draw(), &held));
        let body = finish(self.pool.compute(move |workspace| compress::whole(raw, compression, workspace))).await;
        let permit = self.permit().await;
        let sealer = Arc::clone(&self);
        let written = self.pool.block(move || {
            let result = sealer.outbox.seal(&header, &body, Claim::DataSeal);
            drop((grant, permit));
            result.map(|()| header)
        });
        Outcome::Sealed(reason, finish(written).await)
    }

    /// Begins a large batch. `grant` is an empty one for what is kept of it in memory between units.
    pub fn open(&self, grant: Grant) -> Open {
        let (batch, compression) = (self.draw(), self.compression());
        let draft = self.outbox.draft(batch, Claim::DataSeal);
        let (baton, turn) = oneshot::channel();
        // It arrives: the other end is at hand.
        drop(baton.send(Baton { draft, back: Back::new(compression), grant, permit: None }));
        Open { batch, front: Front::new(compression), turn }
    }

    /// Adds a unit to the draft of a batch. The grant is given back when that has ended, whichever way.
    ///
    /// Cancel safe as [`seal`](Self::seal) is, as far as the draft goes: it is written or gone, and the permit with it.
    pub fn spill(
        self: Arc<Self>,
        open: &mut Open,
        raw: Vec<Bytes>,
        grant: Grant,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let unit = open.front.unit(raw);
        let (next, turn) = oneshot::channel();
        let turn = std::mem::replace(&mut open.turn, turn);
        async move {
            let made = finish(self.pool.compute(|workspace| unit.run(workspace))).await;
            let Ok(baton) = turn.await else { return Outcome::Superseded };
            let (mut baton, parts) = self.join(baton, made, Last::No).await;
            let written = self.pool.block(move || {
                let result = baton.draft.append(&parts);
                drop((grant, parts));
                match result {
                    // Whoever waited for it may be gone; then so is the draft.
                    Ok(()) => drop(next.send(baton)),
                    Err(error) => return Err(error),
                }
                Ok(())
            });
            Outcome::Spilled(finish(written).await)
        }
    }

    /// Ends a batch with what is left in its buffer, and seals it. As [`seal`](Self::seal) otherwise.
    pub async fn seal_open(self: Arc<Self>, open: Open, mut held: Held, grant: Grant, reason: Reason) -> Outcome {
        let Open { batch, mut front, turn } = open;
        let unit = front.unit(std::mem::take(&mut held.data));
        let header = Box::new(self.header(batch, &held));
        let made = finish(self.pool.compute(|workspace| unit.run(workspace))).await;
        let Ok(baton) = turn.await else { return Outcome::Superseded };
        let (baton, parts) = self.join(baton, made, Last::Yes).await;
        let written = self.pool.block(move || {
            let Baton { mut draft, back: _, grant: kept, permit } = baton;
            let result = draft.append(&parts).and_then(|()| draft.seal(&header));
            drop((grant, kept, permit));
            result.map(|()| header)
        });
        Outcome::Sealed(reason, finish(written).await)
    }

    /// The bytes that a unit adds to its object.
    async fn join(&self, mut baton: Baton, made: Made, last: Last) -> (Baton, Vec<Bytes>) {
        if baton.permit.is_none() {
            baton.permit = self.permit().await;
        }
        let joining = self.pool.compute(move |workspace| {
            let mut parts = baton.back.add(made, workspace);
            match last {
                Last::Yes => {
                    parts.extend(baton.back.finish(workspace));
                    baton.grant.sealing();
                }
                // The window that the next unit is told of lies in a block.
                Last::No => baton.grant.resize(baton.back.footprint() + BLOCK_BYTES as u64),
            }
            (baton, parts)
        });
        finish(joining).await
    }

    /// Whether handing over what is buffered frees memory: not where the compression needs as much to go on with it.
    pub fn frees_by_spilling(&self, open: Option<&Open>) -> bool {
        open.is_some() || !matches!(self.compression(), Compression::Zstd(_))
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok() // never closed, so this is always a permit
    }

    fn draw(&self) -> BatchId {
        BatchId::from_random(self.entropy.bytes())
    }

    fn compression(&self) -> Compression {
        match &self.spec {
            SinkSpec::Objects(objects) => objects.compression,
            SinkSpec::Pieces(_) => Compression::None,
        }
    }

    fn header(&self, batch: BatchId, held: &Held) -> Header {
        Header {
            batch,
            sealed_at: self.clock.now(),
            oldest_arrival: held.oldest_arrival,
            records: held.records,
            raw_bytes: held.raw_bytes,
            pieces: runs(&held.spans),
            sink: self.mark.clone(),
            content: match &self.spec {
                SinkSpec::Objects(objects) => self.object(objects, batch, held.oldest_arrival),
                SinkSpec::Pieces(_) => Content::Pieces,
            },
        }
    }

    fn object(&self, objects: &ObjectsSpec, batch: BatchId, oldest_arrival: Timestamp) -> Content {
        let compression = objects.compression;
        Content::Object {
            key: objects.prefix.key(&NameParts {
                stream: &self.stream,
                version: self.version,
                oldest_arrival,
                batch,
                extension: compression.extension(),
            }),
            content_type: CONTENT_TYPE.to_owned(),
            content_encoding: compression.content_encoding().map(str::to_owned),
            metadata: Vec::new(),
        }
    }
}

/// Whether a unit is the last of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    No,
    Yes,
}

fn runs(spans: &[Span]) -> Runs {
    let mut runs = Runs::new();
    for &span in spans {
        runs.push_span(span);
    }
    runs
}

/// Of every object, whatever records it holds. Source: observed on the service's own objects.
const CONTENT_TYPE: &str = "application/octet-stream";
