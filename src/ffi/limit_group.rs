//! Limits, and groups of devices that share them.

use super::convert::Out;
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::{free, guard};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::config::{Limits, RateLimit};
use crate::limit::LimitGroup;

/// Limits that several disks and interfaces keep to together, of one VM or of several, on whatever I/O threads. A device that waits is
/// kept what it needs next, so none starves, and those that want more than there is get the same in the long run. Made by
/// vmcell_limit_group_new; freed by vmcell_limit_group_free, before or after the devices and their VMs.
pub struct LimitGroupObject(LimitGroup);

impl Object for LimitGroupObject {
    const NAME: &'static str = "vmcell_limit_group";
}

impl LimitGroupObject {
    pub(super) fn group(&self) -> LimitGroup {
        self.0.clone()
    }
}

/// Limits as the caller gives them: so many operations a second, so many at once, and the same of bytes.
pub(super) fn limits(operations: [u64; 2], bytes: [u64; 2]) -> FfiResult<Limits> {
    Ok(Limits { operations: rate("operations_", operations)?, bytes: rate("bytes_", bytes)? })
}

/// A rate, or none for two zeros; `what` is what the names of the two arguments begin with.
pub(super) fn rate(what: &str, [per_second, burst]: [u64; 2]) -> FfiResult<Option<RateLimit>> {
    match (per_second, burst) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => {
            let message = format!(
                "{what}per_second is {per_second} and {what}burst is {burst}, allowed are 0 for both, and 0 for neither"
            );
            Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message))
        }
        _ => Ok(Some(RateLimit { per_second, burst })),
    }
}

/// Makes a group, with limits as for vmcell_disk_set_limits. Never blocks.
///
/// Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_limit_group_new(
    operations_per_second: u64,
    operations_burst: u64,
    bytes_per_second: u64,
    bytes_burst: u64,
    group: *mut *mut LimitGroupObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let group = unsafe { Out::new(group, "group") }?;
        let limits = limits([operations_per_second, operations_burst], [bytes_per_second, bytes_burst])?;
        group.insert(LimitGroupObject(LimitGroup::new(limits)?))
    })
}

/// Sets other limits, or none if all are 0, at once and also for requests that wait. What has not been used of a limit stays, up to its
/// new burst. Never blocks, on any thread.
///
/// Errors: BAD_VALUE, INVALID_CONFIG as from vmcell_limit_group_new. Then the limits stay as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_limit_group_set_limits(
    group: *mut LimitGroupObject,
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
        Ok(objects::get(group)?.0.set_limits(limits)?)
    })
}

/// Lets go of a group. Devices that are in it keep to its limits. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_limit_group_free(group: *mut LimitGroupObject) -> i32 {
    free(group, drop)
}
