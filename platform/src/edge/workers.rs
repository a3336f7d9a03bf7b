//! Threads that serve. A connection stays on its thread, with those to backends that its requests have: nothing of a request waits for another thread to
//! wake up, and the threads share no queue.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot::{Sender, channel};

use super::shared::Shared;
use crate::fault::{Context, Result};

/// Threads that may block at once, of each.
const MOST_BLOCKED: usize = 512;
/// What connections may still take when the edge ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// A thread that serves.
pub struct Worker {
    /// What its connections share, with connections to backends of its own.
    pub shared: Arc<Shared>,
    /// Where its tasks are spawned.
    pub handle: Handle,
    /// As many as there are connections, and one.
    connections: Arc<()>,
}

/// A connection that its thread counts as long as this lives.
pub struct OfWorker {
    _of: Arc<()>,
}

/// The threads. They end when this is dropped.
#[derive(Default)]
pub struct Threads {
    /// Dropped, they tell the threads to end.
    ends: Vec<Sender<()>>,
    running: Vec<JoinHandle<()>>,
}

/// Starts so many.
///
/// # Errors
/// If a thread cannot be had.
pub fn start(count: usize, shared: &Shared) -> Result<(Threads, Arc<[Worker]>)> {
    let (mut threads, mut workers) = (Threads::default(), Vec::new());
    for _ in 0..count {
        let runtime = Builder::new_current_thread().max_blocking_threads(MOST_BLOCKED).enable_all().build();
        let runtime = runtime.context("the threads of the edge")?;
        let shared = Arc::new(Shared { pool: Arc::default(), ..shared.clone() });
        let handle = runtime.handle().clone();
        handle.spawn(Arc::clone(&shared.pool).sweep());
        workers.push(Worker { shared, handle, connections: Arc::default() });
        threads.run(runtime)?;
    }
    Ok((threads, workers.into()))
}

/// The one that has the fewest connections, which has one more from now on.
pub fn freest(workers: &[Worker]) -> Option<(&Worker, OfWorker)> {
    let freest = workers.iter().min_by_key(|worker| Arc::strong_count(&worker.connections))?;
    Some((freest, OfWorker { _of: Arc::clone(&freest.connections) }))
}

impl Threads {
    fn run(&mut self, runtime: Runtime) -> Result<()> {
        let (end, ended) = channel();
        let thread = thread::Builder::new().name("edge".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(FAREWELL);
        });
        self.running.push(thread.context("the threads of the edge")?);
        self.ends.push(end);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // All are told first, so that their farewells are one.
        self.ends.clear();
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}
