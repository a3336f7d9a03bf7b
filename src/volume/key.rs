//! What opens a volume.

use std::io;
use std::path::Path;

use super::luks::Cost;
use super::{no_random, no_secret_memory, refused};
use crate::error::Result;
use crate::sys::{LockedBytes, open_whole, random_bytes};

/// What opens a volume: a passphrase, what a key file holds, random bytes of a machine's, or the key of the data itself.
///
/// The bytes lie in memory that is locked, is in no core dump and in no child process, and is zeroed when the key is dropped. They are
/// never printed.
///
/// ```
/// use vmcell::volume::Key;
///
/// let key = Key::passphrase(b"correct horse battery staple")?;
/// assert_eq!(format!("{key:?}"), "Key(passphrase)");
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Key {
    bytes: LockedBytes,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Passphrase,
    Random,
    OfData,
}

/// The most bytes of a passphrase or a key file.
const MOST: usize = 64 << 10;
/// The fewest of what cannot be guessed.
const FEWEST_RANDOM: usize = 32;

impl Key {
    /// A passphrase, of 1 byte to 64 KiB. A key slot that is made for it takes a tenth of a second and 64 MiB to open (argon2id), so that
    /// guessing is dear.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) for another length, or if the process may not lock so much memory.
    pub fn passphrase(bytes: &[u8]) -> Result<Self> {
        Self::new(bytes, Kind::Passphrase, 1)
    }

    /// Bytes that a machine has kept, at least 32 of them. The caller vouches that they are random: a key slot that is made for them takes
    /// milliseconds to open (PBKDF2), so that one could guess what can be guessed.
    ///
    /// # Errors
    /// Those of [`passphrase`](Self::passphrase), and for fewer bytes.
    pub fn random(bytes: &[u8]) -> Result<Self> {
        Self::new(bytes, Kind::Random, FEWEST_RANDOM)
    }

    /// A new key of 64 random bytes, as for [`random`](Self::random). [`expose`](Self::expose) gives them, for being kept.
    ///
    /// # Errors
    /// As [`passphrase`](Self::passphrase).
    pub fn generate() -> Result<Self> {
        let mut bytes = LockedBytes::zeroed(64).map_err(no_secret_memory)?;
        random_bytes(&mut bytes).map_err(no_random)?;
        Ok(Self { bytes, kind: Kind::Random })
    }

    /// The content of a key file, all of it: a line's end belongs to it, as for `cryptsetup --key-file`. It is taken as a passphrase.
    /// Reads until the end, so it blocks on a pipe
    /// (`/dev/fd/63`) until that is closed; a FIFO with a name is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if the file cannot be read, or as for [`passphrase`](Self::passphrase).
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), Kind::Passphrase, 1)
    }

    /// The content of a key file that holds random bytes, as for [`random`](Self::random).
    ///
    /// # Errors
    /// Those of [`file`](Self::file), and for fewer than 32 bytes.
    pub fn random_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file(path.as_ref(), Kind::Random, FEWEST_RANDOM)
    }

    /// The key of the data itself, which no key slot is asked for: 32 bytes for AES-128 or 64 for AES-256. A volume that is made with it has
    /// no key slot, so nothing else opens it.
    ///
    /// # Errors
    /// As [`passphrase`](Self::passphrase), and for another length.
    pub fn of_data(bytes: &[u8]) -> Result<Self> {
        if !matches!(bytes.len(), 32 | 64) {
            return Err(refused(format!("the key of data has {} bytes, allowed are 32 and 64", bytes.len())));
        }
        Self::new(bytes, Kind::OfData, 1)
    }

    fn new(bytes: &[u8], kind: Kind, fewest: usize) -> Result<Self> {
        check_len(bytes.len(), fewest)?;
        Ok(Self { bytes: LockedBytes::copy_of(bytes).map_err(no_secret_memory)?, kind })
    }

    fn from_file(path: &Path, kind: Kind, fewest: usize) -> Result<Self> {
        let about = format!("key file {}", path.display());
        let unreadable = |e: io::Error| refused("it cannot be read").with_source(e);
        let read = || {
            let bytes = LockedBytes::read(&mut open_whole(path).map_err(unreadable)?, MOST).map_err(unreadable)?;
            check_len(bytes.len(), fewest).map(|()| Self { bytes, kind })
        };
        read().map_err(|e| e.about(&about))
    }

    /// The bytes, for being kept where nobody else reads them.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What a key slot for it costs whoever opens it.
    pub(super) fn cost(&self) -> Cost {
        if self.kind == Kind::Random { Cost::Random } else { Cost::MadeUp }
    }
}

fn check_len(len: usize, fewest: usize) -> Result<()> {
    if (fewest..=MOST).contains(&len) {
        return Ok(());
    }
    let len = if len > MOST { format!("more than {MOST}") } else { len.to_string() };
    Err(refused(format!("a key has {len} bytes, allowed are {fewest} to {MOST}")))
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Passphrase => "passphrase",
            Kind::Random => "random",
            Kind::OfData => "of data",
        };
        write!(f, "Key({kind})")
    }
}
