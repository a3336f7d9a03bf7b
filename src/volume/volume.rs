//! A volume: created, opened, and made the disk of a VM.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain::{Base, Opened, new_layer};
use super::cipher::{Cipher, SECTOR_SIZES};
use super::cow::{self, LayerHeader};
use super::info::VolumeInfo;
use super::key::{Key, Kind};
use super::keys::{HeaderLock, VolumeKeys, len_of, restore, secret_of, unlock};
use super::luks::{Header, NewFile, UnlockLimits};
use super::payload::Payload;
use super::{no_random, no_secret_memory, refused};
use crate::block::{Disk, DiskBackend, FileBackend};
use crate::config::DiskConfig;
use crate::error::{Error, Result};
use crate::sys::{LockedBytes, random_bytes};

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
    disk: Box<dyn DiskBackend>,
    info: VolumeInfo,
    options: VolumeOptions,
}

/// How a volume is created.
///
/// ```
/// use vmcell::volume::VolumeFormat;
///
/// let format = VolumeFormat::new().label("postgres").sector_size(512);
/// ```
#[derive(Debug, Default)]
pub struct VolumeFormat {
    label: String,
    sector_size: Option<usize>,
    header: Option<PathBuf>,
}

/// The longest label, with a zero behind it.
const MOST_LABEL: usize = 47;
const DEFAULT_SECTOR: usize = 4096;
/// Of a new volume's data: AES-256.
const KEY_LEN: usize = 64;

impl VolumeFormat {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a name for people, of at most 47 bytes, which is not encrypted. It is empty by default.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the bytes of a sector, the smallest part that is read and written: 512, 1024, 2048 or 4096. The default is 4096, which is
    /// fastest; the guest sees a disk with blocks of that size.
    #[must_use]
    pub fn sector_size(mut self, bytes: usize) -> Self {
        self.sector_size = Some(bytes);
        self
    }

    /// Puts the header, which has the keys, into a file of its own, so that the volume's file is ciphertext from its first byte on.
    /// Without that file the data are lost.
    #[must_use]
    pub fn header(mut self, path: impl Into<PathBuf>) -> Self {
        self.header = Some(path.into());
        self
    }

    fn check(&self, size: u64) -> Result<usize> {
        if self.label.len() > MOST_LABEL || self.label.contains('\0') {
            let message = format!(
                "the label {:?} was asked for, allowed are at most {MOST_LABEL} bytes without a zero",
                self.label
            );
            return Err(refused(message));
        }
        let sector = self.sector_size.unwrap_or(DEFAULT_SECTOR);
        if !SECTOR_SIZES.contains(&sector) {
            return Err(refused(format!(
                "sectors of {sector} bytes were asked for, allowed are 512, 1024, 2048 and 4096"
            )));
        }
        if size == 0 || !size.is_multiple_of(sector as u64) || size > MOST_SIZE {
            let message =
                format!("a size of {size} bytes was asked for, allowed are multiples of {sector}, up to {MOST_SIZE}");
            return Err(refused(message));
        }
        Ok(sector)
    }
}

/// 4 EiB: with what lies in front, it fits into a file's length.
const MOST_SIZE: u64 = 1 << 62;

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
            Draft { path, size, key, data_key: &data_key_for(key)?, sector, format, layer: None }.write()
        };
        write().map_err(|e| e.about(&format!("volume {}", path.display())))
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
            let format = VolumeFormat::new();
            let (size, data_key) = (layer.file_len(), data_key_for(key)?);
            Draft { path, size, key, data_key: &data_key, sector: DEFAULT_SECTOR, format: &format, layer: Some(&layer) }
                .write()
        };
        write().map_err(|e| e.about(&format!("volume {}", path.display())))?;
        // The base last, so that a fork that fails changes nothing. Until then, the fork is none of its.
        opened.make(identity).map_err(|e| {
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
            Header::read(&file)?.release(&file)
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
        let disk = opened.disk(backend, options.discard, options.disk.read_only, 0)?;
        info.capacity = Some(disk.info().capacity);
        Ok(Self { disk, info, options })
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

    /// Makes a volume's file longer, so that it has room for `size` bytes of data. It may be in use: then tell its disk by
    /// [`DiskHandle::refresh`](crate::DiskHandle::refresh), and the guest may grow its file system.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it has more room already, `size` is no multiple of its sectors, its header is
    /// elsewhere or limits its size, or the file cannot be made longer, as that of a block device cannot.
    pub fn grow(path: impl AsRef<Path>, size: u64) -> Result<()> {
        let path = path.as_ref();
        grow(path, size).map_err(|e| e.about(&format!("volume {}", path.display())))
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
        self.disk
    }
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("info", &self.info).field("options", &self.options).finish_non_exhaustive()
    }
}

fn grow(path: &Path, size: u64) -> Result<()> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|e| refused("it cannot be opened for writing").with_source(e))?;
    let _lock = HeaderLock::take(&file)?;
    let header = Header::read(&file)?;
    let data = header.data_behind()?;
    if header.is_layer() {
        return Err(refused("it builds on another volume, and has that one's size"));
    }
    if let Some(len) = data.len {
        return Err(refused(format!("its header limits it to {len} bytes")));
    }
    let no_size = |e| refused("its size cannot be changed").with_source(e);
    let has = data.capacity(len_of(&file)?);
    if size < has || !size.is_multiple_of(data.sector_size as u64) || size > MOST_SIZE {
        let message = format!(
            "a size of {size} bytes was asked for, allowed are multiples of {}, from the {has} that it has up to {MOST_SIZE}",
            data.sector_size
        );
        return Err(refused(message));
    }
    file.set_len(data.below(size)).and_then(|()| file.sync_all()).map_err(no_size)
}

/// The key of a new volume's data.
fn data_key_for(key: &Key) -> Result<LockedBytes> {
    if key.kind() == Kind::OfData {
        return LockedBytes::copy_of(key.expose()).map_err(no_secret_memory);
    }
    let mut data_key = LockedBytes::zeroed(KEY_LEN).map_err(no_secret_memory)?;
    random_bytes(&mut data_key).map_err(no_random)?;
    Ok(data_key)
}

/// A volume that is to be.
struct Draft<'a> {
    path: &'a Path,
    size: u64,
    key: &'a Key,
    data_key: &'a [u8],
    sector: usize,
    format: &'a VolumeFormat,
    layer: Option<&'a LayerHeader>,
}

impl Draft<'_> {
    fn write(&self) -> Result<()> {
        let mut made = Vec::new();
        self.write_files(&mut made).inspect_err(|_| {
            // What was not there before is not there afterwards.
            made.iter().for_each(|path| drop(fs::remove_file(path)));
        })
    }

    /// Puts the paths of the files that it has made into `made`.
    fn write_files(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let apart = self.format.header.as_deref();
        let mut header = Header::new(&self.format.label, self.sector, apart.is_some(), self.data_key)?;
        let before = header.len()?;
        let (file, data) = match apart {
            Some(apart) => (new_file(apart, before, made)?, Some(new_file(self.path, self.size, made)?)),
            None => (new_file(self.path, before.saturating_add(self.size), made)?, None),
        };
        let new = NewFile(&file);
        if let Some(layer) = self.layer {
            let (cipher, data) = (Cipher::new(self.data_key, self.sector)?, header.data_behind()?);
            cow::create(&mut Payload { file: &new, cipher, data }, layer)?;
            header.make_layer();
        }
        if self.key.kind() == Kind::OfData {
            header.write_both(&new)?;
        } else {
            header.add(&new, self.data_key, secret_of(self.key)?, self.key.cost())?;
        }
        let synced = file.sync_all().and_then(|()| data.map_or(Ok(()), |data| data.sync_all()));
        let stable = synced.and_then(|()| made.iter().try_for_each(|path| sync_folder(path)));
        stable.map_err(|e| refused("it cannot be made stable").with_source(e))
    }
}

fn new_file(path: &Path, len: u64, made: &mut Vec<PathBuf>) -> Result<File> {
    let created = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = created.map_err(|e| refused(format!("{} cannot be made", path.display())).with_source(e))?;
    made.push(path.to_owned());
    file.set_len(len).map_err(|e| refused(format!("it cannot have {len} bytes")).with_source(e))?;
    Ok(file)
}

fn unopened(e: std::io::Error) -> Error {
    refused("it cannot be opened").with_source(e)
}

/// Makes a file's name stable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
