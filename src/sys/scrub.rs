//! What calls leave on the stack.

use super::locked::zero;

/// Runs `work`, and zeroes what it has left on the stack: libraries move keys about before they zero them.
#[cfg(feature = "secret")]
pub(crate) fn on_scrubbed_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    scrub::<{ 256 << 10 }>();
    done
}

/// So that what `work` has on the stack is below the caller's frame.
#[cfg(feature = "secret")]
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Zeroes what calls have left on the stack below the caller's frame.
#[cfg(feature = "volume")]
pub(super) fn scrub_stack() {
    scrub::<{ 32 << 10 }>();
}

#[inline(never)]
fn scrub<const LEN: usize>() {
    let mut below = [0_u8; LEN];
    zero(&mut below);
}
