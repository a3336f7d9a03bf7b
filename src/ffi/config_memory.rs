//! What a configuration says of where the guest's memory lies on the host.

use super::config::{BACKINGS, ConfigObject, PAGES, set};
use super::convert::choice;
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::report::{ErrorObject, Report};

/// Whichever NUMA node the host chooses. The default.
pub const VMCELL_NUMA_NODE_ANY: i32 = -1;

/// Sets the guest's RAM in MiB, 16 or more, and leaves the rest of what vmcell_config_set_memory sets, or a description, as it is.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_memory_mib(
    config: *mut ConfigObject,
    mib: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.memory.mib = mib))
}

/// Sets where the host takes the guest's RAM from, one of VMCELL_MEMORY_*, and leaves the rest as it is. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_memory_backing(
    config: *mut ConfigObject,
    backing: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let backing = choice("backing", backing, &BACKINGS)?;
        set(config, |description| description.config.memory.backing = backing)
    })
}

/// Sets the pages that back the guest's RAM, one of VMCELL_PAGES_*, and leaves the rest as it is. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_memory_pages(
    config: *mut ConfigObject,
    pages: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let pages = choice("pages", pages, &PAGES)?;
        set(config, |description| description.config.memory.pages = pages)
    })
}

/// Sets the NUMA node that the host takes the guest's RAM from, as long as that node has free memory, 0 to 1023, or
/// VMCELL_NUMA_NODE_ANY. vmcell_vm_new refuses one that this process may not have memory of. Never blocks.
///
/// Errors: BAD_VALUE for another number below 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_numa_node(
    config: *mut ConfigObject,
    node: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let node = match node {
            VMCELL_NUMA_NODE_ANY => None,
            node => Some(u32::try_from(node).map_err(|_| {
                let message = format!("node is {node}, allowed are 0 to 1023, and {VMCELL_NUMA_NODE_ANY} for any");
                Failure::new(VMCELL_ERROR_BAD_VALUE, message)
            })?),
        };
        set(config, |description| description.config.memory.numa_node = node)
    })
}

/// Sets whether RAM that the guest has used is locked in memory, and so never written to swap space: 0 for no, the default, anything else
/// for yes. All of the RAM counts against RLIMIT_MEMLOCK (ulimit -l) from the beginning, unless the caller of vmcell_vm_new has
/// CAP_IPC_LOCK; if that is too low, vmcell_vm_new says how much is needed. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_memory_locked(
    config: *mut ConfigObject,
    locked: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || set(config, |description| description.config.memory.locked = locked != 0))
}
