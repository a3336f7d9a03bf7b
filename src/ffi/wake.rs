//! How any thread gives a device on a backend in C its turn.

use std::sync::Mutex;

use crate::event::{Io, Waker};
use crate::sys::lock;

/// The waker of a device, once it is attached to a thread, and whether its backend gives up.
#[derive(Default)]
pub(super) struct Wake {
    waker: Mutex<Option<Waker>>,
    given_up: Mutex<Option<String>>,
}

impl Wake {
    pub(super) fn set(&self, waker: Waker) {
        *lock(&self.waker) = Some(waker);
    }

    /// Gives the device a turn. Before it is attached, and after it is gone, that does nothing.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }

    /// The backend can never go on.
    pub(super) fn give_up(&self, why: String) {
        *lock(&self.given_up) = Some(why);
        self.wake();
    }

    /// On the device's thread, when it was woken.
    pub(super) fn tell_given_up(&self, io: &mut Io) {
        if let Some(why) = lock(&self.given_up).take() {
            io.give_up(why);
        }
    }
}
