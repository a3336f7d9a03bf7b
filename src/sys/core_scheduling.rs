//! Core scheduling (Linux 5.14): which threads may run on the hyperthreads of one core at the same time.
//!
//! Only threads with the same cookie do. See `Documentation/admin-guide/hw-vuln/core-scheduling.rst` of the kernel.

use std::io;
use std::sync::Mutex;

use super::lock::lock;
use super::thread::current_thread_id;

// `include/uapi/linux/prctl.h`; the library has these names for Android alone.
const PR_SCHED_CORE: libc::c_int = 62;
const GET: libc::c_ulong = 0;
const CREATE: libc::c_ulong = 1;
const SHARE_FROM: libc::c_ulong = 3;
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

/// Threads that may share a core with each other, and with no other thread. What they start from then on belongs to them.
#[derive(Debug, Default)]
pub(crate) struct CoreGroup {
    first: Mutex<Option<i32>>,
}

impl CoreGroup {
    /// Takes the calling thread in. The first one must not end before all others are in.
    ///
    /// # Errors
    /// As for [`core_cookie`].
    pub(crate) fn join(&self) -> io::Result<()> {
        let mut first = lock(&self.first);
        let (call, tid) = first.map_or((CREATE, 0), |tid| (SHARE_FROM, tid));
        let none: libc::c_ulong = 0;
        // SAFETY: takes plain numbers alone.
        if unsafe { libc::prctl(PR_SCHED_CORE, call, libc::c_long::from(tid), OF_THREAD, none) } < 0 {
            return Err(io::Error::last_os_error());
        }
        first.get_or_insert_with(current_thread_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn threads_of_a_group_have_a_cookie_of_their_own_and_give_it_to_what_they_start() {
        let before = match core_cookie(0) {
            Ok(before) => before,
            Err(lacking) => {
                let error = CoreGroup::default().join().unwrap_err();
                assert_eq!(error.raw_os_error(), lacking.raw_os_error());
                return;
            }
        };
        let group = Arc::new(CoreGroup::default());
        let (done, ends) = channel::<()>();
        let member = |group: Arc<CoreGroup>| {
            group.join().unwrap();
            let child = thread::spawn(|| core_cookie(0).unwrap()).join().unwrap();
            assert_eq!(core_cookie(0).unwrap(), child);
            child
        };
        let (tell, told) = channel();
        let first = Arc::clone(&group);
        let first = thread::spawn(move || {
            tell.send(member(first)).unwrap();
            let _ = ends.recv();
        });
        let cookie = told.recv().unwrap();
        assert_eq!(thread::spawn(move || member(group)).join().unwrap(), cookie);
        let other = thread::spawn(move || member(Arc::default())).join().unwrap();
        assert!(cookie != before && other != before && other != cookie, "{before} {cookie} {other}");
        assert_eq!(core_cookie(0).unwrap(), before, "the thread that makes the others stays as it is");
        drop(done);
        first.join().unwrap();
    }
}
