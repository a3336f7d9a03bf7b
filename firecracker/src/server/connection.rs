//! One connection: requests that come in pieces, answers that go out in pieces, and time limits for both.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::fault::Fault;
use crate::http::{Parsed, Request, Response, parse};

/// For all of a request to come, and for all of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a client to see that it is refused, and to stop sending.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is read at once.
const PIECE: usize = 16 << 10;
/// What comes before a body: a head, and empty lines.
const MOST_BESIDE: usize = 16 << 10;

/// A client, and what it was told and asked so far.
pub struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    state: State,
    /// Nothing more comes from the client.
    has_ended: bool,
    /// The client waited to be told to send a body, and was.
    was_told: bool,
    /// What has come may hold a whole request that was not looked at.
    has_more: bool,
    /// When the client is given up.
    deadline: Option<Instant>,
    /// When something was last heard of it.
    heard: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It ends once what is to go out has.
    Ending,
    /// What still comes is thrown away, so that the client can read what it was told.
    Draining,
    Gone,
}

impl Connection {
    /// A new client.
    pub fn new(stream: UnixStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            state: State::Open,
            has_ended: false,
            was_told: false,
            has_more: false,
            deadline: None,
            heard: now,
        })
    }

    /// Its socket, and what is waited for.
    pub fn interest(&self) -> (&UnixStream, PollFlags) {
        (&self.stream, if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::OUT })
    }

    /// Whether it wants a turn without waiting.
    pub fn has_more(&self) -> bool {
        self.has_more && self.outgoing.is_empty()
    }

    /// When it wants a turn at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it is over.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Since when it waits for its client to say something, if it does.
    pub fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.state == State::Open && self.incoming.is_empty() && self.outgoing.is_empty();
        is_idle.then_some(self.heard)
    }

    /// Reads, serves at most one request, and writes, none of which waits.
    pub fn turn(&mut self, is_ready: bool, now: Instant, most_body: usize, serve: &mut dyn FnMut(Request) -> Response) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.state = State::Gone;
            return;
        }
        if is_ready || self.has_more {
            self.go_on(is_ready, now, most_body, serve).unwrap_or_else(|_gone| self.state = State::Gone);
        }
    }

    /// Tells the client of a fault, and ends.
    pub fn refuse(&mut self, fault: &Fault, now: Instant) {
        let first = self.incoming.trim_ascii_start();
        let answer = fault.response().head_alone(first.starts_with(b"HEAD "));
        self.outgoing.extend(answer.to_bytes(false));
        self.state = State::Ending;
        self.incoming = Vec::new();
        self.has_more = false;
        self.deadline = Some(later(now, PATIENCE));
        let written = self.write(now);
        written.unwrap_or_else(|_gone| self.state = State::Gone);
    }

    fn go_on(
        &mut self,
        is_ready: bool,
        now: Instant,
        most_body: usize,
        serve: &mut dyn FnMut(Request) -> Response,
    ) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            return self.write(now);
        }
        if is_ready {
            self.read(now, most_body)?;
        }
        if self.state == State::Open {
            self.take_request(now, most_body, serve);
            self.write(now)?;
        }
        if self.has_ended && !self.has_more && self.outgoing.is_empty() {
            self.state = State::Gone;
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, most_body: usize) -> io::Result<()> {
        let room = most_body.saturating_add(MOST_BESIDE).saturating_sub(self.incoming.len());
        let mut piece = [0; PIECE];
        let piece = piece.get_mut(..room.min(PIECE)).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        match self.stream.read(piece) {
            Ok(0) => self.has_ended = true,
            Ok(len) => {
                self.heard = now;
                if self.state == State::Open {
                    self.incoming.extend(piece.get(..len).unwrap_or_default());
                    self.has_more = true;
                }
            }
            Err(why) if is_for_later(&why) => {}
            Err(why) => return Err(why),
        }
        Ok(())
    }

    fn take_request(&mut self, now: Instant, most_body: usize, serve: &mut dyn FnMut(Request) -> Response) {
        self.has_more = false;
        if self.incoming.is_empty() {
            self.deadline = None;
            return;
        }
        match parse(&self.incoming, most_body) {
            Ok(Parsed::Whole(request, len)) => {
                self.incoming.drain(..len.min(self.incoming.len()));
                self.has_more = !self.incoming.is_empty();
                self.was_told = false;
                self.deadline = None;
                let (keeps_alive, head_alone) = (request.keeps_alive, request.method.name() == "HEAD");
                let answer = serve(request).head_alone(head_alone);
                self.outgoing.extend(answer.to_bytes(keeps_alive));
                if !keeps_alive {
                    self.state = State::Ending;
                    self.has_more = false;
                }
                self.deadline = Some(later(now, PATIENCE));
            }
            Ok(Parsed::Partial { waits }) => {
                self.deadline = self.deadline.or(Some(later(now, PATIENCE)));
                if waits && !self.was_told {
                    self.was_told = true;
                    self.outgoing.extend(Response::CONTINUE);
                }
            }
            Err(fault) => self.refuse(&fault, now),
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(len) => drop(self.outgoing.drain(..len.min(self.outgoing.len()))),
                Err(why) if is_for_later(&why) => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        if self.state == State::Ending {
            self.stream.shutdown(Shutdown::Write)?;
            self.state = State::Draining;
            self.deadline = Some(later(now, FAREWELL));
        } else if self.state == State::Open && self.incoming.is_empty() {
            self.deadline = None;
        }
        Ok(())
    }
}

fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

fn is_for_later(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
