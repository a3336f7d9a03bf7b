//! A running queue, owned by its device.

use std::sync::Arc;

use super::chain::Chain;
use super::config::QueueConfig;
use super::ring::Ring;
use super::shared::Shared;
use super::state::QueueState;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Io, Waker};
use crate::memory::{GuestMemory, Lessor};
use crate::virtio::interrupt::Interrupt;

/// What a popped chain counts in a turn, in bytes: looking at its descriptors takes about as long as copying so much.
const CHAIN_CHARGE: u64 = 512;

/// So many chains that are completed [later](Queue::complete_later) are shown to the driver at once.
const TOGETHER: u16 = 32;

/// A running queue. It is lent to its device for each call, on the thread that owns the device.
pub struct Queue {
    ring: Ring,
    shared: Arc<Shared>,
    index: u16,
    interrupt: Arc<dyn Interrupt>,
    /// Completed chains, to be used again. They keep their leases, since counting one more and one less for each request shows;
    /// a queue that is halted has none of them.
    spare: Vec<Chain>,
    halted: bool,
}

/// With what a queue is started.
pub(in crate::virtio) struct Start {
    pub(in crate::virtio) lessor: Lessor,
    pub(in crate::virtio) index: u16,
    pub(in crate::virtio) event_idx: bool,
    pub(in crate::virtio) interrupt: Arc<dyn Interrupt>,
    /// Woken if a chain is dropped somewhere.
    pub(in crate::virtio) waker: Option<Waker>,
    pub(in crate::virtio) state: QueueState,
}

impl Queue {
    /// Starts queue number `index` of a device. A transport does this when the driver is ready.
    ///
    /// # Errors
    /// Those of [`QueueConfig::validate`].
    pub fn new(
        config: &QueueConfig,
        memory: &GuestMemory,
        index: u16,
        event_idx: bool,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self> {
        let (lessor, state) = (Lessor::new(memory.clone()), QueueState::default());
        Self::start(config, Start { lessor, index, event_idx, interrupt, waker: None, state })
    }

    pub(in crate::virtio) fn start(config: &QueueConfig, start: Start) -> Result<Self> {
        let Start { lessor, index, event_idx, interrupt, waker, state } = start;
        config.validate(lessor.memory())?;
        let ring = Ring::new(config, lessor.memory(), event_idx, state)?;
        let shared = Shared::new(config.size, lessor, waker);
        Ok(Self { ring, shared, index, interrupt, spare: Vec::new(), halted: false })
    }

    /// Takes the next chain that the driver offers, if there is one, and counts it in the turn. Never blocks.
    ///
    /// A chain that breaks the rules has no buffers. The device completes it like any other, and its length is 0 then.
    ///
    /// If this returns `None`, the transport looks for the next chain from time to time, and asks the driver to ring for it before
    /// the thread sleeps. It gives the device another turn then, but only one: a device that does not look in it, because it has no
    /// room for instance, looks when it has.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] if the queue cannot be trusted any more, because its index jumped or more chains are in flight
    /// than it has descriptors. The device passes this error on, and needs a reset.
    pub fn pop(&mut self, io: &mut Io) -> Result<Option<Chain>> {
        self.reclaim();
        if self.halted || io.spent() {
            return Ok(None);
        }
        io.charge(CHAIN_CHARGE);
        let mut chain = self.spare.pop().unwrap_or_else(|| Chain::blank(&self.shared));
        let next = self.ring.next(chain.buffers())?;
        let Some((head, position)) = next else {
            self.spare.push(chain);
            self.ring.publish();
            return Ok(None);
        };
        chain.begin(head, position);
        Ok(Some(chain))
    }

    /// Whether there is a chain for which [`pop`](Self::pop) has looked in vain. Says so once. Costs no system call.
    pub(in crate::virtio) fn find_more(&mut self) -> bool {
        !self.halted && self.ring.find_more()
    }

    /// Asks the driver to ring for the next chain, if [`pop`](Self::pop) has looked in vain for one. Says whether one has come
    /// since then, for which the driver did not ring. A transport does this before its thread sleeps.
    pub fn call_for_more(&mut self) -> bool {
        !self.halted && self.ring.call_for_more()
    }

    /// Gives a chain back to the driver. `written` is how many of its writable bytes the device wrote, at most all of them.
    ///
    /// The driver is told when the device returns to its transport, or at [`notify`](Self::notify). A chain of another queue is
    /// dropped, which completes it there with length 0.
    pub fn complete(&mut self, chain: Chain, written: u32) {
        self.stage(chain, written);
        self.ring.publish();
    }

    /// As [`complete`](Self::complete), but the driver may see it later: at the latest when there is no chain to [take](Self::pop),
    /// when a few have come together, or at [`notify`](Self::notify). A driver that looks at the ring all the time takes its
    /// cache line away less often.
    pub(crate) fn complete_later(&mut self, chain: Chain, written: u32) {
        self.stage(chain, written);
        self.publish_enough();
    }

    /// Gives several chains back at once, [later](Self::complete_later): the driver sees all of them or none.
    pub(crate) fn complete_together(&mut self, chains: impl IntoIterator<Item = (Chain, u32)>) {
        chains.into_iter().for_each(|(chain, written)| self.stage(chain, written));
        self.publish_enough();
    }

    fn publish_enough(&mut self) {
        if self.ring.staged() >= TOGETHER {
            self.ring.publish();
        }
    }

    fn stage(&mut self, mut chain: Chain, written: u32) {
        let written = written.min(chain.writable_len());
        if let Some(head) = chain.end(&self.shared) {
            self.ring.stage(head, written);
            self.keep(chain);
        }
    }

    /// Keeps a chain that has ended.
    fn keep(&mut self, chain: Chain) {
        if !self.halted {
            self.spare.push(chain);
        }
    }

    /// Puts back the chain that was taken last, as if it had not been taken. A device that is being paused does this for the
    /// chains with which it has not begun, from the last one backwards.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the chain is of another queue, or another one was taken after it and not put back. Then
    /// the chain is completed with length 0.
    pub fn put_back(&mut self, mut chain: Chain) -> Result<()> {
        let position = chain.position();
        let Some(head) = chain.end(&self.shared) else {
            return Err(Error::new(ErrorKind::InvalidState, "a chain was put back into a queue that it is not from"));
        };
        self.keep(chain);
        if self.ring.put_back(position) {
            return Ok(());
        }
        self.ring.stage(head, 0);
        self.ring.publish();
        Err(Error::new(ErrorKind::InvalidState, "a chain was put back that was not the last one to be taken"))
    }

    /// Interrupts the driver, if it wants to be told of what was completed since the last call.
    ///
    /// The transport calls this at the end of each turn. A device that takes long may call it in between.
    pub fn notify(&mut self) {
        self.reclaim();
        self.ring.publish();
        if self.ring.take_signal() {
            self.interrupt.signal_used(self.index);
        }
    }

    /// Returns how far the queue has come.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if chains are in flight.
    pub fn state(&self) -> Result<QueueState> {
        let in_flight = self.in_flight();
        if in_flight > 0 {
            let message = format!("{in_flight} requests of queue {} are in flight, a state needs none", self.index);
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        Ok(self.ring.state())
    }

    /// How many chains came since the last call, and how many of them broke the rules.
    pub(in crate::virtio) fn take_counts(&mut self) -> (u16, u16) {
        self.ring.take_counts()
    }

    /// What a buffer that the device makes of chains leases.
    pub(crate) fn lessor(&self) -> &Lessor {
        &self.shared.lessor
    }

    /// Returns how many chains were taken, and neither completed nor put back.
    pub fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    /// While halted, the queue gives no chain, and holds no lease of its own.
    pub(super) fn set_halted(&mut self, halted: bool) {
        self.halted = halted;
        if halted {
            self.spare = Vec::new();
        }
    }

    /// Completes what was dropped.
    fn reclaim(&mut self) {
        let Self { ring, shared, .. } = self;
        shared.take_lost(|head| {
            ring.stage(head, 0);
            ring.publish();
        });
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
