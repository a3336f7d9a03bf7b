//! From the port's buffer to the sink.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::legacy::{OutputBuffer, Pressure, Serial};
use crate::sys::{Interest, OutputStream, Timer};
use crate::virtio::{Control, IoThread, Registration};

pub(super) type Callback = Box<dyn FnMut(&[u8]) + Send>;

pub(super) enum Sink {
    Stream(OutputStream),
    Callback(Callback),
}

/// How many pieces are taken before the other devices on the thread have their turn.
const BATCH: usize = 16;
const PIECE: usize = 4096;

/// A guest that writes a byte mostly writes another one soon: they are collected for this long, which nobody sees.
const COLLECT: Duration = Duration::from_millis(2);
/// How soon a sink that was full is looked at again, whether or not it has room.
const WHILE_BLOCKED: Duration = Duration::from_millis(100);

struct Drain {
    sink: Mutex<Sink>,
    /// Runs out some time after the guest wrote, or while the sink has no room.
    timer: Mutex<Timer>,
    blocked: AtomicBool,
    buffer: OutputBuffer,
    serial: Arc<Serial>,
    /// How to be told that a full sink has room again.
    writable: OnceLock<Control>,
}

pub(super) fn connect(
    sink: Sink,
    serial: &Arc<Serial>,
    buffer: &OutputBuffer,
    io_thread: &IoThread,
) -> Result<Vec<Registration>> {
    let polled = match &sink {
        Sink::Stream(stream) if stream.must_be_polled() => Some(stream.as_fd().try_clone_to_owned().map_err(|e| {
            Error::new(ErrorKind::Console, "cannot duplicate the console's output descriptor").with_source(e)
        })?),
        _ => None,
    };
    let timer = Timer::new()?;
    let ran_out = timer.descriptor()?;
    let drain = Arc::new(Drain {
        sink: Mutex::new(sink),
        timer: Mutex::new(timer),
        blocked: AtomicBool::new(false),
        buffer: buffer.clone(),
        serial: serial.clone(),
        writable: OnceLock::new(),
    });
    let mut registrations = Vec::new();
    let timed = drain.clone();
    registrations.push(io_thread.register(ran_out, Interest::Readable, move |_| timed.look_again())?);
    if let Some(fd) = polled {
        let woken = drain.clone();
        let registration = io_thread.register(fd, Interest::Nothing, move |_| woken.run())?;
        let _ = drain.writable.set(registration.control());
        registrations.push(registration);
    }
    let filled = buffer.filled().try_clone()?;
    registrations.push(io_thread.register(filled, Interest::Readable, move |_| {
        drain.buffer.filled().take();
        drain.run();
    })?);
    Ok(registrations)
}

impl Drain {
    fn run(&self) {
        let mut sink = lock(&self.sink);
        let mut piece = [0; PIECE];
        let mut moved = false;
        for _ in 0..BATCH {
            let len = self.buffer.peek(&mut piece);
            if len == 0 {
                return self.rest(moved);
            }
            match sink.take(&piece[..len]) {
                Ok(taken) => {
                    moved = true;
                    if self.buffer.consume(taken) {
                        self.serial.release_transmitter();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.watch(Interest::Writable);
                    return lock(&self.timer).set(WHILE_BLOCKED);
                }
                // The reader is gone for good: the guest goes on as if nobody had ever listened.
                Err(_) => {
                    self.buffer.discard();
                    self.serial.release_transmitter();
                    return self.watch(Interest::Nothing);
                }
            }
        }
        self.buffer.filled().signal();
    }

    /// Everything was taken. If there was something, more will follow.
    fn rest(&self, moved: bool) {
        self.watch(Interest::Nothing);
        if moved {
            self.buffer.be_silent();
            lock(&self.timer).set(COLLECT);
        } else {
            self.buffer.announce();
        }
    }

    fn look_again(&self) {
        lock(&self.timer).take();
        if !self.blocked.load(Ordering::Relaxed) {
            return self.run();
        }
        // A guest that was asked to wait must be told when waiting is over, also where the sink never has room again.
        match self.buffer.pressure() {
            Pressure::Drops => self.serial.release_transmitter(),
            Pressure::Room | Pressure::HoldsBack => lock(&self.timer).set(WHILE_BLOCKED),
        }
    }

    fn watch(&self, interest: Interest) {
        self.blocked.store(interest == Interest::Writable, Ordering::Relaxed);
        if let Some(control) = self.writable.get() {
            control.set_interest(interest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::Callback(callback) => {
                callback(bytes);
                Ok(bytes.len())
            }
        }
    }
}
