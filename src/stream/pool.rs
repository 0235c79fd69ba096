//! Where blocking and CPU-bound work runs, so that the async workers never do it.
//!
//! CPU work (encode, compress) gets as many threads as the machine has cores, for all streams together; what is
//! over waits in order. Each gets a workspace, of which there are as many as cores: whatever threads come and go, what
//! compressors keep is held once for each core. File work gets a blocking thread each, as it mostly waits for the disk.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::Blob;
use hydrant_storage::buffers::Buffers;
use hydrant_storage::outbox::Body;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

use crate::blocks::Blocks;
use crate::encode::compress::Workspace;

/// Reads of files that run at once: slices of logs, parts of batches on their way out. Most come from the page cache and
/// end in microseconds, so a few threads do as much as many; and each thread keeps memory for what it last did.
const READS_MAX: usize = 4;

/// The pool of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    cores: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// Those that are not at work. Whoever has a permit finds one, or makes it.
    workspaces: Arc<Mutex<Vec<Workspace>>>,
    blocks: Blocks,
    buffers: Buffers,
    has_threads: bool,
}

impl Pool {
    /// A pool that computes on `cores` threads at once. What it makes lies in `blocks`, what it reads in `buffers`.
    pub fn new(cores: usize, blocks: Blocks, buffers: Buffers) -> Self {
        let (cores, reads) = (Arc::new(Semaphore::new(cores.max(1))), Arc::new(Semaphore::new(READS_MAX)));
        Self { cores, reads, workspaces: Arc::default(), blocks, buffers, has_threads: true }
    }

    /// A pool that does everything in tasks of the runtime, so that a simulation decides what happens when: with a
    /// runtime of one thread, the same seed gives the same run.
    pub fn without_threads(blocks: Blocks) -> Self {
        Self { has_threads: false, ..Self::new(1, blocks, Buffers::default()) }
    }

    /// Whether work runs beside the runtime, as it should wherever somebody else waits for it.
    pub fn has_threads(&self) -> bool {
        self.has_threads
    }

    /// The memory for records and what becomes of them.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The memory for what must lie in one row.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Runs CPU-bound work as soon as a core is free. Dropping the handle does not stop work that has begun.
    pub fn compute<T: Send + 'static>(&self, work: impl FnOnce(&mut Workspace) -> T + Send + 'static) -> JoinHandle<T> {
        let pool = self.clone();
        tokio::spawn(async move {
            let permit = Arc::clone(&pool.cores).acquire_owned().await; // never closed, so this is always a permit
            let Self { workspaces, blocks, .. } = pool.clone();
            let done = pool.block(move || {
                let free = || workspaces.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = free().pop();
                let mut workspace = kept.unwrap_or_else(|| Workspace::new(blocks));
                let result = work(&mut workspace);
                free().push(workspace);
                drop(permit);
                result
            });
            finish(done).await
        })
    }

    /// Runs work that waits for the disk.
    pub fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        if self.has_threads { tokio::task::spawn_blocking(work) } else { tokio::spawn(async { work() }) }
    }

    /// Reads a file, `READS_MAX` at once. Dropping the handle does not stop a read that has begun.
    pub fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let pool = self.clone();
        tokio::spawn(async move {
            let permit = Arc::clone(&pool.reads).acquire_owned().await; // never closed, so this is always a permit
            let done = pool.block(move || {
                let result = work();
                drop(permit);
                result
            });
            finish(done).await
        })
    }

    /// The bytes of a batch, read where blocking work runs.
    pub fn blob(&self, body: Body) -> Arc<dyn Blob> {
        Arc::new(PooledBody { body, pool: self.clone() })
    }
}

#[derive(Debug)]
struct PooledBody {
    body: Body,
    pool: Pool,
}

#[async_trait]
impl Blob for PooledBody {
    fn len(&self) -> u64 {
        self.body.bytes()
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (body, buffers) = (self.body.clone(), self.pool.buffers.clone());
        self.pool.read(move || body.read_into(offset, len, &buffers)).await.map_err(io::Error::other)?
    }
}

/// Waits for work of the pool and passes its panic on. Cancel safe: the handle keeps the result.
pub async fn finish<T>(work: impl Future<Output = Result<T, JoinError>>) -> T {
    match work.await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_cancelled) => std::future::pending().await, // the runtime is going down, and nobody waits any more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use hydrant_core::ByteSize;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_few_files_are_read_at_once_and_all_in_the_end() {
        let pool = Pool::new(2, Blocks::new(ByteSize::mib(1)), Buffers::default());
        let (begun, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (tell, told) = mpsc::channel();
        let reads: Vec<_> = (0..3 * READS_MAX)
            .map(|_| {
                let (begun, most, gate, tell) =
                    (Arc::clone(&begun), Arc::clone(&most), Arc::clone(&gate), tell.clone());
                pool.read(move || {
                    most.fetch_max(begun.fetch_add(1, SeqCst) + 1, SeqCst);
                    tell.send(()).ok(); // only the first few are listened to
                    gate.lock().unwrap().recv().unwrap();
                    begun.fetch_sub(1, SeqCst);
                })
            })
            .collect();
        let told = tokio::task::spawn_blocking(move || told.iter().take(READS_MAX).count()).await.unwrap();
        for _ in &reads {
            go.send(()).unwrap();
        }
        for read in reads {
            finish(read).await;
        }
        assert_eq!((told, most.load(SeqCst)), (READS_MAX, READS_MAX));
    }
}
