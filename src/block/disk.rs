//! A disk as a user gives it: which file or backend, and how the guest sees it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::backend::{DiskBackend, DiskInfo};
use super::changes::Changes;
use super::device::Block;
use super::medium::{self, Identity};
use super::sync::{DiskFile, FileBackend};
use crate::config::{DiskConfig, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::sys::open_disk;
use crate::virtio::VirtioDevice;

/// What the guest gets as a disk: a raw file, a block device, or a backend of your own.
///
/// The capacity of a file is its size in whole sectors of 512 bytes, taken when the VM is built. While the VM lives the file
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
pub struct Disk {
    medium: Medium,
    name: String,
    config: DiskConfig,
    io_thread: Option<IoThread>,
    changes: Arc<Changes>,
}

/// What the guest's data lie on.
enum Medium {
    File { file: File, path: Option<PathBuf> },
    Backend { backend: Box<dyn DiskBackend>, never_blocks: bool },
}

impl Disk {
    /// Opens a file or block device by its path. Never waits, whatever the path leads to.
    ///
    /// It is opened for reading here, and for writing when the VM is built, unless it is [read-only](Self::read_only)
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it is missing, may not be read, is empty, or is neither a regular file nor a block device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let cannot = |e: io::Error| medium::refused(&name, "cannot be opened").with_source(e);
        // Looked at first: opening some devices has effects, and a socket cannot be opened at all.
        medium::check_type(&name, &path.metadata().map_err(cannot)?)?;
        let file = open_disk(path, false).map_err(cannot)?;
        Self::on_file(file, name, Some(path.to_owned()))
    }

    /// Takes a file or block device that the caller opened, for reading and writing unless the disk will be
    /// [read-only](Self::read_only).
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it is empty, or is neither a regular file nor a block device.
    pub fn from_file(file: File) -> Result<Self> {
        Self::on_file(file, "from a file".to_owned(), None)
    }

    /// Puts a backend of your own under the disk; see [`DiskBackend`] for its rules.
    ///
    /// It is served by a thread of its own, so that one that blocks harms only its disk, unless another thread is
    /// [chosen](Self::io_thread) or the caller [vouches](Self::never_blocks) that it never does.
    ///
    /// ```
    /// use vmcell::Disk;
    /// use vmcell::block::{FileBackend, DiskBackend};
    ///
    /// # let file = vmcell::testing::memory_disk(4096);
    /// let backend = FileBackend::new(file)?; // or one of your own, on top of this one
    /// let disk = Disk::backend(backend).never_blocks();
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    pub fn backend(backend: impl DiskBackend + 'static) -> Self {
        let medium = Medium::Backend { backend: Box::new(backend), never_blocks: false };
        Self::new(medium, "on a backend".to_owned())
    }

    fn on_file(file: File, name: String, path: Option<PathBuf>) -> Result<Self> {
        medium::check_type(&name, &medium::metadata(&name, &file)?)?;
        medium::size(&name, &file)?;
        Ok(Self::new(Medium::File { file, path }, name))
    }

    fn new(medium: Medium, name: String) -> Self {
        Self { medium, name, config: DiskConfig::default(), io_thread: None, changes: Arc::default() }
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

    /// How requests reach the file. Means nothing to a [backend](Self::backend).
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

    /// Vouches that the [backend](Self::backend) never blocks, so that it may share the VM's own thread. Disks on files
    /// never do.
    #[must_use]
    pub fn never_blocks(mut self) -> Self {
        if let Medium::Backend { never_blocks, .. } = &mut self.medium {
            *never_blocks = true;
        }
        self
    }

    /// A handle by which the disk can be changed while its VM runs.
    pub fn handle(&self) -> DiskHandle {
        DiskHandle { changes: Arc::clone(&self.changes), read_only: self.config.read_only }
    }

    /// Makes the device, for a machine of your own: what [`VmBuilder::disk`](crate::VmBuilder::disk) does in a whole one. The
    /// file is locked for as long as it lives. The transport is told which thread serves it.
    ///
    /// ```
    /// use vmcell::testing::{memory_disk, patterned_memory};
    /// use vmcell::virtio::MmioTransport;
    /// use vmcell::{Disk, IoThread};
    ///
    /// let device = Disk::from_file(memory_disk(4096))?.into_device()?;
    /// let transport = MmioTransport::new(device, patterned_memory(1 << 20), &IoThread::new("disk")?)?;
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it cannot be written to, is in use by another VM, or became another file, or if the backend
    /// is like no disk; [`ErrorKind::InvalidConfig`] for a serial number that is too long.
    pub fn into_device(self) -> Result<Box<dyn VirtioDevice>> {
        Ok(Box::new(self.build()?))
    }

    /// The thread that is to serve it.
    pub(crate) fn placement(&self) -> Placement {
        match (&self.io_thread, &self.medium) {
            (Some(io_thread), _) => Placement::Chosen(io_thread.clone()),
            (None, Medium::Backend { never_blocks: false, .. }) => Placement::Alone,
            (None, Medium::Backend { .. } | Medium::File { .. }) => Placement::Shared,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.config.read_only
    }

    /// What the disk is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which storage it is, if that can be said.
    pub(crate) fn identity(&self) -> Result<Option<Identity>> {
        match &self.medium {
            Medium::File { file, .. } => {
                medium::metadata(&self.name, file).map(|metadata| Some(Identity::of(&metadata)))
            }
            Medium::Backend { .. } => Ok(None),
        }
    }

    /// Opens the file for writing, if the guest may, and locks it.
    pub(super) fn build(self) -> Result<Block> {
        let (serial, read_only, changes) =
            (self.config.serial.clone(), self.config.read_only, Arc::clone(&self.changes));
        let (backend, info) = self.into_backend()?;
        Ok(Block::new(backend, info, read_only, &serial, changes))
    }

    fn into_backend(self) -> Result<(Box<dyn DiskBackend>, DiskInfo)> {
        self.config.validate()?;
        let backend: Box<dyn DiskBackend> = match self.medium {
            Medium::Backend { backend, .. } => backend,
            Medium::File { file, path } => {
                let file = match path {
                    _ if self.config.read_only => file,
                    None => medium::check_writable(&self.name, file)?,
                    Some(path) => medium::reopen_writable(&self.name, &file, &path)?,
                };
                medium::lock(&self.name, &file, self.config.read_only)?;
                let size = medium::size(&self.name, &file)?;
                match self.config.engine {
                    Engine::Sync => Box::new(FileBackend::on(DiskFile::new(file), size)),
                }
            }
        };
        let info = backend.info();
        info.check()?;
        Ok((backend, info))
    }
}

/// Changes a disk while its VM runs. A clone changes the same disk; may be used from any thread.
///
/// ```no_run
/// # fn main() -> vmcell::Result<()> {
/// use vmcell::Disk;
///
/// let disk = Disk::open("data.img")?;
/// let handle = disk.handle();
/// // ... once the VM runs, and `data.img` was made larger:
/// handle.refresh(); // the guest is told, and may grow its file system
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DiskHandle {
    changes: Arc<Changes>,
    read_only: bool,
}

impl DiskHandle {
    /// Says that the size of the file or block device may have changed. The disk looks at it soon, and tells the guest's
    /// driver if so. Never blocks.
    pub fn refresh(&self) {
        self.changes.refresh();
    }

    /// Exchanges what the disk lies on. Requests in flight end on the old medium first; what the guest has not flushed may or
    /// may not be on it, and those that lie behind the end of a smaller one fail. The settings of `disk` beside its medium mean nothing here.
    ///
    /// Blocks until the exchange is made, at most for `limit`.
    ///
    /// # Errors
    /// As building a VM with `disk`; [`ErrorKind::InvalidConfig`] if only one of the two is read-only; [`ErrorKind::Disk`] if
    /// its blocks are larger, which the guest cannot be told, or it cannot work on the disk's thread: then nothing was exchanged;
    /// [`ErrorKind::Timeout`] if requests were still in flight, or no VM ran, at the limit: then nothing was exchanged;
    /// [`ErrorKind::InvalidState`] if the VM has ended.
    pub fn replace(&self, disk: Disk, limit: Duration) -> Result<()> {
        if disk.is_read_only() != self.read_only {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            let message = format!(
                "disk {} is {}, and was to take the place of one that is {}",
                disk.name(),
                word(disk.is_read_only()),
                word(self.read_only)
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let (backend, info) = disk.into_backend()?;
        self.changes.replace(backend, info, limit)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskHandle").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
