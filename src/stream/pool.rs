//! Where blocking and CPU-bound work runs, so that the async workers never do it.
//!
//! CPU work (encode, compress) gets as many threads as the machine has cores, for all streams together; what is
//! over waits in order. File work gets a blocking thread each, as it mostly waits for the disk.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

/// The pool of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    cores: Arc<Semaphore>,
}

impl Pool {
    /// A pool that computes on `cores` threads at once.
    pub fn new(cores: usize) -> Self {
        Self { cores: Arc::new(Semaphore::new(cores.max(1))) }
    }

    /// Runs CPU-bound work as soon as a core is free. Dropping the handle does not stop work that has begun.
    pub fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let cores = Arc::clone(&self.cores);
        tokio::spawn(async move {
            let permit = cores.acquire_owned().await; // never closed, so this is always a permit
            let done = tokio::task::spawn_blocking(move || {
                let result = work();
                drop(permit);
                result
            });
            finish(done).await
        })
    }

    /// Runs work that waits for the disk.
    pub fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        tokio::task::spawn_blocking(work)
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
