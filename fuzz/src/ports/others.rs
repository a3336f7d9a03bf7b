//! What the small chips should answer, from what they promise.

use vmcell::ResetCause;
use vmcell::testing::rooms::Asked;

use super::Chip;

pub const I8042: Chip = Chip { start: 0x60, len: 5 };
pub const CMOS: Chip = Chip { start: 0x70, len: 2 };
pub const POWER: Chip = Chip { start: 0x600, len: 3 };
pub const PANIC: Chip = Chip { start: 0x505, len: 1 };

/// All of them.
#[derive(Default)]
pub struct Others {
    /// What waits in the keyboard controller's output; 0 is nothing.
    answer: u8,
    /// What the guest has asked for.
    pub asked: Vec<Asked>,
}

impl Others {
    /// What is read; of several bytes it is the first one, and the others are zero.
    pub fn read(&mut self, chip: Chip, offset: u64) -> u64 {
        match (chip, offset) {
            (I8042, 0) => std::mem::take(&mut self.answer).into(),
            (I8042, 4) => u64::from(self.answer != 0),
            // It reads as the events that it takes.
            (PANIC, 0) => 3,
            _ => 0,
        }
    }

    /// A byte is written.
    pub fn write(&mut self, chip: Chip, offset: u64, value: u8) {
        match (chip, offset, value) {
            (I8042, 4, 0xaa) => self.answer = 0x55,
            (I8042, 4, 0xa9 | 0xab) => self.answer = 0xff,
            (I8042, 4, 0xfe) => self.asked.push(Asked::Reset(ResetCause::KeyboardController)),
            // SLP_EN with the type of S5, which is 5; the other bits are ignored.
            (POWER, 0, value) if value & 0x3c == 0x34 => self.asked.push(Asked::Off),
            (POWER, 2, 1) => self.asked.push(Asked::Reset(ResetCause::Acpi)),
            (PANIC, 0, value) if value & 1 != 0 => self.asked.push(Asked::Panicked),
            (PANIC, 0, value) if value & 2 != 0 => self.asked.push(Asked::CrashKernel),
            _ => {}
        }
    }
}
