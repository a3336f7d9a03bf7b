//! The guest's memory, by physical address, and who uses what of it. Everything is mapped to itself.
//!
//! | From | What |
//! |---|---|
//! | 1 MiB | this program |
//! | 4 MiB | rings, 64 KiB a queue |
//! | 5 MiB | indirect tables |
//! | 6 MiB | headers and status bytes of requests |
//! | 8 MiB | data |
//! | 16 MiB | data that many descriptors share, up to the end at 32 MiB |

pub const RINGS: u64 = 0x40_0000;
pub const TABLES: u64 = 0x50_0000;
pub const HEADERS: u64 = 0x60_0000;
pub const STATUSES: u64 = 0x68_0000;
pub const DATA: u64 = 0x80_0000;
pub const SHARED: u64 = 0x100_0000;
/// The first address that is no RAM.
pub const END: u64 = 0x200_0000;
/// Where the PC's devices begin; nothing answers here.
pub const HOLE: u64 = 0xc000_0000;

/// Reads RAM or a register. `address` must be mapped, so lie below 4 GiB.
pub fn read<T: Copy>(address: u64) -> T {
    // SAFETY: below 4 GiB everything is mapped, and a device may answer with any bits: `T` is an integer here.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes RAM or a register, as [`read`].
pub fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: as in `read`. The callers keep to the places in the table above, which hold no Rust values.
    unsafe { (address as *mut T).write_volatile(value) }
}

pub fn fill(address: u64, len: u64, byte: u8) {
    // SAFETY: as in `write`.
    unsafe { core::ptr::write_bytes(address as *mut u8, byte, len as usize) }
}

pub fn copy_in(address: u64, bytes: &[u8]) {
    (address..).zip(bytes).for_each(|(at, byte)| write(at, *byte));
}

pub fn all_are(address: u64, len: u64, byte: u8) -> bool {
    (address..address + len).all(|at| read::<u8>(at) == byte)
}
