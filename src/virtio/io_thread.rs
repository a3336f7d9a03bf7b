//! The thread that serves devices: an epoll loop over doorbells, backends and whatever else is registered.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError, Weak};
use std::thread::{self, ThreadId};

use super::lock;
use crate::error::Result;
use crate::sys::{Epoll, EventFd, Interest, Readiness, ThreadHandle, spawn};

/// A thread that serves devices. A clone is another handle to the same thread.
///
/// Devices of one VM or of many may share one; a busy disk may have its own. A device that waits, such as a disk whose
/// file is slow, holds up the others on its thread for that time. The thread ends, and is joined, when the last handle
/// and the last device on it are gone. It runs with every signal blocked.
///
/// ```
/// let shared = vmcell::IoThread::new("vm-io")?;
/// let another_handle = shared.clone();
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct IoThread {
    owner: Arc<Owner>,
}

type Handler = Box<dyn FnMut(Readiness) + Send>;
type Source = Box<dyn AsFd + Send + Sync>;

/// What the last handle drops.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<ThreadHandle>>,
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    stop: AtomicBool,
    thread: OnceLock<ThreadId>,
    next_token: AtomicU64,
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
}

struct Entry {
    token: u64,
    source: Source,
    handler: Mutex<Option<Handler>>,
    removed: AtomicBool,
}

const WAKE: u64 = 0;

impl IoThread {
    /// Starts a thread; of its name Linux keeps 15 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) where the host gives no thread or no descriptor.
    pub fn new(name: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            epoll: Epoll::new()?,
            wake: EventFd::new()?,
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
            next_token: AtomicU64::new(WAKE.wrapping_add(1)),
            entries: Mutex::new(HashMap::new()),
        });
        shared.epoll.add(shared.wake.as_fd(), Interest::Readable, WAKE)?;
        let served = Arc::clone(&shared);
        let thread = spawn(name, move || served.run())?;
        Ok(Self { owner: Arc::new(Owner { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Calls `handler` on this thread each time `source` is ready for what `interest` says, until the registration is
    /// dropped. `source` is kept open until then; it must be one that epoll takes, so no regular file.
    ///
    /// The handler must not wait, and should do a bounded amount of work: what is still ready is reported again, after
    /// the others had their turn. Where it panics it is removed, and the thread goes on.
    pub(crate) fn register(
        &self,
        source: impl AsFd + Send + Sync + 'static,
        interest: Interest,
        handler: impl FnMut(Readiness) + Send + 'static,
    ) -> Result<Registration> {
        let shared = &self.owner.shared;
        let entry = Arc::new(Entry {
            token: shared.next_token.fetch_add(1, Ordering::Relaxed),
            source: Box::new(source),
            handler: Mutex::new(Some(Box::new(handler))),
            removed: AtomicBool::new(false),
        });
        lock(&shared.entries).insert(entry.token, Arc::clone(&entry));
        if let Err(e) = shared.epoll.add(entry.fd(), interest, entry.token) {
            lock(&shared.entries).remove(&entry.token);
            return Err(e);
        }
        Ok(Registration { thread: self.clone(), entry })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.signal();
        // A thread cannot join itself; it ends when it comes back to its loop.
        if let Some(thread) = lock(&self.thread).take().filter(|_| !self.shared.is_current()) {
            thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let _ = self.thread.set(thread::current().id());
        let mut ready = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            // Waiting can only fail for reasons that do not pass: without a queue of events there is nothing to serve.
            if self.epoll.wait(-1, &mut ready).is_err() {
                return;
            }
            for event in &ready {
                self.dispatch(*event);
            }
        }
    }

    fn dispatch(&self, event: Readiness) {
        if event.token == WAKE {
            self.wake.take();
            return;
        }
        // An event may be older than the removal of its entry; tokens are never used again.
        let Some(entry) = lock(&self.entries).get(&event.token).cloned() else { return };
        let mut slot = lock(&entry.handler);
        let Some(handler) = slot.as_mut().filter(|_| !entry.removed.load(Ordering::Acquire)) else { return };
        let panicked = catch_unwind(AssertUnwindSafe(|| handler(event))).is_err();
        if panicked {
            self.forget(&entry);
        }
        // Removed while it ran. Dropped before the lock is given back: who waits for the removal waits for this, too.
        if entry.removed.load(Ordering::Acquire) {
            drop(slot.take());
        }
    }

    /// Takes an entry out of the loop; its handler may still be running.
    fn forget(&self, entry: &Entry) {
        if !entry.removed.swap(true, Ordering::AcqRel) {
            // The descriptor is open and registered, unless the host program closed it behind our back.
            let _ = self.epoll.delete(entry.fd());
            lock(&self.entries).remove(&entry.token);
        }
    }

    fn is_current(&self) -> bool {
        self.thread.get().is_some_and(|id| *id == thread::current().id())
    }
}

impl Entry {
    fn fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// A handler on an I/O thread.
///
/// Dropping it removes the handler: after that it is not running and never runs again. From any thread; waits for a handler
/// that is running, unless that is the caller itself.
#[must_use = "dropping it removes the handler"]
pub(crate) struct Registration {
    thread: IoThread,
    entry: Arc<Entry>,
}

impl Registration {
    /// Something to change the interest with that does not own the handler.
    pub(crate) fn control(&self) -> Control {
        Control { shared: Arc::downgrade(&self.thread.owner.shared), entry: Arc::downgrade(&self.entry) }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let shared = &self.thread.owner.shared;
        shared.forget(&self.entry);
        let handler = if shared.is_current() {
            match self.entry.handler.try_lock() {
                Ok(mut slot) => slot.take(),
                Err(TryLockError::Poisoned(slot)) => slot.into_inner().take(),
                // It is the handler that is running now; the loop drops it when it returns.
                Err(TryLockError::WouldBlock) => None,
            }
        } else {
            lock(&self.entry.handler).take()
        };
        drop(handler);
    }
}

/// Changes what a handler is called for, for as long as it is registered.
#[derive(Clone)]
pub(crate) struct Control {
    shared: Weak<Shared>,
    entry: Weak<Entry>,
}

impl Control {
    pub(crate) fn set_interest(&self, interest: Interest) {
        if let (Some(shared), Some(entry)) = (self.shared.upgrade(), self.entry.upgrade()) {
            // Fails where the handler was removed meanwhile, and then there is nothing to change.
            let _ = shared.epoll.modify(entry.fd(), interest, entry.token);
        }
    }
}

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoThread").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "io_thread_test.rs"]
mod tests;
