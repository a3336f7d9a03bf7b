//! A fork takes in what its base has, in a new file that takes its place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::{beside, name_for};
use super::cipher::Cipher;
use super::cow::{self, BaseRef, LayerHeader, Part, Still};
use super::draft::sync_folder;
use super::key::Key;
use super::keys::{HeaderLock, check_place, copy_range, is_block_device, unlock};
use super::luks::{Header, NewFile, UnlockLimits};
use super::merge::{Progress, VolumeProgress, in_steps, zeroes_apart};
use super::offline::Offline;
use super::payload::Payload;
use super::volume::{Volume, unopened};
use super::{no_secret_memory, refused};
use crate::error::{Error, Result};
use crate::sys::{LockedBytes, next_data};

impl Volume {
    /// Takes what the base of a fork has into the fork, also while VMs read both, but not while one writes to the fork: a new file with the data of both is written at `new`, in the fork's folder, and
    /// then renamed to the fork's name. It builds on what the base builds on, or on nothing. All that builds on the fork builds on the new file as well, with
    /// the same keys; the base is as it was, and may be removed once nothing else builds on it. So the snapshot in the middle of a chain goes, and
    /// what came before and after it stays.
    ///
    /// A VM that has opened the chain before goes on with the files that were there; [`VolumeHandle::reopen`](super::VolumeHandle::reopen) has it take the new
    /// one. `progress` is as for [`flatten`](Self::flatten); if it breaks off, this returns false. Then, and after an error, nothing has changed. After a
    /// crash, the chain is as it was or as it was to be, and there may be a file at `new`. It takes room for what both have that is not zeroes.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it builds on no other volume, it is a block device, `new` exists or is elsewhere, or data cannot be read or written; those of [`open`](Self::open).
    pub fn absorb(
        path: impl AsRef<Path>,
        key: &Key,
        new: impl AsRef<Path>,
        mut progress: impl FnMut(VolumeProgress) -> std::ops::ControlFlow<()>,
    ) -> Result<bool> {
        let path = path.as_ref();
        absorb(path, key, new.as_ref(), &mut progress).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// The path of the volume that a fork builds on, as its file names it; `None` if it builds on none. `key` opens the fork, which may be in use.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), but for a file that is in use.
    pub fn base(path: impl AsRef<Path>, key: &Key) -> Result<Option<PathBuf>> {
        let path = path.as_ref();
        base(path, key).map_err(|e: Error| e.about(&format!("volume {}", path.display())))
    }
}

fn base(path: &Path, key: &Key) -> Result<Option<PathBuf>> {
    let file = File::open(path).map_err(unopened)?;
    let header = {
        let _lock = HeaderLock::take(&file)?;
        Header::read(&file)?
    };
    if !header.is_layer() {
        return Ok(None);
    }
    let (data, key) = (header.data_behind()?, unlock(&header, &file, key, UnlockLimits::default())?);
    let mut payload = Payload { file, cipher: Cipher::new(&key, data.sector_size)?, data };
    Ok(cow::read_header(&mut payload)?.base.map(|base| beside(path, &base.name)))
}

fn absorb(path: &Path, key: &Key, new: &Path, progress: Progress<'_>) -> Result<bool> {
    let path = &path.canonicalize().map_err(unopened)?;
    let mut data_key = None;
    let unlocked = |header: &Header, file: &File| {
        let key = unlock(header, file, key, UnlockLimits::default())?;
        data_key = Some(LockedBytes::copy_of(&key).map_err(no_secret_memory)?);
        Ok(key)
    };
    // Nobody writes to one that others build on. Any other one is kept from those who would.
    let writable = usize::from(!Volume::inspect(path)?.is_base);
    let mut fork = Offline::open(path, unlocked, writable)?;
    let Some(data_key) = data_key else { return Err(refused("it has no key")) };
    check(&fork, path, new)?;
    let header = merged(&fork, path)?;
    let data = fork.payload.data;
    let made = Made::at(new, data.below(header.file_len()))?;
    let file = NewFile(&made.file);
    let mut payload = Payload { file: &file, cipher: Cipher::new(&data_key, data.sector_size)?, data };
    cow::create(&mut payload, &header)?;
    let mut both = Both { to: Still::open(&mut payload, header)?, payload, room: Vec::new() };
    let failed = |e| refused("data cannot be moved").with_source(e);
    let all = in_steps(fork.capacity(), progress, |at, len, is_to_settle| {
        both.take(&mut fork, at, len).map_err(failed)?;
        if !is_to_settle {
            return Ok(());
        }
        both.to.settle(&mut both.payload).and_then(|()| made.file.sync_data()).map_err(failed)
    })?;
    if all { made.take_place_of(&fork, path).map(|()| true) } else { Ok(false) }
}

fn check(fork: &Offline, path: &Path, new: &Path) -> Result<()> {
    if is_block_device(&fork.payload.file)? {
        return Err(refused("it is a block device, and no other file can take its place"));
    }
    let folder = |path: &Path| crate::sys::folder_of(path).canonicalize().ok();
    if folder(path) == folder(new) {
        return Ok(());
    }
    Err(refused(format!("the new file is to be at {}, which is in another folder", new.display())))
}

/// The header of the fork with what its base has: it builds on what the base builds on.
fn merged(fork: &Offline, path: &Path) -> Result<LayerHeader> {
    let none = || refused("it builds on no other volume");
    let (Some(layer), Some(base)) = (&fork.layer, &fork.base) else { return Err(none()) };
    let own = layer.header().base.clone().ok_or_else(none)?;
    let below = match (&base.layer, &base.base) {
        (Some(layer), Some(below)) => layer.header().base.clone().map(|wanted| (wanted, below)),
        _ => None,
    };
    let below = below.map(|(wanted, below)| {
        let name = name_for(&below.path, is_block_device(&below.payload.file)?, path)?;
        // What lies behind either one's end is zeroes.
        Ok(BaseRef { name, len: wanted.len.min(own.len), ..wanted })
    });
    let mut header = cow::new_header(layer.header().identity, fork.capacity(), own);
    header.base = below.transpose()?;
    Ok(header)
}

/// What the fork and its base have is put into `to`.
struct Both<'a> {
    to: Still,
    payload: Payload<&'a NewFile<'a>>,
    room: Vec<u8>,
}

impl Both<'_> {
    fn take(&mut self, fork: &mut Offline, at: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let (from, left) = (at.saturating_add(done), len.saturating_sub(done));
            let (run, part) = first_part(fork, from, left);
            match (part, &mut fork.base) {
                (Part::Base, Some(base)) => self.take_from_base(base, from, run)?,
                (part, _) => self.put(fork, part, from, run)?,
            }
            done = done.saturating_add(run);
        }
        Ok(())
    }

    fn take_from_base(&mut self, base: &mut Offline, at: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let (from, left) = (at.saturating_add(done), len.saturating_sub(done));
            let (run, part) = first_part(base, from, left);
            match part {
                // It builds on that, too.
                Part::Base => {}
                _ if base.layer.is_none() => self.take_plain(base, from, run)?,
                part => self.put(base, part, from, run)?,
            }
            done = done.saturating_add(run);
        }
        Ok(())
    }

    /// What was written of a volume that is no fork: its holes are noise, which nobody wants back.
    fn take_plain(&mut self, base: &mut Offline, at: u64, len: u64) -> io::Result<()> {
        let (end, data) = (at.saturating_add(len), base.payload.data);
        let mut from = at;
        while let Some((start, stop)) = next_data(&base.payload.file, data.below(from), data.below(end))? {
            // Holes end where blocks of the file system do, which may be smaller than ours.
            let start = start.saturating_sub(data.offset) & !(BLOCK - 1);
            let stop = stop.saturating_sub(data.offset).next_multiple_of(BLOCK).min(end);
            let start = start.max(from);
            self.put(base, Part::Own(start), start, stop.saturating_sub(start))?;
            from = stop;
        }
        Ok(())
    }

    fn put(&mut self, from: &mut Offline, part: Part, at: u64, len: u64) -> io::Result<()> {
        if part == Part::Zeroes {
            let has_base = at < self.to.header().base_len();
            return if has_base { self.to.zero(&mut self.payload, at, len) } else { Ok(()) };
        }
        self.room.resize(usize::try_from(len).unwrap_or_default(), 0);
        from.read(at, &mut self.room)?;
        for (offset, is_zero, bytes) in zeroes_apart(&self.room) {
            let (at, len) = (at.saturating_add(offset), bytes.len() as u64);
            if !is_zero {
                self.to.write(&mut self.payload, at, bytes)?;
            } else if at < self.to.header().base_len() {
                self.to.zero(&mut self.payload, at, len)?;
            }
        }
        Ok(())
    }
}

const BLOCK: u64 = 4096;

fn first_part(of: &Offline, at: u64, len: u64) -> (u64, Part) {
    of.layer.as_ref().map_or((len, Part::Own(at)), |layer| layer.first_part(at, len))
}

/// The new file, which goes unless it has taken the fork's place.
struct Made<'a> {
    path: &'a Path,
    file: File,
    is_kept: bool,
}

impl<'a> Made<'a> {
    fn at(path: &'a Path, len: u64) -> Result<Self> {
        let created = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = created.map_err(|e| refused(format!("{} cannot be made", path.display())).with_source(e))?;
        let made = Self { path, file, is_kept: false };
        made.file.set_len(len).map_err(|e| refused(format!("it cannot have {len} bytes")).with_source(e))?;
        Ok(made)
    }

    /// The header comes last: without it, nobody takes the rest for a volume. It is the fork's own, with its keys and what builds on it.
    fn take_place_of(mut self, fork: &Offline, path: &Path) -> Result<()> {
        let old = &fork.payload.file;
        note(fork)?;
        let _lock = HeaderLock::take(old)?;
        check_place(path, old)?;
        let header = Header::read(old)?;
        let failed = |e| refused("it cannot be made stable").with_source(e);
        copy_data(old, &self.file, header.len()?).and_then(|()| self.file.sync_all()).map_err(failed)?;
        fs::rename(self.path, path).map_err(|e| refused("its new file cannot be renamed").with_source(e))?;
        self.is_kept = true;
        sync_folder(path).map_err(failed)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// Copies the beginning of a file, but for its holes.
fn copy_data(from: &File, to: &File, end: u64) -> io::Result<()> {
    let mut at = 0;
    while let Some((start, stop)) = next_data(from, at, end)? {
        copy_range(from, to, start..stop)?;
        at = stop;
    }
    Ok(())
}

/// Notes in what the base builds on that the fork builds on it as well.
fn note(fork: &Offline) -> Result<()> {
    let below = fork.base.as_ref().and_then(|base| base.base.as_ref());
    let (Some(below), Some(layer)) = (below, &fork.layer) else { return Ok(()) };
    let own = layer.header().identity;
    let note = || {
        let file = File::options().read(true).write(true).open(&below.path).map_err(unopened)?;
        let _lock = HeaderLock::take(&file)?;
        let mut header = Header::read(&file)?;
        let same = |file: &File| file.metadata().map(|found| (found.dev(), found.ino())).map_err(unopened);
        if same(&file)? != same(&below.payload.file)? {
            return Err(refused("it was replaced by another file"));
        }
        let Some(identity) = header.base_identity() else { return Err(refused("it is no base any more")) };
        let is_noted = header.forks().is_none_or(|forks| forks.contains(&own));
        if is_noted { Ok(()) } else { header.make_base(&file, identity, own) }
    };
    note().map_err(|e: Error| e.about(&format!("base {}", below.path.display())))
}
