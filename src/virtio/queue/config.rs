//! A queue before it runs: a type of its own, so that a half-configured one cannot be popped.

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::spec::ring;

/// What the driver sets before a queue runs. It may hold any values until it is [validated](Self::validate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueConfig {
    /// The number of descriptors: a power of two, at most the largest size.
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
    /// Describes a queue of at most `max_size` descriptors, with everything else as after a reset.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if `max_size` is not a power of two from 1 to 32768.
    pub fn new(max_size: u16) -> Result<Self> {
        if !max_size.is_power_of_two() || max_size > ring::MAX_SIZE {
            let message =
                format!("a queue of {max_size} descriptors was asked for, allowed are powers of two to 32768");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let unset = GuestAddress(0);
        Ok(Self { size: max_size, desc_table: unset, avail_ring: unset, used_ring: unset, max_size })
    }

    /// Returns the largest size that the device offers, in descriptors.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Checks what the driver has set.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] if the size is not allowed, or if a part of the queue is not aligned, does not lie inside one
    /// region of the guest's RAM, or was not set.
    pub fn validate(&self, memory: &GuestMemory) -> Result<()> {
        let (size, max_size) = (self.size, self.max_size);
        if !size.is_power_of_two() || size > max_size {
            let message = format!("queue size {size} was set, allowed are powers of two from 1 to {max_size}");
            return Err(Error::new(ErrorKind::Virtqueue, message));
        }
        check(memory, "descriptor table", self.desc_table, self.table_len(), ring::DESCRIPTOR_ALIGN)?;
        check(memory, "available ring", self.avail_ring, self.avail_len(), ring::AVAIL_ALIGN)?;
        check(memory, "used ring", self.used_ring, self.used_len(), ring::USED_ALIGN)
    }

    pub(super) fn table_len(&self) -> u64 {
        u64::from(self.size).saturating_mul(ring::DESCRIPTOR_LEN)
    }

    pub(super) fn avail_len(&self) -> u64 {
        self.ring_len(ring::AVAIL_ENTRY_LEN)
    }

    pub(super) fn used_len(&self) -> u64 {
        self.ring_len(ring::USED_ENTRY_LEN)
    }

    fn ring_len(&self, entry: u64) -> u64 {
        u64::from(self.size).saturating_mul(entry).saturating_add(ring::HEADER_LEN + ring::EVENT_LEN)
    }
}

fn check(memory: &GuestMemory, what: &str, gpa: GuestAddress, len: u64, align: u64) -> Result<()> {
    // Address zero means that the driver has not set it.
    if gpa.0 != 0 && gpa.0.is_multiple_of(align) && memory.is_in_one_region(gpa, len) {
        return Ok(());
    }
    let message =
        format!("{what} gpa={gpa} len={len:#x} must lie in one region of RAM, above zero, aligned to {align} bytes");
    Err(Error::new(ErrorKind::Virtqueue, message))
}
