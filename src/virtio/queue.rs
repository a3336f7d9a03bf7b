//! A queue before and while it runs: two types, so that a half-configured one cannot be popped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::chain::Chain;
use super::interrupt::Interrupt;
use super::lock;
use super::ring::{Next, Ring};
use super::spec::ring;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};

/// What the driver sets before a queue runs. Anything may stand in it until it is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueConfig {
    /// Number of descriptors: a power of two, at most the largest size.
    pub size: u16,
    /// The descriptor table; aligned to 16 bytes.
    pub desc_table: GuestAddress,
    /// The available ring, which the driver writes; aligned to 2 bytes.
    pub avail_ring: GuestAddress,
    /// The used ring, which the device writes; aligned to 4 bytes.
    pub used_ring: GuestAddress,
    max_size: u16,
}

impl QueueConfig {
    /// A queue of at most `max_size` descriptors, with everything else as after a reset.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where `max_size` is not a power of two from 1 to 32768.
    pub fn new(max_size: u16) -> Result<Self> {
        if !max_size.is_power_of_two() || max_size > ring::MAX_SIZE {
            let message =
                format!("a queue of {max_size} descriptors was asked for, allowed are powers of two to 32768");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let unset = GuestAddress(0);
        Ok(Self { size: max_size, desc_table: unset, avail_ring: unset, used_ring: unset, max_size })
    }

    /// The largest size that the device offers, in descriptors.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Checks what the driver has set.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] where the size is none of the allowed ones, or a part of the queue is not aligned, does
    /// not lie inside the guest's RAM, or was not set.
    pub fn validate(&self, memory: &GuestMemory) -> Result<()> {
        let (size, max_size) = (self.size, self.max_size);
        if !size.is_power_of_two() || size > max_size {
            let message = format!("queue size {size} was set, allowed are powers of two from 1 to {max_size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        let ring_len =
            |entry: u64| u64::from(size).saturating_mul(entry).saturating_add(ring::HEADER_LEN + ring::EVENT_LEN);
        let table_len = u64::from(size).saturating_mul(ring::DESCRIPTOR_LEN);
        check(memory, "descriptor table", self.desc_table, table_len, ring::DESCRIPTOR_ALIGN)?;
        check(memory, "available ring", self.avail_ring, ring_len(ring::AVAIL_ENTRY_LEN), ring::AVAIL_ALIGN)?;
        check(memory, "used ring", self.used_ring, ring_len(ring::USED_ENTRY_LEN), ring::USED_ALIGN)
    }
}

fn check(memory: &GuestMemory, what: &str, gpa: GuestAddress, len: u64, align: u64) -> Result<()> {
    // Address zero means that the driver has not set it.
    if gpa.0 != 0 && gpa.0.is_multiple_of(align) && memory.contains(gpa, len) {
        return Ok(());
    }
    let message = format!("{what} gpa={gpa} len={len:#x} must lie in RAM, above zero, aligned to {align} bytes");
    Err(Error::new(ErrorKind::Virtqueue, message))
}

/// A running queue. A clone is another handle to the same queue; handles may be used from any thread.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Arc<Mutex<Ring>>,
    memory: GuestMemory,
    index: u16,
    interrupt: Arc<dyn Interrupt>,
    /// Work was left behind that the driver will not ring for again.
    more: AtomicBool,
}

impl Queue {
    /// How many malformed chains are skipped in one call, so that it ends whatever the driver offers.
    const MALFORMED_AT_ONCE: usize = 64;

    /// Starts queue number `index` of a device, as its transport does when the driver is ready.
    ///
    /// # Errors
    /// As [`QueueConfig::validate`].
    pub fn new(
        config: &QueueConfig,
        memory: &GuestMemory,
        index: u16,
        event_idx: bool,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self> {
        config.validate(memory)?;
        let ring = Arc::new(Mutex::new(Ring::new(config, memory, event_idx)?));
        let more = AtomicBool::new(false);
        Ok(Self { shared: Arc::new(Shared { ring, memory: memory.clone(), index, interrupt, more }) })
    }

    /// Takes the next chain that the driver offers, if there is one. Malformed ones are completed with length 0 and
    /// skipped. Never blocks.
    ///
    /// When it says that there is none, the driver has been asked to ring for the next.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] where the queue cannot be trusted any more: its index jumped, or more chains are in flight
    /// than it has descriptors. The device then passes the error on, and needs a reset.
    pub fn pop(&self) -> Result<Option<Chain>> {
        let mut ring = lock(&self.shared.ring);
        for _ in 0..Self::MALFORMED_AT_ONCE {
            match ring.next()? {
                Next::Chain(head, buffers) => {
                    let (ring, memory) = (Arc::clone(&self.shared.ring), self.shared.memory.clone());
                    return Ok(Some(Chain::new(ring, memory, head, buffers)));
                }
                Next::Malformed => {}
                Next::Empty => return Ok(None),
            }
        }
        self.revisit();
        Ok(None)
    }

    /// Interrupts the driver, if it wants to hear of what was completed since the last call.
    ///
    /// The transport calls it after each call of the device; a device that completes chains elsewhere does it itself.
    pub fn notify(&self) {
        // The guard is gone before the interrupt: what it is connected to is not ours.
        let wanted = lock(&self.shared.ring).take_signal();
        if wanted {
            self.shared.interrupt.signal_used(self.shared.index);
        }
    }

    /// Has the transport process this queue again, as if the driver had rung.
    ///
    /// For a device that found, in a call about something else, that it can go on with a queue whose driver was not asked
    /// to ring.
    pub fn revisit(&self) {
        self.shared.more.store(true, Ordering::Release);
    }

    /// Whether `pop` left work behind that needs another visit.
    pub(super) fn take_more(&self) -> bool {
        self.shared.more.swap(false, Ordering::AcqRel)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        lock(&self.shared.ring).set_paused(paused);
    }

    pub(super) fn close(&self) {
        lock(&self.shared.ring).close();
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
