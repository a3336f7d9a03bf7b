//! Handles by which a disk is changed while its VM runs.

use std::time::Duration;

use super::convert::Out;
use super::disk::{DiskObject, VMCELL_ENGINE_AUTO, VMCELL_ENGINE_SYNC, VMCELL_ENGINE_URING};
use super::guard::{free, guard};
use super::limit_group::limits;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::{hand_over, look};
use super::vm::VmObject;
use crate::block::DiskHandle;

/// Changes a disk while its VM runs. Made by vmcell_disk_handle_new or vmcell_disk_handle_new_from_vm; freed by vmcell_disk_handle_free, before or after the
/// disk or its VM.
pub struct DiskHandleObject(DiskHandle);

impl Object for DiskHandleObject {
    const NAME: &'static str = "vmcell_disk_handle";
}

/// Makes a handle to a disk that is not handed over yet, and is read-only already if it will be. `disk` is borrowed. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_new(
    disk: *const DiskObject,
    handle: *mut *mut DiskHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let handle = unsafe { Out::new(handle, "handle") }?;
        handle.insert(DiskHandleObject(look(disk, crate::block::Disk::handle)?))
    })
}

/// Makes a handle to a disk of a VM, counted from 0: first those of a JSON text, then those that were added. `vm` is borrowed. Never
/// blocks.
///
/// Errors: INVALID_CONFIG if the VM has no such disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_new_from_vm(
    vm: *const VmObject,
    index: usize,
    handle: *mut *mut DiskHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let handle = unsafe { Out::new(handle, "handle") }?;
        handle.insert(DiskHandleObject(objects::get(vm)?.vm().disk_handle(index)?))
    })
}

/// Says that the size of the disk's file or block device may have changed; a backend is asked by its `refresh`. The disk looks
/// at it soon, and tells the guest's driver if so. Does nothing once the VM has ended. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_refresh(
    handle: *mut DiskHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(handle)?.0.refresh();
        Ok(())
    })
}

/// Sets other limits for the disk, as vmcell_disk_set_limits does, at once and also for a request that waits. What has not been used of a
/// limit stays, up to its new burst. Does nothing once the VM has ended. Never blocks.
///
/// Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_set_limits(
    handle: *mut DiskHandleObject,
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
        Ok(objects::get(handle)?.0.set_limits(limits)?)
    })
}

/// Tells how the disk's requests reach its file: VMCELL_ENGINE_URING or VMCELL_ENGINE_SYNC; VMCELL_ENGINE_AUTO if the disk is not
/// part of a VM yet, or lies on a backend of the caller's. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_engine(
    handle: *const DiskHandleObject,
    engine: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let engine = unsafe { Out::new(engine, "engine") }?;
        engine.write(match objects::get(handle)?.0.status().engine.as_str() {
            "uring" => VMCELL_ENGINE_URING,
            "sync" => VMCELL_ENGINE_SYNC,
            _ => VMCELL_ENGINE_AUTO,
        });
        Ok(())
    })
}

/// Exchanges what the disk lies on for that of another disk, whose other settings mean nothing. Requests in flight end on the
/// old one first; what the guest has not flushed may or may not be on it. The old one is closed, or destroyed, before this
/// returns. Blocks until the exchange is made, for at most `limit_ms` milliseconds. `disk` is taken, even if this call fails.
///
/// Errors: TIMEOUT if requests were still in flight, or no VM was there, at the limit; INVALID_STATE if the VM has ended, and in a function that an I/O thread calls;
/// INVALID_CONFIG if only one of the two is read-only; DISK as from vmcell_vm_new, and if the new one has larger blocks, which
/// the guest cannot be told. Nothing was exchanged then. After TIMEOUT, the new one is closed, or destroyed, by the old one's I/O
/// thread when it comes to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_handle_replace(
    handle: *mut DiskHandleObject,
    disk: *mut DiskObject,
    limit_ms: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let disk = hand_over(disk)?;
        Ok(objects::get(handle)?.0.replace(disk, Duration::from_millis(limit_ms.into()))?)
    })
}

/// Frees a handle. The disk stays as it is. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_disk_handle_free(handle: *mut DiskHandleObject) -> i32 {
    free(handle, drop)
}
