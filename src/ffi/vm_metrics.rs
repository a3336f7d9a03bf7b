//! What VMs have done so far.

use std::ffi::c_char;

use super::convert::{Out, OutText, read_handles};
use super::failure::FfiResult;
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::vm::{failures_json, openmetrics};

/// Writes what the VM has done so far as a JSON object: UTF-8, with a NUL behind it, to `buffer`, which has room for `capacity` bytes.
/// `length` gets the length of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again
/// with more room, some more than asked for, since numbers grow. 16 KiB suffice for a VM with some devices. `buffer` may be NULL if
/// `capacity` is 0.
///
/// Members are called as in the documentation of the Rust crate (Metrics): "vm", "vcpus", "io_threads", "devices" (with "disk" or
/// "nic"), "console". Times are in nanoseconds. Counters begin at 0 and only go up. A later version may add members. Costs a short
/// system call for each thread of the VM; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_metrics_json(
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
        text.write(&objects::get(vm)?.vm().metrics().to_json());
        Ok(())
    })
}

/// Tells how many bytes the host keeps for the guest's RAM: in `own`, what is this VM's alone, and in `shared`, what it uses of a snapshot, which others
/// that began with it may use as well. Takes about a millisecond for each GiB.
///
/// Errors: HOST without /proc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_memory_use(
    vm: *const VmObject,
    own: *mut u64,
    shared: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let (own, shared) = unsafe { (Out::new(own, "own")?, Out::new(shared, "shared")?) };
        let usage = objects::get(vm)?.vm().memory_use()?;
        own.write(usage.own_bytes);
        shared.write(usage.shared_bytes);
        Ok(())
    })
}

/// Writes what several VMs have done so far as one OpenMetrics text, which ends with "# EOF", for Prometheus for instance. `vms` are
/// `count` VMs. The label `vm` is a VM's name; of several with one name, all but the first have a label `same_name` with a number, too.
/// Otherwise as vmcell_vm_metrics_json.
///
/// Errors: BAD_HANDLE if one of the VMs was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_metrics_openmetrics(
    vms: *const *const VmObject,
    count: usize,
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
        // SAFETY: the header demands NULL or that many handles.
        let vms = unsafe { read_handles(vms, count, "vms") }?;
        let metrics = vms.into_iter().map(|vm| Ok(objects::get(vm)?.vm().metrics()));
        text.write(&openmetrics(&metrics.collect::<FfiResult<Vec<_>>>()?));
        Ok(())
    })
}

/// Writes the devices of the VM that have failed since it was made as a JSON object, whose member "failures" is an array in the order in
/// which the guest finds the devices. Each has the members
/// - "device": "disk0", "nic0" or "device0" as in vmcell_vm_metrics_json, and "label", which for a disk or an interface says what it is
///   on, such as "disk 0 (data.img)";
/// - "cause": "broken_queue" or "error" (a reset by the driver may help), "panicked", "broke_rule" or "gave_up" (it was
///   dropped, and no reset helps: then "is_final" is true); "message": the same in words, on one line;
/// - "at_ns": when it failed last, in nanoseconds since 1970; "count": how often it has failed; "needs_reset": whether the driver is told
///   now that the device needs a reset.
///
/// The VM goes on without such a device. Otherwise as vmcell_vm_metrics_json.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_device_failures_json(
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
        text.write(&failures_json(&objects::get(vm)?.vm().device_failures()));
        Ok(())
    })
}

/// Measures each turn of the VM's own I/O threads from now on, so that metrics have the longest one. Costs two system calls for each
/// turn. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_measure_turns(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(vm)?.vm().measure_turns();
        Ok(())
    })
}
