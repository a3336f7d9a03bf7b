//! Packets on their way from the cards' threads to a tunnel's: bounded, and handed over in batches.

use std::collections::VecDeque;

use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};

/// What several threads put in and one takes out. The lock is held for a few instructions at a time, never over the copy of a packet.
pub(super) struct Outbox {
    store: Mutex<Store>,
    /// How many packets may wait, or be on their way.
    most: usize,
    /// The taker was woken, and has not looked since.
    woken: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Store {
    waiting: VecDeque<Vec<u8>>,
    /// Storage that is not in use.
    free: Vec<Vec<u8>>,
    made: usize,
}

impl Outbox {
    pub(super) fn new(most: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { store: Mutex::default(), most, woken: AtomicBool::new(false), wake: Box::new(wake) }
    }

    /// Storage for a packet, which is empty; `None` if too many are on their way.
    pub(super) fn storage(&self) -> Option<Vec<u8>> {
        let mut store = lock(&self.store);
        if let Some(storage) = store.free.pop() {
            return Some(storage);
        }
        let made = store.made.checked_add(1).filter(|made| *made <= self.most)?;
        store.made = made;
        Some(Vec::new())
    }

    /// Puts a packet in, in storage that came from [`storage`](Self::storage).
    pub(super) fn put(&self, packet: Vec<u8>) {
        lock(&self.store).waiting.push_back(packet);
    }

    /// Wakes the taker, once for all that was put in since it last looked.
    pub(super) fn ring(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// Takes all packets, and gives back storage that is not needed any more.
    pub(super) fn take(&self, packets: &mut VecDeque<Vec<u8>>, spent: &mut Vec<Vec<u8>>) {
        // Before the look: whatever comes later rings again.
        self.woken.store(false, Ordering::SeqCst);
        let mut store = lock(&self.store);
        packets.append(&mut store.waiting);
        spent.iter_mut().for_each(Vec::clear);
        store.free.append(spent);
    }
}

#[cfg(all(test, shuttle))]
#[path = "outbox_model_test.rs"]
mod models;
