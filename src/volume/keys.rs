//! A volume's keys: which there are, and how they change.

use std::fs::{File, TryLockError};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::info::VolumeInfo;
use super::key::{Key, Kind};
use super::luks::{Header, UnlockLimits};
use super::refused;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{LockedBytes, lock};

/// The keys of a volume, in its file or in a detached header. Each call reads the header anew and holds an advisory lock on it (`flock`, as
/// `cryptsetup` does), so several programs may change keys at once, also while the volume is in use.
///
/// A change is stable when the call returns. After a crash in the middle, the header is the old one or the new one: it has two copies,
/// which are written one after the other.
///
/// ```
/// use vmcell::volume::{Key, Volume};
///
/// # let folder = std::env::temp_dir().join(format!("vmcell-doc-keys-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("data.vol");
/// let machine = Key::generate()?;
/// Volume::create(&path, 64 << 20, &machine)?;
///
/// let keys = Volume::keys(&path)?;
/// let slot = keys.add(&machine, &Key::passphrase(b"for the administrator")?)?;
/// assert_eq!(keys.info()?.slots.len(), 2);
/// keys.remove(slot)?;
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Debug)]
pub struct VolumeKeys {
    file: File,
    /// The file's lock keeps other programs away, but not other threads that share the file.
    changing: Mutex<()>,
    path: PathBuf,
    limits: UnlockLimits,
}

/// How long a call waits for another one that has the header locked. Each takes as long as a few key slots take.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

impl VolumeKeys {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let about = |e: Error| e.about(&format!("volume {}", path.display()));
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.map_err(|e| about(refused("it cannot be opened for writing").with_source(e)))?;
        Header::read(&file).map_err(about)?;
        Ok(Self { file, changing: Mutex::new(()), path: path.to_owned(), limits: UnlockLimits::default() })
    }

    /// Bounds what opening a key slot may cost. The default is [`UnlockLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: UnlockLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Says what the header tells without a key.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] if it is not that of a volume any more, or another program keeps it locked for 30 seconds.
    pub fn info(&self) -> Result<VolumeInfo> {
        self.with_header(|header| VolumeInfo::of(header, len_of(&self.file)?))
    }

    /// Adds a key slot for `new`, and returns its number. `with` is a key that opens the volume already. A volume has at most 32.
    ///
    /// Takes as long as opening the volume and, for a passphrase, a tenth of a second more.
    ///
    /// # Errors
    /// [`ErrorKind::VolumeKey`] if `with` does not open the volume; [`ErrorKind::Volume`] if no key slot is free, or the header cannot be
    /// read or written: then it is as it was.
    pub fn add(&self, with: &Key, new: &Key) -> Result<u32> {
        self.with_header(|header| {
            let key = unlock(header, &self.file, with, self.limits)?;
            header.add(&self.file, &key, secret_of(new)?, new.cost())
        })
    }

    /// Overwrites a key slot and takes it out: what it was made for opens the volume no longer. A key slot that is in a backup of the
    /// header still does, together with that backup.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] if there is no such key slot or it is the last one, or if the header cannot be read or written.
    pub fn remove(&self, slot: u32) -> Result<()> {
        self.with_header(|header| header.remove(&self.file, slot))
    }

    /// Finds the key slot that `key` opens.
    ///
    /// # Errors
    /// [`ErrorKind::VolumeKey`] if it opens none; [`ErrorKind::Volume`] if the header cannot be read.
    pub fn find(&self, key: &Key) -> Result<u32> {
        self.with_header(|header| header.unlock(&self.file, secret_of(key)?, self.limits).map(|(slot, _)| slot))
    }

    /// Puts `new` in the place of `old`, and returns the number of its key slot. It is added before the old one is overwritten, so at any
    /// moment one of the two opens the volume.
    ///
    /// # Errors
    /// Those of [`add`](Self::add), and of [`remove`](Self::remove): then both keys open the volume.
    pub fn change(&self, old: &Key, new: &Key) -> Result<u32> {
        self.with_header(|header| {
            let (old_slot, key) = header.unlock(&self.file, secret_of(old)?, self.limits)?;
            let slot = header.add(&self.file, &key, secret_of(new)?, new.cost())?;
            header.remove(&self.file, old_slot)?;
            Ok(slot)
        })
    }

    /// Copies the header and its key slots to a new file, which `cryptsetup luksHeaderRestore` takes as well. Who has it and a key that
    /// was valid when it was made can open the volume, also after that key was removed.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`] if the file exists already or cannot be written, and if the header cannot be read.
    pub fn back_up(&self, to: impl AsRef<Path>) -> Result<()> {
        let to = to.as_ref();
        self.with_header(|header| {
            let failed = |e| refused(format!("its header cannot be copied to {}", to.display())).with_source(e);
            let mut options = File::options();
            let file = std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600).open(to);
            let file = file.map_err(failed)?;
            let copied = copy(&self.file, &file, header.len()?).and_then(|()| file.sync_all());
            copied.map_err(|e| {
                let _ = std::fs::remove_file(to);
                failed(e)
            })
        })
    }

    fn with_header<T>(&self, work: impl FnOnce(&mut Header) -> Result<T>) -> Result<T> {
        self.locked(|| work(&mut Header::read(&self.file)?))
    }

    fn locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let about = |e: Error| e.about(&format!("volume {}", self.path.display()));
        let _changing = lock(&self.changing);
        let _lock = HeaderLock::take(&self.file).map_err(about)?;
        check_place(&self.path, &self.file).map_err(about)?;
        work().map_err(about)
    }
}

/// See [`Volume::restore_header`](super::Volume::restore_header).
pub(super) fn restore(path: &Path, from: &Path) -> Result<()> {
    let about = |e: Error| e.about(&format!("header {}", from.display()));
    let source = File::open(from).map_err(|e| about(refused("it cannot be opened").with_source(e)))?;
    let mut new = Header::read(&source).map_err(about)?;
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|e| refused("it cannot be opened for writing").with_source(e))?;
    let _lock = HeaderLock::take(&file)?;
    // A header that is damaged beyond use is what backups are for, but then nobody can say whose it was.
    if let Ok(old) = Header::read(&file) {
        new.check_is_of_same(&old).map_err(about)?;
        new.keep_tokens(&old);
    }
    let (len, there) = (new.len()?, len_of(&file)?);
    if new.data_behind().is_err() && there > len {
        let message = format!("it is a header without data behind it, of {len} bytes, and there are {there}");
        return Err(about(refused(message)));
    }
    let failed = |e| refused("its header cannot be written").with_source(e);
    copy_range(&source, &file, new.len_of_both()..new.len()?).and_then(|()| file.sync_data()).map_err(failed)?;
    new.write_both(&file)
}

/// Holds the lock of a header. It excludes who changes keys, and nobody who reads or writes data.
pub(super) struct HeaderLock<'a>(&'a File);

impl<'a> HeaderLock<'a> {
    pub(super) fn take(file: &'a File) -> Result<Self> {
        let until = Instant::now().checked_add(PATIENCE);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if until.is_some_and(|until| Instant::now() < until) => {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!("another program has had its header locked for {} s", PATIENCE.as_secs());
                    return Err(refused(message));
                }
                // Not every file system has locks, and they only guard against mistakes.
                Err(TryLockError::Error(_)) => return Ok(Self(file)),
            }
        }
    }
}

impl Drop for HeaderLock<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Refuses a file that is at this path no longer, under its header's lock: what is changed in it then is lost.
pub(super) fn check_place(path: &Path, file: &File) -> Result<()> {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let unknown = |e| refused("its place is not known").with_source(e);
    let (named, opened) = (path.metadata().map_err(unknown)?, file.metadata().map_err(unknown)?);
    if place(named) == place(opened) { Ok(()) } else { Err(refused("another file took its place: open it again")) }
}

/// The length of a file or of a block device.
pub(super) fn len_of(mut file: &File) -> Result<u64> {
    file.seek(SeekFrom::End(0)).map_err(|e| refused("it has no size").with_source(e))
}

pub(super) fn is_block_device(file: &File) -> Result<bool> {
    let metadata = file.metadata().map_err(|e| refused("it has no type").with_source(e))?;
    Ok(metadata.file_type().is_block_device())
}

/// The key of the data.
pub(super) fn unlock(header: &Header, file: &File, key: &Key, limits: UnlockLimits) -> Result<LockedBytes> {
    if key.kind() != Kind::OfData {
        return header.unlock(file, key.expose(), limits).map(|(_, key)| key);
    }
    header.check_key(key.expose(), limits)?;
    LockedBytes::copy_of(key.expose()).map_err(super::no_secret_memory)
}

/// What a key slot is made of.
pub(super) fn secret_of(key: &Key) -> Result<&[u8]> {
    match key.kind() {
        Kind::Passphrase | Kind::Random => Ok(key.expose()),
        Kind::OfData => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the key of the data itself was given, a key slot takes any other kind",
        )),
    }
}

fn copy(from: &File, to: &File, len: u64) -> std::io::Result<()> {
    copy_range(from, to, 0..len)
}

pub(super) fn copy_range(from: &File, to: &File, range: std::ops::Range<u64>) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let len = buffer.len().min(usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..len).unwrap_or_default();
        from.read_exact_at(piece, at)?;
        to.write_all_at(piece, at)?;
        at = at.saturating_add(len as u64);
    }
    Ok(())
}
