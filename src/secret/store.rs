//! A file with the sealed secrets of one application.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::contents::{Contents, MOST_BYTES};
use super::host_key::HostKey;
use super::info::StoreInfo;
use super::replace::{InPlace, Steps, replace};
use super::sealed::SealedSecret;
use super::sealing_key::SealingKey;
use super::secret::{Secret, check_name};
use super::turn::{Turn, open_plain};
use super::{files, refused};
use crate::error::{Error, Result};

/// The sealed secrets of one application, in one file. Whoever may write to the file can set secrets, with the public key alone; only the
/// host with the private key can read them.
///
/// The file is replaced by each change, at once: after a crash it is the old one or the new one, and a change is on storage when the call
/// returns. Any number of threads and processes may change and read it at the same time, each through a store of its own or a shared one: a
/// change waits up to 30 seconds for others, and reading waits for nobody. A path that is a symbolic link is followed when the store is
/// opened: what it leads to is replaced.
///
/// A store has at most 1024 secrets and 16 MiB.
///
/// # Versions
/// A store counts its changes, and a secret's version is that number at the time it was set, so versions only rise. The seal binds the
/// version. A store that is open refuses a file that is older than what it has seen or [was told](Self::at_least), and
/// [`get_version`](Self::get_version) refuses another version than the caller expects. Otherwise somebody who can write to the file could put
/// an older copy of all of it back.
///
/// ```
/// use vmcell::secret::{HostKey, Secret, SecretStore};
///
/// # let folder = std::env::temp_dir().join(format!("vmcell-doc-store-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("shop.secrets");
/// let host = HostKey::generate()?;
/// let store = SecretStore::create(&path, "shop")?;
/// store.set(host.sealing_key(), &Secret::new("token", b"hunter1")?)?;
/// let version = store.set(host.sealing_key(), &Secret::new("token", b"hunter2")?)?;
/// assert_eq!(version, 2);
///
/// for secret in store.list()?.secrets {
///     println!("{} {} {}", secret.name, secret.version, secret.digest);
/// }
/// assert_eq!(SecretStore::open(&path, "shop")?.get(&host, "token")?.expose(), b"hunter2");
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct SecretStore {
    path: PathBuf,
    application: String,
    /// The highest revision that was seen.
    seen: AtomicU64,
}

/// With a dot in front and `.new` behind it, it is one of 255 bytes.
const LONGEST_FILE_NAME: usize = 250;

impl SecretStore {
    /// Makes an empty store in a new file that nobody else may read (mode 0600). The name of an application follows the rules for
    /// [those of secrets](Secret::new), and that of the file has at most 250 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for another name, or if the file exists, which is left alone, or cannot be written.
    pub fn create(path: impl AsRef<Path>, application: &str) -> Result<Self> {
        let path = path.as_ref();
        let contents = Contents::new(application)?;
        let made = check_file_name(path).and_then(|()| files::create(path, &contents.to_bytes()?));
        made.map_err(|e| about(path, &e))?;
        Self::open(path, application)
    }

    /// Opens the store of an application.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if the file cannot be read, is damaged, is no store, or that of another application.
    pub fn open(path: impl AsRef<Path>, application: &str) -> Result<Self> {
        let path = path.as_ref();
        let place = fs::canonicalize(path).map_err(|e| about(path, &refused("it cannot be found").with_source(e)))?;
        let store = Self { path: place, application: application.to_owned(), seen: AtomicU64::new(0) };
        store.read()?;
        Ok(store)
    }

    /// Tells what a file holds, whichever application's it is.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), but for the last.
    pub fn inspect(path: impl AsRef<Path>) -> Result<StoreInfo> {
        let path = path.as_ref();
        read_file(path).map(|contents| StoreInfo::of(&contents)).map_err(|e| about(path, &e))
    }

    /// Refuses the file from now on if it is at a lower revision than this, which the caller has kept elsewhere: somebody has put an older
    /// copy back.
    #[must_use]
    pub fn at_least(self, revision: u64) -> Self {
        self.seen.fetch_max(revision, Ordering::Relaxed);
        self
    }

    /// The application whose secrets they are.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// Seals a secret and puts it in the place of the one of its name, or beside the others if there is none. Returns its version.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if it cannot be [sealed](SealingKey::seal), there is no room for it, or the file cannot
    /// be read or written: then it is as it was.
    pub fn set(&self, key: &SealingKey, secret: &Secret) -> Result<u64> {
        self.set_all(key, &[secret])
    }

    /// Sets several secrets at once: after a crash all of them are the old ones or all the new ones. They have the same version.
    ///
    /// # Errors
    /// Those of [`set`](Self::set), and if two of them have the same name.
    pub fn set_all(&self, key: &SealingKey, secrets: &[&Secret]) -> Result<u64> {
        let mut names: Vec<_> = secrets.iter().map(|secret| secret.name()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            let name = twice.first().unwrap_or(&"");
            return Err(about(&self.path, &refused(format!("the secret {name} is to be set twice at once"))));
        }
        self.change(|contents, version| {
            for secret in secrets {
                contents.put(key.seal(secret, &self.application, version)?);
            }
            Ok(())
        })
    }

    /// Puts a secret that was sealed elsewhere in the place of the one of its name. Its version must be the store's next one, one more than
    /// the [revision](StoreInfo::revision): if somebody else has changed the store meanwhile, ask again and seal anew.
    ///
    /// The seal is not looked at, as that takes the private key: if it is broken, the secret cannot be opened.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if it is of another application or version, and those of [`set`](Self::set).
    pub fn put(&self, sealed: &SealedSecret) -> Result<()> {
        self.change(|contents, version| {
            let name = sealed.name();
            if sealed.application() != self.application {
                return Err(refused(format!("the sealed secret {name} is of application {}", sealed.application())));
            }
            if sealed.version() != version {
                let has = sealed.version();
                return Err(refused(format!(
                    "the sealed secret {name} is of version {has}, the next one is {version}"
                )));
            }
            contents.put(sealed.clone());
            Ok(())
        })
        .map(drop)
    }

    /// Takes a secret out. Returns the revision of the store without it. Copies of the file, and blocks of the disk that are not in use any
    /// more, may still hold it, sealed.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if there is none of this name, and those of [`set`](Self::set).
    pub fn unset(&self, name: &str) -> Result<u64> {
        check_name(name)?;
        self.change(|contents, _| if contents.remove(name) { Ok(()) } else { Err(missing(name)) })
    }

    /// Opens all secrets by one host key and seals them to another, at once. Returns the version that all have now.
    ///
    /// # Errors
    /// Those of [`HostKey::open`] for each of them, and those of [`set`](Self::set).
    pub fn reseal(&self, from: &HostKey, to: &SealingKey) -> Result<u64> {
        self.change(|contents, version| {
            for sealed in &mut contents.secrets {
                let secret = from.open(sealed, &self.application, sealed.name(), sealed.version())?;
                *sealed = to.seal(&secret, &self.application, version)?;
            }
            Ok(())
        })
    }

    /// Tells which secrets there are, without a key.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if the file cannot be read, is damaged, older than it was, or another application's.
    pub fn list(&self) -> Result<StoreInfo> {
        self.read().map(|contents| StoreInfo::of(&contents))
    }

    /// The secret of this name, sealed.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) if there is none, and those of [`list`](Self::list).
    pub fn sealed(&self, name: &str) -> Result<SealedSecret> {
        check_name(name)?;
        let contents = self.read()?;
        contents.get(name).cloned().ok_or_else(|| about(&self.path, &missing(name)))
    }

    /// Opens the secret of this name.
    ///
    /// # Errors
    /// Those of [`sealed`](Self::sealed) and of [`HostKey::open`].
    pub fn get(&self, key: &HostKey, name: &str) -> Result<Secret> {
        let sealed = self.sealed(name)?;
        self.open_sealed(key, &sealed, sealed.version())
    }

    /// Opens all secrets, in the order of their names: those of one moment, whoever changes the store meanwhile.
    ///
    /// # Errors
    /// Those of [`list`](Self::list) and of [`HostKey::open`], if any of them is not opened.
    pub fn get_all(&self, key: &HostKey) -> Result<Vec<Secret>> {
        let contents = self.read()?;
        contents.secrets.iter().map(|sealed| self.open_sealed(key, sealed, sealed.version())).collect()
    }

    /// Opens the secret of this name if it is of this version, which the caller has kept elsewhere: whoever can write to the file cannot
    /// put an older value back.
    ///
    /// # Errors
    /// Those of [`get`](Self::get), and if it is of another version.
    pub fn get_version(&self, key: &HostKey, name: &str, version: u64) -> Result<Secret> {
        self.open_sealed(key, &self.sealed(name)?, version)
    }

    fn open_sealed(&self, key: &HostKey, sealed: &SealedSecret, version: u64) -> Result<Secret> {
        key.open(sealed, &self.application, sealed.name(), version).map_err(|e| about(&self.path, &e))
    }

    fn read(&self) -> Result<Contents> {
        let seen = self.seen.load(Ordering::Relaxed);
        read_file(&self.path).and_then(|contents| self.accept(contents, seen)).map_err(|e| about(&self.path, &e))
    }

    /// `seen` is what was seen before the file was read.
    fn accept(&self, contents: Contents, seen: u64) -> Result<Contents> {
        if contents.application != self.application {
            let (its, asked) = (&contents.application, &self.application);
            return Err(refused(format!("it is the store of application {its}, asked for was {asked:?}")));
        }
        if contents.revision < seen {
            let revision = contents.revision;
            return Err(refused(format!("it is at revision {revision} and was at {seen}: an older copy was put back")));
        }
        self.seen.fetch_max(contents.revision, Ordering::Relaxed);
        Ok(contents)
    }

    /// Replaces the file by what `change` makes of it. `change` is told the new revision, which is returned.
    fn change(&self, change: impl FnOnce(&mut Contents, u64) -> Result<()>) -> Result<u64> {
        let change = || {
            let turn = Turn::wait_for(&self.path)?;
            let seen = self.seen.load(Ordering::Relaxed);
            let mut contents = read_contents(&turn.file).and_then(|contents| self.accept(contents, seen))?;
            let revision = contents.revision.saturating_add(1);
            change(&mut contents, revision)?;
            contents.revision = revision;
            let bytes = contents.to_bytes()?;
            let failed = |e| refused("it cannot be replaced").with_source(e);
            let mut steps = InPlace::new(&self.path, &turn.about).map_err(failed)?;
            replace(&mut steps, &bytes).map_err(failed)?;
            self.seen.fetch_max(revision, Ordering::Relaxed);
            let unsure = |e| refused("it was replaced, but a power failure may bring the old one back").with_source(e);
            steps.sync_folder().map_err(unsure)?;
            Ok(revision)
        };
        change().map_err(|e: Error| about(&self.path, &e))
    }
}

/// The new file of a change lies beside the old one, and Linux takes names of 255 bytes.
fn check_file_name(path: &Path) -> Result<()> {
    let len = path.file_name().unwrap_or_default().len();
    if len <= LONGEST_FILE_NAME {
        return Ok(());
    }
    Err(refused(format!("the name of its file has {len} bytes, allowed are {LONGEST_FILE_NAME}")))
}

fn read_file(path: &Path) -> Result<Contents> {
    read_contents(&open_plain(path, false)?.0)
}

fn read_contents(file: &File) -> Result<Contents> {
    let mut bytes = Vec::new();
    // One byte more, so that a file that is too long shows.
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|e| refused("it cannot be read").with_source(e))?;
    Contents::parse(&bytes)
}

fn missing(name: &str) -> Error {
    refused(format!("it has no secret {name}"))
}

fn about(path: &Path, error: &Error) -> Error {
    error.about(&format!("secret store {}", path.display()))
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretStore({} of {})", self.path.display(), self.application)
    }
}
