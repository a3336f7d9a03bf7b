//! Counts what a thread allocates, so that a target can bound what a guest makes the host take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Bytes that are allocated now, less those of before; only while counting.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: i64) {
    // A thread that ends frees its own variables when these are gone.
    let counts = COUNTS.try_with(Cell::get).unwrap_or(false);
    if counts {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        });
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: all calls go to the system's allocator as they came; counting touches no allocation and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`, and all allocations are the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size(new_size) - size(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`, and all allocations are the system's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Bounds what calls of the code under test hold together.
pub struct Meter {
    bound: i64,
    held: i64,
}

impl Meter {
    /// At most `bound` bytes.
    pub fn new(bound: i64) -> Self {
        Self { bound, held: 0 }
    }

    /// Counts one call.
    ///
    /// # Panics
    /// If all calls together hold more than the bound at any moment of it.
    pub fn run<R>(&mut self, call: impl FnOnce() -> R) -> R {
        HELD.set(self.held);
        PEAK.set(self.held);
        COUNTS.set(true);
        let result = call();
        COUNTS.set(false);
        self.held = HELD.get();
        let (peak, bound) = (PEAK.get(), self.bound);
        assert!(peak <= bound, "the guest made the host allocate {peak} bytes, allowed are {bound}");
        result
    }
}

/// Leaves out what the test itself allocates in the midst of a counted call.
pub fn uncounted<R>(call: impl FnOnce() -> R) -> R {
    let counted = COUNTS.replace(false);
    let result = call();
    COUNTS.set(counted);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_what_was_held_for_a_moment_both_count() {
        let mut meter = Meter::new(1000);
        let kept = meter.run(|| vec![0u8; 600]);
        meter.run(|| drop(vec![0u8; 300]));
        meter.run(|| uncounted(|| drop(vec![0u8; 5000])));
        let over = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meter.run(|| drop(vec![0u8; 500]))));
        assert!(over.is_err());
        drop(kept);
    }
}
