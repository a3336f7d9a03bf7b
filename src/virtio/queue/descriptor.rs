//! A descriptor as the driver writes it (2.7.5), and the buffer that it describes.

use crate::memory::GuestAddress;
use crate::virtio::spec::ring;

/// A contiguous part of a chain's buffers. It lies inside the guest's RAM and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The address of its first byte.
    pub gpa: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// One descriptor (2.7.5), copied.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) segment: Segment,
    pub(super) next: u16,
    flags: u16,
}

impl Descriptor {
    pub(super) const LEN: usize = 16;

    /// Reads one from its first eight bytes and its last eight.
    pub(super) fn new(address: u64, rest: [u8; 8]) -> Self {
        let [a, b, c, d, flags @ .., e, f] = rest;
        Self {
            segment: Segment { gpa: GuestAddress(address), len: u32::from_le_bytes([a, b, c, d]) },
            next: u16::from_le_bytes([e, f]),
            flags: u16::from_le_bytes(flags),
        }
    }

    pub(super) fn is_writable(self) -> bool {
        self.flags & ring::DESCRIPTOR_WRITE != 0
    }

    /// Whether the chain goes on at `next`.
    pub(super) fn has_next(self) -> bool {
        self.flags & ring::DESCRIPTOR_NEXT != 0
    }

    /// Whether its buffer is a table of descriptors.
    pub(super) fn is_indirect(self) -> bool {
        self.flags & ring::DESCRIPTOR_INDIRECT != 0
    }
}
