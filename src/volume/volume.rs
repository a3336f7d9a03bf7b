//! A volume: created, opened, and made the disk of a VM.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::chain::{Base, Opened, new_layer};
use super::draft::{Draft, VolumeFormat, data_key_for, write_fork};
use super::info::VolumeInfo;
use super::key::Key;
use super::keys::{HeaderLock, VolumeKeys, len_of, restore, unlock};
use super::live::Live;
use super::luks::{Header, UnlockLimits};
use super::refused;
use super::snapshot::{Current, VolumeHandle};
use crate::block::{Disk, DiskBackend, FileBackend};
use crate::config::DiskConfig;
use crate::error::{Error, Result};

/// An encrypted volume that is open: LUKS2 in a file or on a block device, with AES-XTS. `cryptsetup` opens what this creates, and this
/// opens what `cryptsetup luksFormat` creates.
///
/// The guest sees a plain disk. What is on the host's disk is ciphertext, and the key is in locked memory of this process alone.
/// Encryption keeps data secret from whoever has the file; it does not show that somebody changed it.
///
/// ```
/// use vmcell::volume::{Key, Volume};
///
/// # let folder = std::env::temp_dir().join(format!("vmcell-doc-volume-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("data.vol");
/// let key = Key::generate()?; // or Key::file(..), Key::passphrase(..)
/// Volume::create(&path, 64 << 20, &key)?;
///
/// let volume = Volume::open(&path, &key)?;
/// assert_eq!(volume.capacity(), 64 << 20);
/// let disk = volume.into_disk(); // for VmBuilder::disk
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Volume {
    disk: Live,
    handle: VolumeHandle,
    info: VolumeInfo,
    options: VolumeOptions,
}

/// How a volume is opened.
///
/// ```
/// use vmcell::volume::VolumeOptions;
/// use vmcell::{DiskConfig, Engine};
///
/// let mut disk = DiskConfig::new("data.vol");
/// disk.engine = Engine::Uring;
/// let options = VolumeOptions::new(disk).discard(true);
/// ```
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    disk: DiskConfig,
    header: Option<PathBuf>,
    discard: bool,
    limits: UnlockLimits,
}

impl VolumeOptions {
    /// A disk on the volume whose path is in `disk`, with its settings: whether it is read-only, the engine, direct I/O, and what
    /// [`Volume::into_disk`] takes over.
    pub fn new(disk: DiskConfig) -> Self {
        Self { disk, header: None, discard: false, limits: UnlockLimits::default() }
    }

    /// Reads the header from another file. By default, it is in front of the data.
    #[must_use]
    pub fn header(mut self, path: impl Into<PathBuf>) -> Self {
        self.header = Some(path.into());
        self
    }

    /// Lets the guest give space back to the host. By default it may not: whoever has the file sees then which parts of the volume are
    /// not in use, how many those are, and from their pattern perhaps which file system it is.
    #[must_use]
    pub fn discard(mut self, discard: bool) -> Self {
        self.discard = discard;
        self
    }

    /// Bounds what opening may cost. The default is [`UnlockLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: UnlockLimits) -> Self {
        self.limits = limits;
        self
    }
}

impl Volume {
    /// Creates a volume for `size` bytes of data, in a new file that nobody else may read (mode 600), with a random key of its own in a key
    /// slot for `key`. The file takes no space for data until they are written, and has 16 MiB in front of them.
    ///
    /// Takes a tenth of a second if `key` is a passphrase. The file is stable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if the file exists, which is left alone, or cannot be written, and for a size that
    /// is 0, no multiple of a sector, or too large.
    pub fn create(path: impl AsRef<Path>, size: u64, key: &Key) -> Result<()> {
        Self::create_with(path, size, key, &VolumeFormat::default())
    }

    /// Creates a volume with other settings than [`create`](Self::create) has.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), and for a setting that is not allowed.
    pub fn create_with(path: impl AsRef<Path>, size: u64, key: &Key, format: &VolumeFormat) -> Result<()> {
        let path = path.as_ref();
        let write = || {
            let sector = format.check(size)?;
            Draft { path, size, key, data_key: &data_key_for(key)?, sector, format, layer: None, device: None }.write()
        };
        write().map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// Makes a block device a volume, a logical volume of LVM for instance: the volume is as large as the device, but for the 16 MiB in front. **What was on
    /// the device is lost.** Where the volume has not been written yet, it stays on the medium, in clear if it was so: discard it before (`blkdiscard`).
    ///
    /// # Errors
    /// [`ErrorKind::Disk`](crate::ErrorKind::Disk) if the device is mounted or in use otherwise; [`ErrorKind::Volume`](crate::ErrorKind::Volume) if `path` is
    /// none, is too small, or cannot be written, and for a setting that is not allowed, as a header in a file of its own is not. Once it is written
    /// to, an error leaves a device that is no volume.
    pub fn format_device(path: impl AsRef<Path>, key: &Key, format: &VolumeFormat) -> Result<()> {
        let path = path.as_ref();
        format_device(path, key, format).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// Creates a volume in a new file that begins as another one, which `base_key` opens, and takes space only for what is changed in it.
    /// It has a key of its own, and a key slot for `key` alone, which opens it with all that it builds on.
    ///
    /// From now on, until it is [released](Self::release), the base may only be read, by this volume and by others; any number of volumes
    /// may be made over it, and over each of those. It must stay where it is, or move together with the new one if both are in one folder. The new volume has blocks of 4096 bytes.
    ///
    /// Takes as long as both key slots cost, and writes a map of 256 KiB for each GiB of the base. The file is stable when this returns.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`open`](Self::open). [`ErrorKind::Disk`](crate::ErrorKind::Disk) if the base is in use for
    /// writing.
    pub fn fork(base: impl AsRef<Path>, base_key: &Key, path: impl AsRef<Path>, key: &Key) -> Result<()> {
        let (base, path) = (base.as_ref(), path.as_ref());
        let about = |e: Error| e.about(&format!("base {}", base.display()));
        let file = File::options().read(true).write(true).open(base).map_err(|e| about(unopened(e)))?;
        let (mut opened, reference) = Base::open(base, &file, base_key, path).map_err(about)?;
        let identity = reference.identity;
        let write = || {
            let layer = new_layer(reference)?;
            write_fork(path, key, &data_key_for(key)?, &layer).map(|()| layer.identity)
        };
        let fork = write().map_err(|e: Error| e.about(&format!("volume {}", path.display())))?;
        // The base last, so that a fork that fails changes nothing. Until then, the fork is none of its.
        opened.make(identity, fork).map_err(|e| {
            let _ = fs::remove_file(path);
            about(e)
        })
    }

    /// Lets a base be written to again. The caller vouches that no volume builds on it any more: one that does is refused from now on,
    /// since what it was made over may have changed.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it is no volume, or its header cannot be written.
    pub fn release(base: impl AsRef<Path>) -> Result<()> {
        let base = base.as_ref();
        let release = || {
            let file = File::options().read(true).write(true).open(base).map_err(unopened)?;
            let _lock = HeaderLock::take(&file)?;
            let mut header = Header::read(&file)?;
            header.check_no_commit()?;
            header.release(&file)
        };
        release().map_err(|e: Error| e.about(&format!("volume {}", base.display())))
    }

    /// Opens a volume by a key. The guest may write to it.
    ///
    /// The file is locked for as long as the volume, or the disk that is made of it, lives. Opening takes as long as the key slot costs:
    /// milliseconds for a [random](Key::random) key, a tenth of a second and more for a passphrase.
    ///
    /// # Errors
    /// [`ErrorKind::VolumeKey`](crate::ErrorKind::VolumeKey) if no key slot is opened by the key;
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if the file is no volume, both of its headers are damaged, or it uses what is not
    /// known here, which is named;
    /// [`ErrorKind::Disk`](crate::ErrorKind::Disk) if the file cannot be opened, or is in use.
    pub fn open(path: impl AsRef<Path>, key: &Key) -> Result<Self> {
        Self::open_with(VolumeOptions::new(DiskConfig::new(path)), key)
    }

    /// Opens a volume with other settings than [`open`](Self::open) has.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(options: VolumeOptions, key: &Key) -> Result<Self> {
        let backend = FileBackend::open(&options.disk)?;
        let path = options.disk.path.clone();
        Self::open_on(backend, options, key).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    fn open_on(backend: FileBackend, options: VolumeOptions, key: &Key) -> Result<Self> {
        let path = options.header.as_deref().unwrap_or(&options.disk.path);
        let file = File::open(path).map_err(|e| refused("its header cannot be opened").with_source(e))?;
        if options.header.is_none() && !backend.claim().is_on(&file)? {
            return Err(refused("another file took its place at this moment: open it again"));
        }
        let lock = HeaderLock::take(&file)?;
        let header = Header::read(&file)?;
        let data = if options.header.is_some() { header.data_elsewhere() } else { header.data_behind() }?;
        let key = unlock(&header, &file, key, options.limits)?;
        drop(lock);
        let there = backend.info().capacity.saturating_sub(data.offset);
        let wanted = data.len.unwrap_or(data.sector_size as u64);
        if there < wanted {
            let message = format!("it is cut: its data have {wanted} bytes at least, the file has {there} for them");
            return Err(refused(message));
        }
        header.check_no_commit()?;
        if header.base_identity().is_some() && !options.disk.read_only {
            return Err(refused("others build on it, so it may only be read: fork it to change what it holds"));
        }
        let mut info = VolumeInfo::of(&header, backend.info().capacity)?;
        let place = options.disk.path.as_path();
        // A detached header has no layers.
        let opened = Opened {
            path: place,
            file: &File::open(place).map_err(unopened)?,
            header: &header,
            data,
            key: &key,
            limits: options.limits,
        };
        let claim = backend.claim();
        let chain = opened.disk(backend, options.discard, options.disk.read_only, 0)?;
        info.capacity = Some(chain.disk.info().capacity);
        let current = match (&options.header, options.disk.read_only) {
            (None, false) => Ok(Current::new(&opened, claim, &chain, &options.disk, options.discard)?),
            (Some(_), _) => Err("its header is in a file of its own"),
            (None, true) => Err("it was opened to be read alone"),
        };
        let disk = Live::new(chain.disk);
        let handle = VolumeHandle::new(disk.orders(), current);
        Ok(Self { disk, handle, info, options })
    }

    /// Says what the header of a volume tells without a key, and changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it is no volume, or is damaged.
    pub fn inspect(path: impl AsRef<Path>) -> Result<VolumeInfo> {
        let path = path.as_ref();
        let read = || {
            let file = File::open(path).map_err(|e| refused("it cannot be opened").with_source(e))?;
            let _lock = HeaderLock::take(&file)?;
            VolumeInfo::of(&Header::read(&file)?, len_of(&file)?)
        };
        read().map_err(|e: Error| e.about(&format!("volume {}", path.display())))
    }

    /// Opens the keys of the volume, or of the detached header, at `path`, which may be in use.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it is no volume, is damaged, or may not be written to.
    pub fn keys(path: impl AsRef<Path>) -> Result<VolumeKeys> {
        VolumeKeys::open(path.as_ref())
    }

    /// Puts a header back that [`VolumeKeys::back_up`] or `cryptsetup luksHeaderBackup` has copied, key slots and all: the keys of that
    /// moment open the volume again, and later ones no longer. `path` is the volume or its detached header, which may be damaged. If this is
    /// interrupted, restore again.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if `from` is no header, is the header of another volume, or has its data elsewhere,
    /// and if `path` cannot be written.
    pub fn restore_header(path: impl AsRef<Path>, from: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        restore(path, from.as_ref()).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// The bytes of data that it has room for.
    pub fn capacity(&self) -> u64 {
        self.disk.info().capacity
    }

    /// What its header told when it was opened.
    pub fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// Returns a handle that takes snapshots of it while its VM runs. Take it before the volume becomes a disk.
    pub fn handle(&self) -> VolumeHandle {
        self.handle.clone()
    }

    /// Makes it the disk of a VM, with the settings that it was [opened with](VolumeOptions::new). It never blocks.
    pub fn into_disk(self) -> Disk {
        let config = self.options.disk.clone();
        let disk = Disk::backend(self.into_backend()).never_blocks();
        let disk = disk.read_only(config.read_only).serial(config.serial).limits(config.limits);
        match config.queues {
            Some(queues) => disk.queues(queues),
            None => disk,
        }
    }

    /// Makes it a backend, for a layer of your own or a test.
    pub fn into_backend(self) -> Box<dyn DiskBackend> {
        Box::new(self.disk)
    }
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("info", &self.info).field("options", &self.options).finish_non_exhaustive()
    }
}

fn format_device(path: &Path, key: &Key, format: &VolumeFormat) -> Result<()> {
    // Looked at first: opening some things has effects.
    let metadata = path.metadata().map_err(unopened)?;
    if !metadata.file_type().is_block_device() {
        return Err(refused("it is no block device: volumes in files are created"));
    }
    let claim = FileBackend::open(&DiskConfig::new(path))?;
    let file = File::options().read(true).write(true).open(path).map_err(unopened)?;
    if !claim.claim().is_on(&file)? {
        return Err(refused("it was replaced by another file"));
    }
    let _lock = HeaderLock::take(&file)?;
    let (sector, size) = format.check_device(len_of(&file)?)?;
    let data_key = data_key_for(key)?;
    Draft { path, size, key, data_key: &data_key, sector, format, layer: None, device: Some(&file) }.write()
}

pub(super) fn unopened(e: std::io::Error) -> Error {
    refused("it cannot be opened").with_source(e)
}
