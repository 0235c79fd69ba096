//! Bury: refused pieces become a batch of dead letters.
//!
//! In: which pieces of which batches, and why they were refused. Out: the header of a batch of dead letters that lies
//! durably in the outbox and names where each of its pieces comes from. Their bytes are read from the batch files that
//! they were refused in; those stay until the ledger has heard of the new one.
//!
//! Sealed under the reserve of the disk, for it lets go of more than it takes. Sends nothing, and decides nothing: what
//! could not be read or sealed is told, and tried again by whoever asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::sink::Sent;
use hydrant_core::{BatchId, Clock, Entropy, Piece, PieceSink, Timestamp};
use hydrant_storage::crash::{self, Point};
use hydrant_storage::ledger::{Refusal, Refused};
use hydrant_storage::ordinals::Ordinals;
use hydrant_storage::outbox::{Content, Header, Letters, Outbox, SealError, SinkMark, pieces};
use hydrant_storage::runs::Runs;
use hydrant_storage::space::Claim;
use tokio::sync::Semaphore;

use super::letters::BYTES_MAX;
use super::pool::{Pool, finish};
use crate::encode::letter;
use crate::encode::name::{ErrorPrefix, ErrorType, NameParts};

/// What all batches of dead letters of a lane have in common.
#[derive(Clone)]
pub struct Undertaker {
    /// The stream's name.
    pub stream: String,
    /// Where the pieces were to go.
    pub mark: SinkMark,
    /// What their names start with.
    pub error_prefix: ErrorPrefix,
    /// The sink that refused them.
    pub sink: Arc<dyn PieceSink>,
    /// Where the batches lie.
    pub outbox: Outbox,
    /// Permits of the lane's seals.
    pub seals: Arc<Semaphore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Threads.
    pub pool: Pool,
}

/// Refused pieces of one batch, each with the reason.
#[derive(Clone, Debug)]
pub struct Grave {
    /// The batch.
    pub batch: BatchId,
    /// Which pieces, and why.
    pub refused: Vec<Refused>,
}

/// How it ended.
#[derive(Debug)]
pub enum Buried {
    /// They lie in this batch, or the first of them do: it names which.
    Sealed(Box<Header>),
    /// The batch could not be sealed.
    NotSealed(SealError),
    /// The file of a batch could not be read.
    Unread(BatchId, io::Error),
}

/// Lines of dead letters, as they come together.
#[derive(Default)]
struct Lines {
    body: Vec<Bytes>,
    letters: Vec<Letters>,
    pieces: Runs,
    records: u64,
    raw_bytes: u64,
    oldest_arrival: Option<Timestamp>,
}

impl Undertaker {
    /// Makes and seals a batch of dead letters.
    ///
    /// Cancel safe: a batch file that is being written is finished, told or not, and holds a permit of the lane's seals
    /// until then, so whoever opens the lane again finds it.
    pub async fn bury(self, graves: Vec<Grave>) -> Buried {
        let mut lines = Lines::default();
        for grave in graves {
            let batch = grave.batch;
            let (undertaker, pool) = (self.clone(), self.pool.clone());
            let reading = pool.read(move || undertaker.dig(grave, lines));
            lines = match finish(reading).await {
                Ok(lines) => lines,
                Err(error) => return Buried::Unread(batch, error),
            };
            if lines.raw_bytes >= BYTES_MAX {
                break; // they are larger than was thought; the others come with the next batch
            }
        }
        let permit = Arc::clone(&self.seals).acquire_owned().await;
        let (header, body) = self.finish(lines);
        let outbox = self.outbox;
        let written = self.pool.block(move || {
            crash::reach(Point::BuryGathered);
            let result = outbox.seal(&header, &body, Claim::Owed);
            drop(permit);
            result.map(|()| header)
        });
        finish(written).await.map_or_else(Buried::NotSealed, |header| Buried::Sealed(Box::new(header)))
    }

    /// Adds the lines of one batch's refused pieces. Blocks.
    fn dig(&self, Grave { batch, refused }: Grave, mut lines: Lines) -> io::Result<Lines> {
        let (header, body) = self.outbox.read(batch)?;
        let whole = usize::try_from(body.bytes()).unwrap_or(usize::MAX);
        let body = body.read_into(0, whole, self.pool.buffers())?;
        let pieces = pieces::read(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let why: BTreeMap<u32, &Refusal> =
            refused.iter().flat_map(|refused| refused.ordinals.iter().map(|ordinal| (ordinal, &refused.why))).collect();
        for (ordinal, why) in &why {
            let piece = usize::try_from(*ordinal).ok().and_then(|at| pieces.get(at));
            let piece =
                piece.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a refused piece is not in it"))?;
            lines.add(&*self.sink, Sent { batch, sealed_at: header.sealed_at, ordinal: *ordinal, piece }, why);
        }
        lines.letters.push(Letters { batch, ordinals: why.into_keys().collect::<Ordinals>() });
        Ok(lines)
    }

    fn finish(&self, lines: Lines) -> (Header, Vec<Bytes>) {
        let Lines { body, letters, pieces, records, raw_bytes, oldest_arrival } = lines;
        let batch = BatchId::from_random(self.entropy.bytes());
        let sealed_at = self.clock.now();
        let oldest_arrival = oldest_arrival.unwrap_or(sealed_at);
        let (stream, version) = (self.stream.as_str(), self.mark.version);
        let parts = NameParts { stream, version, oldest_arrival, batch, extension: "" };
        let key = self.error_prefix.key(ErrorType::Refused(self.sink.error_type()), &parts);
        let content = Content::DeadLetters { key, content_type: letter::CONTENT_TYPE.to_owned(), letters };
        let sink = self.mark.clone();
        (Header { batch, sealed_at, oldest_arrival, records, raw_bytes, pieces, sink, content }, body)
    }
}

impl Lines {
    fn add(&mut self, sink: &dyn PieceSink, sent: Sent<'_>, why: &Refusal) {
        let Piece { id, arrived_at, data, .. } = sent.piece;
        self.body.push(letter::line(sent, why, sink.known_as(sent)).into());
        self.pieces.push(*id);
        self.records += 1;
        self.raw_bytes += data.len() as u64;
        self.oldest_arrival = Some(self.oldest_arrival.map_or(*arrived_at, |oldest| oldest.min(*arrived_at)));
    }
}
