//! The 16550A at COM1: the model of `vm-superio`, its output held in a bounded buffer, its input fed as the guest takes it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::Trigger;
use vm_superio::serial::{Serial as Uart, SerialEvents, SerialState as UartState};

use super::output::OutputBuffer;
use crate::bus::BusDevice;
use crate::error::{Error, ErrorKind, Result};
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

/// The registers of a serial port, and the input that the guest has not taken yet, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct SerialState {
    pub(crate) divisor: [u8; 2],
    pub(crate) interrupt_enable: u8,
    pub(crate) interrupt_identification: u8,
    pub(crate) line_control: u8,
    pub(crate) line_status: u8,
    pub(crate) modem_control: u8,
    pub(crate) modem_status: u8,
    pub(crate) scratch: u8,
    /// What lies in the port's own buffer.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex"))]
    pub(crate) received: Vec<u8>,
    /// What waits behind it.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex"))]
    pub(crate) input: Vec<u8>,
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

    /// What the guest has made of the port, and what it has not taken yet. Its output is the reader's.
    pub(crate) fn save(&self) -> SerialState {
        let state = self.state();
        let uart = state.uart.state();
        SerialState {
            divisor: [uart.baud_divisor_low, uart.baud_divisor_high],
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            line_status: uart.line_status,
            modem_control: uart.modem_control,
            modem_status: uart.modem_status,
            scratch: uart.scratch,
            received: uart.in_buffer,
            input: state.input.iter().copied().collect(),
        }
    }

    /// Puts a port that no guest has used yet into a saved state.
    ///
    /// # Errors
    /// If there is more input than a port takes.
    pub(crate) fn restore(&self, saved: &SerialState) -> Result<()> {
        let refused = |message: String| Error::new(ErrorKind::InvalidConfig, message);
        if saved.input.len() > INPUT_CAPACITY {
            let len = saved.input.len();
            return Err(refused(format!("{len} bytes of saved console input, allowed are {INPUT_CAPACITY}")));
        }
        let [low, high] = saved.divisor;
        let uart = UartState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: saved.interrupt_enable,
            interrupt_identification: saved.interrupt_identification,
            line_control: saved.line_control,
            line_status: saved.line_status,
            modem_control: saved.modem_control,
            modem_status: saved.modem_status,
            scratch: saved.scratch,
            in_buffer: saved.received.clone(),
        };
        let (line, taken) = (Line(self.interrupt.try_clone()?), InputTaken(self.input_wanted.clone()));
        let mut state = self.state();
        state.uart = Uart::from_state(&uart, line, taken, self.output.clone()).map_err(|cause| {
            refused("the saved state of a serial port is refused".into()).with_source(cause.to_string())
        })?;
        state.input = saved.input.iter().copied().collect();
        if saved.received.is_empty() {
            // Nothing will tell that the guest has taken everything.
            state.feed();
        }
        Ok(())
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

    #[test]
    fn a_port_goes_on_from_its_saved_state_with_the_input_that_was_not_read() {
        let (source, _output) = serial();
        source.write(3, &[0x83]);
        source.write(0, &[1]);
        source.write(3, &[3]);
        source.write(1, &[1]);
        source.write(7, &[0x5a]);
        let input: Vec<u8> = (0..200u8).collect();
        source.queue_input(&input);
        assert_eq!([read(&source, 0), read(&source, 0)], [0, 1]);
        let saved = source.save();
        let (restored, _output) = serial();
        restored.restore(&saved).unwrap();
        assert_eq!(restored.save(), saved);
        assert_eq!([read(&restored, 7), read(&restored, 1)], [0x5a, 1]);
        let mut seen = Vec::new();
        while read(&restored, 5) & 1 != 0 {
            seen.push(read(&restored, 0));
            if restored.input_wanted().take() {
                restored.feed();
            }
        }
        assert_eq!(seen, input[2..]);
    }

    #[test]
    fn a_state_with_more_input_than_a_port_takes_is_refused() {
        let (serial, _output) = serial();
        let state = SerialState { input: vec![0; INPUT_CAPACITY + 1], ..SerialState::default() };
        assert_eq!(
            serial.restore(&state).unwrap_err().to_string(),
            "65537 bytes of saved console input, allowed are 65536"
        );
        let state = SerialState { received: vec![0; 1000], ..SerialState::default() };
        let error = serial.restore(&state).unwrap_err().chain();
        assert!(error.starts_with("the saved state of a serial port is refused"), "{error}");
    }
}
