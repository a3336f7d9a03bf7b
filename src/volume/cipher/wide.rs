//! AES-XTS by the instructions for four blocks at once (VAES with AVX-512): the same as [`xts`](super::xts), which is its oracle in the
//! tests, and several times as fast.
#![allow(
    unsafe_code,
    reason = "loads and stores vectors, and calls functions that need instructions which not each CPU has"
)]
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "each index is counted here, up to a constant"
)]

use std::arch::x86_64::*;

use super::xts::{BLOCK, times_x};

/// Of AES with keys of 256 bits, and one for the beginning.
const MOST_ROUND_KEYS: usize = 15;
/// Vectors that are worked on at once.
const VECTORS: usize = 8;
const VECTOR: usize = 64;
/// What is worked on at once: the smallest sector.
const STEP: usize = VECTORS * VECTOR;

/// For what is shifted out of a tweak, see [`times_x`].
const POLYNOMIAL: i64 = 0x87;

type RoundKeys = [[u8; BLOCK]; MOST_ROUND_KEYS];

/// The round keys of both keys.
#[derive(Clone, Copy)]
pub(super) struct Wide {
    rounds: usize,
    encrypt: RoundKeys,
    decrypt: RoundKeys,
    tweak: RoundKeys,
}

impl Wide {
    /// Whether this CPU has the instructions.
    pub(super) fn is_possible() -> bool {
        // Both use what the standard library has found out before.
        is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
    }

    /// `None` if the CPU lacks the instructions, or the key is neither 32 nor 64 bytes.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let (data, tweak) = key.split_at_checked(key.len() / 2)?;
        if !Self::is_possible() || !matches!(key.len(), 32 | 64) {
            return None;
        }
        // SAFETY: the CPU has the instructions.
        let (rounds, encrypt, decrypt, tweak) = unsafe {
            let (rounds, encrypt) = expand(data);
            (rounds, encrypt, inverse(rounds, &encrypt), expand(tweak).1)
        };
        Some(Self { rounds, encrypt, decrypt, tweak })
    }

    /// Encrypts a sector, which is a multiple of 512 bytes.
    pub(super) fn encrypt(&self, unit: u64, sector: &mut [u8]) {
        self.sector::<true>(&self.encrypt, unit, sector);
    }

    /// Decrypts a sector, which is a multiple of 512 bytes.
    pub(super) fn decrypt(&self, unit: u64, sector: &mut [u8]) {
        self.sector::<false>(&self.decrypt, unit, sector);
    }

    fn sector<const ENCRYPT: bool>(&self, keys: &RoundKeys, unit: u64, sector: &mut [u8]) {
        // SAFETY: there is no value of this type without the instructions, see `new`.
        unsafe {
            let tweak = self.first_tweak(unit);
            match self.rounds {
                10 => crypt::<10, ENCRYPT>(keys, tweak, sector),
                _ => crypt::<14, ENCRYPT>(keys, tweak, sector),
            }
        }
    }

    #[target_feature(enable = "aes")]
    fn first_tweak(&self, unit: u64) -> u128 {
        let key = |round: usize| vector(self.tweak.get(round).copied().unwrap_or_default());
        let mut block = _mm_xor_si128(vector(u128::from(unit).to_le_bytes()), key(0));
        for round in 1..self.rounds {
            block = _mm_aesenc_si128(block, key(round));
        }
        u128::from_le_bytes(bytes(_mm_aesenclast_si128(block, key(self.rounds))))
    }
}

fn vector(bytes: [u8; BLOCK]) -> __m128i {
    // SAFETY: both are sixteen bytes, and any will do.
    unsafe { std::mem::transmute(bytes) }
}

fn bytes(vector: __m128i) -> [u8; BLOCK] {
    // SAFETY: as above.
    unsafe { std::mem::transmute(vector) }
}

/// The number of rounds, and the keys for encrypting (FIPS 197, 5.2).
#[target_feature(enable = "aes")]
fn expand(key: &[u8]) -> (usize, RoundKeys) {
    let words_in_key = key.len() / 4;
    let rounds = if words_in_key == 4 { 10 } else { 14 };
    let mut words = [0_u32; 4 * MOST_ROUND_KEYS];
    let (chunks, _) = key.as_chunks();
    words.iter_mut().zip(chunks).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
    let mut constant = 1_u8;
    for at in words_in_key..4 * (rounds + 1) {
        let mut word = words[at - 1];
        if at % words_in_key == 0 {
            word = substitute(word).rotate_right(8) ^ u32::from(constant);
            constant = constant << 1 ^ if constant & 0x80 == 0 { 0 } else { 0x1b };
        } else if words_in_key == 8 && at % words_in_key == 4 {
            word = substitute(word);
        }
        words[at] = words[at - words_in_key] ^ word;
    }
    let mut keys = [[0; BLOCK]; MOST_ROUND_KEYS];
    let (all, _) = words.as_chunks::<4>();
    for (key, words) in keys.iter_mut().zip(all) {
        let (parts, _) = key.as_chunks_mut();
        parts.iter_mut().zip(words).for_each(|(part, word)| *part = word.to_le_bytes());
    }
    (rounds, keys)
}

/// The S-box on each byte: the last round of AES with four equal columns, which its rotation of the rows does not change.
#[target_feature(enable = "aes")]
fn substitute(word: u32) -> u32 {
    let columns = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())).cast_unsigned()
}

/// The keys for decrypting, in the order of their use (FIPS 197, 5.3.5).
#[target_feature(enable = "aes")]
fn inverse(rounds: usize, keys: &RoundKeys) -> RoundKeys {
    let mut inverse = [[0; BLOCK]; MOST_ROUND_KEYS];
    for round in 0..=rounds {
        let key = keys[rounds - round];
        let is_outer = round == 0 || round == rounds;
        inverse[round] = if is_outer { key } else { bytes(_mm_aesimc_si128(vector(key))) };
    }
    inverse
}

/// Encrypts or decrypts whole steps.
#[target_feature(enable = "vaes,vpclmulqdq,avx512f,avx512bw")]
fn crypt<const ROUNDS: usize, const ENCRYPT: bool>(keys: &RoundKeys, first_tweak: u128, sector: &mut [u8]) {
    let mut round_keys = [_mm512_setzero_si512(); MOST_ROUND_KEYS];
    for (key, bytes) in round_keys.iter_mut().zip(keys) {
        *key = _mm512_broadcast_i32x4(vector(*bytes));
    }
    let mut tweaks = first_tweaks(first_tweak);
    let (steps, _) = sector.as_chunks_mut::<STEP>();
    // Loops over constants, which become straight code that keeps all vectors in registers.
    for step in steps {
        let start: *mut __m512i = step.as_mut_ptr().cast();
        let mut data = [_mm512_setzero_si512(); VECTORS];
        for index in 0..VECTORS {
            // SAFETY: the step has so many vectors; no alignment is asked for.
            let plain = unsafe { _mm512_loadu_si512(start.add(index)) };
            data[index] = _mm512_xor_si512(_mm512_xor_si512(plain, tweaks[index]), round_keys[0]);
        }
        for key in &round_keys[1..ROUNDS] {
            for vector in &mut data {
                *vector =
                    if ENCRYPT { _mm512_aesenc_epi128(*vector, *key) } else { _mm512_aesdec_epi128(*vector, *key) };
            }
        }
        let last = round_keys[ROUNDS];
        for vector in &mut data {
            *vector =
                if ENCRYPT { _mm512_aesenclast_epi128(*vector, last) } else { _mm512_aesdeclast_epi128(*vector, last) };
        }
        for index in 0..VECTORS {
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(start.add(index), _mm512_xor_si512(data[index], tweaks[index])) };
        }
        for tweak in &mut tweaks {
            *tweak = times_x_to::<4, 12>(*tweak); // 32 blocks further on
        }
    }
}

/// The tweaks of the first 32 blocks.
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn first_tweaks(first: u128) -> [__m512i; VECTORS] {
    let second = times_x(first);
    let third = times_x(second);
    let fourth = times_x(third);
    let mut tweaks = [_mm512_setzero_si512(); VECTORS];
    tweaks[0] = four([first, second, third, fourth]);
    tweaks[1] = times_x_four_times(tweaks[0]);
    for index in 2..VECTORS {
        tweaks[index] = times_x_to::<1, 15>(tweaks[index - 2]); // 8 blocks further on
    }
    tweaks
}

#[target_feature(enable = "avx512f")]
#[allow(clippy::cast_possible_truncation, reason = "each is cut into its halves")]
fn four([first, second, third, fourth]: [u128; 4]) -> __m512i {
    let (low, high) = (|tweak: u128| tweak as i64, |tweak: u128| (tweak >> 64) as i64);
    _mm512_set_epi64(
        high(fourth),
        low(fourth),
        high(third),
        low(third),
        high(second),
        low(second),
        high(first),
        low(first),
    )
}

/// Four tweaks, each times x to the power of four.
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn times_x_four_times(tweaks: __m512i) -> __m512i {
    // What leaves each half: that of the lower one goes to the upper one, and that of the upper one is reduced.
    let carried = _mm512_srli_epi64::<60>(tweaks);
    let shifted = _mm512_xor_si512(_mm512_slli_epi64::<4>(tweaks), _mm512_bslli_epi128::<8>(carried));
    _mm512_xor_si512(shifted, _mm512_clmulepi64_epi128::<1>(carried, _mm512_set1_epi64(POLYNOMIAL)))
}

/// Four tweaks, each times x to the power of eight times `BYTES`; `REST` is 16 less that. What is shifted out, times the polynomial, has
/// fewer than 64 bits, so one multiplication of 64 bits does.
#[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
fn times_x_to<const BYTES: i32, const REST: i32>(tweaks: __m512i) -> __m512i {
    let carried = _mm512_bsrli_epi128::<REST>(tweaks);
    let reduced = _mm512_clmulepi64_epi128::<0>(carried, _mm512_set1_epi64(POLYNOMIAL));
    _mm512_xor_si512(_mm512_bslli_epi128::<BYTES>(tweaks), reduced)
}
