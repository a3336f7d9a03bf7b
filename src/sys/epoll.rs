//! Waiting for many descriptors at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll as RawEpoll, EpollEvent, EventSet};

use crate::error::{Error, ErrorKind, Result};

/// What a caller wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Woken for as long as there is something to read.
    Readable,
    /// Woken for as long as something may be written.
    Writable,
    /// Woken for as long as there is something to read, or something may be written.
    ReadableWritable,
    /// Stays registered, but is not woken.
    Nothing,
}

impl Interest {
    fn events(self) -> EventSet {
        match self {
            Self::Readable => EventSet::IN,
            Self::Writable => EventSet::OUT,
            Self::ReadableWritable => EventSet::IN | EventSet::OUT,
            // A hang-up is reported whatever was asked; reported once, it cannot become a busy loop.
            Self::Nothing => EventSet::EDGE_TRIGGERED,
        }
    }
}

/// One descriptor that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    /// The number given when the descriptor was added.
    pub(crate) token: u64,
    /// There is something to read.
    pub(crate) readable: bool,
    /// Something may be written.
    pub(crate) writable: bool,
    /// The other side is gone, or the descriptor is in error.
    pub(crate) hang_up: bool,
}

/// An epoll instance; closes its descriptor when dropped.
pub(crate) struct Epoll(RawEpoll);

impl Epoll {
    pub(crate) fn new() -> Result<Self> {
        RawEpoll::new()
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Host, "cannot make an epoll instance").with_source(e))
    }

    /// Starts to watch `fd`. The descriptor must be deleted before it is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        self.control(ControlOperation::Add, fd, interest, token)
    }

    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        self.control(ControlOperation::Modify, fd, interest, token)
    }

    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.control(ControlOperation::Delete, fd, Interest::Nothing, 0)
    }

    fn control(&self, operation: ControlOperation, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        self.0.ctl(operation, fd.as_raw_fd(), EpollEvent::new(interest.events(), token)).map_err(|e| {
            let message = format!("cannot change how descriptor {} is watched", fd.as_raw_fd());
            Error::new(ErrorKind::Host, message).with_source(e)
        })
    }

    /// Waits until something is ready, at most `timeout_ms` milliseconds; -1 waits for ever.
    pub(crate) fn wait(&self, timeout_ms: i32, ready: &mut Vec<Readiness>) -> Result<()> {
        let mut events = [EpollEvent::default(); 32];
        ready.clear();
        let count = match self.0.wait(timeout_ms, &mut events) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(Error::new(ErrorKind::Host, "cannot wait for descriptors").with_source(e)),
        };
        ready.extend(events.iter().take(count).map(|event| Readiness {
            token: event.data(),
            readable: event.event_set().contains(EventSet::IN),
            writable: event.event_set().contains(EventSet::OUT),
            hang_up: event.event_set().intersects(EventSet::HANG_UP | EventSet::ERROR),
        }));
        Ok(())
    }
}
