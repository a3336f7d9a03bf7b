//! COM1, polled.

use core::fmt;

use super::{clock, port};

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const RECEIVED: u8 = 1;
const MAY_SEND: u8 = 0x20;

/// The port as something to format into.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Each look costs an exit, and the monitor has room for more than a line: once a piece will do.
        while port::read8(LINE_STATUS) & MAY_SEND == 0 {
            clock::sleep_us(100);
        }
        text.bytes().for_each(|byte| port::write8(DATA, byte));
        Ok(())
    }
}

/// The next byte that the test typed, if there is one.
pub fn read() -> Option<u8> {
    (port::read8(LINE_STATUS) & RECEIVED != 0).then(|| port::read8(DATA))
}

/// Waits until the test types `wanted`.
pub fn wait_for(wanted: u8) {
    while read() != Some(wanted) {
        clock::sleep_us(500);
    }
}

/// Prints a byte, for which there is room after one that was read.
pub fn write(byte: u8) {
    port::write8(DATA, byte);
}
