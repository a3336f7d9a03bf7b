//! From the source of input to the port's queue.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::legacy::Serial;
use crate::sys::{InputStream, Interest};
use crate::virtio::{Control, IoThread, Registration};

const PIECE: usize = 4096;

struct Pump {
    state: Mutex<State>,
    serial: Arc<Serial>,
    readable: OnceLock<Control>,
}

struct State {
    /// `None` where there is no source, or once it has ended.
    source: Option<InputStream>,
    /// Read from the source, and not yet taken by the port: somebody else may have filled the room that was there.
    pending: Vec<u8>,
}

pub(super) fn connect(
    source: Option<InputStream>,
    serial: &Arc<Serial>,
    io_thread: &IoThread,
) -> Result<Vec<Registration>> {
    let polled = match &source {
        Some(stream) if stream.must_be_polled() => Some(stream.as_fd().try_clone_to_owned().map_err(|e| {
            Error::new(ErrorKind::Console, "cannot duplicate the console's input descriptor").with_source(e)
        })?),
        _ => None,
    };
    let state = Mutex::new(State { source, pending: Vec::new() });
    let pump = Arc::new(Pump { state, serial: serial.clone(), readable: OnceLock::new() });
    let mut registrations = Vec::new();
    match polled {
        Some(fd) => {
            let woken = pump.clone();
            let registration = io_thread.register(fd, Interest::Readable, move |_| woken.run())?;
            let _ = pump.readable.set(registration.control());
            registrations.push(registration);
        }
        // Nothing will ever say that it is readable: begin with the first turn of the thread.
        None => serial.input_wanted().signal(),
    }
    let wanted = serial.input_wanted().try_clone()?;
    registrations.push(io_thread.register(wanted, Interest::Readable, move |_| {
        pump.serial.input_wanted().take();
        pump.serial.feed();
        pump.run();
    })?);
    Ok(registrations)
}

impl Pump {
    fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { source, pending } = &mut *state;
        let Some(stream) = source else { return };
        if pending.is_empty() {
            match read(stream) {
                Ok(bytes) if bytes.is_empty() => {
                    *source = None;
                    return self.watch(Interest::Nothing);
                }
                Ok(bytes) => *pending = bytes,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => {
                    *source = None;
                    return self.watch(Interest::Nothing);
                }
            }
        }
        let taken = self.serial.queue_input(pending);
        pending.drain(..taken);
        // What is left waits until the guest reads: the port says then that it wants more.
        let full = !pending.is_empty();
        self.watch(if full { Interest::Nothing } else { Interest::Readable });
        if !full && !stream.must_be_polled() {
            self.serial.input_wanted().signal();
        }
    }

    fn watch(&self, interest: Interest) {
        if let Some(control) = self.readable.get() {
            control.set_interest(interest);
        }
    }
}

fn read(stream: &mut InputStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    let len = stream.read(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}
