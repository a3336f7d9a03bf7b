//! The driver's half of a split queue (virtio 1.2, section 2.7), which can also do what no driver should.

use core::sync::atomic::{Ordering, fence};

use crate::body::machine::{clock, memory};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const DESCRIPTOR: u64 = 16;
/// The largest queue that any device here offers.
pub const MAX_SIZE: u16 = 256;

/// One buffer of a chain.
#[derive(Clone, Copy)]
pub struct Segment {
    pub address: u64,
    pub len: u32,
    pub writable: bool,
}

/// The device reads it.
pub const fn readable(address: u64, len: u32) -> Segment {
    Segment { address, len, writable: false }
}

/// The device writes it.
pub const fn writable(address: u64, len: u32) -> Segment {
    Segment { address, len, writable: true }
}

/// A chain that the device has completed.
#[derive(Clone, Copy)]
pub struct Used {
    pub id: u32,
    pub written: u32,
}

pub struct Ring {
    pub queue: u32,
    pub size: u16,
    pub table: u64,
    pub avail: u64,
    pub used: u64,
    next_avail: u16,
    next_used: u16,
}

impl Ring {
    /// An empty queue in the place that belongs to it.
    pub fn new(queue: u32, size: u16) -> Self {
        let ring = Self::attach(queue, size);
        memory::fill(ring.table, 0x4000, 0);
        ring
    }

    /// The queue in the place that belongs to it, as it stands there, and nothing offered yet.
    pub fn attach(queue: u32, size: u16) -> Self {
        let table = memory::RINGS + u64::from(queue) * 0x1_0000;
        let (avail, used) = (table + 0x2000, table + 0x3000);
        Self { queue, size, table, avail, used, next_avail: 0, next_used: 0 }
    }

    pub fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        write_descriptor(self.table + u64::from(index) * DESCRIPTOR, address, len, flags, next);
    }

    /// Writes a chain into the table from `first` on, which must have room for it.
    pub fn chain(&self, first: u16, segments: &[Segment]) {
        write_chain(self.table, first, segments.iter().copied());
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next_avail % self.size);
        memory::write(self.avail + 4 + slot * 2, head);
        self.set_avail(self.next_avail.wrapping_add(1));
    }

    pub fn avail_index(&self) -> u16 {
        self.next_avail
    }

    /// Sets the index of the available ring to anything.
    pub fn set_avail(&mut self, index: u16) {
        fence(Ordering::SeqCst);
        self.next_avail = index;
        memory::write(self.avail + 2, index);
        fence(Ordering::SeqCst);
    }

    /// How many chains are available and not yet seen as used.
    pub fn in_flight(&self) -> u16 {
        self.next_avail.wrapping_sub(self.next_used)
    }

    /// The device's index of the used ring.
    pub fn used_index(&self) -> u16 {
        memory::read(self.used + 2)
    }

    pub fn take_used(&mut self) -> Option<Used> {
        if self.used_index() == self.next_used {
            return None;
        }
        fence(Ordering::SeqCst);
        let entry = self.used + 4 + u64::from(self.next_used % self.size) * 8;
        self.next_used = self.next_used.wrapping_add(1);
        Some(Used { id: memory::read(entry), written: memory::read(entry + 4) })
    }

    pub fn wait_used(&mut self, us: u64) -> Option<Used> {
        let mut used = None;
        clock::wait_us(us, || {
            used = self.take_used();
            used.is_some()
        });
        used
    }
}

/// Writes a table for an indirect descriptor.
pub fn write_table(table: u64, segments: &[Segment]) {
    write_chain(table, 0, segments.iter().copied());
}

pub fn write_chain(table: u64, first: u16, segments: impl Iterator<Item = Segment>) {
    let mut segments = (first..).zip(segments).peekable();
    while let Some((index, segment)) = segments.next() {
        let next = if segments.peek().is_some() { NEXT } else { 0 };
        let write = if segment.writable { WRITE } else { 0 };
        let at = table + u64::from(index) * DESCRIPTOR;
        write_descriptor(at, segment.address, segment.len, next | write, index.wrapping_add(1));
    }
}

pub fn write_descriptor(at: u64, address: u64, len: u32, flags: u16, next: u16) {
    memory::write(at, address);
    memory::write(at + 8, len);
    memory::write(at + 12, flags);
    memory::write(at + 14, next);
}
