//! From a specification to a running node: the only file that knows every wing.
//!
//! ```text
//!   spec ──> data directory, disk caps, byte budget, commit threads
//!        ──> per stream: stores, outbox + ledger (what is owed), log (above that), lane
//!        ──> directory of live streams for the API
//! ```
//!
//! Building never connects: a destination that is down does not stop the start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_core::secret::Secrets;
use hydrant_core::{ByteSize, ObjectSink, PieceSink, Sink};
use hydrant_sinks::{Encryption, Origin};
use hydrant_storage::catalog::{DataDir, Declaration, StreamEntry, Undeclared};
use hydrant_storage::crash::{self, Point};
use hydrant_storage::log::{self, Committers, Log};
use hydrant_storage::space::{Share, Space};
use hydrant_storage::verify::Owed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::spec::{PiecesSpec, ServerSpec, SinkSpec, Spec, StoreSpec, StreamSpec};
use crate::stream::Edges;
use crate::stream::budget::Budget;
use crate::stream::lane::{Lane, OpenLane};
use crate::streams::{Identity, LiveStream, Streams};

/// How what was declared becomes something to send to. A seam: a simulation has destinations of its own.
pub trait Destinations {
    /// Makes the sink that places objects in a store, encrypted like this. Never connects.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn store(&self, store: &StoreSpec, encryption: &Encryption) -> Result<Arc<dyn ObjectSink>, String>;

    /// Makes the sink that takes separate pieces, those of this origin. Never connects.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn service(&self, service: &PiecesSpec, origin: Origin<'_>) -> Result<Arc<dyn PieceSink>, String>;
}

/// The destinations as they were declared. Streams that place objects alike share a sink: its connections, its credentials,
/// its certificate authorities, which take a quarter of a MiB. With hundreds of streams that is most of what they hold.
pub struct Declared<'a> {
    secrets: &'a dyn Secrets,
    built: Mutex<Vec<Built>>,
}

struct Built {
    store: String,
    encryption: Encryption,
    sink: Arc<dyn ObjectSink>,
}

impl<'a> Declared<'a> {
    /// Nothing is built yet. Secrets come from here.
    pub fn new(secrets: &'a dyn Secrets) -> Self {
        Self { secrets, built: Mutex::default() }
    }
}

impl Destinations for Declared<'_> {
    fn store(&self, store: &StoreSpec, encryption: &Encryption) -> Result<Arc<dyn ObjectSink>, String> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |it: &&Built| it.store == store.name && it.encryption == *encryption;
        if let Some(Built { sink, .. }) = built.iter().find(is_same) {
            return Ok(Arc::clone(sink));
        }
        let sink = store.config.build(encryption, self.secrets)?;
        let (store, encryption) = (store.name.clone(), encryption.clone());
        built.push(Built { store, encryption, sink: Arc::clone(&sink) });
        Ok(sink)
    }

    fn service(&self, service: &PiecesSpec, origin: Origin<'_>) -> Result<Arc<dyn PieceSink>, String> {
        let sink = service.config.build(origin, self.secrets)?;
        sink.ok_or_else(|| format!("a sink of kind `{}` takes no separate pieces", service.kind))
    }
}

/// Threads that write and sync logs. Two overlap the fsyncs of busy streams; more only make each wait longer on one
/// disk.
const COMMIT_THREADS: usize = 2;

/// Memory for records that were just acknowledged and that packing, which follows closely, need not read back from the
/// disk. What a few busy streams have under way; a stream whose packing stands still has no use for more.
const RECENT_BYTES: ByteSize = ByteSize::mib(16);

/// A running node without its listener.
pub struct Node {
    /// The live streams.
    pub streams: Arc<Streams>,
    /// The byte budget.
    pub budget: Arc<Budget>,
    lanes: TaskTracker,
    stop: CancellationToken,
    grace: Duration,
    // Held for its threads, which end when it is dropped.
    committers: Committers,
    data: DataDir,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("data directory: {0}")]
    Data(String),
    /// A stream cannot be opened.
    #[error("stream {stream}: {why}")]
    Stream {
        /// Its name.
        stream: String,
        /// A sentence.
        why: String,
    },
}

/// Recovers every stream of a data directory and starts its lane. Must be called on a runtime; blocks while it reads
/// the disk.
///
/// # Errors
/// See [`StartError`]. What was opened is closed again; nothing on disk is worse than before.
pub fn assemble(
    spec: &Spec,
    mut data: DataDir,
    edges: &Edges,
    destinations: &dyn Destinations,
) -> Result<Node, StartError> {
    let server = &spec.server;
    crash::reach(Point::OpenLocked);
    let space = Space::new(server.disk);
    let budget = Budget::new(server.memory);
    let committers = Committers::start(if edges.pool.has_threads() { COMMIT_THREADS } else { 0 })
        .map_err(|error| StartError::Data(format!("start commit threads: {error}")))?
        .with_memory(RECENT_BYTES);
    let mut opened = Vec::new();
    for stream in spec.streams.values() {
        let fail = |why: String| StartError::Stream { stream: stream.name.clone(), why };
        let ready =
            open_stream(stream, server, edges, destinations, &mut data, &space, &budget, &committers).map_err(fail)?;
        opened.push(ready);
    }
    for left in data.undeclared(&spec.streams.keys().map(String::as_str).collect()) {
        warn_of_undeclared(&left);
    }
    crash::reach(Point::OpenStreams);
    let (lanes, stop) = (TaskTracker::new(), CancellationToken::new());
    let live = opened.into_iter().map(|ready| {
        lanes.spawn(ready.lane.run(ready.open, ready.live.log().clone(), stop.child_token()));
        ready.live
    });
    let streams = Arc::new(Streams::new(live));
    lanes.close();
    info!(streams = spec.streams.len(), data = %server.data.display(), "streams are open");
    Ok(Node { streams, budget, lanes, stop, grace: server.grace, committers, data })
}

impl Node {
    /// Writes and syncs what waits for it in the logs. Only a pool without threads needs to be told.
    pub fn commit(&self) {
        self.committers.serve();
    }

    /// Seals and sends everything that is acknowledged now; resolves when it is settled.
    ///
    /// # Errors
    /// A sentence that names the streams which cannot be drained. The others are.
    pub async fn drain(&self) -> Result<(), String> {
        for stream in self.streams.list(None) {
            stream.drain_soon();
        }
        let mut failed = Vec::new();
        for stream in self.streams.list(None) {
            if let Err(ailment) = stream.drain().await {
                failed.push(format!("stream {} cannot be drained: {}", stream.spec().name, ailment.message));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// Stops: logs take no more, lanes finish what is under way within the grace period. What is buffered stays in
    /// the log, what is sealed in the outbox.
    ///
    /// Gives back the lock of the data directory. It is to be kept until the runtime is gone, with every thread that
    /// might still write.
    pub async fn stop(self) -> DataDir {
        for stream in self.streams.list(None) {
            stream.log().close();
        }
        self.stop.cancel();
        // A lane ends by itself within the grace period; the second on top is for its last write.
        if tokio::time::timeout(self.grace + Duration::from_secs(1), self.lanes.wait()).await.is_err() {
            error!("lanes did not stop in time; what they had under way will be repeated");
        }
        self.data
    }
}

/// Nothing is said of a stream that owes nothing.
fn warn_of_undeclared(left: &Undeclared) {
    let Undeclared { name, bytes, path, .. } = left;
    match left.owed {
        Some(Owed { records: 0, batches: 0 }) => {}
        Some(Owed { records, batches }) => warn!(
            stream = name,
            records,
            batches,
            bytes,
            "stream is no longer declared and still owes records; they are kept: declare it again to have them delivered"
        ),
        None => warn!(
            stream = name,
            bytes,
            path = %path.display(),
            "stream is no longer declared, and what it owes cannot be read; its data is kept"
        ),
    }
}

struct Ready {
    live: LiveStream,
    lane: Lane,
    open: OpenLane,
}

#[expect(
    clippy::too_many_arguments,
    reason = "this is where everything meets; each argument is another part of the node"
)]
fn open_stream(
    spec: &StreamSpec,
    server: &ServerSpec,
    edges: &Edges,
    destinations: &dyn Destinations,
    data: &mut DataDir,
    space: &Arc<Space>,
    budget: &Arc<Budget>,
    committers: &Committers,
) -> Result<Ready, String> {
    let dead_letter = destinations.store(&spec.dead_letter.store, &Encryption::StoreDefault)?;
    let (entry, dir) = declare(spec, edges, data)?;
    let primary = match &spec.sink {
        SinkSpec::Objects(objects) => Sink::Objects(destinations.store(&objects.store, &objects.encryption)?),
        SinkSpec::Pieces(service) => {
            // The incarnation tells it from a stream of the same name on another machine, or of an earlier life.
            let lane = format!("{}/{:016x}", spec.name, entry.incarnation);
            let origin = Origin { arn: &server.arn_of(&spec.name), lane: &lane };
            Sink::Pieces(destinations.service(service, origin)?)
        }
    };
    let share = space.share(server.disk_per_stream);
    let spec = Arc::new(spec.clone());
    let lane = |live: &LiveStream| Lane {
        spec: Arc::clone(&spec),
        version: entry.version,
        dir: dir.clone(),
        primary,
        dead_letter,
        share: Arc::clone(&share),
        account: Arc::new(budget.account()),
        health: Arc::clone(live.health()),
        counters: Arc::clone(live.counters()),
        log_full: Arc::clone(live.log_full()),
        drain: live.drain_below(),
        seals: Lane::seals(),
        settled: live.settled_below().clone(),
        redriven: Arc::clone(live.redriven()),
        grace: server.grace,
        edges: edges.clone(),
    };
    let open = OpenLane::open(&spec.name, &dir, &share, edges).map_err(|error| error.to_string())?;
    let log = open_log(&dir, &entry, &open, edges, &share, committers)?;
    let live = LiveStream::new(Arc::clone(&spec), identity(&entry), log, Arc::clone(&share));
    let lane = lane(&live);
    Ok(Ready { live, lane, open })
}

fn declare(spec: &StreamSpec, edges: &Edges, data: &mut DataDir) -> Result<(StreamEntry, PathBuf), String> {
    let incarnation = edges.entropy.number();
    let declared = Declaration { name: &spec.name, definition: &spec.definition, sink_kind: spec.sink.kind() };
    data.declare(declared, edges.clock.now(), incarnation).map_err(|error| error.to_string())
}

fn open_log(
    dir: &Path,
    entry: &StreamEntry,
    open: &OpenLane,
    edges: &Edges,
    share: &Arc<Share>,
    committers: &Committers,
) -> Result<Log, String> {
    let options = log::Options {
        floor: open.floor(),
        forgotten: open.forgotten(),
        buffers: edges.pool.buffers().clone(),
        ..log::Options::new(entry.incarnation)
    };
    let opened = Log::open(
        &dir.join("log"),
        &options,
        Arc::clone(&edges.files),
        Arc::clone(&edges.clock),
        Arc::clone(share),
        committers,
    )
    .map_err(|error| error.to_string())?;
    for lost in opened.lost {
        // The packing loop meets the same damage when it reads, and then records and counts it.
        warn!(records = %lost.span, why = lost.why, "the log is damaged");
    }
    Ok(opened.log)
}

fn identity(entry: &StreamEntry) -> Identity {
    Identity {
        incarnation: entry.incarnation,
        version: entry.version,
        created_at: entry.created_at,
        updated_at: entry.updated_at,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::LocalSecrets;

    #[test]
    fn streams_that_place_objects_alike_share_a_sink() {
        let declared = Declared::new(&LocalSecrets);
        let build = |name: &str, encryption: Encryption| {
            let config = serde_json::from_value(json!({ "file": { "path": "/nowhere" } })).unwrap();
            declared.store(&StoreSpec { name: name.to_owned(), config }, &encryption).unwrap()
        };
        let first = build("a", Encryption::StoreDefault);
        assert!(Arc::ptr_eq(&first, &build("a", Encryption::StoreDefault)));
        assert!(!Arc::ptr_eq(&first, &build("a", Encryption::SseS3)));
        assert!(!Arc::ptr_eq(&first, &build("b", Encryption::StoreDefault)));
    }
}
