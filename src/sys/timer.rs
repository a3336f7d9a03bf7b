//! A timer that an event loop can wait for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use crate::error::{Error, ErrorKind, Result};

/// A timerfd; closes its descriptor when dropped.
pub(crate) struct Timer(TimerFd);

impl Timer {
    pub(crate) fn new() -> Result<Self> {
        let timer = TimerFd::new().map_err(|e| Error::new(ErrorKind::Host, "cannot make a timer").with_source(e))?;
        // SAFETY: the descriptor is open, and the command takes a plain integer.
        unsafe { libc::fcntl(timer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Ok(Self(timer))
    }

    /// Becomes readable once, after `delay`; an earlier setting is forgotten.
    pub(crate) fn set(&mut self, delay: Duration) {
        // Fails only for a descriptor that is no timer.
        let _ = self.0.reset(delay, None);
    }

    /// Makes it unreadable again. Never blocks, also where it was set anew since it ran out.
    pub(crate) fn take(&mut self) {
        let _ = self.0.wait();
    }

    /// A second descriptor of the same timer, for an event loop to own.
    pub(crate) fn descriptor(&self) -> Result<std::os::fd::OwnedFd> {
        self.as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::new(ErrorKind::Host, "cannot duplicate a timer").with_source(e))
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
