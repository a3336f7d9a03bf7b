//! What the compiler takes for granted, and an operating system's libraries would bring along.

use core::arch::asm;
use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::body::panicked(info)
}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges. A loop in Rust would be compiled into a call of this very function.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _) };
    to
}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: copying upwards does not overwrite what is still to be read.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: the caller vouches for both ranges; downwards, from the last byte on.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rdi") to.add(len).sub(1) => _, inout("rsi") from.add(len).sub(1) => _,
            inout("rcx") len => _);
    }
    to
}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range.
    unsafe { asm!("rep stosb", inout("rdi") to => _, in("al") value as u8, inout("rcx") len => _) };
    to
}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller vouches for both ranges. Volatile, so that this loop is not taken for what it is.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: as here.
    unsafe { memcmp(a, b, len) }
}

/// Named by the core library's unwinding tables, which are thrown away.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// # Safety
/// As the C function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller vouches for a NUL. Volatile, as in `memcmp`.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
