//! Core scheduling (Linux 5.14): which threads may run on the hyperthreads of one core at the same time.
//!
//! Only threads with the same cookie do. See `Documentation/admin-guide/hw-vuln/core-scheduling.rst` of the kernel.

use std::io;

// `include/uapi/linux/prctl.h`; the library has these names for Android alone.
const PR_SCHED_CORE: libc::c_int = 62;
const GET: libc::c_ulong = 0;
const OF_THREAD: libc::c_ulong = 0;

/// The cookie of a thread, or, for 0, of the calling thread; 0 if it has none.
///
/// # Errors
/// `ENODEV` if no two hyperthreads share a core, `EINVAL` if the kernel has no core scheduling.
pub(crate) fn core_cookie(tid: i32) -> io::Result<u64> {
    let mut cookie = 0u64;
    // SAFETY: the kernel writes eight bytes to the place, which is aligned to eight.
    let done = unsafe { libc::prctl(PR_SCHED_CORE, GET, libc::c_long::from(tid), OF_THREAD, &raw mut cookie) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
