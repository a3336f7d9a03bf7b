//! The keyboard controller. A VM without a keyboard keeps one thing of it: the pulse on the CPU's reset line.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::bus::BusDevice;

/// Offsets from port 0x60.
const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// "Pulse output line 0 low": the reset line.
const PULSE_RESET: u8 = 0xfe;
const SELF_TEST: u8 = 0xaa;
const SELF_TEST_PASSED: u8 = 0x55;
const TEST_FIRST_PORT: u8 = 0xab;
const TEST_SECOND_PORT: u8 = 0xa9;
const NO_SUCH_PORT: u8 = 0xff;
const OUTPUT_FULL: u8 = 1;

/// Nothing waits to be read. No command whose answer matters answers zero.
const EMPTY: u8 = 0;

/// A controller with no ports behind it.
pub(crate) struct I8042<F> {
    answer: AtomicU8,
    on_reset: F,
}

impl<F: Fn() + Send + Sync> I8042<F> {
    /// The vCPU thread that pulses the line calls `on_reset`.
    pub(crate) fn new(on_reset: F) -> Self {
        Self { answer: AtomicU8::new(EMPTY), on_reset }
    }

    fn command(&self, command: u8) {
        let answer = match command {
            PULSE_RESET => return (self.on_reset)(),
            SELF_TEST => SELF_TEST_PASSED,
            TEST_FIRST_PORT | TEST_SECOND_PORT => NO_SUCH_PORT,
            _ => return,
        };
        self.answer.store(answer, Ordering::Relaxed);
    }
}

impl<F: Fn() + Send + Sync> BusDevice for I8042<F> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            DATA => self.answer.swap(EMPTY, Ordering::Relaxed),
            COMMAND if self.answer.load(Ordering::Relaxed) != EMPTY => OUTPUT_FULL,
            _ => 0,
        };
        if let Some(byte) = data.first_mut() {
            *byte = value;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (COMMAND, [command]) = (offset, data) {
            self.command(*command);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let resets = AtomicU32::new(0);
        let i8042 = I8042::new(|| {
            resets.fetch_add(1, Ordering::Relaxed);
        });
        for command in (0..=0xff).filter(|command| *command != 0xfe) {
            i8042.write(4, &[command]);
        }
        i8042.write(0, &[0xfe]);
        i8042.write(4, &[0xfe, 0]);
        assert_eq!(resets.load(Ordering::Relaxed), 0);
        i8042.write(4, &[0xfe]);
        assert_eq!(resets.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_driver_finds_a_controller_without_ports() {
        let i8042 = I8042::new(|| {});
        let read = |offset| {
            let mut data = [0xee; 1];
            i8042.read(offset, &mut data);
            data[0]
        };
        assert_eq!(read(4), 0);
        i8042.write(4, &[0xaa]);
        assert_eq!((read(4), read(0), read(4)), (1, 0x55, 0));
        i8042.write(4, &[0xab]);
        assert_eq!(read(0), 0xff);
    }
}
