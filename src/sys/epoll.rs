//! Waiting for many descriptors at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll as RawEpoll, EpollEvent, EventSet};

use crate::error::{Error, ErrorKind, Result};

/// What a caller wants to be woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    /// There is something to read.
    pub(crate) readable: bool,
    /// Something may be written.
    pub(crate) writable: bool,
    /// Once for each change, rather than for as long as it is so. An eventfd that is watched like this need not be read.
    pub(crate) edge: bool,
}

impl Watch {
    pub(crate) const READABLE: Self = Self { readable: true, writable: false, edge: false };

    fn events(self) -> EventSet {
        let mut events = EventSet::empty();
        events.set(EventSet::IN, self.readable);
        events.set(EventSet::OUT, self.writable);
        events.set(EventSet::EDGE_TRIGGERED, self.edge);
        events
    }
}

/// One descriptor that became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The number given when the descriptor was added.
    pub(crate) key: u64,
    /// There is something to read.
    pub(crate) readable: bool,
    /// Something may be written.
    pub(crate) writable: bool,
    /// The other side is gone, or the descriptor is in error.
    pub(crate) hang_up: bool,
}

/// An epoll instance; closes its descriptor when dropped.
pub(crate) struct Epoll {
    fd: RawEpoll,
    events: Box<[EpollEvent; Self::AT_ONCE]>,
    /// The kernel has `epoll_pwait2` (Linux 5.11).
    has_fine_timeout: bool,
}

impl Epoll {
    const AT_ONCE: usize = 64;

    pub(crate) fn new() -> Result<Self> {
        let fd =
            RawEpoll::new().map_err(|e| Error::new(ErrorKind::Host, "cannot make an epoll instance").with_source(e))?;
        Ok(Self { fd, events: Box::new([EpollEvent::default(); Self::AT_ONCE]), has_fine_timeout: true })
    }

    /// Another descriptor of this instance, which is readable while something is ready.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd> {
        // SAFETY: the descriptor stays open while `self` is borrowed.
        let own = unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) };
        own.try_clone_to_owned()
            .map_err(|e| Error::new(ErrorKind::Host, "cannot duplicate an epoll instance").with_source(e))
    }

    /// Starts to watch `fd`. The descriptor must be deleted before it is closed; it is named by its number, so that nothing of
    /// its owner's is called for that.
    pub(crate) fn add(&self, fd: RawFd, watch: Watch, key: u64) -> Result<()> {
        self.control(ControlOperation::Add, fd, watch, key)
    }

    pub(crate) fn modify(&self, fd: RawFd, watch: Watch, key: u64) -> Result<()> {
        self.control(ControlOperation::Modify, fd, watch, key)
    }

    pub(crate) fn delete(&self, fd: RawFd) -> Result<()> {
        self.control(ControlOperation::Delete, fd, Watch::default(), 0)
    }

    fn control(&self, operation: ControlOperation, fd: RawFd, watch: Watch, key: u64) -> Result<()> {
        self.fd.ctl(operation, fd, EpollEvent::new(watch.events(), key)).map_err(|e| {
            let message = format!("cannot change how descriptor {fd} is watched");
            Error::new(ErrorKind::Host, message).with_source(e)
        })
    }

    /// Waits until something is ready, at most for `limit`; `None` waits for ever. Appends what is ready to `ready`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> Result<()> {
        let count = match self.wait_raw(limit) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(Error::new(ErrorKind::Host, "cannot wait for descriptors").with_source(e)),
        };
        ready.extend(self.events.iter().take(count).map(|event| Ready {
            key: event.data(),
            readable: event.event_set().contains(EventSet::IN),
            writable: event.event_set().contains(EventSet::OUT),
            hang_up: event.event_set().intersects(EventSet::HANG_UP | EventSet::ERROR),
        }));
        Ok(())
    }

    fn wait_raw(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        let Some(limit) = limit else { return self.fd.wait(-1, &mut self.events[..]) };
        if limit.is_zero() {
            return self.fd.wait(0, &mut self.events[..]);
        }
        if self.has_fine_timeout {
            match self.wait_fine(limit) {
                Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => self.has_fine_timeout = false,
                other => return other,
            }
        }
        // Rounded up, or a wait of half a millisecond would be a busy loop.
        let millis = i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        self.fd.wait(millis, &mut self.events[..])
    }

    fn wait_fine(&mut self, limit: Duration) -> io::Result<usize> {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: the buffer holds as many events as the call is told (an `EpollEvent` is the kernel's struct), the limit is
        // valid for the call, and a null signal mask is allowed.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                libc::c_int::try_from(self.events.len()).unwrap_or(0),
                &limit,
                ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}
