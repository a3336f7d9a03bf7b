//! What the harness asks of the host's kernel, for which there is no safe call.
#![allow(unsafe_code, reason = "three system calls and one instruction that no crate of ours wraps")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The CPU time of a thread of this process, to the moment; `None` once the thread is gone.
///
/// `/proc` has the same figure, but as of the last tick.
pub fn cpu_time(thread: i32) -> Option<Duration> {
    // The kernel's name for the CPU clock of a thread: its number inverted, and 6 for "this thread, by the scheduler".
    let clock = (!thread << 3) | 6;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a structure that the call fills.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (result == 0).then(|| Duration::new(seconds, nanoseconds))
}

/// Lets the calling thread run before all ordinary ones, so that it sees things when they happen; says whether it may.
pub fn become_urgent() -> bool {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer leads to a structure that the call reads; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) == 0 }
}

/// The rate of the time stamp counter, which guests have no way to measure.
pub fn tsc_khz() -> u64 {
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        // SAFETY: every processor with long mode has the instruction.
        let ticks = || unsafe { core::arch::x86_64::_rdtsc() };
        let (begin, first) = (Instant::now(), ticks());
        std::thread::sleep(Duration::from_millis(50));
        let (took, counted) = (begin.elapsed(), ticks() - first);
        counted * 1000 / u64::try_from(took.as_micros()).expect("a short time")
    })
}
