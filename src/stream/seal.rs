//! Seal: a full buffer becomes a batch file.
//!
//! In: what a buffer held. Out: the header of a batch that lies durably in the outbox, under a name and with bytes
//! that never change again. Compression runs on the pool. Nothing is sent before this has succeeded, and a failed
//! seal leaves nothing behind: the log still has the records.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{BatchId, Clock, Entropy, Span};
use hydrant_storage::outbox::{Content, Header, Outbox, SealError, SinkMark};
use hydrant_storage::runs::Runs;
use hydrant_storage::space::Claim;

use tokio::sync::Semaphore;

use super::budget::Grant;
use super::buffer::{Held, Reason};
use super::lane::Lane;
use super::pool::{Pool, finish};
use crate::config::spec::ObjectsSpec;
use crate::encode::compress;
use crate::encode::name::NameParts;

/// Seals of one lane that may be under way at once. The pool bounds how many of them compute.
pub const SEALS_MAX: u32 = 4;

/// What a seal needs to know of its lane; shared by the seals under way.
#[derive(Debug)]
pub struct Sealer {
    stream: String,
    version: u64,
    objects: ObjectsSpec,
    sink: SinkMark,
    outbox: Outbox,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pool: Pool,
    permits: Arc<Semaphore>,
}

/// The end of a seal.
pub type Outcome = (Reason, Result<Header, SealError>);

impl Sealer {
    /// A sealer for the objects of a lane.
    pub fn new(lane: &Lane, objects: &ObjectsSpec, outbox: Outbox) -> Self {
        let destination = lane.primary.destination();
        Self {
            stream: lane.spec.name.clone(),
            version: lane.version,
            objects: objects.clone(),
            sink: SinkMark { kind: objects.kind.to_owned(), destination, version: lane.version },
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
    pub async fn seal(self: Arc<Self>, held: Held, grant: Grant, reason: Reason) -> Outcome {
        let header = self.header(&held);
        let mut parts = Vec::new();
        let tasks = compress::plan(vec![Bytes::from(held.data)], self.objects.compression);
        let running: Vec<_> = tasks.into_iter().map(|task| self.pool.compute(|| task.run())).collect();
        for task in running {
            parts.push(finish(task).await);
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await; // never closed, so this is always a permit
        let sealer = Arc::clone(&self);
        let written = self.pool.block(move || {
            let result = sealer.outbox.seal(&header, &compress::join(parts), Claim::DataSeal);
            drop((grant, permit));
            result.map(|()| header)
        });
        (reason, finish(written).await)
    }

    fn header(&self, held: &Held) -> Header {
        let batch = BatchId::from_random(self.entropy.bytes());
        let compression = self.objects.compression;
        Header {
            batch,
            sealed_at: self.clock.now(),
            oldest_arrival: held.oldest_arrival,
            records: held.records,
            raw_bytes: held.data.len() as u64,
            pieces: runs(&held.spans),
            sink: self.sink.clone(),
            content: Content::Object {
                key: self.objects.prefix.key(&NameParts {
                    stream: &self.stream,
                    version: self.version,
                    oldest_arrival: held.oldest_arrival,
                    batch,
                    extension: compression.extension(),
                }),
                content_type: CONTENT_TYPE.to_owned(),
                content_encoding: compression.content_encoding().map(str::to_owned),
                metadata: Vec::new(),
            },
        }
    }
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
