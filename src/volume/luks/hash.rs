//! The hash functions that LUKS2 names, as far as they are known here.

use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::error::Result;
use crate::sys::zero;
use crate::volume::refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// The longest digest.
pub(super) const MOST_DIGEST: usize = 64;

impl Hash {
    /// `what` is hashed by it, for the error's message.
    pub(super) fn named(name: &str, what: &str) -> Result<Self> {
        match name {
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(refused(format!("{what} uses the hash {name:?}, known are sha256, sha384 and sha512"))),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of a digest.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of all parts in turn, behind which there are zeroes.
    pub(super) fn digest(self, parts: &[&[u8]]) -> [u8; MOST_DIGEST] {
        match self {
            Self::Sha256 => digest::<Sha256>(parts),
            Self::Sha384 => digest::<Sha384>(parts),
            Self::Sha512 => digest::<Sha512>(parts),
        }
    }

    /// PBKDF2 with HMAC of this hash.
    pub(super) fn stretch(self, secret: &[u8], salt: &[u8], iterations: u32, into: &mut [u8]) {
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, iterations, into),
            Self::Sha384 => pbkdf2::pbkdf2_hmac::<Sha384>(secret, salt, iterations, into),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(secret, salt, iterations, into),
        }
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> [u8; MOST_DIGEST] {
    let mut hash = D::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut found = hash.finalize();
    let mut digest = [0; MOST_DIGEST];
    digest.iter_mut().zip(found.iter()).for_each(|(to, from)| *to = *from);
    zero(&mut found);
    digest
}
