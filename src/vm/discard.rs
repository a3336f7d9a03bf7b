//! VMs that nobody waits for: how many there are, and a descriptor that tells when none is left.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, OnceLock};

use crate::error::Result;
use crate::sys::{EventFd, lock};

/// VMs that were discarded, and are not freed yet.
static COUNT: Mutex<usize> = Mutex::new(0);

/// Signalled exactly while [`COUNT`] is 0; made when it is first asked for. It changes while the count is locked.
static NONE_LEFT: OnceLock<EventFd> = OnceLock::new();

/// One such VM, for as long as this lives.
pub(super) struct Discarded(());

impl Discarded {
    pub(super) fn count() -> Self {
        let mut count = lock(&COUNT);
        *count = count.saturating_add(1);
        if let Some(none_left) = NONE_LEFT.get() {
            none_left.take();
        }
        Self(())
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        let mut count = lock(&COUNT);
        *count = count.saturating_sub(1);
        if *count == 0
            && let Some(none_left) = NONE_LEFT.get()
        {
            none_left.signal();
        }
    }
}

pub(super) fn discarded() -> usize {
    *lock(&COUNT)
}

pub(super) fn none_left() -> Result<BorrowedFd<'static>> {
    let count = lock(&COUNT);
    if let Some(none_left) = NONE_LEFT.get() {
        return Ok(none_left.as_fd());
    }
    let none_left = EventFd::new()?;
    if *count == 0 {
        none_left.signal();
    }
    Ok(NONE_LEFT.get_or_init(|| none_left).as_fd())
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_ready(fd: BorrowedFd<'_>) -> bool {
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    /// No other unit test discards a VM.
    #[test]
    fn the_descriptor_is_ready_while_no_discarded_vm_is_left() {
        let early = Discarded::count();
        let fd = none_left().unwrap();
        assert!(!is_ready(fd) && discarded() == 1);
        let late = Discarded::count();
        drop(early);
        assert!(!is_ready(fd) && discarded() == 1);
        drop(late);
        assert!(is_ready(fd) && is_ready(none_left().unwrap()) && discarded() == 0);
        drop(Discarded::count());
        assert!(is_ready(fd));
    }
}
