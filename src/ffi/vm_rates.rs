//! Rates that change while a VM runs.

use super::guard::guard;
use super::limit_group::rate;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;

/// Sets how many random bytes the guest gets: burst bytes at once and per_second bytes a second from then on, each 1 to 2^40, or as many as
/// the I/O thread makes if both are 0; at once and also for a request that waits. What has not been used of a limit stays, up to its new burst.
/// Never blocks.
///
/// Errors: BAD_VALUE if one of the two is 0; INVALID_CONFIG if one is above 2^40, or if the VM has no rng. Then the limit stays as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_set_rng_rate(
    vm: *mut VmObject,
    per_second: u64,
    burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.vm().set_rng_rate(rate("", [per_second, burst])?)?))
}

/// Sets how many bytes of the guest's output the console's sinks get, as vmcell_config_set_console_rate does, at once and also for output
/// that waits; no limit if both are 0. What has not been used of a limit stays, up to its new burst. Never blocks.
///
/// Errors: BAD_VALUE if one of the two is 0; INVALID_CONFIG if one is above 2^40. Then the limit stays as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_set_console_rate(
    vm: *mut VmObject,
    per_second: u64,
    burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.vm().set_console_rate(rate("", [per_second, burst])?)?))
}
