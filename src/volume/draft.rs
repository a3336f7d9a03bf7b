//! How a volume is created, in a new file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::cipher::{Cipher, SECTOR_SIZES};
use super::cow::{self, LayerHeader};
use super::key::{Key, Kind};
use super::keys::secret_of;
use super::luks::{Header, NewFile};
use super::payload::Payload;
use super::{no_random, no_secret_memory, refused};
use crate::error::Result;
use crate::sys::{LockedBytes, folder_of, random_bytes};

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
/// What a new volume has in front of its data.
const IN_FRONT: u64 = 16 << 20;
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

    /// The bytes of a sector and of the data, on a device of `len` bytes.
    pub(super) fn check_device(&self, len: u64) -> Result<(usize, u64)> {
        if self.header.is_some() {
            return Err(refused("a header in a file of its own is for volumes in files"));
        }
        let sector = self.check(DEFAULT_SECTOR as u64)? as u64;
        let size = len.saturating_sub(IN_FRONT);
        let size = size.saturating_sub(size.checked_rem(sector).unwrap_or_default());
        if size == 0 {
            let least = IN_FRONT.saturating_add(sector);
            return Err(refused(format!("it has {len} bytes, the least for a volume are {least}")));
        }
        self.check(size).map(|sector| (sector, size))
    }

    pub(super) fn check(&self, size: u64) -> Result<usize> {
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
pub(super) const MOST_SIZE: u64 = 1 << 62;

/// The key of a new volume's data.
pub(super) fn data_key_for(key: &Key) -> Result<LockedBytes> {
    if key.kind() == Kind::OfData {
        return LockedBytes::copy_of(key.expose()).map_err(no_secret_memory);
    }
    let mut data_key = LockedBytes::zeroed(KEY_LEN).map_err(no_secret_memory)?;
    random_bytes(&mut data_key).map_err(no_random)?;
    Ok(data_key)
}

/// Makes a fork in a new file. `data_key` is the key of its own data.
pub(super) fn write_fork(path: &Path, key: &Key, data_key: &[u8], layer: &LayerHeader) -> Result<()> {
    let (size, format) = (layer.file_len(), VolumeFormat::new());
    Draft { path, size, key, data_key, sector: DEFAULT_SECTOR, format: &format, layer: Some(layer), device: None }
        .write()
}

/// A volume that is to be.
pub(super) struct Draft<'a> {
    pub(super) path: &'a Path,
    pub(super) size: u64,
    pub(super) key: &'a Key,
    pub(super) data_key: &'a [u8],
    pub(super) sector: usize,
    pub(super) format: &'a VolumeFormat,
    pub(super) layer: Option<&'a LayerHeader>,
    /// Not in a new file, but here.
    pub(super) device: Option<&'a File>,
}

impl Draft<'_> {
    pub(super) fn write(&self) -> Result<()> {
        self.write_with(|_| Ok(true)).map(drop)
    }

    /// Writes it with its data, unless `fill` says that it is not to be. The header comes last, so that a file that is not whole is no volume.
    pub(super) fn write_with(&self, fill: impl FnOnce(&mut Payload<&NewFile<'_>>) -> Result<bool>) -> Result<bool> {
        let mut made = Vec::new();
        let written = self.write_files(&mut made, fill);
        if !matches!(written, Ok(true)) {
            // What was not there before is not there afterwards.
            made.iter().for_each(|path| drop(fs::remove_file(path)));
        }
        written
    }

    /// Puts the paths of the files that it has made into `made`.
    fn write_files(
        &self,
        made: &mut Vec<PathBuf>,
        fill: impl FnOnce(&mut Payload<&NewFile<'_>>) -> Result<bool>,
    ) -> Result<bool> {
        let apart = self.format.header.as_deref();
        let mut header = Header::new(&self.format.label, self.sector, apart.is_some(), self.data_key)?;
        let before = header.len()?;
        let (file, data) = match (apart, self.device) {
            (_, Some(device)) => (emptied(device, before)?, None),
            (Some(apart), None) => (new_file(apart, before, made)?, Some(new_file(self.path, self.size, made)?)),
            (None, None) => (new_file(self.path, before.saturating_add(self.size), made)?, None),
        };
        let new = NewFile(&file);
        if data.is_none() {
            let cipher = Cipher::new(self.data_key, self.sector)?;
            let mut payload = Payload { file: &new, cipher, data: header.data_behind()? };
            if let Some(layer) = self.layer {
                cow::create(&mut payload, layer)?;
                header.make_layer();
            }
            if !fill(&mut payload)? {
                return Ok(false);
            }
        }
        if self.key.kind() == Kind::OfData {
            header.write_both(&new)?;
        } else {
            header.add(&new, self.data_key, secret_of(self.key)?, self.key.cost())?;
        }
        let synced = file.sync_all().and_then(|()| data.map_or(Ok(()), |data| data.sync_all()));
        let stable = synced.and_then(|()| made.iter().try_for_each(|path| sync_folder(path)));
        stable.map_err(|e| refused("it cannot be made stable").with_source(e))?;
        Ok(true)
    }
}

fn new_file(path: &Path, len: u64, made: &mut Vec<PathBuf>) -> Result<File> {
    let created = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = created.map_err(|e| {
        let is_device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        let why = if is_device { "is a block device: format it instead" } else { "cannot be made" };
        refused(format!("{} {why}", path.display())).with_source(e)
    })?;
    made.push(path.to_owned());
    file.set_len(len).map_err(|e| refused(format!("it cannot have {len} bytes")).with_source(e))?;
    Ok(file)
}

/// The beginning of a device, of which nothing is left: a header there, or what tells a file system, would be half of it.
fn emptied(device: &File, len: u64) -> Result<File> {
    static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
    let failed = |e| refused("it cannot be written").with_source(e);
    for at in (0..len).step_by(ZEROES.len()) {
        let piece = usize::try_from(len.saturating_sub(at)).unwrap_or(ZEROES.len()).min(ZEROES.len());
        device.write_all_at(ZEROES.get(..piece).unwrap_or_default(), at).map_err(failed)?;
    }
    device.sync_data().and_then(|()| device.try_clone()).map_err(failed)
}

/// Makes a file's name stable.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}
