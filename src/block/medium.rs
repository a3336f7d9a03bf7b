//! Files and block devices as media of disks: which ones will do, how large they are, and who else uses them.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::backend::DiskInfo;
use super::request::SECTOR;
use crate::error::{Error, ErrorKind, Result};
use crate::event::TURN_BYTES;
use crate::memory::HostBuffer;
use crate::sys::{
    DirectAlignment, appends, direct_alignment, is_direct, is_writable, open_device_alone, open_disk, try_lock,
};

/// Two disks of the same identity are the same storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity {
    File { device: u64, inode: u64 },
    BlockDevice(u64),
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::BlockDevice(metadata.rdev())
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }
}

/// How a disk's file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) write: bool,
    /// Past the page cache.
    pub(super) direct: bool,
}

/// Reopens a file that was given by its path if it is to be used otherwise than for buffered reading, and is still the same
/// one. A file that was opened by the caller must fit.
pub(super) fn ready(name: &str, file: File, path: Option<&Path>, access: Access) -> Result<File> {
    let Some(path) = path else {
        check_writable(name, &file, access.write)?;
        check_direct(name, &file, access.direct)?;
        return Ok(file);
    };
    if !access.write && !access.direct {
        return Ok(file);
    }
    let is_device = metadata(name, &file)?.file_type().is_block_device();
    let reopened = if is_device && access.write {
        open_device_alone(path, access.direct)
    } else {
        open_disk(path, access.write, access.direct)
    };
    let reopened = reopened.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::InvalidInput if access.direct => NO_DIRECT_HINT,
            io::ErrorKind::ResourceBusy => BUSY_HINT,
            _ if access.write => READ_ONLY_HINT,
            _ => "cannot be opened",
        };
        refused(name, hint).with_source(e)
    })?;
    if Identity::of(&metadata(name, &reopened)?) != Identity::of(&metadata(name, &file)?) {
        return Err(refused(name, "was replaced by another file since it was given"));
    }
    Ok(reopened)
}

fn check_writable(name: &str, file: &File, wanted: bool) -> Result<()> {
    let writable = is_writable(file).map_err(|e| refused(name, "cannot be used").with_source(e))?;
    if writable || !wanted { Ok(()) } else { Err(refused(name, READ_ONLY_HINT)) }
}

fn check_direct(name: &str, file: &File, wanted: bool) -> Result<()> {
    let direct = is_direct(file).map_err(|e| refused(name, "cannot be used").with_source(e))?;
    let hint = "was opened without O_DIRECT, which direct I/O needs";
    if direct || !wanted { Ok(()) } else { Err(refused(name, hint)) }
}

/// What a file is as a disk.
pub(super) struct Medium {
    pub(super) info: DiskInfo,
    /// If its data go past the page cache.
    pub(super) alignment: Option<DirectAlignment>,
}

/// Finds out what a file is as a disk.
pub(super) fn look_at(name: &str, file: &File) -> Result<Medium> {
    let unusable = |e: io::Error| refused(name, "cannot be used").with_source(e);
    if appends(file).map_err(unusable)? {
        return Err(refused(name, "was opened with O_APPEND, so that whatever is written to it would go to its end"));
    }
    let direct = is_direct(file).map_err(unusable)?;
    let mut info = DiskInfo::new(size(name, file)?);
    info.max_transfer = if direct { MAX_DIRECT_TRANSFER } else { MAX_TRANSFER };
    let alignment = direct.then(|| direct_alignment(file));
    if let Some(DirectAlignment { offset, .. }) = alignment {
        info.block_size = offset.max(info.block_size);
        if !info.capacity.is_multiple_of(info.block_size.into()) {
            let message = format!("has {} bytes, direct I/O on it needs a multiple of {offset}", info.capacity);
            return Err(refused(name, &message));
        }
    }
    Ok(Medium { info, alignment })
}

/// Copied by the I/O thread itself, if the page cache has it: as much as a turn may move.
const MAX_TRANSFER: u64 = TURN_BYTES;
/// Moved by the storage; bounced in one buffer, if need be.
const MAX_DIRECT_TRANSFER: u64 = HostBuffer::MAX_LEN as u64;

const NO_DIRECT_HINT: &str = "is on a file system without direct I/O";
const BUSY_HINT: &str =
    "is in use: by another VM or program, as a file system that is mounted, as swap, or by the device mapper";
const READ_ONLY_HINT: &str = "is not writable (a disk that the guest only reads must be made read-only)";

pub(super) fn lock(name: &str, file: &File, read_only: bool) -> Result<()> {
    match try_lock(file, !read_only) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(in_use(name, read_only)),
        // Not every file system has locks, and they only guard against mistakes.
        _ => Ok(()),
    }
}

pub(super) fn in_use(name: &str, read_only: bool) -> Error {
    let why = if read_only {
        "is in use for writing by another VM or process"
    } else {
        "is in use by another VM or process, and only one may write to it"
    };
    refused(name, why)
}

/// The size in whole sectors, in bytes. The metadata of a block device does not say it.
pub(super) fn size(name: &str, mut file: &File) -> Result<u64> {
    let bytes = file.seek(SeekFrom::End(0)).map_err(|e| refused(name, "has no size").with_source(e))?;
    match bytes {
        0 => Err(refused(name, "is empty")),
        1..SECTOR => Err(refused(name, &format!("has {bytes} bytes, the least is one sector of {SECTOR} bytes"))),
        _ => Ok(bytes.saturating_sub(bytes.checked_rem(SECTOR).unwrap_or(0))),
    }
}

pub(super) fn metadata(name: &str, file: &File) -> Result<Metadata> {
    file.metadata().map_err(|e| refused(name, "cannot be used").with_source(e))
}

pub(super) fn check_type(name: &str, metadata: &Metadata) -> Result<()> {
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

pub(super) fn refused(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Disk, format!("disk {name} {why}"))
}
