//! Short names of keys.

use std::fmt;

use sha2::{Digest, Sha256};

use super::suite::Suite;

/// What tells one key from another: the first bytes of a hash of the public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) [u8; Self::LEN]);

impl KeyId {
    pub(super) const LEN: usize = 8;

    pub(super) fn of(suite: Suite, public: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"vmcell sealing key\0");
        hash.update(suite.ids().kem.to_le_bytes());
        hash.update(public);
        let mut id = [0; Self::LEN];
        id.iter_mut().zip(hash.finalize()).for_each(|(id, byte)| *id = byte);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
