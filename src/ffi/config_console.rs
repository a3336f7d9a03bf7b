//! What a configuration says of the guest's output.

use super::config::{ConfigObject, set};
use super::guard::guard;
use super::limit_group::rate;
use super::report::{ErrorObject, Report};

/// Limits how many bytes of the guest's output the console's sinks get: burst bytes at once and per_second bytes a second from then on, each 1
/// to 2^40, or no limit if both are 0, which is the default. What they may not have yet is kept, up to 64 KiB; if that is full, the guest
/// is asked to wait, for a quarter of a second, and what it writes from then on is missed. Never blocks.
///
/// Errors: BAD_VALUE if one of the two is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_console_rate(
    config: *mut ConfigObject,
    per_second: u64,
    burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let rate = rate("", [per_second, burst])?;
        set(config, |description| description.config.console_rate = rate)
    })
}
