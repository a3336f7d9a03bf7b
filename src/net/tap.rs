//! The TAP backend.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Need, NicBackend, NicInfo};
use super::offloads::Offloads;
use super::receive::{Delivery, RxBatch};
use super::transmit::TxBatch;
use crate::error::Result;
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::sys::Tap;

/// How soon a device that failed is tried again. One that was set down fails every read until it is up again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// A backend on one queue of a TAP device.
pub(super) struct TapBackend {
    tap: Tap,
    fd: Arc<OwnedFd>,
    /// It tells the device what the guest copes with, which all queues have in common.
    leads: bool,
    tokens: Option<Tokens>,
    /// There may be a frame. Otherwise the descriptor is waited for: a look at each queue whenever one has something to do
    /// would cost a system call each.
    readable: bool,
    /// The device failed; until then it is left alone.
    failed_until: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Tokens {
    device: Token,
    retry: Token,
}

impl TapBackend {
    /// Makes a backend for each queue of one device.
    pub(super) fn all(taps: Vec<Tap>) -> Vec<Box<dyn NicBackend>> {
        let boxed = |(index, tap)| Box::new(Self::new(tap, index == 0)) as Box<dyn NicBackend>;
        taps.into_iter().enumerate().map(boxed).collect()
    }

    fn new(tap: Tap, leads: bool) -> Self {
        let fd = tap.fd();
        Self { tap, fd, leads, tokens: None, readable: true, failed_until: None }
    }
}

impl NicBackend for TapBackend {
    fn info(&self) -> NicInfo {
        NicInfo { offloads: Offloads::ALL, ..NicInfo::default() }
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.tokens = Some(Tokens { device: io.token(), retry: io.token() });
        Ok(())
    }

    fn negotiate(&mut self, guest: Offloads) -> Result<()> {
        self.failed_until = None;
        self.readable = true;
        if self.leads { self.tap.set_offloads(guest) } else { Ok(()) }
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while self.readable && !io.spent() && self.failed_until.is_none() {
            match frames.receive_from(io, &self.fd) {
                Ok(Delivery::Delivered | Delivery::Dropped) => {}
                Ok(Delivery::NoRoom) => return,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.failed_until = Instant::now().checked_add(TRY_AGAIN),
            }
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            match frame.send_to(&self.fd) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // A frame that the device does not take is lost, as on any wire.
                Ok(()) | Err(_) => frames.done(),
            }
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        let readable = need.room && self.failed_until.is_none();
        match (readable, need.backlog) {
            (true, true) => wants.descriptor(tokens.device, &self.fd, Interest::Both),
            (true, false) => wants.descriptor(tokens.device, &self.fd, Interest::Readable),
            (false, true) => wants.descriptor(tokens.device, &self.fd, Interest::Writable),
            (false, false) => {}
        }
        if let Some(at) = self.failed_until {
            wants.deadline(tokens.retry, at);
        }
    }

    fn woken(&mut self, _io: &mut Io, event: &Event) {
        let Some(tokens) = self.tokens else { return };
        if event.token == tokens.device {
            self.readable |= event.is_readable() || event.is_hang_up();
        } else if event.token == tokens.retry {
            self.failed_until = None;
        }
    }
}
