//! A disk as a user gives it: which file, and how the guest sees it.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::device::Block;
use super::file::FileBackend;
use super::request::{Limits, SECTOR};
use crate::config::{DiskConfig, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{is_writable, open_disk, try_lock};
use crate::virtio::IoThread;

/// A raw file or block device that the guest gets as a disk.
///
/// Its capacity is the file's size in whole sectors of 512 bytes, taken when the VM is built. While the VM lives the file
/// is locked (an advisory lock of the open file), so that it cannot be given to another VM for writing at the same time.
/// Its content is never looked at: a disk is raw.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("vmcell-doc-disk-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).unwrap();
/// # let path = dir.join("root.img");
/// # std::fs::write(&path, vec![0; 4096]).unwrap();
/// use vmcell::Disk;
///
/// let disk = Disk::open(&path)?.read_only(true).serial("root");
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Debug)]
pub struct Disk {
    file: File,
    name: String,
    path: Option<PathBuf>,
    config: DiskConfig,
    io_thread: Option<IoThread>,
}

/// Two disks of the same identity are the same storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    File { device: u64, inode: u64 },
    BlockDevice(u64),
}

impl Disk {
    /// Opens a file or block device by its path. Never waits, whatever the path leads to.
    ///
    /// It is opened for reading here, and for writing when the VM is built, unless it is [read-only](Self::read_only)
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] where it is missing, may not be read, is empty, or is neither a regular file nor a block device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let cannot = |e: io::Error| refused(&name, "cannot be opened").with_source(e);
        // Looked at first: opening some devices has effects, and a socket cannot be opened at all.
        check_type(&name, &path.metadata().map_err(cannot)?)?;
        let file = open_disk(path, false).map_err(cannot)?;
        Self::new(file, name, Some(path.to_owned()))
    }

    /// Takes a file or block device that the caller opened, for reading and writing unless the disk will be
    /// [read-only](Self::read_only).
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] where it is empty, or is neither a regular file nor a block device.
    pub fn from_file(file: File) -> Result<Self> {
        Self::new(file, "from a file".to_owned(), None)
    }

    fn new(file: File, name: String, path: Option<PathBuf>) -> Result<Self> {
        let disk = Self { file, name, path, config: DiskConfig::default(), io_thread: None };
        check_type(&disk.name, &disk.metadata()?)?;
        disk.capacity()?;
        Ok(disk)
    }

    /// Whether the guest may only read. The default is that it may write.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.config.read_only = read_only;
        self
    }

    /// The serial number that the guest is told: at most 20 printable ASCII characters. The default is an empty one.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.config.serial = serial.into();
        self
    }

    /// How requests reach the file.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.config.engine = engine;
        self
    }

    /// Serves the disk on this thread rather than on the VM's own.
    #[must_use]
    pub fn io_thread(mut self, io_thread: IoThread) -> Self {
        self.io_thread = Some(io_thread);
        self
    }

    /// The thread that was asked for.
    pub(crate) fn chosen_io_thread(&self) -> Option<&IoThread> {
        self.io_thread.as_ref()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.config.read_only
    }

    /// What the disk is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(identity(&self.metadata()?))
    }

    /// Makes the device: opens the file for writing, if the guest may, and locks it.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] where it cannot be written to, is in use by another VM, or became another file;
    /// [`ErrorKind::InvalidConfig`] for a serial number that is too long.
    pub(crate) fn build(mut self) -> Result<Block> {
        self.config.validate()?;
        if !self.config.read_only {
            self.make_writable()?;
        }
        self.lock()?;
        let limits = Limits { capacity: self.capacity()?, read_only: self.config.read_only };
        let backend = match self.config.engine {
            Engine::Sync => Box::new(FileBackend::new(self.file)),
        };
        Ok(Block::new(backend, limits, &self.config.serial))
    }

    fn make_writable(&mut self) -> Result<()> {
        let read_only_hint = "is not writable (a disk that the guest only reads must be made read-only)";
        let Some(path) = &self.path else {
            let writable = is_writable(&self.file).map_err(|e| self.refused("cannot be used").with_source(e))?;
            return if writable { Ok(()) } else { Err(self.refused(read_only_hint)) };
        };
        let file = open_disk(path, true).map_err(|e| self.refused(read_only_hint).with_source(e))?;
        let metadata = file.metadata().map_err(|e| self.refused("cannot be used").with_source(e))?;
        if identity(&metadata) != self.identity()? {
            return Err(self.refused("was replaced by another file since it was given"));
        }
        self.file = file;
        Ok(())
    }

    fn lock(&self) -> Result<()> {
        match try_lock(&self.file, !self.config.read_only) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let why = if self.config.read_only {
                    "is in use for writing by another VM or process"
                } else {
                    "is in use by another VM or process, and only one may write to it"
                };
                Err(self.refused(why))
            }
            // Not every file system has locks, and they only guard against mistakes.
            _ => Ok(()),
        }
    }

    /// In sectors.
    fn capacity(&self) -> Result<u64> {
        // The metadata of a block device does not say how large it is.
        let len = (&self.file).seek(SeekFrom::End(0)).map_err(|e| self.refused("has no size").with_source(e))?;
        match len.checked_div(SECTOR) {
            Some(0) | None if len == 0 => Err(self.refused("is empty")),
            Some(0) | None => Err(self.refused(&format!("has {len} bytes, the least is one sector of {SECTOR} bytes"))),
            Some(sectors) => Ok(sectors),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        self.file.metadata().map_err(|e| self.refused("cannot be used").with_source(e))
    }

    fn refused(&self, why: &str) -> Error {
        refused(&self.name, why)
    }
}

fn check_type(name: &str, metadata: &Metadata) -> Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "is a directory"
    } else if kind.is_fifo() {
        "is a FIFO"
    } else if kind.is_socket() {
        "is a socket"
    } else if kind.is_char_device() {
        "is a character device"
    } else {
        "is of an unknown type"
    };
    Err(refused(name, &format!("{what}, allowed are regular files and block devices")))
}

fn identity(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        Identity::BlockDevice(metadata.rdev())
    } else {
        Identity::File { device: metadata.dev(), inode: metadata.ino() }
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Disk, format!("disk {name} {why}"))
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
