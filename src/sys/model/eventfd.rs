//! An eventfd of a model. It has a descriptor for its name.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd;

use super::kernel;
use crate::error::{Error, ErrorKind, Result};

/// An eventfd. Clones are handles of the same one.
#[derive(Debug)]
pub struct EventFd(Arc<Named>);

#[derive(Debug)]
struct Named(eventfd::EventFd);

impl EventFd {
    /// Makes an eventfd whose counter is zero.
    pub fn new() -> Result<Self> {
        let made = eventfd::EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let named = made.map_err(|e| Error::new(ErrorKind::Host, "cannot make an eventfd").with_source(e))?;
        Ok(Self(Arc::new(Named(named))))
    }

    /// A second handle to the same eventfd.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self(Arc::clone(&self.0)))
    }

    /// Adds one to the counter and so wakes who waits for it.
    pub fn signal(&self) {
        kernel::signal(self.as_raw_fd());
    }

    /// Sets the counter to zero and says whether it had been signalled.
    pub fn take(&self) -> bool {
        kernel::take(self.as_raw_fd())
    }

    /// Blocks until it is signalled, and takes that.
    pub(crate) fn wait(&self) {
        kernel::wait_for(self.as_raw_fd());
    }

    pub(crate) fn inner(&self) -> &eventfd::EventFd {
        &self.0.0
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        kernel::close(self.0.as_raw_fd());
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.0.as_raw_fd()) }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
