//! When to begin, and what was counted. A conversation over the serial port, line by line.
//!
//! The guest says `begin` after its warm-up, `end key=value ...` after its measurement, then waits for an `x`: the other side
//! looks at the monitor's CPU time at both moments, and the monitor must live until then.

use core::fmt::{Arguments, Write};

use super::machine::cmdline::Cmdline;
use super::machine::serial::{self, Serial};
use super::machine::{clock, port};

/// The keyboard controller's command that resets the machine.
const KEYBOARD_COMMAND: u16 = 0x64;
const RESET: u8 = 0xfe;

pub fn line(text: Arguments<'_>) {
    // The port takes everything.
    let _ = Serial.write_fmt(text);
    let _ = Serial.write_str("\n");
}

/// Ends the guest: by the keyboard controller, and by a fault where there is none.
pub fn end() -> ! {
    serial::wait_for(b'x');
    port::write8(KEYBOARD_COMMAND, RESET);
    // SAFETY: the instruction faults, and there is no interrupt table: a triple fault.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// How long a workload runs: first to warm up, then to be measured.
pub struct Times {
    warm_us: u64,
    run_us: u64,
}

/// What a workload did in the time that was measured.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub done: u64,
    pub kicks: u64,
    pub wrong: u64,
}

impl Times {
    pub fn of(cmdline: &Cmdline) -> Self {
        let us = |key| cmdline.number(key).unwrap_or(200) * 1000;
        Self { warm_us: us("warm_ms"), run_us: us("run_ms") }
    }

    /// Calls `turn`, which returns the totals so far, for as long as it takes; tells what came between `begin` and `end`.
    pub fn measure(&self, mut turn: impl FnMut() -> Count) {
        run_for(self.warm_us, &mut turn);
        line(format_args!("begin"));
        let before = turn();
        let (took, after) = run_for(self.run_us, &mut turn);
        let (done, kicks) = (after.done - before.done, after.kicks - before.kicks);
        line(format_args!("end done={done} us={took} kicks={kicks} wrong={}", after.wrong));
    }
}

/// Returns how long it took, which is a little longer, and the last totals.
fn run_for(us: u64, turn: &mut impl FnMut() -> Count) -> (u64, Count) {
    let begin = clock::now_us();
    loop {
        let count = turn();
        let took = clock::now_us() - begin;
        if took >= us {
            return (took, count);
        }
    }
}
