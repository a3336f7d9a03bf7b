//! VMs.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::config::ConfigObject;
use super::convert::{Out, read_bytes};
use super::guard::{free, guard, guard_value};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::slot::hand_over;
use crate::sys::may_wait;
use crate::vm::{Status, Vm};

/// Made, but not started.
pub const VMCELL_STATUS_READY: i32 = 1;
/// Its vCPUs run.
pub const VMCELL_STATUS_RUNNING: i32 = 2;
/// Its vCPUs and devices stand still.
pub const VMCELL_STATUS_PAUSED: i32 = 3;
/// It has ended; vmcell_vm_wait tells how.
pub const VMCELL_STATUS_ENDED: i32 = 4;
/// It is about to end: no vCPU enters the guest any more, and not all of its threads have left.
pub const VMCELL_STATUS_ENDING: i32 = 5;

/// A virtual machine, run by threads of its own: one per vCPU and one for I/O. Made by vmcell_vm_new; freed by
/// vmcell_vm_free. Any thread may make any call, even while others are in a call with the same VM.
pub struct VmObject(Vm);

impl Object for VmObject {
    const NAME: &'static str = "vmcell_vm";
}

impl VmObject {
    pub(super) fn vm(&self) -> &Vm {
        &self.0
    }
}

fn status_number(status: Status) -> i32 {
    match status {
        Status::Ready => VMCELL_STATUS_READY,
        Status::Running => VMCELL_STATUS_RUNNING,
        Status::Paused => VMCELL_STATUS_PAUSED,
        Status::Ending => VMCELL_STATUS_ENDING,
        Status::Ended => VMCELL_STATUS_ENDED,
    }
}

/// Makes a VM: everything is checked, the kernel is loaded, every device is there, nothing runs. Takes as long as it
/// takes to read the kernel and the initrd. `config` is taken, even if this call fails.
///
/// Errors: each kind of refusal has its own number, VMCELL_ERROR_INVALID_CONFIG to VMCELL_ERROR_HOST; TIMEOUT if a backend's
/// `attach`, or another function that holds its I/O thread, does not return within ten seconds. That thread is left to itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_new(
    config: *mut ConfigObject,
    vm: *mut *mut VmObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let description = hand_over(config)?;
        // SAFETY: the header demands NULL or a place for the result.
        let vm = unsafe { Out::new(vm, "vm") }?;
        vm.insert(VmObject(description.build()?))
    })
}

/// Starts the vCPUs and returns at once.
///
/// Errors: INVALID_STATE unless the VM is ready; HOST if the host provides no more threads, and then the VM has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_start(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.start()?))
}

/// Makes vCPUs and devices stand still. When it returns, no vCPU is in the guest, no request is in flight, and no device
/// touches the guest's memory. Blocks until then, at most for ten seconds. Pausing a paused VM does nothing. The guest's
/// clocks go on.
///
/// Errors: INVALID_STATE if the VM was not started, has ended, or ends meanwhile, and in a function that an I/O thread calls;
/// TIMEOUT if a device still had requests in flight after ten seconds, and then the VM goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_pause(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.pause()?))
}

/// As vmcell_vm_pause, but blocks for at most `limit_ms` milliseconds.
///
/// Errors: as vmcell_vm_pause; TIMEOUT if a device still had requests in flight, or a vCPU had not left the guest, at the limit, and
/// then the VM goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_pause_within(vm: *mut VmObject, limit_ms: u32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.pause_within(Duration::from_millis(limit_ms.into()))?))
}

/// Lets vCPUs and devices go on where they were; does nothing to a running VM. Blocks while another thread is in
/// vmcell_vm_pause, until a suspension that is under way was broken off, and while the RAM of a suspended VM is read.
///
/// Errors: INVALID_STATE if the VM was not started or has ended, and in a function that an I/O thread calls while another
/// thread is in vmcell_vm_pause.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_resume(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.resume()?))
}

/// Ends the VM from outside, whatever its state. Once it returns, the guest executes nothing. Returns within 100 ms,
/// whatever the guest or the host does. The guest gets no chance to write its disks back. A VM that has ended stays as
/// it is. Threads in vmcell_vm_wait return. If threads of the VM have something left to do outside of the guest, such as the
/// last output to a slow reader, its status is VMCELL_STATUS_ENDING for a moment.
///
/// Errors: TIMEOUT if the host, which is busy, did not run a vCPU's thread in time. The thread was told to leave, and enters
/// the guest no more; vmcell_vm_wait and vmcell_vm_free wait for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_stop(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.stop()?))
}

/// Asks the guest to shut down, as the power button of a PC does, and returns at once. A guest in which nothing listens to the
/// button goes on: wait with a time limit, then call vmcell_vm_stop. Linux hears it once the driver `button` is loaded; systemd's
/// logind then turns the machine off. A paused guest is asked when it goes on.
///
/// Errors: INVALID_STATE if the VM was not started or has ended, and if the guest has no ACPI tables
/// (VMCELL_DISCOVERY_CMDLINE), which is where it finds the button.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_request_shutdown(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.0.request_shutdown()?))
}

/// Tells the VM to end, as vmcell_vm_stop does, and does not wait for that: vmcell_vm_wait does, or the descriptor of
/// vmcell_vm_ended_fd tells when it has. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_request_stop(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(vm)?.0.request_stop();
        Ok(())
    })
}

/// Tells what the VM is doing, one of VMCELL_STATUS_*. It is VMCELL_STATUS_ENDED exactly when vmcell_vm_wait returns at once.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_status(vm: *const VmObject, status: *mut i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let status = unsafe { Out::new(status, "status") }?;
        status.write(status_number(objects::get(vm)?.0.status()));
        Ok(())
    })
}

/// Gives an eventfd that is readable once the VM has ended, for poll, epoll, or an event loop in place of
/// vmcell_vm_wait; so one thread waits for many VMs. It is borrowed, and valid until the VM is freed (dup it to keep it longer). Do not close it, and do
/// not read from it, or others miss the event. It stays readable. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_ended_fd(vm: *const VmObject, fd: *mut i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let fd = unsafe { Out::new(fd, "fd") }?;
        fd.write(objects::get(vm)?.0.ended_fd().as_raw_fd());
        Ok(())
    })
}

/// Types `len` bytes into the guest's console, and writes to `taken` how many of them there was room for, 0 to `len`.
/// The caller sends the rest again once the guest has read: try again some milliseconds later. `bytes` may be NULL if
/// `len` is 0; they are copied. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_write_console(
    vm: *mut VmObject,
    bytes: *const u8,
    len: usize,
    taken: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let taken = unsafe { Out::new(taken, "taken") }?;
        // SAFETY: the header demands NULL or that many bytes.
        let bytes = unsafe { read_bytes(bytes, len, "bytes") }?;
        taken.write(objects::get(vm)?.0.write_console(bytes));
        Ok(())
    })
}

/// Writes to `bytes` how many bytes of the guest's output were dropped so far, because the other end of the console did
/// not take them. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_console_dropped(
    vm: *const VmObject,
    bytes: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let bytes = unsafe { Out::new(bytes, "bytes") }?;
        bytes.write(objects::get(vm)?.0.console_dropped());
        Ok(())
    })
}

/// Stops the VM, as vmcell_vm_stop does, and frees it: when this returns, no thread, descriptor or memory of it
/// remains. May block for as long as a disk, or a function of a console or a backend, holds one of its threads, and until
/// its backends are destroyed. In a function that an I/O thread calls, it is the same as vmcell_vm_discard. NULL is fine.
///
/// If other threads are in a call with this VM, it is stopped and their calls return (vmcell_vm_wait gives
/// VMCELL_EXIT_STOPPED); the last of them frees what remains, maybe after this call has returned.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_vm_free(vm: *mut VmObject) -> i32 {
    free(vm, |vm| {
        // It need not be dropped here: threads that still wait for it must see its end.
        vm.0.request_stop();
        if may_wait() {
            let _ = vm.0.stop();
        }
    })
}

/// Stops the VM, as vmcell_vm_request_stop does, and frees it on a thread that is made for this and ends then. Never blocks. NULL
/// is fine. If other threads are in a call with this VM, their calls return, and the last of them has it freed.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_vm_discard(vm: *mut VmObject) -> i32 {
    free(vm, |vm| {
        // Callers that still use it must see its end.
        vm.0.request_stop();
        if let Some(VmObject(vm)) = Arc::into_inner(vm) {
            vm.discard();
        }
    })
}

/// Returns how many VMs of this process were discarded, or freed in a function that an I/O thread calls, and are not freed
/// entirely yet. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_vms_discarded() -> u64 {
    guard_value(0, || Vm::discarded() as u64)
}

/// Gives an eventfd that is readable while vmcell_vms_discarded gives 0, for an event loop that ends when all VMs are freed. It is the same
/// one each time, borrowed, and stays open as long as the process lives. Do not close it, and do not read from it. Never blocks.
///
/// Errors: HOST if the process may open no more descriptors, for the first call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vms_discards_done_fd(fd: *mut i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let fd = unsafe { Out::new(fd, "fd") }?;
        fd.write(Vm::discards_done_fd()?.as_raw_fd());
        Ok(())
    })
}
