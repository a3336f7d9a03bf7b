//! Certificates and keys at rest: sealed to a key of the host, in one file, which only this user reads.

use std::fs;
use std::path::Path;

use vmcell::secret::{HostKey, Secret, SecretStore};

use super::certificates::Kept;
use crate::fault::{Context, Result};
use crate::sealing::host_key;

/// What the sealed values are bound to.
const APPLICATION: &str = "edge";
/// No name of a host is this: it has no dot.
const ACCOUNT: &str = "account";

/// The folder with the host's key and the sealed values.
pub struct Store {
    key: HostKey,
    sealed: SecretStore,
}

impl Store {
    /// Opens it, or makes it at the first time.
    ///
    /// # Errors
    /// If it cannot be read or made, or is not what was made.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(format_args!("the folder {} of certificates", folder.display()))?;
        let (key_path, path) = (folder.join("host.key"), folder.join("certificates.sealed"));
        let key = host_key(&key_path)?;
        let sealed = if path.exists() {
            SecretStore::open(&path, APPLICATION)?
        } else {
            SecretStore::create(&path, APPLICATION)?
        };
        Ok(Self { key, sealed })
    }

    /// The certificate of a name, if there is one that can be read.
    ///
    /// # Errors
    /// If there is one that cannot.
    pub fn certificate(&self, name: &str) -> Result<Option<Kept>> {
        let Some(secret) = self.get(name)? else { return Ok(None) };
        serde_json::from_slice(secret.expose()).map(Some).context(format_args!("the sealed certificate of {name}"))
    }

    /// Keeps a certificate in the place of the last one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_certificate(&self, name: &str, kept: &Kept) -> Result<()> {
        self.set(name, &serde_json::to_vec(kept).context(name)?)
    }

    /// The account at the ACME server, as JSON.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn account(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.get(ACCOUNT)?.map(|secret| secret.expose().to_vec()))
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_account(&self, json: &[u8]) -> Result<()> {
        self.set(ACCOUNT, json)
    }

    fn get(&self, name: &str) -> Result<Option<Secret>> {
        let has = self.sealed.list()?.secrets.iter().any(|secret| secret.name == name);
        if has { Ok(Some(self.sealed.get(&self.key, name)?)) } else { Ok(None) }
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        self.sealed.set(self.key.sealing_key(), &Secret::new(name, value)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_there_again_and_cannot_be_read_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(store.certificate("a.example").unwrap().is_none() && store.account().unwrap().is_none());
        let kept = Kept { chain: "a chain".to_owned(), key: "a private key".to_owned() };
        store.keep_certificate("a.example", &kept).unwrap();
        store.keep_account(b"{}").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.certificate("a.example").unwrap().unwrap().key, "a private key");
        assert_eq!(store.account().unwrap().unwrap(), b"{}");
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{path:?}");
            assert!(!fs::read(&path).unwrap().windows(13).any(|some| some == b"a private key"));
        }
        fs::remove_file(folder.path().join("host.key")).unwrap();
        let other = Store::open(folder.path()).unwrap();
        assert!(other.certificate("a.example").is_err());
    }
}
