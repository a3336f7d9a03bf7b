//! From any thread to a participant, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::place::Place;

/// Makes the thread that owns a participant call it. May be cloned and used from any thread; never blocks.
///
/// Being woken twice before the participant has its turn is the same as once. After the participant is gone it does
/// nothing.
#[derive(Clone)]
pub struct Waker {
    pub(super) place: Arc<Place>,
    pub(super) flag: Arc<AtomicBool>,
}

impl Waker {
    /// Has the participant told [`Woken`](super::Cause::Woken) with this waker's token.
    pub fn wake(&self) {
        if !self.flag.swap(true, Ordering::SeqCst) {
            self.place.wake();
        }
    }

    /// Serves the participant on the calling thread, if it has none of its own; says whether anything was done.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn serve_inline(&self) -> bool {
        self.place.serve_inline()
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}
