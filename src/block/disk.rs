//! A disk as the host program describes it: which file or backend, and how the guest sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{DiskBackend, DiskInfo, DiskStatus};
use super::changes::Changes;
use super::device::Block;
use super::file::{DiskFile, FileBackend};
use super::in_use::InUse;
use super::medium::{self, Access, Identity};
use super::metrics::DiskMetrics;
use crate::config::{DiskConfig, Engine, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::limit::LimitGroup;
use crate::sys::open_disk;
use crate::virtio::{Guarded, VirtioDevice};

/// What the guest gets as a disk: a raw file, a block device, or a backend of your own.
///
/// The capacity of a file is its size in whole sectors of 512 bytes when the VM is built. While the VM lives, the file is
/// locked (an advisory lock of the open file), so that it cannot be given to another VM for writing at the same time. The
/// content of the file is never interpreted: a disk is raw.
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
    limit_group: Option<LimitGroup>,
    changes: Arc<Changes>,
}

/// What the guest's data lie on.
enum Medium {
    /// `by_path` if the configuration has the path of the file, by which it can be opened anew.
    File {
        file: File,
        by_path: bool,
    },
    Backend {
        backend: Box<dyn DiskBackend>,
        never_blocks: bool,
    },
}

impl Disk {
    /// Opens a file or block device by its path. Never waits, whatever the path leads to.
    ///
    /// The file is opened for reading here. It is opened for writing when the VM is built, unless the disk is
    /// [read-only](Self::read_only).
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it is missing, may not be read, is empty, or is neither a regular file nor a block device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_config(&DiskConfig::new(path))
    }

    /// Opens the file or block device that `config` names, as [`open`](Self::open) does, for a disk with its settings.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn from_config(config: &DiskConfig) -> Result<Self> {
        Self::open_as(config.path.display().to_string(), config)
    }

    /// `name` is what messages call the disk.
    pub(crate) fn open_as(name: String, config: &DiskConfig) -> Result<Self> {
        let file = open_to_read(&name, &config.path)?;
        Self::on_file(file, name, Some(config))
    }

    /// Takes a file or block device that the caller has opened. It must be open for reading, and for writing unless the disk
    /// will be [read-only](Self::read_only).
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it is empty, or is neither a regular file nor a block device.
    pub fn from_file(file: File) -> Result<Self> {
        Self::on_file(file, "from a file".to_owned(), None)
    }

    /// Puts a backend of your own under the disk; see [`DiskBackend`] for its rules.
    ///
    /// The backend gets an I/O thread of its own, so that a backend that blocks harms only its own disk. It runs on another
    /// thread if one is [chosen](Self::io_thread), and on the VM's if the caller [vouches](Self::never_blocks) that it never
    /// blocks.
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

    fn on_file(file: File, name: String, config: Option<&DiskConfig>) -> Result<Self> {
        medium::check_type(&name, &medium::metadata(&name, &file)?)?;
        medium::size(&name, &file)?;
        let disk = Self::new(Medium::File { file, by_path: config.is_some() }, name);
        Ok(Self { config: config.cloned().unwrap_or(disk.config), ..disk })
    }

    /// A disk with default settings, on a medium that has no path.
    fn new(medium: Medium, name: String) -> Self {
        Self { medium, name, config: DiskConfig::new(""), io_thread: None, limit_group: None, changes: Arc::default() }
    }

    /// Says whether the guest may only read. By default, it may write.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.config.read_only = read_only;
        self
    }

    /// Sets the serial number that the guest is told: at most 20 printable ASCII characters. It is empty by default.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.config.serial = serial.into();
        self
    }

    /// Chooses how requests reach the file. It has no effect on a disk on a [backend](Self::backend).
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.config.engine = engine;
        self
    }

    /// Says whether the guest's data go past the host's page cache (`O_DIRECT`). By default, they do not. It has no effect on a
    /// disk on a [backend](Self::backend).
    ///
    /// The guest sees blocks of the size that the storage demands, and the file's size must be a multiple of that. Buffers of the
    /// guest's that the storage does not take are copied. A file that [the caller opened](Self::from_file) must have been opened
    /// with `O_DIRECT`; if it was, its data go past the page cache without this as well.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.config.direct = direct;
        self
    }

    /// Sets how many queues the guest's driver may use, 1 to 16. By default, a disk of a VM has one for each of its vCPUs, but no
    /// more than four, and any other has one. With several, the guest's CPUs need not wait for each other to send a request. One I/O
    /// thread serves all queues of a disk, in turn.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.config.queues = Some(queues);
        self
    }

    /// The number of queues, if nothing was said about it.
    pub(crate) fn default_queues(mut self, queues: u16) -> Self {
        self.config.queues.get_or_insert(queues);
        self
    }

    /// Serves the disk on this thread rather than on the VM's own.
    #[must_use]
    pub fn io_thread(mut self, io_thread: IoThread) -> Self {
        self.io_thread = Some(io_thread);
        self
    }

    /// Limits what the guest may do with the disk. By default nothing is limited. [`DiskHandle::set_limits`] changes the limits while the
    /// VM runs.
    ///
    /// A request that exceeds the limits waits, and with it those behind it: the device takes no more from its queues meanwhile, uses no
    /// CPU, and holds no other device up. A pause, a reset, or the end of the VM does not wait for it. [`DiskMetrics`](super::DiskMetrics) counts how often and how long requests waited.
    ///
    /// ```
    /// use vmcell::{Disk, Limits, RateLimit};
    ///
    /// # let file = vmcell::testing::memory_disk(4096);
    /// let limits = Limits::new().operations(RateLimit::per_second(2000)).bytes(RateLimit::per_second(8 << 20).burst(64 << 20));
    /// let disk = Disk::from_file(file)?.limits(limits);
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Has the disk keep to the limits of a group, besides its own.
    #[must_use]
    pub fn limit_group(mut self, group: &LimitGroup) -> Self {
        self.limit_group = Some(group.clone());
        self
    }

    /// Vouches that the [backend](Self::backend) never blocks, so that it may share the VM's own I/O thread. A disk on a file
    /// never blocks, so this has no effect on one.
    #[must_use]
    pub fn never_blocks(mut self) -> Self {
        if let Medium::Backend { never_blocks, .. } = &mut self.medium {
            *never_blocks = true;
        }
        self
    }

    /// Returns a handle that changes the disk while its VM runs. Take it before the disk is given to a VM.
    pub fn handle(&self) -> DiskHandle {
        DiskHandle { changes: Arc::clone(&self.changes), read_only: self.config.read_only }
    }

    /// Makes the device, for a machine of your own; [`VmBuilder::disk`](crate::VmBuilder::disk) does this for a whole VM. The
    /// file is locked for as long as the device lives. The thread that was [chosen](Self::io_thread) for the disk does not
    /// matter: the transport is given one.
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
    /// [`ErrorKind::Disk`] if the file cannot be written to, is in use by another VM, or is no longer the one that was opened,
    /// or if the backend's [`DiskInfo`] describes no possible disk; [`ErrorKind::InvalidConfig`] for a serial number that is
    /// too long or not printable ASCII.
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

    /// What the disk is called in messages: `1 (data.img)` as the disk of this number in a VM.
    pub(crate) fn numbered(mut self, index: usize) -> Self {
        self.name = format!("{index} ({})", self.name);
        self
    }

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

    /// Opens the file for writing, if the guest may, so that its path is not needed any more.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] if it cannot be written to, or is no longer the one that was opened.
    pub(crate) fn opened(mut self) -> Result<Self> {
        self.config.validate(&self.name)?;
        self.medium = match self.medium {
            Medium::File { file, by_path: true } => {
                let file = medium::ready(&self.name, file, Some(&self.config.path), wanted(&self.config))?;
                Medium::File { file, by_path: false }
            }
            other => other,
        };
        Ok(self)
    }

    /// Opens the file for writing, if the guest may, and locks it.
    pub(super) fn build(self) -> Result<Block> {
        let (serial, read_only, changes) =
            (self.config.serial.clone(), self.config.read_only, Arc::clone(&self.changes));
        if let Some(group) = self.config.limit_group.as_ref().filter(|_| self.limit_group.is_none()) {
            let message =
                format!("disk {} is to be in the limit group {group:?}, which only a VM's description has", self.name);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let (queues, limits, group) = (self.config.queues.unwrap_or(1), self.config.limits, self.limit_group.clone());
        let (backend, info) = self.into_backend()?;
        // Those that its handle has set already stay.
        changes.limits.begin_with(limits)?;
        let block = Block::new(backend, info, read_only, &serial, changes, queues);
        Ok(group.iter().fold(block, Block::in_group))
    }

    fn into_backend(self) -> Result<(Guarded<dyn DiskBackend>, DiskInfo)> {
        self.config.validate(&self.name)?;
        let backend: Box<dyn DiskBackend> = match self.medium {
            Medium::Backend { backend, .. } => backend,
            Medium::File { file, by_path } => {
                let path = by_path.then_some(&*self.config.path);
                Box::new(claimed(&self.name, file, path, &self.config)?)
            }
        };
        let mut backend = Guarded::new(backend, "backend", ErrorKind::Disk);
        let info = backend.ask(|backend| backend.info()).and_then(|info| info.check().map(|()| info));
        let info = info.map_err(|error| error.about(&format!("disk {}", self.name)))?;
        Ok((backend, info))
    }
}

impl FileBackend {
    /// Opens the file or block device that `config` names, and locks it for as long as the backend lives, as a [`Disk`] on it does: for a
    /// layer of your own under which nobody else is to write. The file is opened for writing unless the disk is read-only; the
    /// engine and direct I/O are those of `config`, and the rest of it does not matter.
    ///
    /// # Errors
    /// Those of building a VM with such a disk.
    pub fn open(config: &DiskConfig) -> Result<Self> {
        let name = config.path.display().to_string();
        config.validate(&name)?;
        let file = open_to_read(&name, &config.path)?;
        claimed(&name, file, Some(&config.path), config)
    }
}

fn open_to_read(name: &str, path: &Path) -> Result<File> {
    let cannot = |e: io::Error| medium::refused(name, "cannot be opened").with_source(e);
    // Looked at first: opening some devices has effects, and a socket cannot be opened at all.
    medium::check_type(name, &path.metadata().map_err(cannot)?)?;
    open_disk(path, false, false).map_err(cannot)
}

/// Opens the file for writing, if it is to be written to and has a path, and locks it.
fn claimed(name: &str, file: File, path: Option<&Path>, config: &DiskConfig) -> Result<FileBackend> {
    let file = medium::ready(name, file, path, wanted(config))?;
    let identity = Identity::of(&medium::metadata(name, &file)?);
    let in_use = InUse::claim(name, identity, config.read_only)?;
    medium::lock(name, &file, config.read_only)?;
    FileBackend::on(name, DiskFile::locked(file, in_use), config.engine)
}

fn wanted(config: &DiskConfig) -> Access {
    Access { write: !config.read_only, direct: config.direct }
}

/// Changes a disk while its VM runs. Any thread may use it, and a clone changes the same disk.
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
    /// Says that the size of the file or block device may have changed. The disk looks at the size soon, on its helper thread, and
    /// tells the guest's driver. A backend of your own is asked to [look again](DiskBackend::refresh). Never blocks.
    pub fn refresh(&self) {
        self.changes.refresh();
    }

    /// Says how the disk works now. Before the disk is part of a VM, there is nothing to say. Never waits for the disk.
    pub fn status(&self) -> DiskStatus {
        self.changes.status()
    }

    /// Sets other [limits](Disk::limits), or none, at once and also for a request that waits. What has not been used of a limit stays, up
    /// to its new burst. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a limit that is out of range. Then the limits stay as they are.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        self.changes.limits.set_limits(limits)
    }

    /// Returns what the disk has done so far. Never waits for the disk.
    pub fn metrics(&self) -> DiskMetrics {
        self.changes.metrics()
    }

    /// Reads the counters that the disk's backend [has itself](DiskBackend::metrics), by name. If the backend is replaced, they are those
    /// of the new one. Never waits for the disk.
    pub fn backend_counters(&self) -> BTreeMap<String, u64> {
        self.changes.backend_counters()
    }

    /// Puts the file or backend of `disk` in the place of the present one, also if that is [gone](crate::virtio::FailureCause::is_final):
    /// then the disk works once its driver has reset it. Requests in flight end on the old medium first;
    /// data that the guest has not flushed may or may not be there, and requests behind the end of a smaller medium fail. The
    /// other settings of `disk` have no effect, except that both disks must agree on whether they are read-only.
    ///
    /// Blocks until the exchange is made, but no longer than `limit`.
    ///
    /// # Errors
    /// Those of building a VM with `disk`;
    /// [`ErrorKind::InvalidConfig`] if only one of the two disks is read-only;
    /// [`ErrorKind::Disk`] if its blocks are larger, which the guest cannot be told, its largest operation is smaller than a block of
    /// the present disk, or it cannot work on the disk's thread: nothing was exchanged then;
    /// [`ErrorKind::Timeout`] if the limit passed before the exchange, for which requests in flight, a VM that is paused, and
    /// a disk that is not part of a VM yet are reasons: nothing was exchanged then;
    /// [`ErrorKind::InvalidState`] if the VM was dropped, and on an [I/O thread](crate::event#what-a-callback-may-do). A VM that has ended but still exists may also give a `Timeout`.
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
