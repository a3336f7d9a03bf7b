//! The place where a PC's firmware begins, and where a kernel jumps to restart "by the BIOS".
//!
//! Linux 6.1 prefers that way on hardware-reduced ACPI: it takes the machine for one with EFI, finds none, and falls
//! back to the BIOS, past the ACPI reset register. There is no firmware here, so the code at this place writes to that
//! register.

use super::layout::{POWER_PORT, RESET_VALUE};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

/// F000:FFF0, the real-mode address of the first instruction after a reset (Intel SDM, volume 3, section 10.1.4).
const RESET_VECTOR: GuestAddress = GuestAddress(0xf_fff0);

/// Writes the code, at most 16 bytes.
pub(super) fn write(memory: &GuestMemory) -> Result<()> {
    let [low, high] = (POWER_PORT + 2).to_le_bytes();
    let code = [
        0xba,
        low,
        high, //     mov dx, the reset register
        0xb0,
        RESET_VALUE, //   mov al, its value
        0xee,        //                out dx, al
        0xfa,        //                cli
        0xf4,        //                hlt
        0xeb,
        0xfd, //          jmp to the hlt
    ];
    memory.write(RESET_VECTOR, &code)
}
