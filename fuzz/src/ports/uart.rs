//! What a 16550 should answer (PC16550D data sheet), whose transmitter is always empty, unless nobody takes what it has sent.

use std::collections::VecDeque;

use super::Chip;

pub const COM1: Chip = Chip { start: 0x3f8, len: 8 };

/// Its receiver holds so many bytes.
const FIFO: usize = 64;
/// So much input waits before the receiver, and so much output behind the transmitter.
const MOST: usize = 64 << 10;

const RECEIVED: u8 = 1;
const TRANSMITTED: u8 = 2;
const LOOPBACK: u8 = 1 << 4;
const DIVISOR_ACCESS: u8 = 1 << 7;
const READY: u8 = 0x60;

/// The port, and what waits on both sides of it.
pub struct Uart {
    /// Interrupts that are enabled, line control, modem control, scratch, and the divisor's halves.
    enabled: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    fifo: VecDeque<u8>,
    input: VecDeque<u8>,
    output: VecDeque<u8>,
    /// Interrupts that wait to be identified.
    pending: u8,
    /// The line was raised.
    raised: bool,
    /// The receiver has become empty, which the host sees at its next turn.
    wanted: bool,
    /// The guest was told to wait.
    waits: bool,
    /// Bytes that the guest has written, and those of them that nobody gets.
    pub written: u64,
    pub missed: u64,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            enabled: 0,
            line_control: 3,
            modem_control: 8,
            scratch: 0,
            divisor: [12, 0],
            fifo: VecDeque::new(),
            input: VecDeque::new(),
            output: VecDeque::new(),
            pending: 0,
            raised: false,
            wanted: false,
            waits: false,
            written: 0,
            missed: 0,
        }
    }
}

impl Uart {
    /// What is read; `found` is what was. It takes single bytes only.
    pub fn read(&mut self, offset: u64, len: usize, found: u64) -> u64 {
        if len != 1 {
            return 0;
        }
        let value = match offset {
            0 | 1 if self.line_control & DIVISOR_ACCESS != 0 => self.divisor[offset as usize],
            0 => self.receive(),
            1 => self.enabled,
            2 => self.identify(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => return self.line_status(found),
            6 => self.modem_status(),
            _ => self.scratch,
        };
        value.into()
    }

    fn receive(&mut self) -> u8 {
        self.pending &= !(RECEIVED << 2);
        let byte = self.fifo.pop_front().unwrap_or(0);
        self.wanted |= self.fifo.is_empty();
        byte
    }

    /// Bits 6 and 7: it has FIFOs. Bit 0: there is none.
    fn identify(&mut self) -> u8 {
        let pending = std::mem::take(&mut self.pending);
        0xc0 | if pending == 0 { 1 } else { pending }
    }

    fn line_status(&mut self, found: u64) -> u64 {
        let received = u64::from(!self.fifo.is_empty());
        // With no room behind it, the transmitter may be said to be busy, for a time.
        let busy = self.output.len() >= MOST && found & u64::from(READY) == 0;
        self.waits |= busy;
        received | if busy { 0 } else { READY.into() }
    }

    /// In loopback the outputs lead to the inputs.
    fn modem_status(&self) -> u8 {
        if self.modem_control & LOOPBACK == 0 {
            return 0xb0;
        }
        let control = self.modem_control;
        (control & 1) << 5 | (control & 2) << 3 | (control & 0xc) << 4
    }

    /// A byte is written.
    pub fn write(&mut self, offset: u64, value: u8) {
        match offset {
            0 | 1 if self.line_control & DIVISOR_ACCESS != 0 => self.divisor[offset as usize] = value,
            0 if self.modem_control & LOOPBACK != 0 => self.loop_back(value),
            0 => self.transmit(value),
            1 => self.enable(value & 0xf),
            3 => self.line_control = value,
            4 => {
                self.modem_control = value;
                // What was typed while it was in loopback comes now.
                self.feed();
            }
            7 => self.scratch = value,
            _ => {}
        }
    }

    /// What does not fit is lost, as on a line.
    fn loop_back(&mut self, value: u8) {
        if self.fifo.len() < FIFO {
            self.fifo.push_back(value);
            self.raise(RECEIVED);
        }
    }

    fn transmit(&mut self, value: u8) {
        self.written += 1;
        self.output.push_back(value);
        if self.output.len() > MOST {
            self.output.pop_front();
            self.missed += 1;
        }
        self.raise(TRANSMITTED);
    }

    fn enable(&mut self, value: u8) {
        self.enabled = value;
        if !self.fifo.is_empty() {
            self.raise(RECEIVED);
        }
        self.raise(TRANSMITTED);
    }

    /// One that is enabled, and does not wait already.
    fn raise(&mut self, interrupt: u8) {
        let code = if interrupt == RECEIVED { RECEIVED << 2 } else { TRANSMITTED };
        if self.enabled & interrupt != 0 && self.pending & code == 0 {
            self.pending |= code;
            self.raised = true;
        }
    }

    /// Whether the line was raised since the last call.
    pub fn take_interrupt(&mut self) -> bool {
        std::mem::take(&mut self.raised)
    }

    /// How many bytes there is room for.
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MOST - self.input.len());
        self.input.extend(&bytes[..taken]);
        self.feed();
        taken
    }

    fn feed(&mut self) {
        if self.modem_control & LOOPBACK != 0 {
            return;
        }
        let count = self.input.len().min(FIFO - self.fifo.len());
        self.fifo.extend(self.input.drain(..count));
        if count > 0 {
            self.raise(RECEIVED);
        }
    }

    /// The host's turn.
    pub fn take_output(&mut self, most: usize) -> Vec<u8> {
        if std::mem::take(&mut self.wanted) {
            self.feed();
        }
        let bytes: Vec<u8> = self.output.drain(..most.min(self.output.len())).collect();
        if std::mem::take(&mut self.waits) && self.line_control & DIVISOR_ACCESS == 0 {
            self.enable(self.enabled);
        }
        bytes
    }

    /// Bytes that the guest has not got.
    pub fn left(&self) -> usize {
        self.fifo.len() + self.input.len()
    }
}
