//! What a queue shares with its chains, which may be on any thread: without a lock.

use std::sync::Arc;

use crate::event::Waker;
use crate::memory::Lessor;
use crate::sys::sync::atomic::{AtomicBool, AtomicU16, Ordering};

pub(super) struct Shared {
    pub(super) lessor: Lessor,
    /// By head, how many chains were dropped rather than completed; the queue completes them. A hostile driver offers the
    /// same head several times.
    lost: Box<[AtomicU16]>,
    any_lost: AtomicBool,
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn new(size: u16, lessor: Lessor, waker: Option<Waker>) -> Arc<Self> {
        let lost = (0..size).map(|_| AtomicU16::new(0)).collect();
        Arc::new(Self { lessor, lost, any_lost: AtomicBool::new(false), waker })
    }

    /// A chain was dropped without having been completed.
    pub(super) fn lose(&self, head: u16) {
        // At most as many as the queue has descriptors are in flight at once.
        if let Some(count) = self.lost.get(usize::from(head)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        self.any_lost.store(true, Ordering::SeqCst);
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    /// Takes the heads of the chains that were dropped.
    pub(super) fn take_lost(&self, mut each: impl FnMut(u16)) {
        if !self.any_lost.load(Ordering::Relaxed) || !self.any_lost.swap(false, Ordering::SeqCst) {
            return;
        }
        for (head, count) in (0u16..).zip(&self.lost) {
            (0..count.swap(0, Ordering::SeqCst)).for_each(|_| each(head));
        }
    }
}
