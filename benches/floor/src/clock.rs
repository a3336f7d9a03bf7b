//! Time: of the process on its CPUs, and of the time stamp counter.

use std::time::{Duration, Instant};

/// How long the threads of this process have run, in microseconds.
pub fn cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a structure that the call fills; the clock is one that every process has.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}

/// The rate of the time stamp counter, which a guest has no way to measure.
pub fn tsc_khz() -> u64 {
    // SAFETY: every processor with long mode has the instruction.
    let ticks = || unsafe { core::arch::x86_64::_rdtsc() };
    let (begin, first) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(50));
    let (took, counted) = (begin.elapsed(), ticks() - first);
    (u128::from(counted) * 1_000_000 / took.as_nanos().max(1)) as u64
}
