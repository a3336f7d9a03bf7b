//! Files and block devices as media of disks: which ones will do, how large they are, and who else uses them.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::request::SECTOR;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{is_writable, open_disk, try_lock};

/// Two disks of the same identity are the same storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    File { device: u64, inode: u64 },
    BlockDevice(u64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::BlockDevice(metadata.rdev())
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }
}

/// Reopens a file for writing, if it is still the same one.
pub(super) fn reopen_writable(name: &str, file: &File, path: &Path) -> Result<File> {
    let writable = open_disk(path, true).map_err(|e| refused(name, READ_ONLY_HINT).with_source(e))?;
    if Identity::of(&metadata(name, &writable)?) != Identity::of(&metadata(name, file)?) {
        return Err(refused(name, "was replaced by another file since it was given"));
    }
    Ok(writable)
}

pub(super) fn check_writable(name: &str, file: File) -> Result<File> {
    let writable = is_writable(&file).map_err(|e| refused(name, "cannot be used").with_source(e))?;
    if writable { Ok(file) } else { Err(refused(name, READ_ONLY_HINT)) }
}

const READ_ONLY_HINT: &str = "is not writable (a disk that the guest only reads must be made read-only)";

pub(super) fn lock(name: &str, file: &File, read_only: bool) -> Result<()> {
    match try_lock(file, !read_only) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(refused(
            name,
            if read_only {
                "is in use for writing by another VM or process"
            } else {
                "is in use by another VM or process, and only one may write to it"
            },
        )),
        // Not every file system has locks, and they only guard against mistakes.
        _ => Ok(()),
    }
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
