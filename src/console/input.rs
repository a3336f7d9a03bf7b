//! From the source of input to the port's queue.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::legacy::Serial;
use crate::sys::{EventFd, InputStream};

const PIECE: usize = 4096;

pub(super) struct Input {
    /// `None` if there is no source, or once it has ended.
    source: Option<InputStream>,
    /// What to wait on until the source has something; `None` for one that always has.
    polled: Option<Arc<OwnedFd>>,
    /// Read from the source, and not yet taken by the port: somebody else may have filled the room that was there.
    pending: Vec<u8>,
    serial: Arc<Serial>,
    /// Signalled when the guest has taken what the port held.
    wanted: Arc<EventFd>,
    tokens: Option<Tokens>,
    /// There is more to read without waiting.
    again: bool,
}

#[derive(Clone, Copy)]
struct Tokens {
    source: Token,
    wanted: Token,
}

impl Input {
    pub(super) fn new(source: Option<InputStream>, serial: &Arc<Serial>) -> Result<Self> {
        let polled = match &source {
            Some(stream) if stream.must_be_polled() => Some(stream.as_fd().try_clone_to_owned().map_err(|e| {
                Error::new(ErrorKind::Console, "cannot duplicate the console's input descriptor").with_source(e)
            })?),
            _ => None,
        };
        // Nothing will ever say that one that is not polled has something: begin with the first turn.
        let again = source.is_some() && polled.is_none();
        let wanted = Arc::new(serial.input_wanted().try_clone()?);
        let serial = Arc::clone(serial);
        Ok(Self { source, polled: polled.map(Arc::new), pending: Vec::new(), serial, wanted, tokens: None, again })
    }

    pub(super) fn attach(&mut self, io: &mut Io) {
        self.tokens = Some(Tokens { source: io.token(), wanted: io.token() });
    }

    pub(super) fn turn(&mut self, events: &[Event]) {
        let Some(tokens) = self.tokens else { return };
        let happened = |token| events.iter().any(|event| event.token == token);
        let wanted = happened(tokens.wanted);
        if wanted {
            self.serial.feed();
        }
        if wanted || happened(tokens.source) || std::mem::take(&mut self.again) {
            self.run();
        }
    }

    pub(super) fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        wants.doorbell(tokens.wanted, &self.wanted);
        // What is left waits until the guest reads: the port says then that it wants more.
        if let Some(polled) = self.polled.as_ref().filter(|_| self.pending.is_empty()) {
            wants.descriptor(tokens.source, polled, Interest::Readable);
        }
        if self.again {
            wants.again();
        }
    }

    fn run(&mut self) {
        let Some(stream) = &mut self.source else { return };
        if self.pending.is_empty() {
            match read(stream) {
                Ok(bytes) if bytes.is_empty() => return self.end(),
                Ok(bytes) => self.pending = bytes,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return self.end(),
            }
        }
        let taken = self.serial.queue_input(&self.pending);
        self.pending.drain(..taken);
        self.again = self.pending.is_empty() && self.polled.is_none();
    }

    fn end(&mut self) {
        self.source = None;
        self.polled = None;
    }
}

fn read(stream: &mut InputStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    let len = stream.read(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}
