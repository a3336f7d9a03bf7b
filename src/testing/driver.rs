//! The driver's half of a split queue (2.7), which can also do what no driver should do.

use std::sync::atomic::{Ordering, fence};

use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::QueueConfig;
use crate::virtio::spec::ring;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    gpa: u64,
    len: u32,
    writable: bool,
}

impl Buffer {
    /// A buffer that the device may read.
    pub fn readable(gpa: u64, len: u32) -> Self {
        Self { gpa, len, writable: false }
    }

    /// A buffer that the device may write.
    pub fn writable(gpa: u64, len: u32) -> Self {
        Self { gpa, len, writable: true }
    }

    fn flags(self) -> u16 {
        if self.writable { ring::DESCRIPTOR_WRITE } else { 0 }
    }
}

/// A queue as its driver sees it. Descriptors are used in turn, again and again, so a test must not offer more than the device
/// has completed descriptors for.
///
/// Its methods panic if the rings leave the memory, because the test is wrong then.
pub struct DriverQueue {
    memory: GuestMemory,
    size: u16,
    table: u64,
    avail: u64,
    used: u64,
    next_descriptor: u16,
    avail_index: u16,
    used_index: u16,
}

impl DriverQueue {
    /// Lays out the three parts of an empty queue from `base` on. They take 26 bytes per descriptor and some more.
    pub fn new(memory: &GuestMemory, base: GuestAddress, size: u16) -> Self {
        let table = base.0;
        let avail = table + ring::DESCRIPTOR_LEN * u64::from(size);
        let avail_len = ring::HEADER_LEN + ring::AVAIL_ENTRY_LEN * u64::from(size) + ring::EVENT_LEN;
        let used = (avail + avail_len).next_multiple_of(ring::USED_ALIGN);
        let used_len = ring::HEADER_LEN + ring::USED_ENTRY_LEN * u64::from(size) + ring::EVENT_LEN;
        let zeros = vec![0; usize::try_from(used + used_len - table).expect("a queue is small")];
        memory.write(base, &zeros).expect("the queue lies in the memory");
        Self { memory: memory.clone(), size, table, avail, used, next_descriptor: 0, avail_index: 0, used_index: 0 }
    }

    /// Returns what a driver tells the device about the queue.
    pub fn config(&self) -> QueueConfig {
        let mut config = QueueConfig::new(self.size).expect("the size is a power of two");
        config.desc_table = GuestAddress(self.table);
        config.avail_ring = GuestAddress(self.avail);
        config.used_ring = GuestAddress(self.used);
        config
    }

    /// Returns the number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Makes a chain of these buffers available, and returns its head, the index of its first descriptor.
    pub fn offer(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (position, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let last = position + 1 == buffers.len();
            let flags = buffer.flags() | if last { 0 } else { ring::DESCRIPTOR_NEXT };
            self.set_descriptor(index, buffer.gpa, buffer.len, flags, self.next_descriptor);
        }
        self.offer_head(head);
        head
    }

    /// Makes a chain of these buffers available through an indirect table at address `table`, and returns its head.
    pub fn offer_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (index, buffer) in (0u16..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = buffer.flags() | if last { 0 } else { ring::DESCRIPTOR_NEXT };
            let at = table + u64::from(index) * ring::DESCRIPTOR_LEN;
            self.write_descriptor(at, buffer.gpa, buffer.len, flags, index + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let len = u32::try_from(buffers.len()).expect("a table is small") * 16;
        self.set_descriptor(head, table, len, ring::DESCRIPTOR_INDIRECT, 0);
        self.offer_head(head);
        head
    }

    /// Writes any descriptor into the queue's own table.
    pub fn set_descriptor(&self, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let at = self.table + u64::from(index) * ring::DESCRIPTOR_LEN;
        self.write_descriptor(at, gpa, len, flags, next);
    }

    /// Writes any descriptor to any address.
    pub fn write_descriptor(&self, at: u64, gpa: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(at, &bytes);
    }

    /// Makes the chain that begins at `head` available, whatever is there.
    pub fn offer_head(&mut self, head: u16) {
        let slot = u64::from(self.avail_index % self.size);
        self.write(self.avail + ring::HEADER_LEN + slot * ring::AVAIL_ENTRY_LEN, &head.to_le_bytes());
        self.set_avail_index(self.avail_index.wrapping_add(1));
    }

    /// Sets the index of the available ring to any value.
    pub fn set_avail_index(&mut self, index: u16) {
        // The entry must be visible before the index is.
        fence(Ordering::SeqCst);
        self.avail_index = index;
        self.write(self.avail + ring::INDEX_OFFSET, &index.to_le_bytes());
    }

    /// Returns the index of the available ring.
    pub fn avail_index(&self) -> u16 {
        self.avail_index
    }

    /// Sets the flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        self.write(self.avail, &flags.to_le_bytes());
    }

    /// Asks for an interrupt when the used ring's index moves past `index`; only with EVENT_IDX.
    pub fn set_used_event(&self, index: u16) {
        let entries = u64::from(self.size) * ring::AVAIL_ENTRY_LEN;
        self.write(self.avail + ring::HEADER_LEN + entries, &index.to_le_bytes());
    }

    /// Returns the flags of the used ring.
    pub fn used_flags(&self) -> u16 {
        self.read_u16(self.used)
    }

    /// Returns the index at which the device wants the driver to ring; only with EVENT_IDX.
    pub fn avail_event(&self) -> u16 {
        let entries = u64::from(self.size) * ring::USED_ENTRY_LEN;
        self.read_u16(self.used + ring::HEADER_LEN + entries)
    }

    /// Returns the index of the used ring: how many chains were completed, modulo 65536.
    pub fn used_index(&self) -> u16 {
        self.read_u16(self.used + ring::INDEX_OFFSET)
    }

    /// Returns the next completed chain, if there is one: its head, and how many bytes the device says that it wrote.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.used_index {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = u64::from(self.used_index % self.size);
        let mut bytes = [0; 8];
        let at = self.used + ring::HEADER_LEN + slot * ring::USED_ENTRY_LEN;
        self.memory.read(GuestAddress(at), &mut bytes).expect("the ring lies in the memory");
        self.used_index = self.used_index.wrapping_add(1);
        let [a, b, c, d, e, f, g, h] = bytes;
        Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// Returns the guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write(GuestAddress(gpa), bytes).expect("the queue lies in the memory");
    }

    fn read_u16(&self, gpa: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read(GuestAddress(gpa), &mut bytes).expect("the queue lies in the memory");
        u16::from_le_bytes(bytes)
    }
}
