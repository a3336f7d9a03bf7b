//! The cipher of volumes: AES-XTS with keys of 256 and 512 bits, the initial vector counted in units of 512 bytes (dm-crypt's
//! `aes-xts-plain64`).

mod wide;
mod xts;

use aes::{Aes128, Aes256};

use super::{no_secret_memory, refused};
use crate::error::Result;
use crate::sys::Locked;
use wide::Wide;
use xts::Xts;

/// The sizes that a sector may have, in bytes.
pub(crate) const SECTOR_SIZES: [usize; 4] = [512, 1024, 2048, 4096];
/// What the initial vector counts, in bytes, whatever the size of a sector.
const UNIT: u64 = 512;

/// A key that is ready for use, in memory of its own: locked, and zeroed when it is dropped.
pub(crate) struct Cipher {
    way: Locked<Way>,
    sector_size: usize,
}

/// The data's key, and the tweak's.
enum Halves<'a> {
    Short(&'a [[u8; 16]; 2]),
    Long(&'a [[u8; 32]; 2]),
}

/// By which code.
#[allow(clippy::large_enum_variant, reason = "each is in a page of its own")]
enum Way {
    Wide(Wide),
    Aes128(Kept<Xts<Aes128>>),
    Aes256(Kept<Xts<Aes256>>),
}

/// What zeroes itself when it is dropped need not do so in memory that is zeroed.
type Kept<T> = std::mem::ManuallyDrop<T>;

impl Cipher {
    /// `sector_size` is 512, 1024, 2048 or 4096 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] for a key that is neither 32 nor 64 bytes, another size of sectors, or if no memory can be locked.
    pub(crate) fn new(key: &[u8], sector_size: usize) -> Result<Self> {
        Self::with(key, sector_size, Wide::new)
    }

    fn with(key: &[u8], sector_size: usize, wide: impl FnOnce(&[u8]) -> Option<Wide>) -> Result<Self> {
        let halves: Halves<'_> = match key.len() {
            32 => key.as_chunks().0.first_chunk().map(Halves::Short),
            64 => key.as_chunks().0.first_chunk().map(Halves::Long),
            _ => None,
        }
        .ok_or_else(|| refused(format!("a key of AES-XTS has {} bytes, allowed are 32 and 64", key.len())))?;
        if !SECTOR_SIZES.contains(&sector_size) {
            return Err(refused(format!("a sector has {sector_size} bytes, allowed are 512, 1024, 2048 and 4096")));
        }
        let way = Locked::new(|| match (wide(key), halves) {
            (Some(wide), _) => Way::Wide(wide),
            (None, Halves::Short(key)) => Way::Aes128(Kept::new(Xts::new(key))),
            (None, Halves::Long(key)) => Way::Aes256(Kept::new(Xts::new(key))),
        });
        let way = way.map_err(no_secret_memory)?;
        Ok(Self { way, sector_size })
    }

    /// Encrypts whole sectors, the first of which lies at byte `at` of the volume.
    pub(crate) fn encrypt(&self, at: u64, data: &mut [u8]) {
        self.each(at, data, |unit, sector| match &*self.way {
            Way::Wide(way) => way.encrypt(unit, sector),
            Way::Aes128(way) => way.encrypt(unit, sector),
            Way::Aes256(way) => way.encrypt(unit, sector),
        });
    }

    /// The reverse of [`encrypt`](Self::encrypt).
    pub(crate) fn decrypt(&self, at: u64, data: &mut [u8]) {
        self.each(at, data, |unit, sector| match &*self.way {
            Way::Wide(way) => way.decrypt(unit, sector),
            Way::Aes128(way) => way.decrypt(unit, sector),
            Way::Aes256(way) => way.decrypt(unit, sector),
        });
    }

    fn each(&self, at: u64, data: &mut [u8], change: impl Fn(u64, &mut [u8])) {
        let units = self.sector_size as u64 / UNIT;
        let first = at / UNIT;
        for (index, sector) in (0_u64..).zip(data.chunks_exact_mut(self.sector_size)) {
            change(first.wrapping_add(index.wrapping_mul(units)), sector);
        }
    }
}

#[cfg(test)]
#[path = "cipher_test.rs"]
mod tests;
