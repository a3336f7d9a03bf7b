//! Accesses of every width that an instruction has, at any address.

use core::arch::asm;

use super::memory;

/// Reads 1, 2, 4, 8 and 16 bytes.
pub fn read_all(address: u64) {
    memory::read::<u8>(address);
    read::<u16>(address);
    read::<u32>(address);
    read::<u64>(address);
    // SAFETY: as in `memory::read`; the register is nobody else's.
    unsafe { asm!("movups {}, [{}]", out(xmm_reg) _, in(reg) address, options(nostack, preserves_flags)) };
}

/// Writes 1, 2, 4, 8 and 16 bytes.
pub fn write_all(address: u64, value: u64) {
    memory::write(address, value as u8);
    write(address, value as u16);
    write(address, value as u32);
    write(address, value);
    // SAFETY: as in `memory::write`; only registers of devices are written to like this.
    unsafe {
        asm!("movq {0}, {1}", "punpcklqdq {0}, {0}", "movups [{2}], {0}", out(xmm_reg) _, in(reg) value, in(reg) address,
            options(nostack, preserves_flags));
    }
}

// A volatile access in Rust must be aligned; these need not be.

fn read<T: Copy>(address: u64) {
    // SAFETY: as in `read_all`. One instruction, so one access of this width.
    unsafe {
        match size_of::<T>() {
            2 => asm!("mov {:x}, [{}]", out(reg) _, in(reg) address, options(nostack, preserves_flags)),
            4 => asm!("mov {:e}, [{}]", out(reg) _, in(reg) address, options(nostack, preserves_flags)),
            _ => asm!("mov {:r}, [{}]", out(reg) _, in(reg) address, options(nostack, preserves_flags)),
        }
    }
}

fn write<T: Copy + Into<u64>>(address: u64, value: T) {
    let value: u64 = value.into();
    // SAFETY: as in `write_all`. One instruction, so one access of this width.
    unsafe {
        match size_of::<T>() {
            2 => asm!("mov [{}], {:x}", in(reg) address, in(reg) value, options(nostack, preserves_flags)),
            4 => asm!("mov [{}], {:e}", in(reg) address, in(reg) value, options(nostack, preserves_flags)),
            _ => asm!("mov [{}], {:r}", in(reg) address, in(reg) value, options(nostack, preserves_flags)),
        }
    }
}
