//! Disks.

use std::ffi::c_char;
use std::fs::File;

use super::convert::{Out, choice, read_path, read_text, take_fd};
use super::guard::{free, guard};
use super::io_thread::IoThreadObject;
use super::limit_group::{LimitGroupObject, limits};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, update};
use crate::block::Disk;
use crate::config::Engine;
use crate::volume::{Volume, VolumeHandle};

/// The io_uring if the host has it, otherwise ordinary system calls. The default.
pub const VMCELL_ENGINE_AUTO: i32 = 0;

/// Ordinary system calls. Requests that wait for the storage do so one after another.
pub const VMCELL_ENGINE_SYNC: i32 = 1;

/// The io_uring of the disk's I/O thread (Linux 5.18 or later). Making the VM fails if the host has none.
pub const VMCELL_ENGINE_URING: i32 = 2;

pub(super) const ENGINES: [(i32, Engine); 3] =
    [(VMCELL_ENGINE_AUTO, Engine::Auto), (VMCELL_ENGINE_SYNC, Engine::Sync), (VMCELL_ENGINE_URING, Engine::Uring)];

/// What a guest gets as a disk: a raw file, a block device, or a backend of the caller's own. Made by vmcell_disk_new,
/// vmcell_disk_new_from_fd or vmcell_disk_new_backend; taken by vmcell_config_add_disk or vmcell_disk_handle_replace; freed by
/// vmcell_disk_free.
pub struct DiskObject(Slot<Disk>, Option<VolumeHandle>);

impl DiskObject {
    pub(super) fn new(disk: Disk) -> Self {
        Self(Slot::new(disk), None)
    }

    pub(super) fn on_volume(volume: Volume) -> Self {
        let handle = volume.handle();
        Self(Slot::new(volume.into_disk()), Some(handle))
    }

    pub(super) fn volume(&self) -> Option<&VolumeHandle> {
        self.1.as_ref()
    }
}

impl Object for DiskObject {
    const NAME: &'static str = "vmcell_disk";
}

impl Described for DiskObject {
    type Value = Disk;

    fn slot(&self) -> &Slot<Disk> {
        &self.0
    }
}

/// Opens a raw file or block device by its path, which may hold any bytes. The file is opened for reading now, and for
/// writing when the VM is made, unless the disk is read-only by then. Its size, in whole sectors of 512 bytes, is taken
/// when the VM is made. Its content is never looked at: the library never guesses an image format. Does not wait,
/// whatever the path leads to.
///
/// Errors, which name the path, as the disk has no number before it is added: DISK if the file is missing, may not be read, is empty, or is neither a regular file nor a block device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_new(
    path: *const c_char,
    disk: *mut *mut DiskObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let disk = unsafe { Out::new(disk, "disk") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        disk.insert(DiskObject::new(Disk::open(path)?))
    })
}

/// As vmcell_disk_new, for a file that the caller has open, for reading and writing unless the disk will be read-only.
/// `fd` is taken: it is closed with the disk or with the VM that got the disk, even if this call fails.
///
/// Errors: BAD_DESCRIPTOR; DISK if the file is empty, or is neither a regular file nor a block device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_new_from_fd(
    fd: i32,
    disk: *mut *mut DiskObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header says that the descriptor is taken.
        let fd = unsafe { take_fd(fd, "fd") }?;
        // SAFETY: the header demands NULL or a place for the result.
        let disk = unsafe { Out::new(disk, "disk") }?;
        disk.insert(DiskObject::new(Disk::from_file(File::from(fd))?))
    })
}

/// Sets whether the guest may only read: 0 means no (the default), anything else yes. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_read_only(
    disk: *mut DiskObject,
    read_only: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(disk, |disk| disk.read_only(read_only != 0)))
}

/// Sets the serial number that the guest sees, at most 20 printable ASCII characters, copied; the default is empty. Any
/// other is refused when the VM is made. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_serial(
    disk: *mut DiskObject,
    serial: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let serial = unsafe { read_text(serial, "serial") }?;
        update(disk, |disk| disk.serial(serial))
    })
}

/// Sets how requests reach the file, one of VMCELL_ENGINE_*. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_engine(
    disk: *mut DiskObject,
    engine: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let engine = choice("engine", engine, &ENGINES)?;
        update(disk, |disk| disk.engine(engine))
    })
}

/// Sets whether the guest's data go past the host's page cache (O_DIRECT): 0 means no (the default), anything else yes. The
/// guest sees blocks of the size that the storage demands. Never blocks.
///
/// Errors: when the VM is made, DISK if the file system has no direct I/O, the file's size is not a multiple of that block size,
/// or the file was given by a descriptor that was opened without O_DIRECT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_direct(
    disk: *mut DiskObject,
    direct: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(disk, |disk| disk.direct(direct != 0)))
}

/// Sets how many queues the guest's driver may use, 1 to 16. The default is one for each vCPU, but no more than four. One I/O
/// thread serves all queues of a disk, in turn. Any other number is refused when the VM is made. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_queues(
    disk: *mut DiskObject,
    queues: u16,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(disk, |disk| disk.queues(queues)))
}

/// Serves the disk on this I/O thread rather than on the VM's own. `io_thread` is borrowed for the call: it may be
/// freed at any time, and the thread lives for as long as something uses it. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_io_thread(
    disk: *mut DiskObject,
    io_thread: *const IoThreadObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let io_thread = objects::get(io_thread)?.thread();
        update(disk, |disk| disk.io_thread(io_thread))
    })
}

/// Limits what the guest may do with the disk: so many operations a second and so many at once, and the same of bytes, each 1 to 2^40, or
/// no limit if both numbers of a pair are 0, which is the default. A read, a write, a flush, and each range of a discard is an operation;
/// bytes are those of reads, writes and zeroes. A request that exceeds a limit waits, and those behind it; other devices do not. Numbers
/// above 2^40 are refused when the VM is made. Never blocks.
///
/// Errors: BAD_VALUE if one number of a pair is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_limits(
    disk: *mut DiskObject,
    operations_per_second: u64,
    operations_burst: u64,
    bytes_per_second: u64,
    bytes_burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let limits = limits([operations_per_second, operations_burst], [bytes_per_second, bytes_burst])?;
        update(disk, |disk| disk.limits(limits))
    })
}

/// Has the disk keep to the limits of a group, besides its own. `group` is borrowed for the call: it may be freed at any time. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_limit_group(
    disk: *mut DiskObject,
    group: *const LimitGroupObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let group = objects::get(group)?.group();
        update(disk, |disk| disk.limit_group(&group))
    })
}

/// Vouches that the functions of the disk's backend never block, so that the VM's own I/O thread may call them, rather than a
/// thread of the disk's own. Means nothing to a disk on a file, which never blocks its thread, nor if
/// vmcell_disk_set_io_thread chooses a thread. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_set_never_blocks(disk: *mut DiskObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(disk, Disk::never_blocks))
}

/// Frees a disk that no VM got, and closes its file, or destroys its backend, for which it waits. NULL is fine.
///
/// Errors: BAD_HANDLE, also if it was handed over to a configuration.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_disk_free(disk: *mut DiskObject) -> i32 {
    free(disk, drop)
}
