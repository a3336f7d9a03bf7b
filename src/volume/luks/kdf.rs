//! From a passphrase to the key of a key slot: argon2 or PBKDF2, each within bounds, since a header says what it costs.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

use super::hash::Hash;
use super::json::Bytes;
use crate::error::{Error, Result};
use crate::sys::{LockedBytes, random_bytes};
use crate::volume::{no_random, no_secret_memory, refused};

/// As the JSON has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Kdf {
    Argon2id(Argon),
    Argon2i(Argon),
    Pbkdf2 { hash: String, iterations: u32, salt: Bytes },
}

/// `memory` in KiB.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Argon {
    time: u32,
    memory: u32,
    cpus: u32,
    salt: Bytes,
}

/// What opening a volume may cost at the most: its header says what it costs, and may come from an attacker. [`Default`] is what
/// `cryptsetup` makes at the most without being asked for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnlockLimits {
    /// Memory of argon2, in KiB. 1 GiB by default.
    pub memory_kib: u32,
    /// Memory of argon2, in KiB, times its passes, over all the key slots that are tried. 16 GiB by default, which takes some ten seconds.
    pub work_kib: u64,
    /// Iterations of PBKDF2, over all the key slots that are tried. 50 million by default, which takes some ten seconds.
    pub iterations: u32,
}

impl Default for UnlockLimits {
    fn default() -> Self {
        Self { memory_kib: 1 << 20, work_kib: 16 << 20, iterations: 50_000_000 }
    }
}

/// What a key slot costs whoever opens it, and whoever guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// For what is random: it cannot be guessed, whatever a guess costs.
    Random,
    /// For what people make up: the second choice of RFC 9106, section 4, which takes a tenth of a second.
    MadeUp,
}

const MOST_LANES: u32 = 16;

impl Kdf {
    pub(super) fn new(cost: Cost) -> Result<Self> {
        let mut salt = [0; 32];
        random_bytes(&mut salt).map_err(no_random)?;
        let salt = Bytes(salt.into());
        Ok(match cost {
            Cost::Random => Self::Pbkdf2 { hash: Hash::Sha256.name().into(), iterations: 1000, salt },
            Cost::MadeUp => Self::Argon2id(Argon { time: 3, memory: 64 << 10, cpus: 4, salt }),
        })
    }

    /// About what it takes, for trying what is cheap first.
    pub(super) fn work(&self) -> u64 {
        match self {
            Self::Argon2id(argon) | Self::Argon2i(argon) => argon.work().saturating_mul(1000),
            // A thousand iterations take about as long as one pass over 350 KiB.
            Self::Pbkdf2 { iterations, .. } => u64::from(*iterations).saturating_mul(350),
        }
    }

    /// Makes `len` bytes of a secret, and takes what that costs off what is `left`.
    ///
    /// # Errors
    /// If it costs more than that, or makes no sense.
    pub(super) fn derive(&self, secret: &[u8], len: usize, left: &mut UnlockLimits) -> Result<LockedBytes> {
        let mut key = LockedBytes::zeroed(len).map_err(no_secret_memory)?;
        match self {
            Self::Argon2id(argon) => argon.derive(Algorithm::Argon2id, secret, &mut key, left)?,
            Self::Argon2i(argon) => argon.derive(Algorithm::Argon2i, secret, &mut key, left)?,
            Self::Pbkdf2 { hash, iterations, salt } => {
                let hash = Hash::named(hash, "its PBKDF2")?;
                let after = left.iterations.checked_sub(*iterations).filter(|_| *iterations > 0);
                let Some(after) = after else {
                    let message =
                        format!("it takes {iterations} iterations of PBKDF2, allowed are 1 to {}", left.iterations);
                    return Err(refused(message));
                };
                left.iterations = after;
                hash.stretch(secret, &salt.0, *iterations, &mut key);
            }
        }
        Ok(key)
    }
}

impl std::fmt::Display for Kdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argon2id(Argon { time, memory, cpus, .. }) => {
                write!(f, "argon2id, {time} passes over {memory} KiB, {cpus} lanes")
            }
            Self::Argon2i(Argon { time, memory, cpus, .. }) => {
                write!(f, "argon2i, {time} passes over {memory} KiB, {cpus} lanes")
            }
            Self::Pbkdf2 { hash, iterations, .. } => write!(f, "pbkdf2, {iterations} times {hash}"),
        }
    }
}

impl Argon {
    fn work(&self) -> u64 {
        u64::from(self.memory).saturating_mul(self.time.into())
    }

    fn derive(&self, which: Algorithm, secret: &[u8], key: &mut [u8], left: &mut UnlockLimits) -> Result<()> {
        let Self { time, memory, cpus, salt } = self;
        if *memory > left.memory_kib {
            return Err(refused(format!("it takes {memory} KiB of argon2, allowed are {}", left.memory_kib)));
        }
        let Some(after) = left.work_kib.checked_sub(self.work()) else {
            let message =
                format!("it takes {time} passes over {memory} KiB of argon2, allowed are {} in all", left.work_kib);
            return Err(refused(message));
        };
        if !(1..=MOST_LANES).contains(cpus) {
            return Err(refused(format!("it takes {cpus} lanes of argon2, allowed are 1 to {MOST_LANES}")));
        }
        let wrong = |e: argon2::Error| refused(format!("its argon2 makes no sense: {e}"));
        let params = Params::new(*memory, *time, *cpus, Some(key.len())).map_err(wrong)?;
        left.work_kib = after;
        Argon2::new(which, Version::V0x13, params).hash_password_into(secret, &salt.0, key).map_err(|e| match e {
            argon2::Error::OutOfMemory => no_memory(*memory),
            other => wrong(other),
        })
    }
}

fn no_memory(kib: u32) -> Error {
    refused(format!("the host has no {kib} KiB of memory for argon2"))
}
