//! The driver's half of a split queue (2.7), and what a device should make of a chain.

use vmcell::GuestAddress;
use vmcell::virtio::QueueConfig;
use vmcell::virtio::spec::ring::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};

use crate::input::Input;
use crate::world::World;

/// A queue as its driver sees it.
#[derive(Clone, Copy)]
pub struct Ring {
    pub size: u16,
    pub table: u64,
    pub avail: u64,
    pub used: u64,
    /// The driver's next entry of the available ring.
    pub avail_index: u16,
    /// The driver's next entry of the used ring.
    pub used_index: u16,
}

/// A descriptor, as any driver may write it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    pub gpa: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// The buffers of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub readable: Vec<(u64, u32)>,
    pub writable: Vec<(u64, u32)>,
}

impl Descriptor {
    /// Its 16 bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    /// One that a hostile driver may write: of buffers in `places`, of the ring at `ring`, or anything.
    pub fn wild(input: &mut Input, index: u16, ring: u64, places: std::ops::Range<u64>) -> Self {
        let gpa = match input.below(8) {
            0 => input.long(),
            1 => ring + u64::from(input.half()) % Ring::SPACE,
            2 => places.end - u64::from(input.byte()),
            _ => places.start + u64::from(input.half()) % (places.end - places.start),
        };
        let len = match input.below(8) {
            0 => input.word(),
            1 => 0x1_0000,
            2 => 16,
            3 => 1,
            4 => input.half().into(),
            blocks => u32::from(blocks) * 512,
        };
        let next = if input.one_in(4) { input.half() } else { index + 1 };
        let flags = match input.below(8) {
            0 => input.half(),
            1 => DESCRIPTOR_INDIRECT,
            2 | 3 => DESCRIPTOR_NEXT,
            4 => DESCRIPTOR_WRITE | DESCRIPTOR_NEXT,
            5 => DESCRIPTOR_WRITE,
            _ => 0,
        };
        Self { gpa, len, flags, next }
    }

    /// Whether a device that serves other chains may change, in the midst of a turn, which buffers this one leads to: it lies
    /// over `tables`, or leads to a table that may lie anywhere.
    pub fn may_change(self, tables: std::ops::Range<u64>) -> bool {
        let end = self.gpa.saturating_add(self.len.into());
        self.has(DESCRIPTOR_INDIRECT) || (self.gpa < tables.end && tables.start < end)
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let part = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(part(at)) | u32::from(part(at + 2)) << 16;
        Self { gpa: u64::from(word(0)) | u64::from(word(4)) << 32, len: word(8), flags: part(12), next: part(14) }
    }

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Ring {
    /// What a queue takes at the most.
    pub const SPACE: u64 = 0x2100;

    /// Lays an empty queue out from `base` on: a table and two rings. `size` is at most 256.
    pub fn new(world: &mut World, base: u64, size: u16) -> Self {
        let ring = Self { size, table: base, avail: base + 0x1000, used: base + 0x1800, avail_index: 0, used_index: 0 };
        for (gpa, len) in [(ring.table, ring.avail - ring.table), (ring.avail, 0x210), (ring.used, 0x810)] {
            world.write(gpa, &vec![0; usize::try_from(len).expect("a queue is small")]);
        }
        ring
    }

    /// What the driver tells the device.
    pub fn config(&self, max_size: u16) -> QueueConfig {
        let mut config = QueueConfig::new(max_size).expect("the size is a power of two");
        config.size = self.size;
        config.desc_table = GuestAddress(self.table);
        config.avail_ring = GuestAddress(self.avail);
        config.used_ring = GuestAddress(self.used);
        config
    }

    /// Where the device writes: flags, index, entries, and the index at which it wants to be rung for.
    pub fn used_range(&self) -> std::ops::Range<u64> {
        self.used..self.avail_event() + 2
    }

    /// Where the driver says at which index of the used ring it wants an interrupt.
    pub fn used_event(&self) -> u64 {
        self.avail + 4 + 2 * u64::from(self.size)
    }

    /// Where the device says at which index of the available ring it wants to be rung for.
    pub fn avail_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }

    /// Writes a descriptor to the table.
    pub fn set(&self, world: &mut World, index: u16, descriptor: Descriptor) {
        world.write(self.table + 16 * u64::from(index), &descriptor.to_bytes());
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, world: &mut World, head: u16) {
        world.write(self.avail + 4 + 2 * u64::from(self.avail_index % self.size), &head.to_le_bytes());
        self.set_avail_index(world, self.avail_index.wrapping_add(1));
    }

    /// Sets the index of the available ring to anything.
    pub fn set_avail_index(&mut self, world: &mut World, index: u16) {
        self.avail_index = index;
        world.write(self.avail + 2, &index.to_le_bytes());
    }

    /// The next completed chain: its head, and how many bytes were written, as the device says.
    pub fn take_used(&mut self, world: &World) -> Option<(u32, u32)> {
        let index = world.read(self.used + 2, 2);
        if u16::from_le_bytes([index[0], index[1]]) == self.used_index {
            return None;
        }
        let entry = world.read(self.used + 4 + 8 * u64::from(self.used_index % self.size), 8);
        self.used_index = self.used_index.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        Some((word(0), word(4)))
    }

    /// The buffers of the chain at `head`; `None` if it breaks a rule, or has more than `most`.
    pub fn walk(&self, world: &World, head: u16, most: usize) -> Option<Shape> {
        let (mut table, mut count, mut indirect) = (self.table, u64::from(self.size), false);
        let (mut index, mut steps, mut total) = (u64::from(head), 0u64, 0u32);
        let mut shape = Shape::default();
        loop {
            let at = table.checked_add(index * 16)?;
            if index >= count || steps >= count || !world.contains(at, 16) {
                return None;
            }
            steps += 1;
            let descriptor = Descriptor::from_bytes(world.mirror(at, 16));
            if descriptor.has(DESCRIPTOR_INDIRECT) {
                let entries = u64::from(descriptor.len / 16);
                if indirect || !descriptor.len.is_multiple_of(16) || entries > u64::from(u16::MAX) {
                    return None;
                }
                (table, count, indirect, index, steps) = (descriptor.gpa, entries, true, 0, 0);
                continue;
            }
            total = total.checked_add(descriptor.len)?;
            let found = shape.readable.len() + shape.writable.len();
            if descriptor.len == 0 || found >= most || !world.contains(descriptor.gpa, descriptor.len.into()) {
                return None;
            }
            let buffer = (descriptor.gpa, descriptor.len);
            match (descriptor.has(DESCRIPTOR_WRITE), shape.writable.is_empty()) {
                (true, _) => shape.writable.push(buffer),
                (false, true) => shape.readable.push(buffer),
                (false, false) => return None,
            }
            if !descriptor.has(DESCRIPTOR_NEXT) {
                return Some(shape);
            }
            index = descriptor.next.into();
        }
    }
}

/// Cuts `len` bytes from `gpa` on in parts.
pub fn split(input: &mut Input, gpa: u64, len: u64) -> Vec<(u64, u32)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < len {
        let part = match input.below(6) {
            0 => 1,
            1 => 16,
            2 => 512,
            3 => u64::from(input.byte()) + 1,
            _ => len,
        };
        let part = part.min(len - at);
        // At last all of the rest.
        let part = if parts.len() >= 20 { len - at } else { part };
        parts.push((gpa + at, u32::try_from(part).expect("it is small")));
        at += part;
    }
    parts
}

/// The bytes of some buffers from `offset` on, `len` of them, as ranges of the guest's memory.
pub fn cut(buffers: &[(u64, u32)], offset: u64, len: u64) -> Vec<(u64, u64)> {
    let (mut skip, mut take, mut parts) = (offset, len, Vec::new());
    for &(gpa, size) in buffers {
        let skipped = skip.min(size.into());
        let taken = (u64::from(size) - skipped).min(take);
        if taken > 0 {
            parts.push((gpa + skipped, taken));
        }
        skip -= skipped;
        take -= taken;
    }
    parts
}

/// How many bytes some buffers have.
pub fn total(buffers: &[(u64, u32)]) -> u64 {
    buffers.iter().map(|(_, len)| u64::from(*len)).sum()
}
