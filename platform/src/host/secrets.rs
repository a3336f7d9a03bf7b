//! Secrets of apps, and keys of volumes: sealed to this host's key, in files of the folder `secrets`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vmcell::secret::{HostKey, Secret, SecretStore};
use vmcell::volume::Key;

use crate::app::{is_name, is_variable};
use crate::fault::{Context, Fault, Result};
use crate::lines::Hidden;
use crate::sealing::host_key;

/// The application that the keys of volumes are sealed for; no app has such a name.
const VOLUMES: &str = "volumes.keys";
/// The same for the key of the tunnel.
const TUNNEL: &str = "tunnel.key";
/// The same for that of the tunnel between hosts.
const MESH: &str = "mesh.key";
/// So many keys of volumes there may be if one comes from another host. The store takes twice as many.
const MOST_WITH_OTHERS: usize = 512;
/// The bytes of a key.
const KEY_BYTES: usize = 32;

fn random() -> Result<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("random bytes")?;
    Ok(bytes)
}

fn no_app(name: &str) -> Fault {
    Fault::new(format!("{name:?} is no name of an app"))
        .next("Allowed are lower-case letters, digits and hyphens inside.")
}

/// The bytes of a key that is told as hexadecimal digits.
fn key_bytes(key: &Hidden) -> Result<Vec<u8>> {
    let digits = |at: usize| key.0.get(at..at.saturating_add(2)).and_then(|text| u8::from_str_radix(text, 16).ok());
    let bytes: Option<Vec<u8>> = (0..KEY_BYTES).map(|number| digits(number.saturating_mul(2))).collect();
    let bytes = bytes.filter(|_| key.0.len() == KEY_BYTES.saturating_mul(2));
    bytes.ok_or_else(|| Fault::new("the key of a volume is no key"))
}

/// The secrets of a host.
pub struct Secrets {
    folder: PathBuf,
    key: HostKey,
}

/// What is told of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// How often it was set.
    pub version: u64,
    /// The digest of its sealed bytes, which tells nothing of the value.
    pub digest: String,
}

impl Secrets {
    /// Opens the secrets in this folder; the key is made if there is none.
    ///
    /// # Errors
    /// The key cannot be read, others may read it, or it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { folder: folder.to_owned(), key: host_key(&folder.join("host.key"))? })
    }

    fn path(&self, app: &str) -> PathBuf {
        self.folder.join(format!("{app}.secrets"))
    }

    /// The secrets of an app, and no keys of the host's.
    fn store_of(&self, app: &str) -> Result<Option<SecretStore>> {
        if is_name(app) { self.store(app) } else { Err(no_app(app)) }
    }

    fn store(&self, app: &str) -> Result<Option<SecretStore>> {
        let path = self.path(app);
        if path.exists() { Ok(Some(SecretStore::open(path, app)?)) } else { Ok(None) }
    }

    fn made(&self, app: &str) -> Result<SecretStore> {
        let store = self.store(app)?;
        store.map_or_else(|| Ok(SecretStore::create(self.path(app), app)?), Ok)
    }

    /// Seals a value.
    ///
    /// # Errors
    /// It is empty, too long, or no text: it goes into an environment. The app's name is none.
    pub fn set(&self, app: &str, name: &str, value: &str) -> Result<()> {
        if !is_variable(name) {
            return Err(Fault::new(format!(
                "the secret {name:?}; allowed are 1 to 200 letters, digits and underscores, not a digit first"
            ))
            .next("It is the name of a variable of the environment; the value comes on standard input."));
        }
        if value.is_empty() || value.contains('\0') {
            let what = if value.is_empty() { "is empty" } else { "has a NUL in it" };
            return Err(Fault::new(format!("the value of {name} {what}; allowed is text without NUL"))
                .next(format!("Give it on standard input: `cell secrets set {app} {name} < FILE`.")));
        }
        if !is_name(app) {
            return Err(no_app(app));
        }
        self.made(app)?.set(self.key.sealing_key(), &Secret::new(name, value.as_bytes())?)?;
        Ok(())
    }

    /// Takes a secret out.
    ///
    /// # Errors
    /// There is none of this name, or the app's name is none.
    pub fn unset(&self, app: &str, name: &str) -> Result<()> {
        let missing =
            || Fault::new(format!("{app} has no secret {name}")).next(format!("`cell secrets list {app}` lists them."));
        self.store_of(app)?.ok_or_else(missing)?.unset(name)?;
        Ok(())
    }

    /// What is told of the secrets of an app.
    ///
    /// # Errors
    /// The store cannot be read, or the app's name is none.
    pub fn list(&self, app: &str) -> Result<Vec<Told>> {
        let Some(store) = self.store_of(app)? else { return Ok(Vec::new()) };
        let secrets = store.list()?.secrets;
        Ok(secrets
            .into_iter()
            .map(|secret| Told { name: secret.name, version: secret.version, digest: secret.digest })
            .collect())
    }

    /// Refuses names of which there is no secret.
    ///
    /// # Errors
    /// One is missing.
    pub fn require(&self, app: &str, names: &[String]) -> Result<()> {
        let there = self.list(app)?;
        match names.iter().find(|name| there.iter().all(|secret| secret.name != **name)) {
            Some(name) => Err(Fault::new(format!("{app} wants the secret {name}, and it is not set"))
                .next(format!("Set it: `cell secrets set {app} {name} < FILE`."))),
            None => Ok(()),
        }
    }

    /// The values of these secrets.
    ///
    /// # Errors
    /// One is missing or cannot be opened.
    pub fn values(&self, app: &str, names: &[String]) -> Result<BTreeMap<String, String>> {
        let Some(store) = self.store_of(app)? else { return Ok(BTreeMap::new()) };
        let value = |name: &String| {
            let secret = store.get(&self.key, name)?;
            let text = std::str::from_utf8(secret.expose()).context(format!("the secret {name}"))?;
            Ok((name.clone(), text.to_owned()))
        };
        names.iter().map(value).collect()
    }

    /// Forgets the secrets of an app.
    ///
    /// # Errors
    /// The file stays, or the app's name is none.
    pub fn forget(&self, app: &str) -> Result<()> {
        if !is_name(app) {
            return Err(no_app(app));
        }
        let path = self.path(app);
        if path.exists() { std::fs::remove_file(&path).context(path.display()) } else { Ok(()) }
    }

    /// The private key of the host's tunnel, which is made if there is none.
    ///
    /// # Errors
    /// It cannot be sealed or opened.
    pub fn tunnel_key(&self) -> Result<[u8; KEY_BYTES]> {
        self.key_of(TUNNEL)
    }

    /// The private key of the tunnel between hosts, which is made if there is none.
    ///
    /// # Errors
    /// It cannot be sealed or opened.
    pub fn mesh_key(&self) -> Result<[u8; KEY_BYTES]> {
        self.key_of(MESH)
    }

    fn key_of(&self, name: &str) -> Result<[u8; KEY_BYTES]> {
        let key = self.own(name, || Ok(random()?.to_vec()))?;
        key.try_into().map_err(|_| Fault::new(format!("the sealed {name} has another length")))
    }

    /// Something of the host's own, which is made and sealed if there is none. No app has such a name.
    ///
    /// # Errors
    /// It cannot be made, sealed or opened.
    pub fn own(&self, name: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let store = self.made(name)?;
        if store.list()?.secrets.is_empty() {
            store.set(self.key.sealing_key(), &Secret::new(name, &make()?)?)?;
        }
        Ok(store.get(&self.key, name)?.expose().to_vec())
    }

    /// The key of a volume as text, for the host that is to have a copy.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub(super) fn volume_key_text(&self, app: &str, volume: &str) -> Result<Hidden> {
        let store = self.made(VOLUMES)?;
        let secret = store.get(&self.key, &format!("{app}.{volume}"))?;
        Ok(Hidden(secret.expose().iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Refuses a key of a volume that comes from another host, if that volume is there and has another one. True: it is kept already.
    ///
    /// # Errors
    /// It is no key, or another one.
    pub(super) fn check_volume_key(&self, app: &str, volume: &str, key: &Hidden, is_there: bool) -> Result<bool> {
        let (bytes, name, store) = (key_bytes(key)?, format!("{app}.{volume}"), self.made(VOLUMES)?);
        let is_known = store.list()?.secrets.iter().any(|secret| secret.name == name);
        if is_known && store.get(&self.key, &name)?.expose() == bytes {
            return Ok(true);
        }
        if !is_known {
            self.take_from_others(1)?;
        }
        if is_known && is_there {
            return Err(Fault::new(format!("the copy of the volume {volume} of {app} has another key")));
        }
        Ok(false)
    }

    /// Keeps the key of a volume that has come from another host.
    ///
    /// # Errors
    /// Those of [`check_volume_key`](Self::check_volume_key), or it cannot be sealed.
    pub(super) fn keep_volume_key(&self, app: &str, volume: &str, key: &Hidden, is_there: bool) -> Result<()> {
        if !self.check_volume_key(app, volume, key, is_there)? {
            let secret = Secret::new(&format!("{app}.{volume}"), &key_bytes(key)?)?;
            self.made(VOLUMES)?.set(self.key.sealing_key(), &secret)?;
        }
        Ok(())
    }

    /// Forgets the key of a volume that goes.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn forget_volume_key(&self, app: &str, volume: &str) -> Result<()> {
        let (store, name) = (self.made(VOLUMES)?, format!("{app}.{volume}"));
        if store.list()?.secrets.iter().any(|secret| secret.name == name) {
            store.unset(&name)?;
        }
        Ok(())
    }

    /// Refuses so many volumes more of other hosts if there would be too many: room is left for those of this one.
    ///
    /// # Errors
    /// There would be.
    pub(super) fn take_from_others(&self, more: usize) -> Result<()> {
        let there = self.made(VOLUMES)?.list()?.secrets.len();
        if there.saturating_add(more) <= MOST_WITH_OTHERS {
            return Ok(());
        }
        let why = format!(
            "this host has the keys of {there} volumes; it takes those of other hosts up to {MOST_WITH_OTHERS}"
        );
        Err(Fault::new(why).next("Put the volume at another host."))
    }

    /// The key of a volume, which is made if there is none and `make` is set.
    ///
    /// # Errors
    /// There is none, or it cannot be sealed or opened.
    pub fn volume_key(&self, app: &str, volume: &str, make: bool) -> Result<Key> {
        let name = format!("{app}.{volume}");
        let store = self.made(VOLUMES)?;
        if store.list()?.secrets.iter().all(|secret| secret.name != name) {
            if !make {
                return Err(Fault::new(format!("there is no key of the volume {volume} of {app}")));
            }
            store.set(self.key.sealing_key(), &Secret::new(&name, &random()?)?)?;
        }
        Ok(Key::random(store.get(&self.key, &name)?.expose())?)
    }
}
