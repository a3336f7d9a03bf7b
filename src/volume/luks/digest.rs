//! The digest by which a key is known to be right (LUKS2 on-disk format, section 3.4).

use serde::{Deserialize, Serialize};

use super::hash::Hash;
use super::json::Bytes;
use crate::error::Result;
use crate::volume::refused;

/// What tells whether a key is right.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Digest {
    #[serde(rename = "type")]
    kind: String,
    pub(super) keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: Bytes,
    digest: Bytes,
}

impl Digest {
    /// Of the key of a volume's data, which has no key slot yet.
    pub(super) fn of(key: &[u8], salt: [u8; 32], iterations: u32) -> Self {
        let hash = Hash::Sha256;
        let mut digest = vec![0; hash.len()];
        hash.stretch(key, &salt, iterations, &mut digest);
        Self {
            kind: "pbkdf2".into(),
            keyslots: Vec::new(),
            segments: vec!["0".into()],
            hash: hash.name().into(),
            iterations,
            salt: Bytes(salt.into()),
            digest: Bytes(digest),
        }
    }

    /// Whether it is this key's.
    ///
    /// # Errors
    /// If the digest is of a kind that is not known, or takes more than `most` iterations.
    pub(super) fn fits(&self, key: &[u8], most: u32) -> Result<bool> {
        if self.kind != "pbkdf2" {
            return Err(refused(format!("the key's digest is of the type {:?}, known is pbkdf2", self.kind)));
        }
        if !(1..=most).contains(&self.iterations) {
            let message = format!("the key's digest takes {} iterations, allowed are 1 to {most}", self.iterations);
            return Err(refused(message));
        }
        let hash = Hash::named(&self.hash, "the key's digest")?;
        let mut digest = vec![0; self.digest.0.len()];
        hash.stretch(key, &self.salt.0, self.iterations, &mut digest);
        let differing = digest.iter().zip(&self.digest.0).fold(0, |all, (one, other)| all | (one ^ other));
        Ok(differing == 0 && digest.len() >= 16)
    }
}
