//! What a configuration says of the cgroup of the VM's threads, and the cgroup of the process.

use std::ffi::c_char;

use super::config::{ConfigObject, set};
use super::convert::{read_path, read_text};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::config::{CgroupConfig, CpuShare};
use crate::confine::JailCgroup;

/// Gives the VM's threads a cgroup of their own (version 2), which is made in folder when the configuration is opened or the VM is made, and
/// removed when the VM is gone. folder is that of the cgroup in which the process is (vmcell_cgroup_join), and the program owns it. name is 1 to 64
/// letters, digits, `-`, `_` and `.`, and does not begin with a `.`; NULL stands for the VM's name. The threads of vCPUs, the VM's own I/O threads and what
/// these start are in it; a vmcell_io_thread is not.
///
/// The threads run quota_us microseconds of CPU time at most in each period_us (1000 to 1000000), 1000 or more, or without a limit if
/// quota_us is 0. burst_us of what was not used are kept at most, 0 to quota_us. weight, 1 to 10000, is how much they get beside those
/// of other cgroups in the folder, or 0 for the kernel's default, which is 100. Values are checked when the VM is made. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_cgroup(
    config: *mut ConfigObject,
    folder: *const c_char,
    name: *const c_char,
    quota_us: u32,
    period_us: u32,
    burst_us: u32,
    weight: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let mut cgroup = CgroupConfig::new(unsafe { read_path(folder, "folder") }?);
        if !name.is_null() {
            // SAFETY: the header demands a text that ends with a NUL.
            cgroup.name = Some(unsafe { read_text(name, "name") }?);
        }
        cgroup.cpu = (quota_us != 0).then_some(CpuShare { quota_us, period_us, burst_us });
        cgroup.weight = Some(weight).filter(|weight| *weight != 0);
        set(config, |description| description.config.cgroup = Some(cgroup))
    })
}

/// Moves the process with all its threads to a cgroup of version 2, given by its folder, which exists, and limits the memory of all its
/// processes in bytes (memory.max, and memory.high, beyond which the kernel takes memory back), and how many processes and threads there are
/// (pids.max). UINT64_MAX leaves a limit as it is. A limit needs its controller (memory, pids), which the cgroup above names in
/// cgroup.subtree_control. It works in a process with several threads; vmcell_jail_set_cgroup does it for one that is jailed. Never blocks.
///
/// Errors: INVALID_CONFIG if it is no cgroup of version 2, and then nothing has changed; HOST if the kernel refuses something: the
/// message says all that is missing, and the rest is in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_cgroup_join(
    folder: *const c_char,
    memory_max: u64,
    memory_high: u64,
    pids_max: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let mut cgroup = JailCgroup::new(unsafe { read_path(folder, "folder") }?);
        let given = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
        cgroup = given(memory_max).into_iter().fold(cgroup, JailCgroup::memory_max);
        cgroup = given(memory_high).into_iter().fold(cgroup, JailCgroup::memory_high);
        cgroup = given(pids_max).into_iter().fold(cgroup, JailCgroup::pids_max);
        Ok(cgroup.join()?)
    })
}
