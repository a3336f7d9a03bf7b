//! Whether small reads come by the batch: a ring takes those for less than a system call each.

use crate::block::backend::Operation;

/// So many small reads have to come together before the next ones are expected to.
const MANY: u32 = 8;
/// For a longer read, the copy costs so much that the way to it doesn't matter.
const SMALL: u64 = 16 << 10;

/// How many small reads come together.
#[derive(Default)]
pub(super) struct Batches {
    /// Those since the last batch was over.
    present: u32,
    /// What is expected of the next batch. It falls slowly: a busy driver adds a few requests while it is being served.
    expected: u32,
}

impl Batches {
    /// Counts an operation; says whether it is likely to be one of many small reads.
    pub(super) fn is_one_of_many(&mut self, operation: &Operation) -> bool {
        let is_small = matches!(operation, Operation::Read { into, .. } if into.len() <= SMALL);
        self.present = self.present.saturating_add(u32::from(is_small));
        is_small && self.expected >= MANY
    }

    /// The present batch is over.
    pub(super) fn end_one(&mut self) {
        self.expected = std::mem::take(&mut self.present).max(self.expected >> 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Buffer, HostBuffer};

    fn read(len: usize) -> Operation {
        Operation::Read { at: 0, into: Buffer::Host(HostBuffer::new(len)) }
    }

    /// Says of how many of these reads it is right.
    fn batch(batches: &mut Batches, count: usize, len: usize) -> usize {
        let expected = (0..count).filter(|_| batches.is_one_of_many(&read(len))).count();
        batches.end_one();
        expected
    }

    #[test]
    fn reads_that_come_together_are_expected_to_do_so_again() {
        let mut batches = Batches::default();
        assert_eq!(batch(&mut batches, 32, 4096), 0);
        assert_eq!(batch(&mut batches, 32, 4096), 32);
        assert_eq!(batch(&mut batches, 2, 4096), 2, "a few in between change nothing");
        assert_eq!(batch(&mut batches, 32, 4096), 32);
    }

    #[test]
    fn reads_that_come_alone_are_soon_expected_to() {
        let mut batches = Batches::default();
        batch(&mut batches, 32, 4096);
        (0..3).for_each(|_| _ = batch(&mut batches, 1, 4096));
        assert_eq!(batch(&mut batches, 1, 4096), 0);
    }

    #[test]
    fn long_reads_are_not_counted() {
        let mut batches = Batches::default();
        batch(&mut batches, 32, 65536);
        assert_eq!(batch(&mut batches, 32, 4096), 0);
        assert_eq!(batch(&mut batches, 32, 65536), 0);
    }
}
