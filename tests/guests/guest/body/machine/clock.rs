//! Time by the time stamp counter, whose rate the test tells.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

static KHZ: AtomicU64 = AtomicU64::new(1);

pub fn set(khz: u64) {
    KHZ.store(khz.max(1000), Ordering::Relaxed);
}

/// Since some moment in the past, in microseconds.
pub fn now_us() -> u64 {
    // SAFETY: every processor with long mode has it.
    let ticks = unsafe { _rdtsc() };
    ticks / (KHZ.load(Ordering::Relaxed) / 1000)
}

/// Turns on the spot: user mode cannot halt.
pub fn sleep_us(us: u64) {
    let end = now_us() + us;
    while now_us() < end {
        core::hint::spin_loop();
    }
}

/// Calls `done` until it says yes; says whether it did so in time.
pub fn wait_us(us: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = now_us() + us;
    loop {
        if done() {
            return true;
        }
        if now_us() > end {
            return false;
        }
        core::hint::spin_loop();
    }
}
