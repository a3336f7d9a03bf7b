//! From the port's buffer to the sink.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::legacy::{OutputBuffer, Pressure, Serial};
use crate::sys::{EventFd, OutputStream};

pub(super) type Callback = Box<dyn FnMut(&[u8]) + Send>;

pub(super) enum Sink {
    Stream(OutputStream),
    Callback(Callback),
}

/// How many pieces are taken in a turn.
const BATCH: usize = 16;
const PIECE: usize = 4096;

/// A guest that writes a byte mostly writes another one soon: they are collected for this long, which nobody sees.
const COLLECT: Duration = Duration::from_millis(2);
/// How soon a sink that was full is looked at again, whether or not it has room.
const WHILE_BLOCKED: Duration = Duration::from_millis(100);

pub(super) struct Drain {
    sink: Sink,
    /// What to wait on while the sink has no room.
    polled: Option<Arc<OwnedFd>>,
    buffer: OutputBuffer,
    serial: Arc<Serial>,
    /// Signalled when there is something to take.
    filled: Arc<EventFd>,
    tokens: Option<Tokens>,
    /// When to look again: some time after the guest wrote, or while the sink has no room.
    look_again: Option<Instant>,
    blocked: bool,
    again: bool,
}

#[derive(Clone, Copy)]
struct Tokens {
    filled: Token,
    sink: Token,
    timer: Token,
}

impl Drain {
    pub(super) fn new(sink: Sink, serial: &Arc<Serial>, buffer: &OutputBuffer) -> Result<Self> {
        let polled = match &sink {
            Sink::Stream(stream) if stream.must_be_polled() => {
                Some(stream.as_fd().try_clone_to_owned().map_err(|e| {
                    Error::new(ErrorKind::Console, "cannot duplicate the console's output descriptor").with_source(e)
                })?)
            }
            _ => None,
        };
        Ok(Self {
            sink,
            polled: polled.map(Arc::new),
            buffer: buffer.clone(),
            serial: Arc::clone(serial),
            filled: Arc::new(buffer.filled().try_clone()?),
            tokens: None,
            look_again: None,
            blocked: false,
            again: false,
        })
    }

    pub(super) fn attach(&mut self, io: &mut Io) {
        self.tokens = Some(Tokens { filled: io.token(), sink: io.token(), timer: io.token() });
    }

    pub(super) fn turn(&mut self, io: &mut Io, events: &[Event]) {
        let Some(tokens) = self.tokens else { return };
        let happened = |token| events.iter().any(|event| event.token == token);
        if happened(tokens.timer) && self.blocked {
            self.look_while_blocked();
        }
        let ran_out = happened(tokens.timer) && !self.blocked;
        if ran_out || happened(tokens.filled) || happened(tokens.sink) || std::mem::take(&mut self.again) {
            self.run(io);
        }
    }

    pub(super) fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        wants.doorbell(tokens.filled, &self.filled);
        if let Some(polled) = self.polled.as_ref().filter(|_| self.blocked) {
            wants.descriptor(tokens.sink, polled, Interest::Writable);
        }
        if let Some(at) = self.look_again {
            wants.deadline(tokens.timer, at);
        }
        if self.again {
            wants.again();
        }
    }

    fn run(&mut self, io: &mut Io) {
        self.blocked = false;
        self.look_again = None;
        let mut piece = [0; PIECE];
        let mut moved = false;
        for _ in 0..BATCH {
            let len = self.buffer.peek(&mut piece);
            if len == 0 {
                return self.rest(moved);
            }
            match self.sink.take(&piece[..len]) {
                Ok(taken) => {
                    moved = true;
                    if self.buffer.consume(taken) {
                        self.serial.release_transmitter();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return self.set_timer(WHILE_BLOCKED);
                }
                // The reader is gone for good: the guest goes on as if nobody had ever listened.
                Err(_) => {
                    self.buffer.discard();
                    return self.serial.release_transmitter();
                }
            }
            if io.spent() {
                break;
            }
        }
        self.again = true;
    }

    /// Everything was taken. If there was something, more will follow.
    fn rest(&mut self, moved: bool) {
        if moved {
            self.buffer.be_silent();
            self.set_timer(COLLECT);
        } else {
            self.buffer.announce();
        }
    }

    /// A guest that was asked to wait must be told when waiting is over, also if the sink never has room again.
    fn look_while_blocked(&mut self) {
        self.look_again = None;
        match self.buffer.pressure() {
            Pressure::Drops => self.serial.release_transmitter(),
            Pressure::Room | Pressure::HoldsBack => self.set_timer(WHILE_BLOCKED),
        }
    }

    fn set_timer(&mut self, delay: Duration) {
        self.look_again = Instant::now().checked_add(delay);
    }
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
