//! What a configuration says of the VM's name and threads.

use std::ffi::{c_char, c_void};
use std::io;
use std::sync::Mutex;

use super::caller::{ReleaseUser, User};
use super::config::{ConfigObject, set};
use super::convert::{choice, read_numbers, read_text};
use super::failure::{Failure, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use super::vm_threads::number_of;
use crate::config::Seccomp;
use crate::sys::lock;
use crate::vm::ThreadRole;

/// Nothing is filtered. The default.
pub const VMCELL_SECCOMP_OFF: i32 = 0;
/// The call fails with ENOSYS, as if the kernel did not have it, and the VM goes on.
pub const VMCELL_SECCOMP_REFUSE: i32 = 1;
/// The kernel ends the process, and with it all its VMs, by the signal SIGSYS.
pub const VMCELL_SECCOMP_KILL: i32 = 2;

pub(super) const SECCOMP: [(i32, Seccomp); 3] = [
    (VMCELL_SECCOMP_OFF, Seccomp::Off),
    (VMCELL_SECCOMP_REFUSE, Seccomp::Refuse),
    (VMCELL_SECCOMP_KILL, Seccomp::Kill),
];

/// Is called on a new thread of a VM before that does anything: to set its CPUs, its priority or its cgroup. `role` is one of
/// VMCELL_THREAD_*, `index` as in vmcell_thread, and `user` as the caller gave it. Returns 0, or an errno (above 0), by which
/// vmcell_vm_new or vmcell_vm_start fails. Those calls wait for it, so it must not wait for them or for the VM. Never two threads at
/// once call it. Signals are blocked on the thread. It must not unwind: no C++ exception, no longjmp.
pub type ThreadStart = Option<unsafe extern "C" fn(role: i32, index: u32, user: *mut c_void) -> i32>;

/// Names the VM: 0 to 64 printable ASCII characters, copied. The name stands in messages, and in the names of the VM's threads, as
/// NAME:vcpu0, NAME:io and NAME:disk, of which Linux keeps 15 bytes: a longer name is cut there. An empty name, the default, is none.
/// Names need not differ. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_name(
    config: *mut ConfigObject,
    name: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(name, "name") }?;
        set(config, |description| description.config.name = name)
    })
}

/// Sets on which of the host's CPUs, `count` numbers from 0 on as in /proc/cpuinfo, the thread of a vCPU may run. They are copied.
/// By default it may run where the thread may that starts the VM. vmcell_vm_new refuses CPUs that the host does not allow, none at
/// all, and a vCPU that the VM does not have. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_vcpu_affinity(
    config: *mut ConfigObject,
    vcpu: u32,
    cpus: *const u32,
    count: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many numbers.
        let cpus = unsafe { read_numbers(cpus, count, "cpus") }?;
        set(config, |description| _ = description.config.affinity.vcpus.insert(vcpu, cpus))
    })
}

/// Sets on which of the host's CPUs the I/O threads may run that the VM makes for itself, with disks' helper threads and the workers
/// of io_uring. None, the default, means where the thread may that makes the VM. Otherwise as vmcell_config_set_vcpu_affinity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_io_affinity(
    config: *mut ConfigObject,
    cpus: *const u32,
    count: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or that many numbers.
        let cpus = unsafe { read_numbers(cpus, count, "cpus") }?;
        set(config, |description| description.config.affinity.io = cpus)
    })
}

/// Sets whether the VM's threads run on the hyperthreads of a core only beside each other, so that no other tenant is there to watch what
/// the guest does: 0 for no, the default, anything else for yes. That is true of the threads of vCPUs, of I/O threads that the VM makes
/// for itself, and of what these start; a vmcell_io_thread stays as it is. It takes Linux 5.14 with CONFIG_SCHED_CORE. If no two
/// hyperthreads share a core, there is nothing to do, which the log says; otherwise vmcell_vm_new fails without it (HOST).
/// vmcell_host_check tells beforehand, as "core-scheduling". What is started on a thread of such a VM, in a callback, counts as that VM's: a
/// thread, a process, a vmcell_io_thread, and another VM, unless that one has core scheduling itself. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_core_scheduling(
    config: *mut ConfigObject,
    core_scheduling: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.core_scheduling = core_scheduling != 0))
}

/// Sets for how many microseconds at most the I/O threads that the VM makes for itself look for more to do before they sleep, 0 to
/// 1000: 0 turns that off, the default is 50. vmcell_io_thread_set_polling says what that means, and sets it for a thread of the
/// caller's. vmcell_vm_new refuses more. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_polling(
    config: *mut ConfigObject,
    max_us: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.poll_us = Some(max_us)))
}

/// Sets what becomes of a system call that a thread of the VM has no reason to make (one of VMCELL_SECCOMP_*). vCPUs' threads are filtered
/// before the guest runs, and the I/O threads that the VM makes for itself, with the helper threads that they start; a vmcell_io_thread is
/// not. Functions of yours on these threads, such as a backend's or a console's, can make no other calls than those that
/// docs/confinement.md lists. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_seccomp(
    config: *mut ConfigObject,
    seccomp: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let seccomp = choice("seccomp", seccomp, &SECCOMP)?;
        set(config, |description| description.config.seccomp = seccomp)
    })
}

/// Has a function called on each new thread of the VM: for I/O threads during vmcell_vm_new, for vCPUs during vmcell_vm_start. It is not
/// called for a vmcell_io_thread, nor for disks' helper threads and io_uring's workers, which begin in the cgroup of the I/O thread that
/// starts them. `user` is taken: unless `release` is NULL, it is called for `user` at the end, even if this call fails. Never blocks.
///
/// Errors: NULL_ARGUMENT if `start` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_thread_start(
    config: *mut ConfigObject,
    start: ThreadStart,
    user: *mut c_void,
    release: ReleaseUser,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let user = Mutex::new(User { user, release });
        let start = start.ok_or_else(|| Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "start is NULL"))?;
        let call = move |role: ThreadRole| {
            let (number, index) = number_of(role);
            let user = lock(&user);
            // SAFETY: the header demands a function that takes this; the lock keeps other threads away.
            match unsafe { start(number, index, user.user) } {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        };
        set(config, |description| description.on_thread_start = Some(Box::new(call)))
    })
}
