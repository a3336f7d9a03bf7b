//! A volume over another one, and that over a third: how the chain is opened, and how it gets longer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::below::{Below, Swaps};
use super::cipher::Cipher;
use super::cow::{self, BaseKey, BaseRef, EmptyLayer, Growth, Identity};
use super::encrypted::Encrypted;
use super::key::Key;
use super::keys::{HeaderLock, check_place, is_block_device, len_of, unlock};
use super::luks::{Data, Header, UnlockLimits};
use super::payload::Payload;
use super::{no_random, refused};
use crate::block::{DiskBackend, DiskInfo, Done, FileBackend, Operation, Tag};
use crate::config::DiskConfig;
use crate::error::Result;
use crate::event::Io;
use crate::sys::{folder_of, random_bytes};

/// How many volumes may lie over each other.
pub(super) const MOST_DEPTH: usize = 16;

/// A volume's file with its header and the key of its data.
pub(super) struct Opened<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) header: &'a Header,
    pub(super) data: Data,
    pub(super) key: &'a [u8],
    pub(super) limits: UnlockLimits,
}

impl Opened<'_> {
    pub(super) fn payload<S>(&self, file: S) -> Result<Payload<S>> {
        Ok(Payload { file, cipher: Cipher::new(self.key, self.data.sector_size)?, data: self.data })
    }

    /// The disk of a volume that lies on `backend`, with all those that it builds on. `above` is how many lie over it.
    pub(super) fn disk(&self, backend: FileBackend, discard: bool, is_read_only: bool, above: usize) -> Result<Chain> {
        let cipher = Cipher::new(self.key, self.data.sector_size)?;
        let own = Encrypted::new(backend, cipher, self.data, discard);
        if !self.header.is_layer() {
            return Ok(Chain { disk: Box::new(own), depth: 0, growth: None, swaps: None });
        }
        check_depth(above)?;
        let mut payload = self.payload(self.file)?;
        let layer = cow::read_header(&mut payload)?;
        let (len, whole) = (len_of(self.file)?, self.data.below(layer.file_len()));
        if len < whole {
            return Err(refused(format!("it is cut: its file has {len} bytes, and had {whole} when it was made")));
        }
        let base = match &layer.base {
            Some(base) => {
                let path = beside(self.path, &base.name);
                let below = open_base(&path, base, layer.identity, self.limits, above);
                below.map_err(|e| e.about(&format!("base {}", path.display())))?
            }
            None => Chain { disk: Box::new(NoBase(own.info())), depth: 0, growth: None, swaps: None },
        };
        let depth = base.depth.saturating_add(usize::from(layer.base.is_some()));
        if is_read_only {
            let disk = cow::open(&mut payload, layer, own, base.disk)?;
            return Ok(Chain { growth: Some(disk.growth()), disk: Box::new(disk), depth, swaps: None });
        }
        let swaps = layer.base.is_some().then(Arc::<Swaps>::default);
        let below = swaps.as_ref().map(Arc::clone).unwrap_or_default();
        let disk = cow::open(&mut payload, layer, own, Below::new(base.disk, below))?;
        let disk = disk.kept_by(Box::new(self.writable()?));
        Ok(Chain { growth: Some(disk.growth()), disk: Box::new(disk), depth, swaps })
    }

    /// Its data, opened once more.
    fn writable(&self) -> Result<Payload<File>> {
        let unopened = |e| refused("it cannot be opened for writing").with_source(e);
        self.payload(File::options().read(true).write(true).open(self.path).map_err(unopened)?)
    }

    /// The fork that it is, without its base. Nothing may have been written to it.
    pub(super) fn empty_layer(
        &self,
        backend: FileBackend,
        discard: bool,
    ) -> Result<EmptyLayer<Encrypted<FileBackend>>> {
        let own = Encrypted::new(backend, Cipher::new(self.key, self.data.sector_size)?, self.data, discard);
        let mut payload = self.writable()?;
        EmptyLayer::open(cow::read_header(&mut payload)?, own, payload)
    }

    /// What a fork at `new` is to know of it.
    pub(super) fn as_base(&self, identity: [u8; 16], new: &Path) -> Result<BaseRef> {
        let len = self.capacity()?;
        if !len.is_multiple_of(4096) || len > cow::MOST_CAPACITY {
            let message =
                format!("it has {len} bytes, allowed for a base are multiples of 4096, up to {}", cow::MOST_CAPACITY);
            return Err(refused(message));
        }
        let name = name_for(self.path, is_block_device(self.file)?, new)?;
        Ok(BaseRef { identity, key: BaseKey::new(self.key)?, name, len })
    }

    /// Refuses a base that is shorter than it was.
    pub(super) fn check_len(&self, wanted: &BaseRef) -> Result<()> {
        let capacity = self.capacity()?;
        if capacity >= wanted.len {
            return Ok(());
        }
        let message = format!("it has {capacity} bytes, and had {} when the layer was made over it", wanted.len);
        Err(refused(message))
    }

    /// The bytes of the disk that it is.
    pub(super) fn capacity(&self) -> Result<u64> {
        if self.header.is_layer() {
            return Ok(cow::read_header(&mut self.payload(self.file)?)?.capacity);
        }
        Ok(self.data.capacity(len_of(self.file)?))
    }
}

/// A volume with all those that it builds on.
pub(super) struct Chain {
    pub(super) disk: Box<dyn DiskBackend>,
    /// How many it lies over.
    pub(super) depth: usize,
    /// Of the last one, if it is a fork.
    pub(super) growth: Option<Growth>,
    /// The same, for what it builds on, if it may be written to.
    pub(super) swaps: Option<Arc<Swaps>>,
}

/// Refuses a fork that so many volumes lie above of.
pub(super) fn check_depth(above: usize) -> Result<()> {
    if above < MOST_DEPTH {
        return Ok(());
    }
    Err(refused(format!("it lies over more volumes than {MOST_DEPTH}, the most that are allowed")))
}

/// The disk of the base of the layer `above_it`, which is only read.
pub(super) fn open_base(
    path: &Path,
    wanted: &BaseRef,
    above_it: Identity,
    limits: UnlockLimits,
    above: usize,
) -> Result<Chain> {
    let backend = FileBackend::open(&read_only(path))?;
    let file = File::open(path).map_err(|e| refused("its header cannot be opened").with_source(e))?;
    let header = base_header(&file, wanted, above_it, limits)?;
    let (data, key) = (header.data_behind()?, wanted.key.bytes());
    let opened = Opened { path, file: &file, data, header: &header, key, limits };
    opened.check_len(wanted)?;
    opened.disk(backend, false, true, above.saturating_add(1))
}

/// The header of a base, if it is the one that the layer `above_it` was made over.
pub(super) fn base_header(file: &File, wanted: &BaseRef, above_it: Identity, limits: UnlockLimits) -> Result<Header> {
    let header = {
        let _lock = HeaderLock::take(file)?;
        Header::read(file)?
    };
    if header.base_identity() != Some(wanted.identity) {
        return Err(refused("it is another volume than the one that the layer was made over"));
    }
    if header.commit().is_some_and(|fork| fork != above_it) {
        return Err(refused("another fork of it is being committed to it, so it is not what the layer was made over"));
    }
    header.check_key(wanted.key.bytes(), limits)?;
    Ok(header)
}

/// Below a layer that has no base, and asks for nothing.
struct NoBase(DiskInfo);

impl DiskBackend for NoBase {
    fn info(&self) -> DiskInfo {
        self.0
    }

    fn submit(&mut self, _: &mut Io, _: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        Err(operation)
    }

    fn completed(&mut self, _: &mut Io) -> Option<Done> {
        None
    }
}

/// A volume that another one is to be made over. Nobody writes to it, and nobody else changes its header, as long as this lives.
pub(super) struct Base<'a> {
    file: &'a File,
    header: Header,
    /// Holds its file, and those of all that it builds on.
    _disk: Box<dyn DiskBackend>,
    _lock: HeaderLock<'a>,
}

impl<'a> Base<'a> {
    /// Opens it with all that it builds on, and says what the new volume, which will be at `new`, is to know of it. Changes nothing yet.
    pub(super) fn open(path: &Path, file: &'a File, key: &Key, new: &Path) -> Result<(Self, BaseRef)> {
        let backend = FileBackend::open(&read_only(path))?;
        let lock = HeaderLock::take(file)?;
        check_place(path, file)?;
        let header = Header::read(file)?;
        header.check_no_commit()?;
        let limits = UnlockLimits::default();
        let (data, key) = (header.data_behind()?, unlock(&header, file, key, limits)?);
        let opened = Opened { path, file, header: &header, data, key: &key, limits };
        let identity = header.base_identity().map_or_else(new_identity, Ok)?;
        let reference = opened.as_base(identity, new)?;
        // It has to open with one more above it.
        let disk = opened.disk(backend, false, true, 1)?.disk;
        Ok((Self { file, header, _disk: disk, _lock: lock }, reference))
    }

    /// From now on it may only be read.
    pub(super) fn make(&mut self, identity: Identity, fork: Identity) -> Result<()> {
        self.header.make_base(self.file, identity, fork)
    }
}

/// An empty layer over a base, as a header that is not written yet.
pub(super) fn new_layer(base: BaseRef) -> Result<cow::LayerHeader> {
    let capacity = base.len;
    Ok(cow::new_header(new_identity()?, capacity, base))
}

pub(super) fn new_identity() -> Result<[u8; 16]> {
    let mut identity = [0; 16];
    random_bytes(&mut identity).map_err(no_random)?;
    Ok(identity)
}

pub(super) fn read_only(path: &Path) -> DiskConfig {
    let mut config = DiskConfig::new(path);
    config.read_only = true;
    config
}

/// How `new` names a base: by its file's name if both are in one folder, and by its whole path otherwise. A block device keeps the name by which
/// it was given: that of a logical volume is a link to another one at each boot.
pub(super) fn name_for(base: &Path, is_device: bool, new: &Path) -> Result<String> {
    let lost = |e| refused("its place is not known").with_source(e);
    let base = if is_device { std::path::absolute(base) } else { base.canonicalize() }.map_err(lost)?;
    let is_beside = base.parent() == Some(&*folder_of(new).canonicalize().map_err(lost)?);
    let name = if is_beside { base.file_name().map(PathBuf::from) } else { Some(base.clone()) };
    let name = name.and_then(|name| name.into_os_string().into_string().ok());
    name.ok_or_else(|| refused(format!("the path of a base is {}, which is not UTF-8", base.display())))
}

/// What a layer's file calls its base, as a path.
pub(super) fn beside(path: &Path, name: &str) -> PathBuf {
    // A link to the file may lie elsewhere.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}
