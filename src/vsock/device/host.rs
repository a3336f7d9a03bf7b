//! What comes from the host: connections that are asked for, and events of streams.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::super::connection::{Asker, State};
use super::super::packet::ends;
use super::super::socket::{Greeting, MAX_GREETING};
use super::{CONNECTION_CHARGE, GREETING_LIMIT, MOST_SPARE, SOCKET_KEY, Vsock};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Io;
use crate::sys::{Ready, peek};

/// An event of a stream takes as long as copying so many bytes.
const CHARGE: u64 = 512;
/// How soon a client is accepted after the host refused that.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

impl Vsock {
    /// Takes the connections that the host program asks for.
    pub(super) fn take_requests(&mut self, io: &mut Io) {
        self.has_more = true;
        while !io.spent() {
            let Some(request) = self.shared.take_request() else {
                self.has_more = false;
                return;
            };
            io.charge(CONNECTION_CHARGE);
            match self.admit(request.stream, State::Greeting) {
                Some(index) => self.ask(index, request.port, Asker::Program(request.answer)),
                None => {
                    self.counters.refused_by_host.add(1);
                    let message = "the VM has as many connections as it may (max_connections)";
                    request.answer.map(|answer| answer.try_send(Err(Error::new(ErrorKind::Vsock, message))));
                }
            }
        }
    }

    /// Accepts clients of the Unix socket while there is room for them.
    pub(super) fn accept_clients(&mut self, io: &mut Io) {
        if self.accept_again.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.accept_again = None;
        while self.acceptable && !self.table.is_full() {
            if io.spent() {
                self.has_more = true;
                return;
            }
            io.charge(CONNECTION_CHARGE);
            match self.socket.as_ref().map(|socket| socket.accept()) {
                Some(Ok(stream)) => {
                    if let Some(index) = self.admit(stream, State::Greeting) {
                        self.await_answer(index, GREETING_LIMIT);
                        self.take_greeting(index);
                    }
                }
                Some(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => {
                    self.accept_again = Instant::now().checked_add(ACCEPT_AGAIN);
                    return;
                }
                None | Some(Err(_)) => self.acceptable = false,
            }
        }
    }

    /// Takes what has happened to streams, as much as is reported at once and the turn is long enough for.
    pub(super) fn take_events(&mut self, io: &mut Io) -> Result<()> {
        if self.events.is_empty() {
            self.epoll.wait(Some(Duration::ZERO), &mut self.events)?;
        }
        while !io.spent()
            && let Some(event) = self.events.pop()
        {
            io.charge(CHARGE);
            if event.key == SOCKET_KEY {
                self.acceptable = true;
            } else if let Some(index) = self.table.of_event(event.key) {
                self.take_event(io, index, event);
                if self.table.of_event(event.key).is_none() {
                    io.charge(CONNECTION_CHARGE);
                }
            }
        }
        Ok(())
    }

    fn take_event(&mut self, io: &mut Io, index: u32, event: Ready) {
        let Some(connection) = self.table.get(index) else { return };
        match connection.state {
            State::Greeting => {
                self.take_greeting(index);
                if event.hang_up {
                    self.leave_early(index);
                }
            }
            State::Opening(_) if event.hang_up => self.leave_early(index),
            // What it has to say is read once the guest has accepted.
            State::Opening(_) => {}
            State::Open | State::Closing | State::Draining => {
                if event.readable || event.hang_up {
                    connection.note_readable();
                }
                if event.writable {
                    io.charge(connection.flush(&self.epoll, &mut self.spare, MOST_SPARE));
                }
                if event.hang_up {
                    connection.hang_up();
                }
                if matches!(connection.state, State::Draining) && connection.holds_nothing() {
                    self.forget(index);
                } else {
                    self.table.queue(index);
                }
            }
        }
    }

    /// The host's end is gone before the guest has answered. What it has written until then still goes to the guest.
    fn leave_early(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let has_written = connection.stream.as_ref().is_some_and(|stream| matches!(peek(stream, &mut [0]), Ok(1)));
        if has_written && matches!(connection.state, State::Opening(_)) {
            connection.note_left();
        } else {
            self.reset(index);
        }
    }

    /// Reads where a client wants to, and nothing behind it.
    fn take_greeting(&mut self, index: u32) {
        let Some(stream) = self.table.get(index).and_then(|connection| connection.stream.as_mut()) else { return };
        let mut bytes = [0; MAX_GREETING];
        let greeting = match peek(stream, &mut bytes) {
            Ok(0) => Greeting::Wrong,
            Ok(len) => Greeting::parse(bytes.get(..len).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Greeting::Incomplete,
            Err(_) => Greeting::Wrong,
        };
        match greeting {
            Greeting::Incomplete => {}
            Greeting::Connect { port, len } => {
                // It was there a moment ago.
                let _ = stream.read_exact(bytes.get_mut(..len).unwrap_or_default());
                self.ask(index, port, Asker::Client);
            }
            Greeting::Wrong => {
                self.counters.refused_by_host.add(1);
                self.forget(index);
            }
        }
    }

    /// Tells a client that the guest has accepted.
    pub(super) fn greet(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let line = format!("OK {}\n", connection.ports.host);
        let greeted = connection.stream.as_mut().map(|stream| stream.write(line.as_bytes()));
        // The stream is empty: if it does not take so little, its other end is gone.
        if !matches!(greeted, Some(Ok(len)) if len == line.len()) {
            connection.end_host(ends::BOTH);
        }
    }
}
