//! How VMs end, and waiting for that.

use std::ffi::c_char;
use std::time::Duration;

use super::convert::{Out, OutText};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_INVALID_STATE};
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::board::ResetCause;
use crate::vm::{Exit, Status};

/// The guest turned itself off.
pub const VMCELL_EXIT_SHUTDOWN: i32 = 1;
/// The guest asked for a restart (a reboot, a panic, a crash of its CPU); vmcell_vm_reset_cause tells how. A VM starts
/// only once; make another one.
pub const VMCELL_EXIT_RESET: i32 = 2;
/// vmcell_vm_stop or vmcell_vm_free ended it.
pub const VMCELL_EXIT_STOPPED: i32 = 3;
/// The guest did something that cannot be served, or the host failed; vmcell_vm_exit_error tells what happened.
pub const VMCELL_EXIT_FAILED: i32 = 4;
/// The guest's kernel said that it panicked, by the register that QEMU calls pvpanic (in Linux the module pvpanic-mmio). The
/// VM ends at once; if a crash kernel was loaded, when that is done. Other panics are a VMCELL_EXIT_RESET.
pub const VMCELL_EXIT_PANICKED: i32 = 5;

/// By the reset register that the ACPI tables name.
pub const VMCELL_RESET_ACPI: i32 = 1;
/// By the reset line of the keyboard controller.
pub const VMCELL_RESET_KEYBOARD_CONTROLLER: i32 = 2;
/// By a triple fault: on purpose, or because the guest lost its way.
pub const VMCELL_RESET_TRIPLE_FAULT: i32 = 3;
/// By a request to KVM itself.
pub const VMCELL_RESET_SYSTEM_EVENT: i32 = 4;

/// For vmcell_vm_wait: no time limit.
pub const VMCELL_WAIT_FOREVER: i64 = -1;

fn exit_number(exit: &Exit) -> i32 {
    match exit {
        Exit::Shutdown => VMCELL_EXIT_SHUTDOWN,
        Exit::Reset(_) => VMCELL_EXIT_RESET,
        Exit::Stopped => VMCELL_EXIT_STOPPED,
        Exit::Failed(_) => VMCELL_EXIT_FAILED,
        Exit::Panicked => VMCELL_EXIT_PANICKED,
    }
}

fn reset_number(cause: ResetCause) -> i32 {
    match cause {
        ResetCause::Acpi => VMCELL_RESET_ACPI,
        ResetCause::KeyboardController => VMCELL_RESET_KEYBOARD_CONTROLLER,
        ResetCause::TripleFault => VMCELL_RESET_TRIPLE_FAULT,
        ResetCause::SystemEvent => VMCELL_RESET_SYSTEM_EVENT,
    }
}

/// Tells how an ended VM ended.
fn exit_of(vm: &VmObject) -> FfiResult<Exit> {
    if vm.vm().status() != Status::Ended {
        return Err(Failure::new(VMCELL_ERROR_INVALID_STATE, "the VM has not ended"));
    }
    Ok(vm.vm().wait_timeout(Duration::ZERO)?)
}

fn ended_otherwise(exit: &Exit) -> Failure {
    Failure::new(VMCELL_ERROR_INVALID_STATE, format!("the VM ended otherwise: {exit:?}"))
}

/// Blocks until the VM has ended, for at most `timeout_ms` milliseconds: 0 only looks, VMCELL_WAIT_FOREVER (-1) has no
/// limit. Writes how the VM ended, one of VMCELL_EXIT_*, to `exit_kind`, which may be NULL. By then the guest's output
/// has reached its console, unless a reader took too long and missed it. Any number of threads may wait, any number of
/// times, also before the VM is started.
///
/// Errors: TIMEOUT if it had not ended by then; INVALID_STATE in a function that an I/O thread calls, unless `timeout_ms` is
/// 0; BAD_VALUE below -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_wait(
    vm: *const VmObject,
    timeout_ms: i64,
    exit_kind: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let vm = objects::get(vm)?;
        let ended = match u64::try_from(timeout_ms) {
            Ok(limit) => vm.vm().wait_timeout(Duration::from_millis(limit))?,
            Err(_) if timeout_ms == VMCELL_WAIT_FOREVER => vm.vm().wait()?,
            Err(_) => {
                let message = format!("timeout_ms is {timeout_ms}, allowed are -1 (no limit) and 0 or more");
                return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
            }
        };
        // SAFETY: the header demands NULL or a place for the result.
        if let Ok(exit_kind) = unsafe { Out::new(exit_kind, "exit_kind") } {
            exit_kind.write(exit_number(&ended));
        }
        Ok(())
    })
}

/// Tells how the guest asked for a restart, one of VMCELL_RESET_*. Never blocks.
///
/// Errors: INVALID_STATE if the VM has not ended, or ended otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_reset_cause(
    vm: *const VmObject,
    cause: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let cause = unsafe { Out::new(cause, "cause") }?;
        match exit_of(&*objects::get(vm)?)? {
            Exit::Reset(reset) => cause.write(reset_number(reset)),
            other => return Err(ended_otherwise(&other)),
        }
        Ok(())
    })
}

/// Gives the error that a failed VM ended with: a new object, which the caller frees with vmcell_error_free. (`error`
/// is for a failure of this very call.) Never blocks.
///
/// Errors: INVALID_STATE if the VM has not ended, or ended otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_exit_error(
    vm: *const VmObject,
    failure: *mut *mut ErrorObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let failure = unsafe { Out::new(failure, "failure") }?;
        match exit_of(&*objects::get(vm)?)? {
            Exit::Failed(cause) => failure.insert(ErrorObject::new(cause.into())),
            other => Err(ended_otherwise(&other)),
        }
    })
}

/// Writes how the VM ended in words, such as "the guest turned itself off", with a NUL at its end, to `buffer`, which has room for
/// `capacity` bytes, and its length without the NUL to `length`. If there is not room for all of it, only `length` is written. Never
/// blocks.
///
/// Errors: INVALID_STATE if the VM has not ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_exit_text(
    vm: *const VmObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that much room, and a place for the result.
        let text = unsafe { OutText::new(buffer, capacity, length) }?;
        text.write(&exit_of(&*objects::get(vm)?)?.to_string());
        Ok(())
    })
}

/// Tells whether the guest crashed, or the host failed under it: writes 1 to `is_crash` for VMCELL_EXIT_FAILED,
/// VMCELL_EXIT_PANICKED and a reset by VMCELL_RESET_TRIPLE_FAULT, 0 otherwise.
/// Never blocks.
///
/// Errors: INVALID_STATE if the VM has not ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_exit_is_crash(
    vm: *const VmObject,
    is_crash: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let is_crash = unsafe { Out::new(is_crash, "is_crash") }?;
        is_crash.write(exit_of(&*objects::get(vm)?)?.is_crash().into());
        Ok(())
    })
}
