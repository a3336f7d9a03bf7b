//! Port I/O.

use core::arch::asm;

pub fn read8(port: u16) -> u8 {
    let value;
    // SAFETY: a port belongs to a device, and touches no memory of this program.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

pub fn write8(port: u16, value: u8) {
    // SAFETY: as in `read8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

pub fn read16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `read8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

pub fn write16(port: u16, value: u16) {
    // SAFETY: as in `read8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

pub fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `read8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

pub fn write32(port: u16, value: u32) {
    // SAFETY: as in `read8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads the port again and again, by one instruction.
pub fn read_string(port: u16, bytes: &mut [u8]) {
    // SAFETY: the instruction writes these bytes alone.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags));
    }
}

/// Writes to the port again and again, by one instruction.
pub fn write_string(port: u16, bytes: &[u8]) {
    // SAFETY: the instruction reads these bytes alone.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags));
    }
}
