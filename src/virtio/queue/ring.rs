//! The rings of one running queue. `virtio-queue` walks the driver's half; the device's half is written here.
//!
//! Three things of `virtio-queue` are not used, for a reason: `add_used` publishes entries one by one, and a driver that
//! sees the first of several merged receive buffers without the others drops the packet; `needs_notification` ignores
//! VIRTQ_AVAIL_F_NO_INTERRUPT; and its setters only log what they refuse.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue as RawQueue, QueueOwnedT, QueueT};
use vm_memory::Bytes;

use super::chain::{Buffers, Segment};
use super::config::QueueConfig;
use super::state::QueueState;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::spec::ring;

pub(super) struct Ring {
    raw: RawQueue,
    memory: GuestMemory,
    size: u16,
    max_chain: usize,
    avail_ring: GuestAddress,
    used_ring: GuestAddress,
    event_idx: bool,
    next_used: u16,
    /// `next_used` when the driver was last considered for an interrupt.
    last_signal: u16,
    /// Chains that were taken, and neither published nor put back.
    in_flight: u16,
    /// The driver was asked not to ring; only without EVENT_IDX.
    muted: bool,
    /// The device has found no chain when it looked last, and waits for one.
    hungry: bool,
}

/// What the next entry of the available ring holds; each gives the storage back that it was asked with.
pub(super) enum Next {
    /// Its head, its place in the ring, and its buffers: none if it breaks the rules.
    Chain(u16, u16, Buffers),
    Empty(Vec<Segment>),
}

impl Ring {
    /// `config` must have been validated against `memory`.
    pub(super) fn new(config: &QueueConfig, memory: &GuestMemory, event_idx: bool, state: QueueState) -> Result<Self> {
        let mut raw = RawQueue::new(config.max_size()).map_err(refused)?;
        raw.try_set_size(config.size).map_err(refused)?;
        raw.try_set_desc_table_address(config.desc_table.inner()).map_err(refused)?;
        raw.try_set_avail_ring_address(config.avail_ring.inner()).map_err(refused)?;
        raw.try_set_used_ring_address(config.used_ring.inner()).map_err(refused)?;
        raw.set_event_idx(event_idx);
        raw.set_next_avail(state.next_avail);
        raw.set_ready(true);
        Ok(Self {
            raw,
            memory: memory.clone(),
            size: config.size,
            max_chain: config.max_size().into(),
            avail_ring: config.avail_ring,
            used_ring: config.used_ring,
            event_idx,
            next_used: state.next_used,
            last_signal: state.next_used,
            in_flight: 0,
            muted: false,
            hungry: false,
        })
    }

    /// Takes the next chain into `segments`. The driver does not ring for those that follow, until it is [asked](Self::call_for_more)
    /// to.
    ///
    /// Fails if the driver's index is one that no driver can reach: more entries than the queue has descriptors.
    pub(super) fn next(&mut self, segments: Vec<Segment>) -> Result<Next> {
        let next = self.take(segments)?;
        self.hungry = matches!(next, Next::Empty(_));
        if !self.hungry {
            self.mute();
        }
        Ok(next)
    }

    /// Whether there is a chain that the device waits for. Changes nothing.
    pub(super) fn has_more(&self) -> bool {
        // If the index cannot be read, `next` says so.
        let more = || self.raw.avail_idx(self.memory.mmap(), Ordering::Relaxed).map(|index| index.0);
        self.hungry && more().ok() != Some(self.raw.next_avail())
    }

    /// Asks the driver to ring for the next chain, if the device waits for one. Says whether one came in between, so that the
    /// driver did not ring for it.
    pub(super) fn call_for_more(&mut self) -> bool {
        if !self.hungry {
            return false;
        }
        self.muted = false;
        self.raw.enable_notification(self.memory.mmap()).unwrap_or(true)
    }

    fn take(&mut self, segments: Vec<Segment>) -> Result<Next> {
        let position = self.raw.next_avail();
        let mut available = self.raw.iter(self.memory.mmap()).map_err(refused)?;
        let Some(chain) = available.next() else { return Ok(Next::Empty(segments)) };
        let head = chain.head_index();
        let busy = self.in_flight;
        if head >= self.size || busy >= self.size {
            let size = self.size;
            let message =
                format!("the driver offers descriptor {head} with {busy} in flight, the queue's size is {size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        self.in_flight = self.in_flight.saturating_add(1);
        let buffers = Buffers::collect(&self.memory, chain, self.max_chain, segments).unwrap_or_else(Buffers::none);
        Ok(Next::Chain(head, position, buffers))
    }

    /// Undoes the last `take`, if that is what brought the chain from `position`.
    pub(super) fn put_back(&mut self, position: u16) -> bool {
        if position.wrapping_add(1) != self.raw.next_avail() {
            return false;
        }
        self.raw.set_next_avail(position);
        self.in_flight = self.in_flight.saturating_sub(1);
        true
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState { next_avail: self.raw.next_avail(), next_used: self.next_used }
    }

    fn mute(&mut self) {
        if !self.event_idx && !self.muted {
            self.muted = self.raw.disable_notification(self.memory.mmap()).is_ok();
        }
    }

    /// Puts chains on the used ring, so that the driver sees all of them or none (2.7.8).
    pub(super) fn publish(&mut self, chains: &[(u16, u32)]) {
        let mut count = 0u16;
        for &(head, written) in chains {
            self.stage(count, head, written);
            count = count.saturating_add(1);
        }
        self.publish_staged(count);
    }

    /// Writes the entry that is `position` behind the last published one; the driver does not see it yet.
    pub(super) fn stage(&self, position: u16, head: u16, written: u32) {
        let slot = u64::from(self.next_used.wrapping_add(position) & self.size.saturating_sub(1));
        let offset = slot.saturating_mul(ring::USED_ENTRY_LEN).saturating_add(ring::HEADER_LEN);
        let entry = u64::from(head) | u64::from(written) << 32;
        // The rings were checked to lie in RAM, which is never unmapped while we hold it: no access to them can fail.
        if let Some(gpa) = self.used_ring.checked_add(offset) {
            let _ = self.memory.write(gpa, &entry.to_le_bytes());
        }
    }

    /// Shows the driver the `count` entries that were staged.
    pub(super) fn publish_staged(&mut self, count: u16) {
        self.next_used = self.next_used.wrapping_add(count);
        if let Some(gpa) = self.used_ring.checked_add(ring::INDEX_OFFSET) {
            let _ = self.memory.mmap().store(self.next_used.to_le(), gpa.inner(), Ordering::Release);
        }
        self.in_flight = self.in_flight.saturating_sub(count);
    }

    fn load(&self, base: GuestAddress, offset: u64) -> u16 {
        let value = base.checked_add(offset).and_then(|gpa| {
            let value: u16 = self.memory.mmap().load(gpa.inner(), Ordering::Relaxed).ok()?;
            Some(u16::from_le(value))
        });
        value.unwrap_or_default()
    }

    /// Whether the driver wants an interrupt for what was published since the last call (2.7.7, 2.7.8).
    pub(super) fn take_signal(&mut self) -> bool {
        let published = self.next_used.wrapping_sub(self.last_signal);
        if published == 0 {
            return false;
        }
        self.last_signal = self.next_used;
        // The index must be visible before we look whether the driver went to sleep.
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return self.load(self.avail_ring, 0) & ring::AVAIL_NO_INTERRUPT == 0;
        }
        let entries = u64::from(self.size).saturating_mul(ring::AVAIL_ENTRY_LEN);
        let event = self.load(self.avail_ring, entries.saturating_add(ring::HEADER_LEN));
        self.next_used.wrapping_sub(event).wrapping_sub(1) < published
    }
}

fn refused(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Virtqueue, "the queue cannot be processed").with_source(cause)
}
