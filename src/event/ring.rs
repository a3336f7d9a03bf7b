//! The io_uring of an I/O thread: made when the first participant asks for it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::place::Bell;
use crate::memory::FileRing;
use crate::sys::is_filtered;

/// A thread's ring, or why there is none.
pub(super) struct RingSlot {
    bell: Arc<Bell>,
    state: State,
}

enum State {
    Unmade,
    Made { ring: Box<FileRing>, is_watched: bool },
    Refused(String),
}

impl RingSlot {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { bell, state: State::Unmade }
    }

    /// No ring, for a reason.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn refused(bell: Arc<Bell>, reason: &str) -> Self {
        Self { bell, state: State::Refused(reason.to_owned()) }
    }

    /// The ring. The first call must be on the thread that the ring is for.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn get(&mut self) -> Result<&mut FileRing, &str> {
        if is_filtered() {
            self.make_none("the thread that started this one may make none, since its system calls are filtered");
        }
        if let State::Unmade = self.state {
            let bell = Arc::clone(&self.bell);
            self.state = match FileRing::new(move || bell.call()) {
                Ok(ring) => State::Made { ring: Box::new(ring), is_watched: false },
                Err(error) => State::Refused(reason(&error)),
            };
        }
        match &mut self.state {
            State::Made { ring, .. } => Ok(ring),
            State::Refused(reason) => Err(reason),
            State::Unmade => Err("the ring is not made yet"),
        }
    }

    /// If there is no ring yet, there will be none, for a reason.
    pub(super) fn make_none(&mut self, reason: &str) {
        if let State::Unmade = self.state {
            self.state = State::Refused(reason.to_owned());
        }
    }

    /// The ring's descriptor, the first time that it is asked for.
    pub(super) fn take_unwatched(&mut self) -> Option<RawFd> {
        let State::Made { ring, is_watched } = &mut self.state else { return None };
        let was_watched = std::mem::replace(is_watched, true);
        (!was_watched).then(|| ring.as_raw_fd())
    }

    /// The ring, if it was made.
    pub(super) fn made(&mut self) -> Option<&mut FileRing> {
        match &mut self.state {
            State::Made { ring, .. } => Some(ring),
            State::Unmade | State::Refused(_) => None,
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring".to_owned(),
        Some(libc::EPERM | libc::EACCES) => format!("this host forbids io_uring ({error})"),
        Some(libc::EMFILE) => format!("this process has no descriptor left for io_uring, see RLIMIT_NOFILE ({error})"),
        Some(libc::EINVAL) => "this kernel's io_uring is older than Linux 5.18".to_owned(),
        _ => format!("this host gives no io_uring ({error})"),
    }
}
