//! The end of the guest.

use super::{clock, port};

/// ACPI's sleep control register, and what turns the machine off.
const SLEEP_CONTROL: u16 = 0x600;
const SOFT_OFF: u8 = 0x34;

pub fn off() -> ! {
    port::write8(SLEEP_CONTROL, SOFT_OFF);
    loop {
        clock::sleep_us(1000);
    }
}
