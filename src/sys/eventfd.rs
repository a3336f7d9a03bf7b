//! An eventfd: the doorbell between threads, and between KVM and us.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use vmm_sys_util::eventfd;

use crate::error::{Error, ErrorKind, Result};

/// A non-blocking, close-on-exec eventfd. It closes its descriptor when dropped.
///
/// ```
/// let event = vmcell::EventFd::new()?;
/// assert!(!event.take());
/// event.signal();
/// assert!(event.take());
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFd(eventfd::EventFd);

impl EventFd {
    /// Makes an eventfd whose counter is zero.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] where the process may open no more descriptors.
    pub fn new() -> Result<Self> {
        eventfd::EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Host, "cannot make an eventfd").with_source(e))
    }

    /// A second handle to the same eventfd.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] where the process may open no more descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Host, "cannot duplicate an eventfd").with_source(e))
    }

    /// Adds one to the counter and so wakes who waits for it. Never blocks.
    pub fn signal(&self) {
        // The only failure is a counter at its maximum, and then the reader is awake already.
        let _ = self.0.write(1);
    }

    /// Sets the counter to zero and says whether it had been signalled. Never blocks.
    pub fn take(&self) -> bool {
        match self.0.read() {
            Ok(_) => true,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    pub(crate) fn inner(&self) -> &eventfd::EventFd {
        &self.0
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
