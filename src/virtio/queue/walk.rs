//! From a head to the buffers of its chain (2.7.5): each descriptor is read once, and checked.

use super::chain::Buffers;
use super::descriptor::Descriptor;
use crate::memory::{GuestAddress, GuestArea, GuestMemory};
use crate::virtio::spec::ring;

/// Where chains are read from.
pub(super) struct Walker {
    memory: GuestMemory,
    table: GuestArea,
    size: u16,
    max_chain: usize,
    /// Chains that broke the rules, and were not counted yet.
    refused: u16,
    /// Where the next of these can be that was not put back before.
    next_refused: u16,
}

/// A table of descriptors: the queue's own, or one that a descriptor of it leads to.
#[derive(Clone, Copy)]
enum Table {
    Own,
    Indirect(GuestAddress),
}

impl Walker {
    /// For a queue of `size` descriptors in `table`. A chain may have `max_chain` buffers. The first one comes from `next`.
    pub(super) fn new(memory: GuestMemory, table: GuestArea, size: u16, max_chain: u16, next: u16) -> Self {
        Self { memory, table, size, max_chain: max_chain.into(), refused: 0, next_refused: next }
    }

    /// Copies the chain that begins at `head` to `buffers`. A chain that breaks the rules has none. `position` is where it came from.
    pub(super) fn walk(&mut self, head: u16, position: u16, buffers: &mut Buffers) {
        buffers.clear();
        if self.collect(head, buffers).is_none() {
            self.refuse(position, buffers);
        }
    }

    #[cold]
    fn refuse(&mut self, position: u16, buffers: &mut Buffers) {
        buffers.clear();
        // One that was put back and has come again counts once.
        if position.wrapping_sub(self.next_refused) < 1 << 15 {
            self.next_refused = position.wrapping_add(1);
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// How many chains broke the rules since the last call.
    pub(super) fn take_refused(&mut self) -> u16 {
        std::mem::take(&mut self.refused)
    }

    fn collect(&self, head: u16, buffers: &mut Buffers) -> Option<()> {
        let (mut table, mut count, mut index) = (Table::Own, self.size, head);
        // A chain that has more descriptors than its table goes round in circles.
        let mut left = count;
        loop {
            left = left.checked_sub(1)?;
            let descriptor = self.read(table, index).filter(|_| index < count)?;
            if descriptor.is_indirect() {
                (table, count) = indirect(table, descriptor)?;
                (index, left) = (0, count);
                continue;
            }
            buffers.push(&self.memory, descriptor, self.max_chain)?;
            if !descriptor.has_next() {
                return Some(());
            }
            index = descriptor.next;
        }
    }

    fn read(&self, table: Table, index: u16) -> Option<Descriptor> {
        let offset = u64::from(index).checked_mul(ring::DESCRIPTOR_LEN)?;
        match table {
            Table::Own => {
                let rest = self.table.read_u64(offset.checked_add(8)?)?;
                Some(Descriptor::new(self.table.read_u64(offset)?, rest.to_le_bytes()))
            }
            Table::Indirect(start) => {
                let mut bytes = [0; Descriptor::LEN];
                self.memory.read(start.checked_add(offset)?, &mut bytes).ok()?;
                let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
                Some(Descriptor::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]), rest))
            }
        }
    }
}

/// The table that a descriptor leads to, and how many descriptors it has (2.7.5.3).
fn indirect(table: Table, descriptor: Descriptor) -> Option<(Table, u16)> {
    let len = u64::from(descriptor.segment.len);
    let count = len.checked_div(ring::DESCRIPTOR_LEN).filter(|_| len.is_multiple_of(ring::DESCRIPTOR_LEN))?;
    match table {
        Table::Own => Some((Table::Indirect(descriptor.segment.gpa), u16::try_from(count).ok()?)),
        Table::Indirect(_) => None,
    }
}
