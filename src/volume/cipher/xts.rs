//! AES-XTS (IEEE 1619) in safe code, over the crate `aes`, which uses the CPU's instructions for AES if it has them.

use aes::cipher::array::{Array, ArraySize};
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U16};

/// Bytes of a block of AES.
pub(super) const BLOCK: usize = 16;
/// The tweak times x, in GF(2^128), is the tweak shifted, with this for the bit that was shifted out.
const POLYNOMIAL: u128 = 0x87;
/// The most blocks in a sector: 4096 bytes.
const MOST_BLOCKS: usize = 4096 / BLOCK;

/// The keys of one direction, ready for use.
pub(super) struct Xts<A> {
    data: A,
    tweak: A,
}

impl<A: KeyInit + BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + BlockCipherDecrypt> Xts<A> {
    pub(super) fn new<const LEN: usize>([data, tweak]: &[[u8; LEN]; 2]) -> Self
    where
        A::KeySize: ArraySize<ArrayType<u8> = [u8; LEN]>,
    {
        Self { data: A::new(data.into()), tweak: A::new(tweak.into()) }
    }

    pub(super) fn encrypt(&self, unit: u64, sector: &mut [u8]) {
        self.sector(unit, sector, |blocks| self.data.encrypt_blocks(Array::cast_slice_from_core_mut(blocks)));
    }

    pub(super) fn decrypt(&self, unit: u64, sector: &mut [u8]) {
        self.sector(unit, sector, |blocks| self.data.decrypt_blocks(Array::cast_slice_from_core_mut(blocks)));
    }

    /// `sector` is whole blocks, at most [`MOST_BLOCKS`].
    fn sector(&self, unit: u64, sector: &mut [u8], change: impl FnOnce(&mut [[u8; BLOCK]])) {
        let mut first = u128::from(unit).to_le_bytes().into();
        self.tweak.encrypt_block(&mut first);
        let mut tweaks = [[0; BLOCK]; MOST_BLOCKS];
        let (blocks, _) = sector.as_chunks_mut();
        let mut tweak = u128::from_le_bytes(first.into());
        for kept in tweaks.iter_mut().take(blocks.len()) {
            *kept = tweak.to_le_bytes();
            tweak = times_x(tweak);
        }
        xor(blocks, &tweaks);
        change(blocks);
        xor(blocks, &tweaks);
    }
}

fn xor(blocks: &mut [[u8; BLOCK]], with: &[[u8; BLOCK]]) {
    for (block, with) in blocks.iter_mut().zip(with) {
        *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(*with)).to_ne_bytes();
    }
}

/// The next block's tweak.
pub(super) fn times_x(tweak: u128) -> u128 {
    let carry = if tweak >> 127 == 0 { 0 } else { POLYNOMIAL };
    tweak << 1 ^ carry
}
