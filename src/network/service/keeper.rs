//! The thread that looks after the services of a network, while there are any.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::{ThreadHandle, lock, may_wait, spawn};

/// Wakes the thread. To ring never blocks for long, so whoever carries packets may do it.
#[derive(Debug, Default)]
pub(in crate::network) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(in crate::network) fn ring(&self) {
        let before = std::mem::replace(&mut *lock(&self.rung), true);
        if !before {
            self.heard.notify_all();
        }
    }

    /// Waits until it was rung since the last time, or the time is over.
    pub(in crate::network) fn wait(&self, limit: Duration) {
        let mut rung = lock(&self.rung);
        if !*rung {
            rung = match self.heard.wait_timeout(rung, limit) {
                Ok((rung, _)) => rung,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *rung = false;
    }
}

/// The thread. It ends when this is dropped.
pub(in crate::network) struct Keeper {
    bell: Arc<Bell>,
    stops: Arc<AtomicBool>,
    thread: Option<ThreadHandle>,
}

impl Keeper {
    /// Starts it: `round` is called after each ring of the bell, and says how long to wait for the next one.
    pub(in crate::network) fn start(
        bell: &Arc<Bell>,
        mut round: impl FnMut() -> Duration + Send + 'static,
    ) -> Result<Self> {
        let (stops, bell) = (Arc::new(AtomicBool::new(false)), Arc::clone(bell));
        let (stop, ring) = (Arc::clone(&stops), Arc::clone(&bell));
        let thread = spawn("vmcell-services", move || {
            while !stop.load(Ordering::SeqCst) {
                let limit = round();
                ring.wait(limit);
            }
        })?;
        Ok(Self { bell, stops, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::SeqCst);
        self.bell.ring();
        // A thread that serves VMs waits for nobody: this one ends by itself.
        if let Some(thread) = self.thread.take().filter(|_| may_wait()) {
            thread.join();
        }
    }
}
