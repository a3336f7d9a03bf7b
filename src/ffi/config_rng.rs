//! What a configuration says of the guest's source of random bytes.

use super::config::{ConfigObject, set};
use super::guard::guard;
use super::limit_group::rate;
use super::report::{ErrorObject, Report};
use crate::config::RngConfig;

/// Gives the guest a source of random bytes of the host's kernel (virtio 1.2, section 5.4), which Linux shows as /dev/hwrng and mixes
/// into its own. The guest gets burst bytes at once and per_second bytes a second from then on, each 1 to 2^40, or as many as the I/O thread
/// makes if both are 0. The VM's I/O thread serves it. Without this call there is none. Never blocks.
///
/// Errors: BAD_VALUE if one of the two is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_rng(
    config: *mut ConfigObject,
    per_second: u64,
    burst: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let rate = rate("", [per_second, burst])?;
        set(config, |description| description.config.rng = Some(RngConfig { rate }))
    })
}
