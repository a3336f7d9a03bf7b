//! The 16550A at COM1: the model of `vm-superio`, its output held in a bounded buffer, its input fed as the guest takes it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::Trigger;
use vm_superio::serial::{Serial as Uart, SerialEvents};

use super::output::OutputBuffer;
use crate::bus::BusDevice;
use crate::error::Result;
use crate::sys::{EventFd, lock};

/// Register offsets (PC16550D data sheet, table II).
const INTERRUPT_ENABLE: u8 = 1;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
/// Line control: offsets 0 and 1 are the divisor.
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Line status: the holding register and the transmitter are empty.
const TRANSMITTER_EMPTY: u8 = 3 << 5;

/// The most input that waits for the guest.
const INPUT_CAPACITY: usize = 64 << 10;

/// A serial port. Shared by vCPU threads and the I/O thread.
pub(crate) struct Serial {
    state: Mutex<State>,
    output: OutputBuffer,
    interrupt: EventFd,
    input_wanted: Arc<EventFd>,
}

struct State {
    uart: Uart<Line, InputTaken, OutputBuffer>,
    input: VecDeque<u8>,
    /// How many bytes of input were queued in all.
    typed: u64,
}

/// The interrupt line: each trigger is an edge.
struct Line(EventFd);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> std::result::Result<(), Infallible> {
        self.0.signal();
        Ok(())
    }
}

/// Wakes the feeder of the input when the guest has taken all of it.
struct InputTaken(Arc<EventFd>);

impl SerialEvents for InputTaken {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.0.signal();
    }
}

impl Serial {
    /// A port whose output goes to `output`.
    pub(crate) fn new(output: OutputBuffer) -> Result<Self> {
        let interrupt = EventFd::new()?;
        let input_wanted = Arc::new(EventFd::new()?);
        let uart = Uart::with_events(Line(interrupt.try_clone()?), InputTaken(input_wanted.clone()), output.clone());
        Ok(Self {
            state: Mutex::new(State { uart, input: VecDeque::new(), typed: 0 }),
            output,
            interrupt,
            input_wanted,
        })
    }

    /// Each signal is an edge on the port's interrupt line.
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Signalled when the guest has taken everything from the port's own buffer: call [`feed`](Self::feed) then.
    pub(crate) fn input_wanted(&self) -> &EventFd {
        &self.input_wanted
    }

    /// Queues input for the guest, and returns how many bytes there was room for.
    pub(crate) fn queue_input(&self, bytes: &[u8]) -> usize {
        let mut state = self.state();
        let room = INPUT_CAPACITY.saturating_sub(state.input.len());
        let taken = bytes.len().min(room);
        state.input.extend(bytes.iter().take(taken));
        state.typed = state.typed.wrapping_add(taken as u64);
        state.feed();
        taken
    }

    /// How many bytes of input were queued so far.
    pub(crate) fn typed(&self) -> u64 {
        self.state().typed
    }

    /// Moves queued input into the port's own buffer, as far as it goes.
    pub(crate) fn feed(&self) {
        self.state().feed();
    }

    /// Tells the guest that the transmitter, held back while the output buffer was full, takes bytes again.
    pub(crate) fn release_transmitter(&self) {
        let uart = &mut self.state().uart;
        // Writing the interrupt enable register raises "transmitter empty" again, unless the divisor is in its place.
        if uart.read(LINE_CONTROL) & DIVISOR_ACCESS == 0 {
            let enabled = uart.read(INTERRUPT_ENABLE);
            let _ = uart.write(INTERRUPT_ENABLE, enabled);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn feed(&mut self) {
        while !self.input.is_empty() {
            let (bytes, _) = self.input.as_slices();
            // A lack of room is an error there; in loopback mode nothing is taken.
            match self.uart.enqueue_raw_bytes(bytes) {
                Ok(0) | Err(_) => return,
                Ok(taken) => drop(self.input.drain(..taken)),
            }
        }
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (Ok(register), [value]) = (u8::try_from(offset), data) else { return };
        *value = self.state().uart.read(register);
        if register == LINE_STATUS && self.output.holds_back() {
            *value &= !TRANSMITTER_EMPTY;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (Ok(register), [value]) = (u8::try_from(offset), data) {
            let mut state = self.state();
            // Neither the buffer nor the interrupt line can fail.
            let _ = state.uart.write(register, *value);
            if register == MODEM_CONTROL {
                // In loopback mode nothing was taken, and a guest without input never asks for more.
                state.feed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial() -> (Serial, OutputBuffer) {
        let output = OutputBuffer::new().unwrap();
        (Serial::new(output.clone()).unwrap(), output)
    }

    fn read(serial: &Serial, offset: u64) -> u8 {
        let mut data = [0];
        serial.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn output_reaches_the_buffer_and_wide_accesses_do_not() {
        let (serial, output) = serial();
        let reader = output.reader("a reader");
        serial.write(0, b"a");
        serial.write(0, b"bc");
        let mut bytes = Vec::new();
        reader.take(&mut bytes, 4);
        assert_eq!(bytes, b"a");
    }

    #[test]
    fn input_is_fed_as_the_guest_takes_it_and_nothing_is_lost() {
        let (serial, _output) = serial();
        let input: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        assert_eq!(serial.queue_input(&input), 1000);
        let mut seen = Vec::new();
        while read(&serial, 5) & 1 != 0 {
            seen.push(read(&serial, 0));
            if serial.input_wanted().take() {
                serial.feed();
            }
        }
        assert_eq!(seen, input);
    }

    #[test]
    fn input_that_came_in_loopback_mode_comes_after_it() {
        let (serial, _output) = serial();
        serial.write(1, &[1]);
        serial.write(4, &[0x10]);
        assert_eq!(serial.queue_input(b"ls"), 2);
        assert_eq!(read(&serial, 5) & 1, 0);
        serial.write(4, &[0]);
        assert!(serial.interrupt().take());
        assert_eq!([read(&serial, 0), read(&serial, 0)], *b"ls");
    }

    #[test]
    fn input_beyond_the_bound_is_left_with_the_caller() {
        let (serial, _output) = serial();
        let taken = serial.queue_input(&vec![b'x'; 2 * INPUT_CAPACITY]);
        assert!(taken <= INPUT_CAPACITY, "{taken}");
        let more = serial.queue_input(&vec![b'x'; 2 * INPUT_CAPACITY]);
        assert!(more <= INPUT_CAPACITY - taken + 64, "{more}");
        assert_eq!(serial.queue_input(b"x"), 0);
    }

    #[test]
    fn a_full_buffer_holds_the_transmitter_back_until_it_was_drained() {
        let (serial, output) = serial();
        let reader = output.reader("a reader");
        serial.write(1, &[2]);
        serial.interrupt().take();
        while !output.holds_back() {
            serial.write(0, b"x");
        }
        assert_eq!(read(&serial, 5) & 0x60, 0);
        read(&serial, 2);
        serial.interrupt().take();
        reader.take(&mut Vec::new(), 100);
        assert!(output.releases());
        serial.release_transmitter();
        assert_eq!(read(&serial, 5) & 0x60, 0x60);
        assert!(serial.interrupt().take());
        assert_eq!(read(&serial, 2) & 0xf, 2);
    }
}
