//! How a thread ends, for whoever wants to join it.

use std::sync::PoisonError;

use crate::sys::lock;
use crate::sys::sync::{Condvar, Mutex};

/// Says whether a thread that ends can be joined. One that cannot waits for the host's storage, however long that takes: Linux does
/// not let a thread end before the io_uring work that it has begun.
#[derive(Default)]
pub(super) struct Ending {
    joinable: Mutex<Option<bool>>,
    known: Condvar,
}

impl Ending {
    /// By the thread; only the first call counts.
    pub(super) fn tell(&self, joinable: bool) {
        lock(&self.joinable).get_or_insert(joinable);
        self.known.notify_all();
    }

    /// Waits until the thread has told.
    pub(super) fn wait(&self) -> bool {
        let known = self.known.wait_while(lock(&self.joinable), |joinable| joinable.is_none());
        known.unwrap_or_else(PoisonError::into_inner).unwrap_or(true)
    }
}
