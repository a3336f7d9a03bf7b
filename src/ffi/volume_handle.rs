//! Encrypted volumes in use: their snapshots, and their growth.

use std::ffi::c_char;
use std::time::Duration;

use super::convert::{Out, read_path};
use super::disk::DiskObject;
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::volume::KeyObject;
use crate::volume::{VolumeHandle, VolumeSnapshot};

/// Takes snapshots of a volume and makes it larger while its VM runs. Made by vmcell_volume_handle_new; freed by vmcell_volume_handle_free, before or after the disk or
/// its VM. Any thread may make any call.
pub struct VolumeHandleObject(VolumeHandle);

impl Object for VolumeHandleObject {
    const NAME: &'static str = "vmcell_volume_handle";
}

/// A snapshot of a volume that is prepared. Made by vmcell_volume_handle_prepare_snapshot; freed by vmcell_volume_snapshot_free, which leaves the
/// volume as it was unless vmcell_volume_snapshot_take was called. If it was called and nobody waits, the old file stays locked until the VM ends.
pub struct VolumeSnapshotObject(VolumeSnapshot);

impl Object for VolumeSnapshotObject {
    const NAME: &'static str = "vmcell_volume_snapshot";
}

/// Makes a handle to the volume of a disk that vmcell_disk_new_volume has made. `disk` is borrowed. Never blocks.
///
/// Errors: BAD_VALUE if the disk is none of a volume.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_handle_new(
    disk: *const DiskObject,
    handle: *mut *mut VolumeHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let handle = unsafe { Out::new(handle, "handle") }?;
        let volume = objects::get(disk)?.volume().cloned();
        let none = || Failure::new(VMCELL_ERROR_BAD_VALUE, "the disk is none of vmcell_disk_new_volume");
        handle.insert(VolumeHandleObject(volume.ok_or_else(none)?))
    })
}

/// Takes a snapshot of a volume in use: what is in its file stays as it is, and the VM goes on writing to a new file at `path`, a fork that `key` opens.
/// From now on, that is the file to open for the VM; the old one may be read and forked, and both stay where they are, or move
/// together. After a crash in the middle, the new file has all that the VM had made stable, or, if that one is refused, the old one has it.
/// `pause_us` gets for how long the disk stood still, in microseconds, unless it is NULL. Blocks for as long as making a fork takes, and
/// then until the disk was served, at most `limit_ms` milliseconds, and until the old file is stable, at most as long again.
///
/// Errors: VOLUME if `path` exists or cannot be written, the volume is read-only, has a header of its own or blocks of less than 4096 bytes, lies
/// over 16 others, or its file was replaced; TIMEOUT if the disk was not served, because its VM is not there or paused; INVALID_STATE while
/// another snapshot is prepared, and in a function that an I/O thread calls. If the file exists after an error, the snapshot was taken, and only
/// the old file's data are not known to be stable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_handle_snapshot(
    handle: *const VolumeHandleObject,
    path: *const c_char,
    key: *const KeyObject,
    limit_ms: u32,
    pause_us: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let (handle, key) = (objects::get(handle)?, objects::get(key)?);
        let pause = handle.0.snapshot(path, key.key(), Duration::from_millis(limit_ms.into()))?;
        // SAFETY: the header demands NULL or a place for a number.
        unsafe { tell(pause, pause_us) }
    })
}

/// Makes a volume larger while its VM runs, to `size` bytes, whether it is a fork or not. The guest sees the new size when this returns. What is added is
/// zeroes in a fork, and noise otherwise until it is written. In a crash, the volume is as large as before, or as it was to be. Blocks while the file is
/// written, 256 KiB for each GiB that a fork grows by, and until the disk was served, at most `limit_ms` milliseconds.
///
/// Errors: VOLUME if it has more room already, `size` is no multiple of its blocks or too large, its header limits its size, it is read-only or has a
/// header of its own, a fork has grown in use 64 times since vmcell_volume_grow_fork was last called for it, or the file cannot be written: then the call may be made again; TIMEOUT if the disk was not served: the file is larger
/// then, and the guest sees that once it is; INVALID_STATE while a snapshot is prepared or another thread has it grow, and in a function that an I/O
/// thread calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_handle_grow(
    handle: *const VolumeHandleObject,
    size: u64,
    limit_ms: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(handle)?.0.grow(size, Duration::from_millis(limit_ms.into()))?))
}

/// Opens what the volume builds on anew, and has its VM go on with that while it runs: after vmcell_volume_absorb, the chain is shorter then, and the space
/// of files that were removed comes back. Blocks until the disk was served, at most `limit_ms` milliseconds.
///
/// Errors: VOLUME if it builds on no other volume, what it builds on cannot be opened, or is another one than it was; TIMEOUT if the disk was not served;
/// INVALID_STATE while a snapshot is prepared or it grows, if what it wrote before its last snapshot is not stable yet, and in a function that an I/O
/// thread calls. Then the VM goes on with the files that it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_handle_reopen(
    handle: *const VolumeHandleObject,
    limit_ms: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(handle)?.0.reopen(Duration::from_millis(limit_ms.into()))?))
}

/// Does what takes time of vmcell_volume_handle_snapshot, so that vmcell_volume_snapshot_take takes none: in the function of vmcell_vm_snapshot, for instance,
/// so that RAM and disks are of one instant. The VM must have been made, and not be paused. Blocks for as long as making a fork takes, and
/// until the disk was served, at most `limit_ms` milliseconds.
///
/// Errors: those of vmcell_volume_handle_snapshot. The volume is as it was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_handle_prepare_snapshot(
    handle: *const VolumeHandleObject,
    path: *const c_char,
    key: *const KeyObject,
    limit_ms: u32,
    snapshot: *mut *mut VolumeSnapshotObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let snapshot = unsafe { Out::new(snapshot, "snapshot") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        let (handle, key) = (objects::get(handle)?, objects::get(key)?);
        let limit = Duration::from_millis(limit_ms.into());
        snapshot.insert(VolumeSnapshotObject(handle.0.prepare_snapshot(path, key.key(), limit)?))
    })
}

/// Frees a handle. The disk stays as it is. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_volume_handle_free(handle: *mut VolumeHandleObject) -> i32 {
    free(handle, drop)
}

/// Takes a snapshot that is prepared: what the disk begins from now on goes to the new file. A second call does nothing. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_snapshot_take(
    snapshot: *const VolumeSnapshotObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(snapshot)?.0.take();
        Ok(())
    })
}

/// Waits until a snapshot is taken and the old file is stable; then it may be read and forked. `pause_us` is as in
/// vmcell_volume_handle_snapshot. May be called again. Blocks for at most `limit_ms` milliseconds.
///
/// Errors: TIMEOUT if that has not come, because the VM is paused or the storage is slow; INVALID_STATE if vmcell_volume_snapshot_take was not called, the
/// VM has ended, and in a function that an I/O thread calls; VOLUME if the old file's data cannot be made stable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_volume_snapshot_wait(
    snapshot: *const VolumeSnapshotObject,
    limit_ms: u32,
    pause_us: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let pause = objects::get(snapshot)?.0.wait(Duration::from_millis(limit_ms.into()))?;
        // SAFETY: the header demands NULL or a place for a number.
        unsafe { tell(pause, pause_us) }
    })
}

/// Frees a snapshot. If it was not taken, the new file is removed, for which this blocks, unless the VM has ended and that file is in use or was
/// written to. NULL is fine.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_volume_snapshot_free(snapshot: *mut VolumeSnapshotObject) -> i32 {
    free(snapshot, drop)
}

/// # Safety
/// `pause_us` is NULL or a place for a number.
unsafe fn tell(pause: Duration, pause_us: *mut u64) -> FfiResult<()> {
    if !pause_us.is_null() {
        let us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        // SAFETY: the caller vouches for it.
        unsafe { Out::new(pause_us, "pause_us") }?.write(us);
    }
    Ok(())
}
