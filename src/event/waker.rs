//! Wakers: any thread reaches a participant by one, without a lock.

use std::sync::Arc;

use super::place::Place;
use crate::sys::sync::atomic::{AtomicBool, Ordering};

/// Makes the thread that owns a participant call it. Any thread may use a waker or clone it. Never blocks.
///
/// Two uses before the participant has its turn count as one. After the participant is gone, a waker does nothing.
/// [`Io::waker`](super::Io::waker) makes one.
#[derive(Clone)]
pub struct Waker {
    pub(super) place: Arc<Place>,
    pub(super) flag: Arc<AtomicBool>,
}

impl Waker {
    /// Gives the participant a turn with the event [`Woken`](super::Cause::Woken) and this waker's token.
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
