//! The keyboard controller. A VM without a keyboard keeps one thing of it: the pulse on the CPU's reset line.

use std::sync::Arc;
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

/// What a controller holds for the guest to read: all that it has of a state. A clone is a handle to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyboardAnswer(Arc<AtomicU8>);

impl KeyboardAnswer {
    pub(crate) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, answer: u8) {
        self.0.store(answer, Ordering::Relaxed);
    }

    fn take(&self) -> u8 {
        self.0.swap(EMPTY, Ordering::Relaxed)
    }
}

/// A controller with no ports behind it.
pub(crate) struct I8042<F> {
    answer: KeyboardAnswer,
    on_reset: F,
}

impl<F: Fn() + Send + Sync> I8042<F> {
    /// The vCPU thread that pulses the line calls `on_reset`.
    pub(crate) fn new(answer: KeyboardAnswer, on_reset: F) -> Self {
        Self { answer, on_reset }
    }

    fn command(&self, command: u8) {
        let answer = match command {
            PULSE_RESET => return (self.on_reset)(),
            SELF_TEST => SELF_TEST_PASSED,
            TEST_FIRST_PORT | TEST_SECOND_PORT => NO_SUCH_PORT,
            _ => return,
        };
        self.answer.set(answer);
    }
}

impl<F: Fn() + Send + Sync> BusDevice for I8042<F> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            DATA => self.answer.take(),
            COMMAND if self.answer.get() != EMPTY => OUTPUT_FULL,
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
        let i8042 = I8042::new(KeyboardAnswer::default(), || {
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
        let i8042 = I8042::new(KeyboardAnswer::default(), || {});
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

    #[test]
    fn an_answer_that_was_not_read_is_read_from_a_controller_that_goes_on() {
        let source = KeyboardAnswer::default();
        I8042::new(source.clone(), || {}).write(4, &[0xaa]);
        let answer = KeyboardAnswer::default();
        let restored = I8042::new(answer.clone(), || {});
        answer.set(source.get());
        let mut data = [0];
        restored.read(0, &mut data);
        assert_eq!((data, answer.get()), ([0x55], 0));
    }
}
