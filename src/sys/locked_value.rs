//! One value in memory for keys.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

use super::locked::{LockedBytes, PAGE};
use super::scrub::scrub_stack;

/// A value in memory for keys.
pub(crate) struct Locked<T> {
    memory: LockedBytes,
    value: std::marker::PhantomData<T>,
}

impl<T> Locked<T> {
    /// Makes the value, and zeroes the part of the stack on which it was made.
    ///
    /// # Errors
    /// Those of [`LockedBytes::zeroed`].
    pub(crate) fn new(make: impl FnOnce() -> T) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE && !std::mem::needs_drop::<T>()) };
        let memory = LockedBytes::zeroed(size_of::<T>())?;
        // SAFETY: the pages are as long as the value, aligned to a page, which is enough as was asserted, and nobody else's.
        unsafe { write_in_place(memory.start().cast(), make) };
        scrub_stack();
        Ok(Self { memory, value: std::marker::PhantomData })
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` has written the value there, and nothing else writes to the memory.
        unsafe { self.memory.start().cast().as_ref() }
    }
}

/// # Safety
/// `at` must be valid for writing a `T`.
#[inline(never)]
unsafe fn write_in_place<T>(at: NonNull<T>, make: impl FnOnce() -> T) {
    // SAFETY: the caller vouches for it.
    unsafe { at.write(make()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_where_it_was_made() {
        let value = Locked::new(|| [7_u64; 60]).unwrap();
        assert_eq!(*value, [7; 60]);
    }
}
