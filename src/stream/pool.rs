//! Where blocking and CPU-bound work runs, so that the async workers never do it.
//!
//! CPU work (encode, compress) gets as many threads as the machine has cores, for all streams together; what is
//! over waits in order. File work gets a blocking thread each, as it mostly waits for the disk.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

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
            match done.await {
                Ok(result) => result,
                Err(failed) => resume(failed),
            }
        })
    }

    /// Runs work that waits for the disk.
    pub fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        tokio::task::spawn_blocking(work)
    }
}

/// Passes a panic on to the one who waits for the result.
fn resume<T>(failed: tokio::task::JoinError) -> T {
    std::panic::resume_unwind(failed.try_into_panic().unwrap_or_else(|_| Box::new("cancelled with the runtime")))
}
