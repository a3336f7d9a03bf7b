//! The rings of one running queue (2.7.6, 2.7.8).
//!
//! `virtio-queue` is not used: it looks each of its accesses up in the table of memory regions, which took a third of the I/O
//! thread's own time (`benches/queue.rs`).

use std::sync::atomic::{Ordering, fence};

use super::chain::Buffers;
use super::config::QueueConfig;
use super::descriptor::Segment;
use super::state::QueueState;
use super::walk::Walker;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestArea, GuestMemory};
use crate::virtio::spec::ring;

pub(super) struct Ring {
    walker: Walker,
    avail: GuestArea,
    used: GuestArea,
    size: u16,
    event_idx: bool,
    next_avail: u16,
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
    ///
    /// # Errors
    /// If a part of the queue does not lie inside one region of RAM.
    pub(super) fn new(config: &QueueConfig, memory: &GuestMemory, event_idx: bool, state: QueueState) -> Result<Self> {
        let area =
            |gpa: GuestAddress, len: u64| GuestArea::new(memory, gpa, usize::try_from(len).unwrap_or(usize::MAX));
        let table = area(config.desc_table, config.table_len())?;
        Ok(Self {
            walker: Walker::new(memory.clone(), table, config.size, config.max_size()),
            avail: area(config.avail_ring, config.avail_len())?,
            used: area(config.used_ring, config.used_len())?,
            size: config.size,
            event_idx,
            next_avail: state.next_avail,
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

    /// Whether there is a chain that the device waits for. Says so once: a device that is told and does not look, because it has no
    /// room for instance, looks by itself later. Otherwise it would be told again and again until then.
    pub(super) fn find_more(&mut self) -> bool {
        let found = self.hungry && self.driver_index(Ordering::Relaxed) != self.next_avail;
        self.hungry &= !found;
        found
    }

    /// Asks the driver to ring for the next chain, if the device waits for one. Says whether one came in between, so that the
    /// driver did not ring for it.
    pub(super) fn call_for_more(&mut self) -> bool {
        if !self.hungry {
            return false;
        }
        self.muted = false;
        if self.event_idx {
            let _ = self.used.store_u16(self.event_offset(ring::USED_ENTRY_LEN), self.next_avail, Ordering::Relaxed);
        } else {
            let _ = self.used.store_u16(0, 0, Ordering::Relaxed);
        }
        // The driver must see it before we look at its index for the last time (2.7.10.1).
        fence(Ordering::SeqCst);
        self.find_more()
    }

    /// The driver's index of the available ring. The rings are areas, and large enough: no access to them can fail.
    fn driver_index(&self, order: Ordering) -> u16 {
        self.avail.load_u16(ring::INDEX_OFFSET, order).unwrap_or(self.next_avail)
    }

    fn take(&mut self, segments: Vec<Segment>) -> Result<Next> {
        let (position, size) = (self.next_avail, self.size);
        let offered = self.driver_index(Ordering::Acquire).wrapping_sub(position);
        if offered == 0 {
            return Ok(Next::Empty(segments));
        }
        if offered > size {
            let message = format!("the driver offers {offered} chains at once, the queue's size is {size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        let slot = u64::from(position & size.saturating_sub(1));
        let offset = slot.saturating_mul(ring::AVAIL_ENTRY_LEN).saturating_add(ring::HEADER_LEN);
        let head = self.avail.load_u16(offset, Ordering::Relaxed).unwrap_or(u16::MAX);
        let busy = self.in_flight;
        if head >= size || busy >= size {
            let message =
                format!("the driver offers descriptor {head} with {busy} in flight, the queue's size is {size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        self.next_avail = position.wrapping_add(1);
        self.in_flight = busy.saturating_add(1);
        Ok(Next::Chain(head, position, self.walker.walk(head, segments)))
    }

    /// Undoes the last `take`, if that is what brought the chain from `position`.
    pub(super) fn put_back(&mut self, position: u16) -> bool {
        if position.wrapping_add(1) != self.next_avail {
            return false;
        }
        self.next_avail = position;
        self.in_flight = self.in_flight.saturating_sub(1);
        true
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState { next_avail: self.next_avail, next_used: self.next_used }
    }

    fn mute(&mut self) {
        if !self.event_idx && !self.muted {
            self.muted = self.used.store_u16(0, ring::USED_NO_NOTIFY, Ordering::Relaxed).is_some();
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
        let _ = self.used.write_u32(offset, head.into());
        let _ = self.used.write_u32(offset.saturating_add(4), written);
    }

    /// Shows the driver the `count` entries that were staged.
    pub(super) fn publish_staged(&mut self, count: u16) {
        self.next_used = self.next_used.wrapping_add(count);
        let _ = self.used.store_u16(ring::INDEX_OFFSET, self.next_used, Ordering::Release);
        self.in_flight = self.in_flight.saturating_sub(count);
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
            let flags = self.avail.load_u16(0, Ordering::Relaxed).unwrap_or_default();
            return flags & ring::AVAIL_NO_INTERRUPT == 0;
        }
        let event =
            self.avail.load_u16(self.event_offset(ring::AVAIL_ENTRY_LEN), Ordering::Relaxed).unwrap_or_default();
        self.next_used.wrapping_sub(event).wrapping_sub(1) < published
    }

    /// Where the event index stands, behind entries of that length.
    fn event_offset(&self, entry: u64) -> u64 {
        u64::from(self.size).saturating_mul(entry).saturating_add(ring::HEADER_LEN)
    }
}
