//! From the port's buffer to the sinks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sink::Sink;
use crate::error::Result;
use crate::event::{Event, Io, Token, Wants};
use crate::legacy::{OutputBuffer, Serial};
use crate::sys::EventFd;

/// A guest that writes a byte mostly writes another one soon: they are collected for this long, which nobody sees.
const COLLECT: Duration = Duration::from_millis(2);
/// How soon a guest that was told to wait is looked after.
const WHILE_WAITING: Duration = Duration::from_millis(50);

pub(super) struct Output {
    sinks: Vec<Sink>,
    /// The one that comes first in the next turn.
    first: usize,
    buffer: OutputBuffer,
    serial: Arc<Serial>,
    /// Signalled when there is something to take.
    filled: Arc<EventFd>,
    tokens: Option<Tokens>,
    /// When to look again, some time after the guest wrote.
    collected: Option<Instant>,
    /// When to look again for a guest that was told to wait.
    look_after: Option<Instant>,
    /// When the limit allows more of what is there.
    limited: Option<Instant>,
    again: bool,
}

#[derive(Clone, Copy)]
struct Tokens {
    filled: Token,
    timer: Token,
}

impl Output {
    pub(super) fn new(sinks: Vec<Sink>, serial: &Arc<Serial>, buffer: &OutputBuffer) -> Result<Self> {
        Ok(Self {
            sinks,
            first: 0,
            buffer: buffer.clone(),
            serial: Arc::clone(serial),
            filled: Arc::new(buffer.filled().try_clone()?),
            tokens: None,
            collected: None,
            look_after: None,
            limited: None,
            again: false,
        })
    }

    pub(super) fn attach(&mut self, io: &mut Io) {
        self.tokens = Some(Tokens { filled: io.token(), timer: io.token() });
        self.sinks.iter_mut().for_each(|sink| sink.attach(io));
    }

    pub(super) fn turn(&mut self, io: &mut Io, events: &[Event]) {
        let now = Instant::now();
        let seen = self.buffer.written();
        self.limited = self.buffer.release(now);
        self.sinks.iter_mut().for_each(|sink| sink.note(events));
        let (took, is_cut) = self.take(io, now);
        self.again = is_cut || self.sinks.iter().any(Sink::is_ready);
        if self.limited.is_some() {
            // Whatever the guest adds, it is not taken before.
            self.buffer.be_silent();
            self.collected = None;
        } else if took {
            // More will follow.
            self.buffer.be_silent();
            self.collected = now.checked_add(COLLECT);
        } else if self.collected.is_none_or(|at| at <= now) {
            self.collected = None;
            // While no sink takes anything, only that the buffer fills up is of interest.
            self.again |= self.sinks.iter().any(Sink::is_idle) && self.buffer.announce(seen);
        }
        if self.buffer.releases() {
            self.serial.release_transmitter();
        }
        self.look_after = self.buffer.keeps_waiting().then(|| now.checked_add(WHILE_WAITING)).flatten();
    }

    /// Has the sinks take what there is, until the turn is over; says whether one took something, and whether some did not come to
    /// their turn. Those are the first in the next.
    fn take(&mut self, io: &mut Io, now: Instant) -> (bool, bool) {
        let len = self.sinks.len();
        let (behind, before) = self.sinks.split_at_mut_checked(self.first).unwrap_or_default();
        let mut took = false;
        for (count, sink) in (1..).zip(before.iter_mut().chain(behind)) {
            took |= sink.turn(io, now);
            if io.spent() && count < len {
                self.first = self.first.wrapping_add(count).checked_rem(len).unwrap_or(0);
                return (took, true);
            }
        }
        (took, false)
    }

    /// Whether the guest has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.buffer.has_ended()
    }

    pub(super) fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        wants.doorbell(tokens.filled, &self.filled);
        for sink in &self.sinks {
            sink.wants(wants);
        }
        let rests = self.sinks.iter().filter_map(Sink::deadline);
        if let Some(at) = rests.chain(self.collected).chain(self.look_after).chain(self.limited).min() {
            wants.deadline(tokens.timer, at);
        }
        if self.again {
            wants.again();
        }
    }
}
