//! The checksum of the Internet protocols (RFC 1071).

use std::net::Ipv6Addr;

/// A sum that is not folded yet. What is added must have an even length, except for the last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// What stands in front of each packet's own bytes (RFC 8200, 8.1).
    pub(super) fn of_pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> Self {
        let mut sum = Self::default();
        sum.add(&source.octets());
        sum.add(&destination.octets());
        sum.0 = sum.0.wrapping_add(len as u64).wrapping_add(protocol.into());
        sum
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        // The sum of words of 32 bits is that of 16 bits once it is folded. Even 64 KiB do not overflow it.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word).into()));
        let mut last = [0; 4];
        for (to, byte) in last.iter_mut().zip(rest) {
            *to = *byte;
        }
        sum = sum.wrapping_add(u32::from_be_bytes(last).into());
        self.0 = self.0.wrapping_add(sum);
    }

    /// The checksum as it stands in a packet.
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 has it: pairs, one after the other.
    fn by_pairs(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_rfc(mut bytes: Vec<u8>, cut: prop::sample::Index) {
            let cut = cut.index(bytes.len() + 1) & !1;
            let mut sum = Sum::default();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            prop_assert_eq!(sum.finish(), by_pairs(&bytes));
            if bytes.len() % 2 == 0 {
                bytes.extend(sum.finish().to_be_bytes());
                let mut whole = Sum::default();
                whole.add(&bytes);
                prop_assert_eq!(whole.finish(), 0, "a packet with its checksum sums up to nothing");
            }
        }
    }
}
