//! Threads that no signal of the host program can land on.

use std::os::unix::thread::JoinHandleExt;
use std::thread::{Builder, JoinHandle};

use super::signal::{KickSignal, SignalSet};
use crate::error::{Error, ErrorKind, Result};

/// A thread of ours, not yet joined, so that its identifier stays valid.
pub(crate) struct ThreadHandle(JoinHandle<()>);

/// Starts a thread with every signal blocked from its first instruction.
///
/// The name is cut to the 15 bytes that Linux keeps.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<ThreadHandle> {
    // The new thread inherits the mask, so there is no moment in which a signal of the host program could reach it.
    let before = SignalSet::all().block();
    let spawned = Builder::new().name(name.to_owned()).spawn(body);
    before.block();
    spawned
        .map(ThreadHandle)
        .map_err(|e| Error::new(ErrorKind::Host, format!("cannot start thread {name}")).with_source(e))
}

impl ThreadHandle {
    /// Sends the kick. Harmless if the thread has ended.
    pub(crate) fn kick(&self, signal: KickSignal) {
        // SAFETY: the thread has not been joined, so its identifier is valid even after it has ended. It blocks the
        // signal, so that nothing but KVM_RUN sees it.
        unsafe { libc::pthread_kill(self.0.as_pthread_t(), signal.number()) };
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the thread to end. A panic in it was caught and reported by its body.
    pub(crate) fn join(self) {
        let _ = self.0.join();
    }
}
