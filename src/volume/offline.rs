//! A volume with all that it builds on, while no VM uses it: read and written to, one call after the other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Opened, base_header, beside, check_depth, read_only};
use super::cow::{self, BaseRef, Blocks, Identity, Part, Still};
use super::keys::{HeaderLock, len_of};
use super::length::{check_len, check_unlimited, set_len};
use super::luks::{Header, UnlockLimits};
use super::payload::Payload;
use super::refused;
use crate::block::FileBackend;
use crate::config::DiskConfig;
use crate::error::Result;

pub(super) struct Offline {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) payload: Payload<File>,
    /// If it is a fork.
    pub(super) layer: Option<Still>,
    pub(super) base: Option<Box<Offline>>,
    capacity: u64,
    /// Keeps VMs from it.
    _claim: FileBackend,
}

/// What of a chain is to be written to: so many of its volumes from the top on.
pub(super) type Writable = usize;

impl Offline {
    /// Opens a volume by the key of its data. `of` is what a fork knows it by, and that fork's identity.
    pub(super) fn open(
        path: &Path,
        unlock: impl FnOnce(&Header, &File) -> Result<crate::sys::LockedBytes>,
        writable: Writable,
    ) -> Result<Self> {
        let (claim, file) = claim(path, writable)?;
        let header = {
            let _lock = HeaderLock::take(&file)?;
            Header::read(&file)?
        };
        header.check_no_commit()?;
        let key = unlock(&header, &file)?;
        Self::on(path, claim, file, header, &key, writable, 0)
    }

    fn open_base(path: &Path, wanted: &BaseRef, above_it: Identity, writable: Writable, above: usize) -> Result<Self> {
        let (claim, file) = claim(path, writable)?;
        let limits = UnlockLimits::default();
        let header = base_header(&file, wanted, above_it, limits)?;
        let key = wanted.key.bytes();
        let opened = Opened { path, file: &file, header: &header, data: header.data_behind()?, key, limits };
        opened.check_len(wanted)?;
        Self::on(path, claim, file, header, key, writable, above)
    }

    fn on(
        path: &Path,
        claim: FileBackend,
        file: File,
        header: Header,
        key: &[u8],
        writable: Writable,
        above: usize,
    ) -> Result<Self> {
        let (limits, data) = (UnlockLimits::default(), header.data_behind()?);
        let opened = Opened { path, file: &file, header: &header, data, key, limits };
        let capacity = opened.capacity()?;
        let mut payload =
            opened.payload(file.try_clone().map_err(|e| refused("it cannot be opened").with_source(e))?)?;
        let (mut layer, mut base) = (None, None);
        if header.is_layer() {
            check_depth(above)?;
            let still = cow::read_header(&mut payload)?;
            let (len, whole) = (len_of(&file)?, data.below(still.file_len()));
            if len < whole {
                return Err(refused(format!("it is cut: its file has {len} bytes, and had {whole} when it was made")));
            }
            if let Some(wanted) = &still.base {
                let place = beside(path, &wanted.name);
                let below = Self::open_base(
                    &place,
                    wanted,
                    still.identity,
                    writable.saturating_sub(1),
                    above.saturating_add(1),
                );
                base = Some(Box::new(below.map_err(|e| e.about(&format!("base {}", place.display())))?));
            }
            layer = Some(Still::open(&mut payload, still)?);
        }
        Ok(Self { path: path.to_owned(), header, payload, layer, base, capacity, _claim: claim })
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whole blocks.
    pub(super) fn read(&mut self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let len = into.len() as u64;
            let (run, part) = match &self.layer {
                Some(layer) => layer.first_part(at, len),
                None => (len, Part::Own(at)),
            };
            let (piece, rest) = into.split_at_mut(usize::try_from(run).unwrap_or(usize::MAX).min(into.len()));
            match (part, &mut self.base) {
                (Part::Own(place), _) => self.payload.read_at(place, piece)?,
                (Part::Base, Some(base)) => base.read(at, piece)?,
                (Part::Base | Part::Zeroes, _) => piece.fill(0),
            }
            (at, into) = (at.saturating_add(run), rest);
        }
        Ok(())
    }

    /// Writes whole blocks, which are stable after [`settle`](Self::settle).
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.layer {
            Some(layer) => layer.write(&mut self.payload, at, bytes),
            None => self.payload.write_at(at, bytes),
        }
    }

    pub(super) fn zero(&mut self, at: u64, len: u64) -> io::Result<()> {
        match &mut self.layer {
            Some(layer) => layer.zero(&mut self.payload, at, len),
            None => self.payload.write_at(at, &vec![0; usize::try_from(len).unwrap_or_default()]),
        }
    }

    pub(super) fn settle(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Some(layer) => layer.settle(&mut self.payload),
            None => self.payload.sync(),
        }
    }

    /// Refuses a size that it cannot have.
    pub(super) fn check_growth(&self, capacity: u64) -> Result<()> {
        match &self.layer {
            Some(layer) => check_len(&self.payload.file, self.payload.data.below(layer.file_len_for(capacity))),
            None => {
                check_unlimited(self.payload.data)?;
                check_len(&self.payload.file, self.payload.data.below(capacity))
            }
        }
    }

    /// Makes it larger. What was not there is zeroes if it is a fork, and noise otherwise.
    pub(super) fn grow(&mut self, capacity: u64) -> Result<()> {
        let len = self.layer.as_ref().map_or(capacity, |layer| layer.file_len_for(capacity));
        set_len(&self.payload.file, self.payload.data.below(len))?;
        if let Some(layer) = &mut self.layer {
            layer.grow(&mut self.payload, capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }
}

/// Keeps VMs from a file that is to be written to, or only read, and opens it.
fn claim(path: &Path, writable: Writable) -> Result<(FileBackend, File)> {
    let config = if writable > 0 { DiskConfig::new(path) } else { read_only(path) };
    let backend = FileBackend::open(&config)?;
    let file = File::options().read(true).write(writable > 0).open(path);
    Ok((backend, file.map_err(|e| refused("it cannot be opened").with_source(e))?))
}
