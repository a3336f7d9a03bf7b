//! What a store's file holds.

use sha2::{Digest, Sha256};

use super::fields::Fields;
use super::refused;
use super::sealed::{MOST_VERSION, SealedSecret, check_application};
use super::secret::LONGEST_NAME;
use crate::error::Result;

/// The secrets of one application, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) application: String,
    /// Counts the changes. Each secret's version is what it was when that one was set.
    pub(super) revision: u64,
    pub(super) secrets: Vec<SealedSecret>,
}

const MAGIC: [u8; 8] = *b"VMCELLST";
const FORMAT: u32 = 1;
const CHECKSUM_LEN: usize = 32;
/// Where the length of the file stands.
const LEN_AT: usize = 12;

/// The most secrets.
pub(super) const MOST_SECRETS: usize = 1024;
/// The most bytes of a file.
pub(super) const MOST_BYTES: usize = 16 << 20;

impl Contents {
    pub(super) fn new(application: &str) -> Result<Self> {
        check_application(application)?;
        Ok(Self { application: application.to_owned(), revision: 0, secrets: Vec::new() })
    }

    /// Reads a file that may be anybody's.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MOST_BYTES {
            return Err(refused(format!("it has more than {MOST_BYTES} bytes")));
        }
        let mut rest = Fields(bytes);
        if rest.array() != Some(MAGIC) {
            return Err(refused("it is no store of secrets: it does not begin with \"VMCELLST\""));
        }
        let format = rest.u32().ok_or_else(cut)?;
        if format != FORMAT {
            return Err(refused(format!("it is of format {format}, known is {FORMAT}")));
        }
        let len = rest.u32().ok_or_else(cut)?;
        if usize::try_from(len).ok() != Some(bytes.len()) {
            let has = bytes.len();
            return Err(refused(format!("it is cut, or longer than it was: it has {has} bytes, {len} were written")));
        }
        let (body, checksum) = rest.0.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(cut)?;
        if sum(bytes.strip_suffix(checksum).unwrap_or_default()) != *checksum {
            return Err(refused("it is damaged: its checksum is wrong"));
        }
        Self::parse_body(Fields(body))
    }

    fn parse_body(mut rest: Fields) -> Result<Self> {
        let (count, revision, len) = head(&mut rest).ok_or_else(cut)?;
        if count > MOST_SECRETS {
            return Err(refused(format!("it has {count} secrets, allowed are {MOST_SECRETS}")));
        }
        check_revision(revision)?;
        let application = rest.bytes(len).ok_or_else(cut)?;
        let mut contents = Self::new(std::str::from_utf8(application).unwrap_or_default())?;
        contents.revision = revision;
        for _ in 0..count {
            let secret = contents.parse_secret(&mut rest)?;
            contents.secrets.push(secret);
        }
        if !rest.0.is_empty() {
            return Err(refused(format!("{} bytes are behind its last secret", rest.0.len())));
        }
        Ok(contents)
    }

    fn parse_secret(&self, rest: &mut Fields) -> Result<SealedSecret> {
        let (version, len) = (rest.u64().ok_or_else(cut)?, rest.u32().ok_or_else(cut)?);
        let len = usize::try_from(len).ok().filter(|len| *len <= SealedSecret::LONGEST);
        let len = len.ok_or_else(|| refused("a secret in it is longer than any"))?;
        let secret = SealedSecret::parse(rest.bytes(len).ok_or_else(cut)?)?;
        let about = |what: String| Err(refused(format!("the secret {} in it {what}", secret.name())));
        if secret.application() != self.application {
            return about(format!("is of application {}, the store is of {}", secret.application(), self.application));
        }
        if secret.version() != version {
            return about(format!("is of version {}, there should be {version}", secret.version()));
        }
        if version > self.revision {
            return about(format!("is of version {version}, the store is at revision {}", self.revision));
        }
        if self.secrets.last().is_some_and(|last| last.name() >= secret.name()) {
            return about("is not in order, or twice".to_owned());
        }
        Ok(secret)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let too_much = |what: &str, most: usize| refused(format!("there is room for {most} {what} and no more"));
        let count = u32::try_from(self.secrets.len()).ok().filter(|_| self.secrets.len() <= MOST_SECRETS);
        let count = count.ok_or_else(|| too_much("secrets", MOST_SECRETS))?;
        check_revision(self.revision)?;
        let application_len = u8::try_from(self.application.len()).map_err(|_| too_much("bytes", LONGEST_NAME))?;
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.revision.to_le_bytes());
        bytes.push(application_len);
        bytes.extend(self.application.as_bytes());
        for secret in &self.secrets {
            let sealed = secret.as_bytes();
            bytes.extend(secret.version().to_le_bytes());
            bytes.extend(u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(sealed);
        }
        let len = u32::try_from(bytes.len().saturating_add(CHECKSUM_LEN)).unwrap_or(u32::MAX);
        if usize::try_from(len).is_ok_and(|len| len > MOST_BYTES) {
            return Err(too_much("bytes of sealed secrets", MOST_BYTES));
        }
        bytes.iter_mut().skip(LEN_AT).zip(len.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        let checksum = sum(&bytes);
        bytes.extend(checksum);
        Ok(bytes)
    }

    pub(super) fn get(&self, name: &str) -> Option<&SealedSecret> {
        self.find(name).ok().and_then(|at| self.secrets.get(at))
    }

    /// Puts a secret in the place of the one of its name.
    pub(super) fn put(&mut self, secret: SealedSecret) {
        match self.find(secret.name()) {
            Ok(at) => self.secrets.iter_mut().skip(at).take(1).for_each(|old| old.clone_from(&secret)),
            Err(at) => self.secrets.insert(at, secret),
        }
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.find(name);
        found.is_ok_and(|at| at < self.secrets.len() && (self.secrets.remove(at), true).1)
    }

    fn find(&self, name: &str) -> std::result::Result<usize, usize> {
        self.secrets.binary_search_by(|secret| secret.name().cmp(name))
    }
}

/// How many secrets there are, the revision, and the bytes of the application's name.
fn head(rest: &mut Fields) -> Option<(usize, u64, usize)> {
    let count = usize::try_from(rest.u32()?).unwrap_or(usize::MAX);
    Some((count, rest.u64()?, rest.u8()?.into()))
}

fn sum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    Sha256::digest(bytes).into()
}

fn check_revision(revision: u64) -> Result<()> {
    if revision <= MOST_VERSION {
        return Ok(());
    }
    Err(refused(format!("it is at revision {revision}, allowed are at most {MOST_VERSION}")))
}

fn cut() -> crate::error::Error {
    refused("it is cut")
}

#[cfg(test)]
#[path = "contents_test.rs"]
mod tests;
