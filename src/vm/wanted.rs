//! Who waits for a VM to go on, while another thread suspends it.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many threads wait for a VM to go on.
#[derive(Default)]
pub(super) struct Wanted(AtomicU32);

/// A thread that waits, as long as this lives.
pub(super) struct Waiting<'a>(&'a Wanted);

impl Wanted {
    /// One more waits.
    pub(super) fn add(&self) -> Waiting<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// Does any thread wait?
    pub(super) fn is_by_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
