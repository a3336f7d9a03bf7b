//! Threads that still wait for their host's storage after their disk has ended: how many there are, and may be.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::memory::leaked_transfers;

/// How many there may be in a process. Each keeps a file open and a guest's memory mapped.
const MOST: usize = 64;
const MOST_TRANSFERS: usize = 1024;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One such thread, for as long as this lives.
pub(super) struct Abandoned(());

impl Abandoned {
    pub(super) fn count() -> Self {
        COUNT.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns how many threads in this process still wait for the host's storage although their disks have ended. Each keeps its
/// file open and its guest's memory mapped until the storage answers. While there are 64, no further disk on a file can be
/// attached.
pub fn abandoned_threads() -> usize {
    COUNT.load(Ordering::SeqCst)
}

/// Returns how many operations in this process are with the kernel's io_uring although their I/O thread was ended. Their files stay
/// open and the memory of their guests stays mapped, and the thread stays, until the host's storage answers. While there are 1024
/// or more, no further disk on a file can be attached.
pub fn abandoned_transfers() -> usize {
    leaked_transfers()
}

/// Refuses another disk while too much is left over from others.
pub(super) fn check() -> Result<()> {
    allow(abandoned_threads(), abandoned_transfers())
}

fn allow(threads: usize, transfers: usize) -> Result<()> {
    if threads < MOST && transfers < MOST_TRANSFERS {
        return Ok(());
    }
    let message = format!(
        "{threads} threads and {transfers} operations of disks that have ended still wait for the host's storage, allowed are \
         less than {MOST} and {MOST_TRANSFERS}"
    );
    Err(Error::new(ErrorKind::Disk, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_threads_that_wait_for_dead_storage_refuse_another_disk() {
        assert!(allow(MOST, 0).unwrap_err().to_string().contains("less than 64 and 1024"));
        assert!(allow(0, MOST_TRANSFERS).is_err());
        allow(MOST - 1, MOST_TRANSFERS - 1).unwrap();
        let one = Abandoned::count();
        assert!(abandoned_threads() > 0);
        drop(one);
    }
}
