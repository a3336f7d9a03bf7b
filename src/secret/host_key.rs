//! A host's key: what opens the secrets that were sealed to it.

use std::fmt;
use std::path::Path;

use super::files::{self, Secrecy};
use super::sealed::{Binding, INFO, SealedSecret};
use super::sealing_key::SealingKey;
use super::secret::Secret;
use super::suite::{Message, PRIVATE_LEN, Suite};
use super::text::{Kind, MOST_TEXT};
use super::{no_random, no_secret_memory, refused};
use crate::error::{Error, Result};
use crate::sys::{LockedBytes, random_bytes};

/// The private key of a host: it opens what was sealed to its [`SealingKey`].
///
/// It lies in memory that is locked, is in no core dump and in no child process, and is zeroed when it is dropped. It is never printed.
///
/// ```
/// use vmcell::secret::HostKey;
///
/// # let folder = std::env::temp_dir().join(format!("vmcell-doc-host-key-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("host.key");
/// HostKey::generate()?.save(&path)?; // mode 0600
/// let key = HostKey::file(&path)?;
/// println!("seal to {}", key.sealing_key());
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct HostKey {
    private: LockedBytes,
    public: SealingKey,
}

impl HostKey {
    /// A new key, of the suite that is the default.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if the host gives no random bytes, or the process may not lock so much memory.
    pub fn generate() -> Result<Self> {
        Self::generate_for(Suite::default())
    }

    /// A new key.
    ///
    /// # Errors
    /// Those of [`generate`](Self::generate).
    pub fn generate_for(suite: Suite) -> Result<Self> {
        let mut private = LockedBytes::zeroed(PRIVATE_LEN).map_err(no_secret_memory)?;
        random_bytes(&mut private).map_err(no_random)?;
        Self::of(suite, private)
    }

    /// The key of these 32 bytes, which the caller still has and should zero: as RFC 9180 has the private keys of X25519
    /// (`SerializePrivateKey`), or the seed of X-Wing's. The caller vouches that they are random.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for another length, or if the process may not lock so much memory.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self> {
        if bytes.len() != PRIVATE_LEN {
            let message = format!("a host key has {PRIVATE_LEN} bytes, {} were given", bytes.len());
            return Err(refused(message));
        }
        Self::of(suite, LockedBytes::copy_of(bytes).map_err(no_secret_memory)?)
    }

    /// Reads a key from the file that [`save`](Self::save) wrote. It also reads a pipe (`/dev/fd/63`), and then
    /// blocks until that is closed. A FIFO with a name, which might never be written to, is refused.
    ///
    /// A file that users other than its owner may change, or that any but its owner and group may read, is refused: give it mode 0600, or 0640
    /// if a service reads it by its group.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for such a file, if it cannot be read, is longer than any key, or is no host key,
    /// which is said without showing any of it.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = || {
            let (suite, private) = Kind::Host.read(&files::read_bounded(path, MOST_TEXT, Secrecy::Private)?)?;
            Self::of(suite, private)
        };
        read().map_err(|e| e.about(&format!("host key {}", path.display())))
    }

    /// Writes the key as text to a new file that nobody else may read (mode 0600). It is on storage when the call returns. After a crash in
    /// the middle, the file is whole or not there.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if the file exists, which is left alone, or cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let write = || {
            let text = Kind::Host.write_private(self.public.suite(), &self.private)?;
            files::create(path, &text)
        };
        write().map_err(|e| e.about(&format!("host key {}", path.display())))
    }

    fn of(suite: Suite, private: LockedBytes) -> Result<Self> {
        let public = SealingKey::from_bytes(suite, &suite.public_of(&private)?)?;
        Ok(Self { private, public })
    }

    /// Opens what was sealed to this host, if it is what the caller takes it for.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret), which names what is not as it should be, if it was sealed for another application,
    /// under another name, as another version, to another key, or was changed since; and if the process may not lock so much memory.
    pub fn open(&self, sealed: &SealedSecret, application: &str, name: &str, version: u64) -> Result<Secret> {
        let binding = Binding { application, name, version };
        binding.check()?;
        let open = || {
            sealed.check(&binding)?;
            self.check_is_for(sealed)?;
            let head = binding.head(self.public.suite(), self.public.key_id(), sealed.value_len())?;
            let mut value = LockedBytes::zeroed(sealed.value_len()).map_err(no_secret_memory)?;
            let message = Message { info: INFO, associated: &head };
            if !self.public.suite().open(&self.private, &message, sealed.parts(), &mut value) {
                return Err(refused("its seal is broken: it was changed, or never sealed as what it says it is"));
            }
            Secret::of(name, value)
        };
        open().map_err(|e: Error| e.about(&format!("sealed secret {name} of application {application}")))
    }

    fn check_is_for(&self, sealed: &SealedSecret) -> Result<()> {
        if sealed.suite() == self.public.suite() && sealed.key_id() == self.public.key_id() {
            return Ok(());
        }
        let (to, its, ours, our) = (sealed.key_id(), sealed.suite(), self.public.key_id(), self.public.suite());
        Err(refused(format!("it is sealed to the host key {to} ({its}), this one is {ours} ({our})")))
    }

    /// What others need to seal secrets to this host.
    pub fn sealing_key(&self) -> &SealingKey {
        &self.public
    }

    /// The 32 bytes of the key, for being kept where nobody else reads them.
    pub fn expose(&self) -> &[u8] {
        &self.private
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({}, {})", self.public.suite(), self.public.key_id())
    }
}
