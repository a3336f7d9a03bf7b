//! The anti-forensic splitter: a key is spread over many stripes, so that whoever lacks one of them has nothing (LUKS1 on-disk format,
//! section 2.4).

use super::hash::Hash;
use crate::error::Result;
use crate::sys::{LockedBytes, random_bytes, zero};
use crate::volume::{no_random, no_secret_memory};

/// Puts a key together. `stripes` is as many times the key's length as there are stripes.
pub(super) fn merge(stripes: &[u8], key_len: usize, hash: Hash) -> Result<LockedBytes> {
    let mut key = LockedBytes::zeroed(key_len).map_err(no_secret_memory)?;
    let mut stripes = stripes.chunks_exact(key_len.max(1)).peekable();
    while let Some(stripe) = stripes.next() {
        xor(&mut key, stripe);
        if stripes.peek().is_some() {
            diffuse(&mut key, hash);
        }
    }
    Ok(key)
}

/// Spreads a key over `count` stripes, by random ones.
pub(super) fn split(key: &[u8], count: usize, hash: Hash) -> Result<LockedBytes> {
    let len = key.len().saturating_mul(count);
    let mut stripes = LockedBytes::zeroed(len).map_err(no_secret_memory)?;
    let mut mixed = LockedBytes::zeroed(key.len()).map_err(no_secret_memory)?;
    let (random, last) = stripes.split_at_mut(len.saturating_sub(key.len()));
    random_bytes(random).map_err(no_random)?;
    for stripe in random.chunks_exact(key.len().max(1)) {
        xor(&mut mixed, stripe);
        diffuse(&mut mixed, hash);
    }
    last.copy_from_slice(&mixed);
    xor(last, key);
    Ok(stripes)
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
            let mut stripes = split(&key, 40, hash).unwrap();
            assert_eq!(&*merge(&stripes, len, hash).unwrap(), &*key);
            stripes[17 * len] ^= 1;
            assert_ne!(&*merge(&stripes, len, hash).unwrap(), &*key);
        }
    }
}
