//! The public half of a host's key: what secrets are sealed to.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::files::{Secrecy, read_bounded};
use super::key_id::KeyId;
use super::refused;
use super::sealed::{Binding, INFO, SealedSecret};
use super::secret::Secret;
use super::suite::{Message, Suite};
use super::text::{Kind, MOST_TEXT};
use crate::error::{Error, Result};

/// The public half of a [`HostKey`](super::HostKey): whoever has it can seal secrets to that host, and read none.
///
/// It is given to others as text, by [`Display`](fmt::Display) and [`FromStr`]: `vmcell-sealing-key:1:x25519:` and the key. A slip in
/// it is noticed by a checksum, but not that somebody put another key in its place: fetch it by a way that you trust.
///
/// ```
/// use vmcell::secret::{HostKey, SealingKey, Secret};
///
/// let host = HostKey::generate()?;
/// let text = host.sealing_key().to_string();
///
/// // Elsewhere, where only the text is known:
/// let key: SealingKey = text.parse()?;
/// let sealed = key.seal(&Secret::new("DATABASE_URL", b"postgres://...")?, "shop", 1)?;
///
/// let secret = host.open(&sealed, "shop", "DATABASE_URL", 1)?;
/// assert_eq!(secret.expose(), b"postgres://...");
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey {
    suite: Suite,
    bytes: Vec<u8>,
    id: KeyId,
}

impl SealingKey {
    /// The key of these bytes, as RFC 9180 (`SerializePublicKey`) or the draft of X-Wing has them: 32 for X25519, 1216 for X-Wing.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for another length, and for what is no key of X-Wing. Any 32 bytes are one of X25519.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self> {
        let takes = suite.public_len();
        if bytes.len() != takes {
            let has = bytes.len();
            return Err(refused(format!("a sealing key of {suite} has {takes} bytes, {has} were given")));
        }
        suite.check_public(bytes)?;
        Ok(Self { suite, bytes: bytes.to_vec(), id: KeyId::of(suite, bytes) })
    }

    /// Reads the text of a key from a file. Reads until the end, so it blocks on a pipe until that is closed.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if it cannot be read, is longer than any key, or is no key, which is said.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = || Self::of_text(&read_bounded(path, MOST_TEXT, Secrecy::Public)?);
        read().map_err(|e| e.about(&format!("sealing key {}", path.display())))
    }

    fn of_text(text: &[u8]) -> Result<Self> {
        let (suite, bytes) = Kind::Sealing.read(text)?;
        Self::from_bytes(suite, &bytes)
    }

    /// Seals a secret to the key's owner. Only who gives the same application, name and version opens it again, so it cannot be passed
    /// off as another application's, as another secret, or as a newer version. Random: sealing the same again gives other bytes.
    ///
    /// Nothing says who has sealed it: everybody who has the key can.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for an application whose name no secret could have, for version 0 or one above
    /// [`MOST_VERSION`](super::MOST_VERSION), for a key that keeps nothing secret (a point of small order), and if the host gives no random bytes.
    pub fn seal(&self, secret: &Secret, application: &str, version: u64) -> Result<SealedSecret> {
        let binding = Binding { application, name: secret.name(), version };
        let head = binding.head(self.suite, self.id, secret.expose().len())?;
        let message = Message { info: INFO, associated: &head };
        let (encapsulated, sealed) = self.suite.seal(&self.bytes, &message, secret.expose())?;
        SealedSecret::from_bytes(&[head, encapsulated, sealed].concat())
    }

    /// The algorithms that it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The public key itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What tells it from other keys, in 16 hexadecimal digits: part of a hash of it. What is sealed names it.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.id
    }
}

impl FromStr for SealingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::of_text(text.as_bytes()).map_err(|e| e.about("sealing key"))
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Kind::Sealing.write_public(self.suite, &self.bytes))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({}, {})", self.suite, self.id)
    }
}
