//! Waiting for many eventfds of a model at once.

use std::cell::RefCell;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use super::kernel::{self, Watched};
use crate::error::{Error, ErrorKind, Result};

/// What a caller wants to be woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) edge: bool,
}

impl Watch {
    pub(crate) const READABLE: Self = Self { readable: true, writable: false, edge: false };
}

/// One descriptor that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) key: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) hang_up: bool,
}

pub(crate) struct Epoll(RefCell<Vec<Watched>>);

impl Epoll {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(RefCell::default()))
    }

    /// No model waits for one instance by another.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd> {
        Err(Error::new(ErrorKind::Host, "an instance of a model has no descriptor"))
    }

    pub(crate) fn add(&self, fd: RawFd, watch: Watch, key: u64) -> Result<()> {
        assert!(watch.readable && !watch.writable, "a model has eventfds only");
        let watched = Watched::new(fd, key, watch.edge);
        self.0.borrow_mut().push(watched);
        Ok(())
    }

    pub(crate) fn modify(&self, fd: RawFd, watch: Watch, key: u64) -> Result<()> {
        self.delete(fd)?;
        self.add(fd, watch, key)
    }

    pub(crate) fn delete(&self, fd: RawFd) -> Result<()> {
        self.0.borrow_mut().retain(|watched| watched.fd != fd);
        Ok(())
    }

    /// A wait with a limit may be over at any time, and so it is over at once.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> Result<()> {
        let keys = kernel::poll(self.0.get_mut(), limit.is_none());
        ready.extend(keys.into_iter().map(|key| Ready { key, readable: true, writable: false, hang_up: false }));
        Ok(())
    }
}
