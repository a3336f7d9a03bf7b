//! Threads that no signal of the host program can land on.

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

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
    /// Waits for the thread to end. A panic in it was caught and reported by its body.
    pub(crate) fn join(self) {
        let _ = self.0.join();
    }
}

/// How long the calling thread has run on a CPU. Costs a system call.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; the clock is one that every thread has, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The kernel's identifier of the calling thread. Never 0.
pub(crate) fn current_thread_id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Sends the kick to a thread of this process. Harmless if it has ended.
///
/// The caller makes sure that the thread blocks the signal, so that nothing but `KVM_RUN` sees it.
pub(crate) fn kick_thread(thread: i32, signal: KickSignal) {
    // SAFETY: plain integers; a thread that is gone, or that is not of this process, gives an error.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal.number()) };
}
