//! How any thread gives a device on a backend in C its turn.

use std::sync::{Mutex, PoisonError};

use crate::event::Waker;

/// The waker of a device, once it is attached to a thread.
#[derive(Default)]
pub(super) struct Wake(Mutex<Option<Waker>>);

impl Wake {
    pub(super) fn set(&self, waker: Waker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// Gives the device a turn. Before it is attached, and after it is gone, that does nothing.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }
}
