//! The anti-forensic splitter: a key is spread over many stripes, so that whoever lacks one of them has nothing (LUKS1 on-disk format,
//! section 2.4).

use super::hash::Hash;
use crate::error::Result;
use crate::sys::{LockedBytes, random_bytes, zero};
use crate::volume::{no_random, no_secret_memory};

/// Puts a key together, of one stripe after the other.
pub(super) struct Merger {
    key: LockedBytes,
    hash: Hash,
    /// Stripes that are still to come.
    left: usize,
}

impl Merger {
    pub(super) fn new(key_len: usize, count: usize, hash: Hash) -> Result<Self> {
        let key = LockedBytes::zeroed(key_len).map_err(no_secret_memory)?;
        Ok(Self { key, hash, left: count })
    }

    /// Takes whole stripes; what comes behind the last one is left alone.
    pub(super) fn add(&mut self, stripes: &[u8]) {
        for stripe in stripes.chunks_exact(self.key.len().max(1)).take(self.left) {
            xor(&mut self.key, stripe);
            self.left = self.left.saturating_sub(1);
            if self.left > 0 {
                diffuse(&mut self.key, self.hash);
            }
        }
    }

    pub(super) fn key(self) -> LockedBytes {
        self.key
    }
}

/// Spreads a key over stripes, one after the other: random ones, and a last one that makes up for them.
pub(super) struct Splitter<'a> {
    key: &'a [u8],
    mixed: LockedBytes,
    hash: Hash,
    /// Stripes that are still to come.
    left: usize,
}

impl<'a> Splitter<'a> {
    pub(super) fn new(key: &'a [u8], count: usize, hash: Hash) -> Result<Self> {
        let mixed = LockedBytes::zeroed(key.len()).map_err(no_secret_memory)?;
        Ok(Self { key, mixed, hash, left: count })
    }

    /// Fills whole stripes; what comes behind the last one is left alone.
    pub(super) fn fill(&mut self, stripes: &mut [u8]) -> Result<()> {
        for stripe in stripes.chunks_exact_mut(self.key.len().max(1)).take(self.left) {
            self.left = self.left.saturating_sub(1);
            if self.left > 0 {
                random_bytes(stripe).map_err(no_random)?;
                xor(&mut self.mixed, stripe);
                diffuse(&mut self.mixed, self.hash);
            } else {
                stripe.copy_from_slice(&self.mixed);
                xor(stripe, self.key);
            }
        }
        Ok(())
    }
}

fn xor(to: &mut [u8], with: &[u8]) {
    to.iter_mut().zip(with).for_each(|(to, with)| *to ^= with);
}

/// Makes each byte depend on each other one of its block, as long as a digest.
fn diffuse(bytes: &mut [u8], hash: Hash) {
    for (index, block) in (0_u32..).zip(bytes.chunks_mut(hash.len())) {
        let mut digest = hash.digest(&[&index.to_be_bytes(), block]);
        block.iter_mut().zip(&digest).for_each(|(to, from)| *to = *from);
        zero(&mut digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_not_without_each_stripe() {
        for (hash, len) in [(Hash::Sha256, 64), (Hash::Sha512, 32), (Hash::Sha384, 64)] {
            let key: Vec<u8> = (0..len).map(|index| index as u8 ^ 0x33).collect();
            let mut stripes = vec![0; 40 * len];
            let mut splitter = Splitter::new(&key, 40, hash).unwrap();
            // In pieces that have another length than those in which they are read.
            stripes.chunks_mut(7 * len).for_each(|piece| splitter.fill(piece).unwrap());
            let merged = |stripes: &[u8]| {
                let mut merger = Merger::new(len, 40, hash).unwrap();
                stripes.chunks(16 * len).for_each(|piece| merger.add(piece));
                merger.add(&[9; 64]);
                merger.key().to_vec()
            };
            assert_eq!(merged(&stripes), key);
            stripes[17 * len] ^= 1;
            assert_ne!(merged(&stripes), key);
        }
    }
}
