//! Who still reaches into guest memory on behalf of one activation of a device.
//!
//! A chain and a buffer each hold a [`Lease`]. Pausing, resetting, and freezing a device wait until none is out: then
//! nobody, on whatever thread, touches the guest's memory for it.

use std::sync::{Arc, OnceLock};

use super::guest::GuestMemory;
use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Gives out leases, and knows how many are out. A clone counts the same ones.
#[derive(Clone)]
pub(crate) struct Lessor {
    shared: Arc<Shared>,
}

/// Keeps the guest's memory mapped, and counts as somebody who may touch it.
pub(crate) struct Lease {
    shared: Arc<Shared>,
}

struct Shared {
    memory: GuestMemory,
    out: AtomicUsize,
    /// Somebody waits for the last lease to end.
    awaited: AtomicBool,
    on_last: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Lessor {
    pub(crate) fn new(memory: GuestMemory) -> Self {
        let shared =
            Shared { memory, out: AtomicUsize::new(0), awaited: AtomicBool::new(false), on_last: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    pub(crate) fn lease(&self) -> Lease {
        self.shared.out.fetch_add(1, Ordering::Relaxed);
        Lease { shared: Arc::clone(&self.shared) }
    }

    /// How many leases are out. When this says 0, all that their holders did to the memory is visible here.
    pub(crate) fn count(&self) -> usize {
        self.shared.out.load(Ordering::SeqCst)
    }

    /// Sets what is called when the last lease ends while it is [awaited](Self::await_last). From any thread; only the first
    /// setting counts.
    pub(crate) fn on_last(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.on_last.set(Box::new(call));
    }

    /// From now on, the end of the last lease is announced. Look at [`count`](Self::count) after this, not before.
    pub(crate) fn await_last(&self, awaited: bool) {
        self.shared.awaited.store(awaited, Ordering::SeqCst);
    }
}

impl Lease {
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.shared.out.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Ordered before the look at `awaited`, as in `await_last` the other way round: one of the two sees the other.
        let last = self.shared.out.fetch_sub(1, Ordering::SeqCst) == 1;
        if last
            && self.shared.awaited.load(Ordering::SeqCst)
            && let Some(call) = self.shared.on_last.get()
        {
            call();
        }
    }
}
