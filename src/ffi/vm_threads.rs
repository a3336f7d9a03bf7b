//! The threads of a VM.

use super::convert::{Out, OutArray};
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::vm::{ThreadRole, VmThread};

/// The thread runs the vCPU of its index.
pub const VMCELL_THREAD_VCPU: i32 = 1;
/// The thread serves the VM's devices and its console; its index is 0.
pub const VMCELL_THREAD_IO: i32 = 2;
/// The thread serves one device alone: its index is the place of the device in the order in which the guest finds them.
pub const VMCELL_THREAD_DEVICE_IO: i32 = 3;

/// One thread of a VM.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Thread {
    /// One of VMCELL_THREAD_*.
    pub role: i32,
    /// Which of these it is, from 0 on.
    pub index: u32,
    /// The kernel's identifier of it, as in /proc/self/task.
    pub tid: i32,
}

/// The number and the index of a role.
pub(super) fn number_of(role: ThreadRole) -> (i32, u32) {
    match role {
        ThreadRole::Vcpu(index) => (VMCELL_THREAD_VCPU, index),
        ThreadRole::Io => (VMCELL_THREAD_IO, 0),
        ThreadRole::DeviceIo(index) => (VMCELL_THREAD_DEVICE_IO, index),
    }
}

fn convert(thread: VmThread) -> Thread {
    let (role, index) = number_of(thread.role);
    Thread { role, index, tid: thread.tid }
}

/// Writes the VM's threads to `threads`, which has room for `capacity`, and how many there are to `count`, which may be more. First come
/// those of the vCPUs, once the VM was started, then the I/O threads that the VM made for itself. `threads` may be NULL if `capacity` is
/// 0. The thread of a vCPU that has ended is still listed, but the kernel may give its identifier to another thread. Never blocks for
/// long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_threads(
    vm: *const VmObject,
    threads: *mut Thread,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let count = unsafe { Out::new(count, "count") }?;
        // SAFETY: the header demands NULL or that many places.
        let places = unsafe { OutArray::new(threads, capacity, "threads") }?;
        let found: Vec<Thread> = objects::get(vm)?.vm().threads().into_iter().map(convert).collect();
        places.write(&found);
        count.write(found.len());
        Ok(())
    })
}
