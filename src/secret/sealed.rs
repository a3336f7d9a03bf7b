//! The bytes of a sealed secret: a head in clear, which the seal binds, and what only the host's key opens.

use std::fmt;

use sha2::{Digest, Sha256};

use super::fields::Fields;
use super::key_id::KeyId;
use super::refused;
use super::secret::{LONGEST_NAME, LONGEST_VALUE, check_name};
use super::suite::{Ids, Suite, TAG_LEN};
use crate::error::Result;

/// The highest version: the largest number that every reader of JSON keeps whole.
pub const MOST_VERSION: u64 = (1 << 53) - 1;

/// What a seal is for, so that none made for another purpose is taken for one.
pub(super) const INFO: &[u8] = b"vmcell sealed secret 1";

const MAGIC: [u8; 8] = *b"VMCELLSS";
const FORMAT: u32 = 1;
const HEAD_LEN: usize = 40;

/// A secret that only the host with the right key can open. What it is for, its name and its version are in clear.
///
/// Its bytes may be kept and sent anywhere: whoever changes them, or gives them another name, makes the opening fail. They tell how
/// long the value is.
///
/// ```
/// use vmcell::secret::{HostKey, SealedSecret, Secret};
///
/// let host = HostKey::generate()?;
/// let sealed = host.sealing_key().seal(&Secret::new("token", b"hunter2")?, "shop", 3)?;
///
/// let again = SealedSecret::from_bytes(sealed.as_bytes())?;
/// assert_eq!((again.application(), again.name(), again.version()), ("shop", "token", 3));
/// let error = host.open(&again, "forum", "token", 3).unwrap_err();
/// assert!(error.to_string().ends_with("it is of application shop"));
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    bytes: Vec<u8>,
    application: String,
    name: String,
    head: Head,
}

/// What stands in front of the names.
#[derive(Clone, PartialEq, Eq)]
struct Head {
    suite: Suite,
    application_len: usize,
    name_len: usize,
    version: u64,
    key_id: KeyId,
    value_len: usize,
}

impl SealedSecret {
    /// The most bytes that one has.
    pub(super) const LONGEST: usize = HEAD_LEN + 2 * LONGEST_NAME + 1120 + LONGEST_VALUE + TAG_LEN;

    /// Takes bytes that may be anybody's: all is checked but the seal, which [`HostKey::open`](super::HostKey::open) checks.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if they are not those of a sealed secret, or of a format or a suite that is not
    /// known, which is named.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).map_err(|e| e.about("sealed secret"))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let (head, mut rest) = Head::read(bytes)?;
        let mut name = |len| rest.bytes(len).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let (application, name) = (name(head.application_len), name(head.name_len));
        check_application(application)?;
        check_name(name)?;
        Ok(Self { bytes: bytes.to_vec(), application: application.to_owned(), name: name.to_owned(), head })
    }

    /// All of it, as [`from_bytes`](Self::from_bytes) takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The application that it was sealed for, as it says.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The name of the secret, as it says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the secret, as it says: 1 to [`MOST_VERSION`].
    pub fn version(&self) -> u64 {
        self.head.version
    }

    /// The algorithms that it was sealed by.
    pub fn suite(&self) -> Suite {
        self.head.suite
    }

    /// The [id](super::SealingKey::id) of the key that it is sealed to, as it says.
    pub fn sealed_to(&self) -> String {
        self.head.key_id.to_string()
    }

    /// How many bytes the value has.
    pub fn value_len(&self) -> usize {
        self.head.value_len
    }

    /// The SHA-256 of these bytes, in 64 hexadecimal digits. It tells nothing of the value, not even whether two are the same: each
    /// sealing is random.
    pub fn digest(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.head.key_id
    }

    /// The encapsulated key, and the encrypted value with its tag.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        let behind_names = HEAD_LEN.saturating_add(self.application.len()).saturating_add(self.name.len());
        let rest = self.bytes.get(behind_names..).unwrap_or_default();
        rest.split_at_checked(self.head.suite.encapsulated_len()).unwrap_or_default()
    }

    /// Refuses one that says to be something else than the caller takes it for.
    pub(super) fn check(&self, binding: &Binding) -> Result<()> {
        let is = |what: &str, its: &str| Err(refused(format!("it is {what} {its}")));
        if self.application != binding.application {
            return is("of application", &self.application);
        }
        if self.name != binding.name {
            return is("the secret", &self.name);
        }
        if self.version() != binding.version {
            return is("version", &format!("{}, asked for was {}", self.version(), binding.version));
        }
        Ok(())
    }
}

impl Head {
    /// The head, and all behind it, which is as long as the head says.
    fn read(bytes: &[u8]) -> Result<(Self, Fields<'_>)> {
        let len = bytes.len();
        let mut rest = Fields(bytes);
        let cut = || refused(format!("it is cut: it has {len} bytes, its head alone has {HEAD_LEN}"));
        if rest.array() != Some(MAGIC) {
            let message = if len < HEAD_LEN { cut() } else { refused("it does not begin with \"VMCELLSS\"") };
            return Err(message);
        }
        let format = rest.u32().ok_or_else(cut)?;
        if format != FORMAT {
            return Err(refused(format!("it is of format {format}, known is {FORMAT}")));
        }
        let head = Self::fields(&mut rest).ok_or_else(cut)??;
        let names = head.application_len.saturating_add(head.name_len);
        let behind = head.suite.encapsulated_len().saturating_add(head.value_len).saturating_add(TAG_LEN);
        let takes = HEAD_LEN.saturating_add(names).saturating_add(behind);
        if len != takes {
            let how = if len < takes { "it is cut" } else { "something is behind it" };
            return Err(refused(format!("{how}: it has {len} bytes, by its head it has {takes}")));
        }
        Ok((head, rest))
    }

    /// `None` if it is cut.
    fn fields(rest: &mut Fields) -> Option<Result<Self>> {
        let ids = Ids { kem: rest.u16()?, kdf: rest.u16()?, aead: rest.u16()? };
        let (application_len, name_len) = (rest.u8()?.into(), rest.u8()?.into());
        let (version, key_id) = (rest.u64()?, KeyId(rest.array()?));
        let value_len = usize::try_from(rest.u32()?).unwrap_or(usize::MAX);
        let head = Suite::of_ids(ids).and_then(|suite| {
            check_version(version)?;
            check_value_len(value_len)?;
            Ok(Self { suite, application_len, name_len, version, key_id, value_len })
        });
        Some(head)
    }
}

/// What a sealed secret is, and is bound to.
pub(super) struct Binding<'a> {
    pub(super) application: &'a str,
    pub(super) name: &'a str,
    pub(super) version: u64,
}

impl Binding<'_> {
    /// Refuses what no sealed secret is.
    pub(super) fn check(&self) -> Result<()> {
        check_application(self.application)?;
        check_name(self.name)?;
        check_version(self.version)
    }

    /// The head of such a sealed secret, with both names: all of it is bound by the seal.
    pub(super) fn head(&self, suite: Suite, key_id: KeyId, value_len: usize) -> Result<Vec<u8>> {
        self.check()?;
        check_value_len(value_len)?;
        let short = |len: usize| u8::try_from(len).map_err(|_| refused(format!("a name has {len} bytes")));
        let value_len = u32::try_from(value_len).map_err(|_| refused(format!("a value has {value_len} bytes")))?;
        let Ids { kem, kdf, aead } = suite.ids();
        let mut head = Vec::with_capacity(HEAD_LEN.saturating_add(2 * LONGEST_NAME));
        head.extend(MAGIC);
        head.extend(FORMAT.to_le_bytes());
        [kem, kdf, aead].iter().for_each(|id| head.extend(id.to_le_bytes()));
        head.extend([short(self.application.len())?, short(self.name.len())?]);
        head.extend(self.version.to_le_bytes());
        head.extend(key_id.0);
        head.extend(value_len.to_le_bytes());
        head.extend(self.application.as_bytes());
        head.extend(self.name.as_bytes());
        Ok(head)
    }
}

/// An application's name follows the rules for those of secrets.
pub(super) fn check_application(application: &str) -> Result<()> {
    check_name(application).map_err(|_| {
        let begin: String = application.chars().take(LONGEST_NAME).collect();
        refused(format!(
            "application {begin:?} has no name that is allowed: 1 to {LONGEST_NAME} ASCII letters, digits, '_', '-' and '.', not a dot first"
        ))
    })
}

fn check_version(version: u64) -> Result<()> {
    if (1..=MOST_VERSION).contains(&version) {
        return Ok(());
    }
    Err(refused(format!("it is of version {version}, allowed are 1 to {MOST_VERSION}")))
}

fn check_value_len(len: usize) -> Result<()> {
    if (1..=LONGEST_VALUE).contains(&len) {
        return Ok(());
    }
    Err(refused(format!("its value has {len} bytes, allowed are 1 to {LONGEST_VALUE}")))
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { version, key_id, .. } = self.head;
        write!(f, "SealedSecret({} of {}, version {version}, to {key_id})", self.name, self.application)
    }
}

#[cfg(test)]
#[path = "sealed_test.rs"]
mod tests;
