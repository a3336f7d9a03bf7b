//! What the host offers for the isolation and the speed of VMs.

use std::ffi::c_char;

use super::convert::{Out, OutText};
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::host::{FindingLevel, HostCheck};

/// Everything is as it should be.
pub const VMCELL_FINDING_FINE: i32 = 0;
/// The host does not tell something.
pub const VMCELL_FINDING_UNKNOWN: i32 = 1;
/// VMs run, and could run faster, or in greater numbers.
pub const VMCELL_FINDING_ADVICE: i32 = 2;
/// VMs run, but what one of them has may reach another one, or other parts of the host.
pub const VMCELL_FINDING_RISK: i32 = 3;
/// No VM can start.
pub const VMCELL_FINDING_PROBLEM: i32 = 4;

/// Looks at the host that this runs on, as this process and its user see it: whether VMs can start, how well they are kept apart, and
/// what makes them slow. `level` gets the level of what weighs most, one of VMCELL_FINDING_*. The findings are written as a JSON object,
/// UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length` gets the length of the text without the NUL. If
/// that is not below `capacity`, nothing is written to `buffer`: call again with more room. 16 KiB suffice. `buffer` may be NULL if
/// `capacity` is 0.
///
/// The object has a member "findings", an array of objects with "name", "level" ("fine", "unknown", "advice", "risk" or "problem"), "found",
/// and, if there is something to do, "advice". The documentation of the Rust crate (HostCheck) lists the names. A later version may look
/// at more. Opens /dev/kvm, makes an io_uring, closes both, and changes nothing. Takes some milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_host_check(
    level: *mut i32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let level = unsafe { Out::new(level, "level") }?;
        // SAFETY: the header demands NULL or that much room, and a place for the result.
        let text = unsafe { OutText::new(buffer, capacity, length) }?;
        let check = HostCheck::run();
        level.write(number(check.level()));
        text.write(&check.to_json());
        Ok(())
    })
}

fn number(level: FindingLevel) -> i32 {
    match level {
        FindingLevel::Fine => VMCELL_FINDING_FINE,
        FindingLevel::Unknown => VMCELL_FINDING_UNKNOWN,
        FindingLevel::Advice => VMCELL_FINDING_ADVICE,
        FindingLevel::Risk => VMCELL_FINDING_RISK,
        FindingLevel::Problem => VMCELL_FINDING_PROBLEM,
    }
}
