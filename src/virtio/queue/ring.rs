//! The rings of one running queue (2.7.6, 2.7.8).
//!
//! `virtio-queue` is not used: it looks each of its accesses up in the table of memory regions. Walking a chain of three took
//! 1,650 instructions with it, and takes 510 (`cargo xtask bench --instructions --rows walk-direct --against 9408e79`).

use super::chain::Buffers;
use super::config::QueueConfig;
use super::state::QueueState;
use super::walk::Walker;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestArea, GuestMemory};
use crate::sys::sync::atomic::{Ordering, fence};
use crate::virtio::spec::ring;

pub(super) struct Ring {
    walker: Walker,
    avail: GuestArea,
    used: GuestArea,
    size: u16,
    event_idx: bool,
    next_avail: u16,
    /// The driver's index when it was looked at last. It is looked at again when all up to here was taken, since the driver's
    /// CPU and ours take the cache line from each other.
    seen_avail: u16,
    next_used: u16,
    /// Entries behind `next_used` that the driver does not see yet.
    staged: u16,
    /// `next_used` when the driver was last considered for an interrupt.
    last_signal: u16,
    /// Chains that were taken, and neither published nor put back.
    in_flight: u16,
    /// The driver was asked not to ring; only without EVENT_IDX.
    muted: bool,
    /// The device has found no chain when it looked last, and waits for one.
    hungry: bool,
    /// Up to where chains were [counted](Self::take_counts).
    counted: u16,
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
            walker: Walker::new(memory.clone(), table, config.size, config.max_size(), state.next_avail),
            avail: area(config.avail_ring, config.avail_len())?,
            used: area(config.used_ring, config.used_len())?,
            size: config.size,
            event_idx,
            next_avail: state.next_avail,
            seen_avail: state.next_avail,
            next_used: state.next_used,
            staged: 0,
            last_signal: state.next_used,
            in_flight: 0,
            muted: false,
            hungry: false,
            counted: state.next_avail,
        })
    }

    /// Takes the next chain into `buffers`, and returns its head and its place in the ring; `None` if there is none. A chain that breaks
    /// the rules has no buffers. The driver does not ring for those that follow, until it is [asked](Self::call_for_more) to.
    ///
    /// Fails if the driver's index is one that no driver can reach: more entries than the queue has descriptors.
    pub(super) fn next(&mut self, buffers: &mut Buffers) -> Result<Option<(u16, u16)>> {
        let next = self.take(buffers)?;
        self.hungry = next.is_none();
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

    fn take(&mut self, buffers: &mut Buffers) -> Result<Option<(u16, u16)>> {
        let (position, size) = (self.next_avail, self.size);
        if self.seen_avail == position && !self.see_more()? {
            return Ok(None);
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
        self.walker.walk(head, position, buffers);
        Ok(Some((head, position)))
    }

    /// How many chains came since the last call, of which there were fewer than 32768, and how many of them broke the rules. One that
    /// was put back and taken again counts once.
    pub(super) fn take_counts(&mut self) -> (u16, u16) {
        let come = self.next_avail.wrapping_sub(self.counted);
        // After some were put back it is behind.
        let come = if come < 1 << 15 { come } else { 0 };
        self.counted = self.counted.wrapping_add(come);
        (come, self.walker.take_refused())
    }

    /// Looks at the driver's index again; says whether it has moved on.
    fn see_more(&mut self) -> Result<bool> {
        let (index, size) = (self.driver_index(Ordering::Acquire), self.size);
        let offered = index.wrapping_sub(self.next_avail);
        if offered > size {
            let message = format!("the driver offers {offered} chains at once, the queue's size is {size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        self.seen_avail = index;
        Ok(offered > 0)
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

    /// Writes the next entry of the used ring. The driver does not see it before [`publish`](Self::publish).
    pub(super) fn stage(&mut self, head: u16, written: u32) {
        let slot = u64::from(self.next_used.wrapping_add(self.staged) & self.size.saturating_sub(1));
        let offset = slot.saturating_mul(ring::USED_ENTRY_LEN).saturating_add(ring::HEADER_LEN);
        let _ = self.used.write_u32(offset, head.into());
        let _ = self.used.write_u32(offset.saturating_add(4), written);
        self.staged = self.staged.saturating_add(1);
    }

    /// How many entries were staged and not published.
    pub(super) fn staged(&self) -> u16 {
        self.staged
    }

    /// Shows the driver what was staged: all of it or none (2.7.8).
    pub(super) fn publish(&mut self) {
        let count = std::mem::take(&mut self.staged);
        if count == 0 {
            return;
        }
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
