//! What the map says of one cluster.

/// Bytes of a cluster, which is allocated as a whole.
pub(super) const CLUSTER: u64 = 64 << 10;
/// Bytes of a block, the smallest part that is written: each cluster has sixteen, whose states are bits of its entry.
pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCKS: u64 = CLUSTER / BLOCK;

/// The number of the cluster in the file, counted from 1, or 0 if there is none; which blocks are in it; and which of the others are
/// zeroes. All others are what the base has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cluster: u32,
    pub(super) written: u16,
    pub(super) zeroes: u16,
}

/// Where the data of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Base,
    Zeroes,
    Cluster(u32),
}

impl Entry {
    pub(super) fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
        let (written, zeroes) = (u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
        Self { cluster: u32::from_le_bytes([a, b, c, d]), written, zeroes }
    }

    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.cluster) | u64::from(self.written) << 32 | u64::from(self.zeroes) << 48
    }

    /// Whether it says one thing of each block, and blocks are written only if there is a cluster.
    pub(super) fn is_sound(self) -> bool {
        self.written & self.zeroes == 0 && (self.cluster != 0 || self.written == 0)
    }

    pub(super) fn source(self, block: u64) -> Source {
        match bit(block) {
            bit if self.written & bit != 0 => Source::Cluster(self.cluster),
            bit if self.zeroes & bit != 0 => Source::Zeroes,
            _ => Source::Base,
        }
    }

    /// These blocks were written into the cluster.
    pub(super) fn write(&mut self, blocks: u16) {
        self.written |= blocks;
        self.zeroes &= !blocks;
    }

    /// These blocks are zeroes from now on.
    pub(super) fn zero(&mut self, blocks: u16) {
        self.zeroes |= blocks;
        self.written &= !blocks;
    }
}

fn bit(block: u64) -> u16 {
    1_u16.checked_shl(u32::try_from(block).unwrap_or(u32::MAX)).unwrap_or(0)
}

/// The bits of so many blocks from one on.
pub(super) fn bits(first: u64, count: u64) -> u16 {
    (first..first.saturating_add(count)).map(bit).fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_in_one_place() {
        let mut entry = Entry { cluster: 7, ..Entry::default() };
        entry.write(bits(2, 3));
        entry.zero(bits(4, 2));
        let sources: Vec<_> = (0..7).map(|block| entry.source(block)).collect();
        let (base, zeroes, cluster) = (Source::Base, Source::Zeroes, Source::Cluster(7));
        assert_eq!(sources, [base, base, cluster, cluster, zeroes, zeroes, base]);
        assert!(entry.is_sound());
        assert_eq!(Entry::from_bits(entry.to_bits()), entry);
        entry.zero(bits(0, 16));
        assert_eq!(entry, Entry { cluster: 7, written: 0, zeroes: 0xffff });
        assert!(
            !Entry { cluster: 0, written: 1, zeroes: 0 }.is_sound()
                && !Entry { cluster: 1, written: 1, zeroes: 1 }.is_sound()
        );
    }
}
