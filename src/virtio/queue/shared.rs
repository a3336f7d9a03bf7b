//! What a queue shares with its chains, which may be on any thread: without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use crate::event::Waker;
use crate::memory::Lessor;

const BITS: usize = u64::BITS as usize;

pub(super) struct Shared {
    pub(super) lessor: Lessor,
    /// Heads of chains that were dropped rather than completed, a bit each; the queue completes them.
    lost: Box<[AtomicU64]>,
    /// How many chains of each head: a driver may offer one that is in flight already.
    counts: Box<[AtomicU16]>,
    any_lost: AtomicBool,
    waker: Option<Waker>,
}

impl Shared {
    pub(super) fn new(size: u16, lessor: Lessor, waker: Option<Waker>) -> Arc<Self> {
        let words = usize::from(size).div_ceil(BITS);
        let lost = (0..words).map(|_| AtomicU64::new(0)).collect();
        let counts = (0..size).map(|_| AtomicU16::new(0)).collect();
        Arc::new(Self { lessor, lost, counts, any_lost: AtomicBool::new(false), waker })
    }

    /// A chain was dropped without having been completed.
    pub(super) fn lose(&self, head: u16) {
        if let Some(count) = self.counts.get(usize::from(head)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let word = usize::from(head).checked_div(BITS).and_then(|word| self.lost.get(word));
        if let Some(word) = word {
            word.fetch_or(1u64.wrapping_shl(head.into()), Ordering::SeqCst);
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
        for (word, base) in self.lost.iter().zip((0u16..).step_by(BITS)) {
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let head = base.saturating_add(u16::try_from(bits.trailing_zeros()).unwrap_or(0));
                let count = self.counts.get(usize::from(head)).map_or(0, |count| count.swap(0, Ordering::SeqCst));
                (0..count).for_each(|_| each(head));
                bits &= bits.wrapping_sub(1);
            }
        }
    }
}
