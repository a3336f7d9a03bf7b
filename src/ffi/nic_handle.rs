//! Handles by which a network interface is changed while its VM runs.

use super::convert::Out;
use super::guard::{free, guard};
use super::limit_group::limits;
use super::nic::NicObject;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::look;
use super::vm::VmObject;
use crate::net::{Nic, NicHandle};

/// Changes a network interface while its VM runs. Made by vmcell_nic_handle_new or vmcell_nic_handle_new_from_vm; freed
/// by vmcell_nic_handle_free, before or after the interface or its VM.
pub struct NicHandleObject(NicHandle);

impl Object for NicHandleObject {
    const NAME: &'static str = "vmcell_nic_handle";
}

/// Makes a handle to an interface that is not handed over yet. `nic` is borrowed. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_new(
    nic: *const NicObject,
    handle: *mut *mut NicHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let handle = unsafe { Out::new(handle, "handle") }?;
        handle.insert(NicHandleObject(look(nic, Nic::handle)?))
    })
}

/// Makes a handle to an interface of a VM, counted as by vmcell_disk_handle_new_from_vm. `vm` is borrowed. Never blocks.
///
/// Errors: INVALID_CONFIG if the VM has no such interface.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_new_from_vm(
    vm: *const VmObject,
    index: usize,
    handle: *mut *mut NicHandleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let handle = unsafe { Out::new(handle, "handle") }?;
        handle.insert(NicHandleObject(objects::get(vm)?.vm().nic_handle(index)?))
    })
}

/// Connects the link, or cuts it if `up` is 0; it is connected at first. While it is down, what the guest sends is dropped, and
/// it gets no frames. Does nothing once the VM has ended. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_set_link(
    handle: *mut NicHandleObject,
    up: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(handle)?.0.set_link(up != 0);
        Ok(())
    })
}

/// Asks the guest to announce itself to its neighbours, as after a move to another host. A guest whose driver knows no
/// announcements does nothing. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_announce(handle: *mut NicHandleObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(handle)?.0.announce();
        Ok(())
    })
}

/// Sets other limits for the frames that the guest gets, as vmcell_disk_handle_set_limits does for a disk. Never blocks.
///
/// Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_set_receive_limits(
    handle: *mut NicHandleObject,
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
        Ok(objects::get(handle)?.0.set_receive_limits(limits)?)
    })
}

/// Sets other limits for the frames that the guest sends, as vmcell_disk_handle_set_limits does for a disk. Never blocks.
///
/// Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_handle_set_send_limits(
    handle: *mut NicHandleObject,
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
        Ok(objects::get(handle)?.0.set_send_limits(limits)?)
    })
}

/// Frees a handle. The interface stays as it is. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_nic_handle_free(handle: *mut NicHandleObject) -> i32 {
    free(handle, drop)
}
