//! The serial port, whose guest and host write and read at their own pace: no byte is lost unaccounted, and each interrupt has a
//! reason.

use super::Machine;
use super::uart::COM1;
use crate::input::{Input, Script};

const MOST_STEPS: usize = 400;
/// Bytes that the guest prints in bursts, more than there is room for.
const MOST_PRINTED: usize = 96 << 10;

/// Runs one input: a sequence of accesses, and of what the host does.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new();
    let mut printed = 0;
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        match input.below(16) {
            0..=3 => _ = machine.read(COM1.start + u64::from(input.byte() % 8), 1),
            4..=6 => {
                let register = u64::from(input.byte() % 8);
                machine.write(COM1.start + register, &[input.byte()]);
            }
            7 | 8 => machine.write(COM1.start, &[input.byte()]),
            9 => _ = machine.read(COM1.start + 5, 1),
            10 => {
                // Mostly a line, now and then more than there is room for.
                let times = if input.one_in(16) { 300 } else { 1 };
                let count = usize::from(input.byte()) * times;
                for at in 0..count.min(MOST_PRINTED - printed) {
                    machine.write_in_a_row(COM1.start, &[at as u8]);
                    printed += 1;
                }
                machine.settle();
            }
            11 | 12 => {
                let first = input.byte();
                let count = if input.one_in(16) { usize::from(input.byte()) * 400 } else { usize::from(first) % 80 };
                let bytes: Vec<u8> = (0..count).map(|at| first.wrapping_add(at as u8)).collect();
                machine.type_in(&bytes);
            }
            _ => machine.serve(usize::from(input.byte()) * 8 + 1),
        }
    }
    machine.end();
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let set = |script: Script, register: u8, value: u8| script.bytes(&[4, register, value]);
    let new = Script::new;
    let interrupts = set(new(), 1, 3);
    let prints = |script: Script, times: u8| (0..times).fold(script, |script, _| script.bytes(&[10, 15, 255]));
    let full = prints(interrupts.clone(), 1);
    vec![
        ("echo", interrupts.clone().bytes(&[11, 20, 0, 0, 2, 0, 0, 7, 65, 13, 10, 0, 2]).done()),
        ("divisor", set(set(set(new(), 3, 0x83), 0, 1), 3, 3).bytes(&[0, 0, 0, 3]).done()),
        ("loopback", set(set(interrupts.clone(), 4, 0x1f), 0, 7).bytes(&[0, 6, 0, 0]).done()),
        ("typed-in-loopback", set(set(new(), 4, 0x10).bytes(&[11, 10, 0]), 4, 0).done()),
        ("waits", full.clone().bytes(&[9, 13, 1, 9, 0, 2]).done()),
        ("misses", prints(new(), 2).bytes(&[9, 13, 255, 9]).done()),
        ("waits-with-the-divisor", set(full.bytes(&[9]), 3, 0x80).bytes(&[13, 1]).done()),
        ("much-input", new().bytes(&[11, 1, 15, 255, 11, 2, 15, 255]).done()),
    ]
}
