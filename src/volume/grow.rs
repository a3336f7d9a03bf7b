//! How a volume gets larger: a plain one by its file alone, a fork by its map as well; while a VM uses it or not.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::chain::Opened;
use super::cow::{self, MOST_CAPACITY};
use super::draft::MOST_SIZE;
use super::key::Key;
use super::keys::{HeaderLock, len_of};
use super::length::{check_unlimited, set_len};
use super::luks::Header;
use super::merge;
use super::refused;
use super::snapshot::{Current, Turn, VolumeHandle};
use super::volume::{Volume, unopened};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{check_may_wait, lock};

impl Volume {
    /// Makes a volume's file longer, so that it has room for `size` bytes of data. It may be in use: then tell its disk by
    /// [`DiskHandle::refresh`](crate::DiskHandle::refresh), and the guest may grow its file system; [`VolumeHandle::grow`] does both. What is added reads as noise
    /// until it is written.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it has more room already, `size` is no multiple of its sectors, it is a fork, for which there are
    /// [`grow_fork`](Self::grow_fork) and [`VolumeHandle::grow`], its header is elsewhere or limits its size, or the file cannot be made longer, as that of a
    /// block device cannot.
    pub fn grow(path: impl AsRef<Path>, size: u64) -> Result<()> {
        let path = path.as_ref();
        grow(path, size).map_err(|e| e.about(&format!("volume {}", path.display())))
    }

    /// Makes a fork larger, to `size` bytes; what is added is zeroes. `key` opens it. No VM may use it meanwhile: [`VolumeHandle::grow`] is for one that is in
    /// use, and [`grow`](Self::grow) for volumes that are no forks. Writes a new map, of 256 KiB for each GiB. In a crash, the fork is as large as
    /// before, or as it was to be.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it is no fork, has more room already, `size` is no multiple of 4096 or too large, or the file
    /// cannot grow; those of [`open`](Self::open).
    pub fn grow_fork(path: impl AsRef<Path>, key: &Key, size: u64) -> Result<()> {
        let path = path.as_ref();
        grow_fork(path, key, size).map_err(|e| e.about(&format!("volume {}", path.display())))
    }
}

impl VolumeHandle {
    /// Makes the volume larger while its VM runs, to `size` bytes, whether it is a fork or not. The guest sees the new size when this returns, and may
    /// grow its file system. What is added is zeroes in a fork, and noise otherwise until it is written.
    ///
    /// A fork's map gets a further part for what is added, and nothing that was there moves; 64 times at most, until [`Volume::grow_fork`] makes one
    /// map of all parts. In a crash, the volume is as large as before, or as it was to be, and what the guest has flushed is there.
    ///
    /// Blocks while the file is written, 256 KiB for each GiB that a fork grows by, and until the VM's disk was served, at most `limit`.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn grow(handle: vmcell::volume::VolumeHandle) -> vmcell::Result<()> {
    /// handle.grow(20 << 30, Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) if it has more room already, `size` is no multiple of its blocks or too large, its header limits
    /// its size, it is read-only or has a header of its own, or the file cannot be written: then the volume is as it was, or its file is larger, and this may be
    /// called again;
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the VM's disk was not served within `limit`: the file is larger then, and the guest sees that
    /// once it is;
    /// [`ErrorKind::InvalidState`](crate::ErrorKind::InvalidState) if a snapshot of it is prepared and not taken yet, another thread has it grow, and on
    /// an [I/O thread](crate::event#what-a-callback-may-do).
    pub fn grow(&self, size: u64, limit: Duration) -> Result<()> {
        check_may_wait("grow a volume")?;
        let _turn = Turn::take(&self.shared)?;
        let current = lock(&self.shared.current);
        let current = match &*current {
            Ok(current) => current,
            Err(why) => return Err(refused(format!("the volume does not grow in use: {why}"))),
        };
        let about = |e: Error| e.about(&format!("volume {}", current.path.display()));
        grow_current(current, size).map_err(about)?;
        let heard = self.shared.orders.grows(size).recv_timeout(limit);
        heard.map_err(|_| {
            let message = format!(
                "its file has grown, but the disk was not served for {} ms: its VM is not there, or paused",
                limit.as_millis()
            );
            about(Error::new(ErrorKind::Timeout, message))
        })
    }
}

fn grow_current(current: &Current, size: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(&current.path).map_err(unopened)?;
    let _lock = HeaderLock::take(&file)?;
    let header = current.header(&file)?;
    let Some(growth) = &current.growth else { return grow_plain(&file, &header, size) };
    let (data, key) = (header.data_behind()?, current.key.bytes());
    let opened = Opened { path: &current.path, file: &file, header: &header, data, key, limits: current.limits };
    let mut blocks = opened.payload(&file)?;
    let mut layer = cow::read_header(&mut blocks)?;
    check_size(size, layer.capacity, 4096, MOST_CAPACITY)?;
    // Told once more in any case: the disk may not have been served the last time.
    if size > layer.capacity {
        let longer = layer.lengthened(size)?;
        set_len(&file, data.below(longer.file_len()))?;
        cow::lengthen(&mut blocks, &mut layer, longer)?;
    }
    growth.tell(&layer);
    Ok(())
}

fn grow(path: &Path, size: u64) -> Result<()> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|e| refused("it cannot be opened for writing").with_source(e))?;
    let _lock = HeaderLock::take(&file)?;
    let header = Header::read(&file)?;
    if header.is_layer() {
        return Err(refused(
            "it is a fork, which grows by its key while no VM uses it, or by the handle of its VM's volume",
        ));
    }
    grow_plain(&file, &header, size)
}

fn grow_plain(file: &File, header: &Header, size: u64) -> Result<()> {
    let data = header.data_behind()?;
    check_unlimited(data)?;
    check_size(size, data.capacity(len_of(file)?), data.sector_size as u64, MOST_SIZE)?;
    set_len(file, data.below(size))
}

fn grow_fork(path: &Path, key: &Key, size: u64) -> Result<()> {
    let mut fork = merge::open(path, key, 1)?;
    if fork.layer.is_none() {
        return Err(refused("it builds on no other volume, and grows without a key"));
    }
    let has = fork.capacity();
    check_size(size, has, 4096, MOST_CAPACITY)?;
    if size == has { Ok(()) } else { fork.grow(size) }
}

fn check_size(size: u64, has: u64, block: u64, most: u64) -> Result<()> {
    if size >= has && size.is_multiple_of(block) && size <= most {
        return Ok(());
    }
    let message = format!(
        "a size of {size} bytes was asked for, allowed are multiples of {block}, from the {has} that it has up to {most}"
    );
    Err(refused(message))
}
