//! The chips that a guest reaches by ports, and the windows of its devices: accesses of any width at any place, against models.

mod others;
pub mod serial;
mod uart;
pub mod windows;

use vmcell::testing::rooms::Ports;

use crate::alloc::Meter;
use crate::input::{Input, Script};
use others::{CMOS, I8042, Others, PANIC, POWER};
use uart::{COM1, Uart};

/// What all chips may hold: the serial port's output and input, which are 64 KiB each.
const MOST_HELD: i64 = 512 << 10;
const MOST_STEPS: usize = 400;

/// The chips, and what each should answer.
struct Machine {
    ports: Ports,
    uart: Uart,
    others: Others,
    meter: Meter,
}

impl Machine {
    fn new() -> Self {
        let ports = Ports::new().expect("the host gives descriptors");
        Self { ports, uart: Uart::default(), others: Others::default(), meter: Meter::new(MOST_HELD) }
    }

    /// Reads some ports at once.
    fn read(&mut self, port: u64, len: usize) -> u64 {
        let found = self.read_in_a_row(port, len);
        self.settle();
        found
    }

    /// As [`read`](Self::read), but interrupts are looked at later.
    fn read_in_a_row(&mut self, port: u64, len: usize) -> u64 {
        let mut bytes = [0xee; 8];
        let (ports, found) = (&self.ports, &mut bytes[..len]);
        let there = self.meter.run(|| ports.bus().read(port, found));
        let place = place(port, len as u64);
        assert_eq!(there, place.is_some(), "whether there is a chip for {len} bytes at {port:#x}");
        let found = found.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let expected = match place {
            Some((COM1, offset)) => self.uart.read(offset, len, found),
            Some((chip, offset)) => self.others.read(chip, offset),
            None => 0,
        };
        assert_eq!(found, expected, "{len} bytes at {port:#x}");
        found
    }

    /// Writes some ports at once.
    fn write(&mut self, port: u64, bytes: &[u8]) {
        self.write_in_a_row(port, bytes);
        self.settle();
    }

    /// As [`write`](Self::write), but interrupts are looked at later.
    fn write_in_a_row(&mut self, port: u64, bytes: &[u8]) {
        let ports = &self.ports;
        let there = self.meter.run(|| ports.bus().write(port, bytes));
        let place = place(port, bytes.len() as u64);
        assert_eq!(there, place.is_some(), "whether there is a chip for {bytes:x?} at {port:#x}");
        match (place, bytes) {
            (Some((COM1, offset)), [value]) => self.uart.write(offset, *value),
            (Some((chip, offset)), [value]) => self.others.write(chip, offset, *value),
            _ => {}
        }
    }

    /// Nobody asked for anything, and no interrupt was raised, but what the models say.
    fn settle(&mut self) {
        assert_eq!(self.ports.asked(), std::mem::take(&mut self.others.asked), "what the guest asked for");
        assert_eq!(self.ports.interrupted(), self.uart.take_interrupt(), "an interrupt of the serial port");
    }

    /// The host types.
    fn type_in(&mut self, bytes: &[u8]) {
        let ports = &self.ports;
        let taken = self.meter.run(|| ports.type_in(bytes));
        assert_eq!(taken, self.uart.type_in(bytes), "how much of {} bytes there was room for", bytes.len());
        self.settle();
    }

    /// The I/O thread does its part.
    fn serve(&mut self, most: usize) {
        let ports = &self.ports;
        let found = self.meter.run(|| {
            ports.feed();
            crate::alloc::uncounted(|| ports.take_output(most))
        });
        assert!(found == self.uart.take_output(most), "the guest's output is not what it wrote");
        self.settle();
        let output = self.ports.output();
        assert_eq!((output.written, output.missed), (self.uart.written, self.uart.missed), "bytes written and missed");
        assert_eq!(output.written, output.delivered + output.missed + output.waiting, "a byte is lost: {output:?}");
    }

    /// A guest that takes all input, and a host that takes all output, come to an end.
    fn end(mut self) {
        let line_control = [0x03];
        self.write(COM1.start + 3, &line_control);
        self.write(COM1.start + 4, &[0]);
        self.write(COM1.start + 1, &[1]);
        self.serve(1 << 20);
        // As much as the receiver holds, each time that it has something.
        while self.read(COM1.start + 5, 1) & 1 != 0 {
            (0..64).for_each(|_| _ = self.read_in_a_row(COM1.start, 1));
            self.settle();
            self.serve(1);
        }
        assert_eq!(self.uart.left(), 0, "bytes of input that the guest never gets");
        assert_eq!(self.read(COM1.start + 5, 1) & 0x60, 0x60, "the transmitter is ready at the end");
    }
}

/// Some neighbouring ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    pub start: u64,
    pub len: u64,
}

fn place(port: u64, len: u64) -> Option<(Chip, u64)> {
    let chip = [COM1, I8042, CMOS, POWER, PANIC]
        .into_iter()
        .find(|chip| (chip.start..chip.start + chip.len).contains(&port))?;
    (len > 0 && port - chip.start + len <= chip.len).then_some((chip, port - chip.start))
}

/// Runs one input: any accesses of any ports.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new();
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        let port = any_port(&mut input);
        let choice = input.byte();
        let len = if choice & 2 != 0 { usize::from(choice >> 2) % 9 } else { 1 };
        if choice & 1 == 0 {
            machine.read(port, len);
        } else {
            let bytes = input.long().to_le_bytes();
            machine.write(port, &bytes[..len]);
        }
        if choice >= 0xf0 {
            machine.type_in(&[choice; 5]);
            machine.serve(usize::from(choice & 7) + 1);
        }
    }
    machine.end();
}

fn any_port(input: &mut Input) -> u64 {
    let near = |chip: Chip, input: &mut Input| (chip.start - 2).wrapping_add(u64::from(input.byte()) % (chip.len + 4));
    match input.below(8) {
        0 => u64::from(input.half()),
        1 => input.long(),
        2 | 3 => near(COM1, input),
        4 => near(I8042, input),
        5 => near(CMOS, input),
        6 => near(POWER, input),
        _ => near(PANIC, input),
    }
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let write = |script: Script, chip: u8, at: u8, value: u8| script.bytes(&[chip, at, 1]).long(value.into());
    let read = |script: Script, chip: u8, at: u8| script.bytes(&[chip, at, 0]);
    let new = Script::new;
    let every_width = |script: Script| {
        (0..9u8).fold(script, |script, len| {
            script.bytes(&[2, 2 + len, len << 2 | 2]).bytes(&[4, 2, len << 2 | 3]).long(0xfe)
        })
    };
    vec![
        ("self-test", read(read(read(write(new(), 4, 6, 0xaa), 4, 6), 4, 2), 4, 6).done()),
        ("resets", write(write(new(), 4, 6, 0xfe), 6, 4, 1).done()),
        ("power-off", write(new(), 6, 2, 0x34).done()),
        ("panics", write(read(write(new(), 7, 2, 1), 7, 2), 7, 2, 2).done()),
        ("clock", read(write(new(), 5, 2, 10), 5, 3).done()),
        ("every-width", every_width(new()).done()),
        ("holes", new().bytes(&[0]).half(0x3f7).bytes(&[10]).bytes(&[1]).long(u64::MAX).bytes(&[34]).done()),
    ]
}
