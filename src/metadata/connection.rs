//! A client's connection: requests come in, answers go out, one after the other.

use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::answer::{Answer, Outgoing};
use super::counters::Counters;
use super::request::{Input, MOST_BYTES, Service};

/// What a connection holds in either direction while it is on its way. The client never has more than the first under way.
pub(super) const INCOMING: usize = 2048;
const OUTGOING: usize = 8192;
/// After so many requests a connection ends.
const MOST_REQUESTS: u32 = 100;
/// How long a connection may be without a whole request, and without a byte of its answer that goes out.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that has got nowhere for so long makes room for a new one, if there is no other room.
const QUIET: Duration = Duration::from_secs(1);

/// A socket that waits for a client at the port.
pub(super) fn listener(port: u16) -> Option<Socket<'static>> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; INCOMING]), SocketBuffer::new(vec![0; OUTGOING]));
    // Answers are written at once, so that there is nothing to wait for.
    socket.set_nagle_enabled(false);
    socket.listen(port).ok()?;
    Some(socket)
}

pub(super) struct Connection {
    pub(super) handle: SocketHandle,
    /// What has come of a request.
    request: Vec<u8>,
    answer: Option<Outgoing>,
    requests: u32,
    /// Nothing follows the answer.
    ends: bool,
    /// When it last got anywhere.
    since: Instant,
}

/// What a connection needs, to go on.
pub(super) struct World<'a> {
    pub(super) service: &'a Service,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
    /// The same, by the clock of tokens.
    pub(super) millis: u64,
}

impl Connection {
    pub(super) fn new(handle: SocketHandle, now: Instant) -> Self {
        Self { handle, request: Vec::new(), answer: None, requests: 0, ends: false, since: now }
    }

    /// Reads and answers as far as it goes now.
    pub(super) fn serve(&mut self, socket: &mut Socket, world: &World) {
        while self.write(socket, world.now) {
            if self.ends {
                socket.close();
                return;
            }
            if !self.read(socket, world) {
                return;
            }
        }
    }

    /// Writes the answer; says whether none is left.
    fn write(&mut self, socket: &mut Socket, now: Instant) -> bool {
        let Some(answer) = &mut self.answer else { return true };
        while !answer.rest().is_empty() {
            match socket.send_slice(answer.rest()) {
                Ok(sent) if sent > 0 => {
                    answer.advance(sent);
                    self.since = now;
                }
                Ok(_) | Err(_) => return false,
            }
        }
        self.answer = None;
        true
    }

    /// Reads a request; says whether there is an answer now.
    fn read(&mut self, socket: &mut Socket, world: &World) -> bool {
        // A request that is behind another one has come already.
        if !self.request.is_empty() && self.take(world) {
            return true;
        }
        while socket.can_recv() && self.request.len() < MOST_BYTES {
            let room = MOST_BYTES.saturating_sub(self.request.len());
            let taken = socket.recv(|bytes| {
                let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
                self.request.extend_from_slice(taken);
                (taken.len(), taken.len())
            });
            if taken.unwrap_or(0) == 0 {
                break;
            }
            if self.take(world) {
                return true;
            }
        }
        // The client has said all that it had to say.
        if !socket.may_recv() && matches!(socket.state(), State::CloseWait) {
            socket.close();
        }
        false
    }

    /// Takes a request off what has come; says whether there was one.
    fn take(&mut self, world: &World) -> bool {
        let (len, answer, closes) = match world.service.read(&self.request, world.millis) {
            Input::Unfinished => return false,
            Input::Request { len, answer, closes } => (len, answer, closes),
            Input::Wrong(answer) => (self.request.len(), answer, true),
        };
        self.request.drain(..len.min(self.request.len()));
        self.requests = self.requests.saturating_add(1);
        self.ends = closes || self.requests >= MOST_REQUESTS;
        self.since = world.now;
        world.counters.count(answer.status.code());
        self.begin(answer);
        true
    }

    fn begin(&mut self, answer: Answer) {
        self.answer = Some(Outgoing::new(answer, self.ends));
    }

    /// When its patience ends.
    pub(super) fn until(&self) -> Instant {
        self.since.checked_add(PATIENCE).unwrap_or(self.since)
    }

    /// Ends a connection that has got nowhere for too long: in order if nothing is under way, and else at once.
    pub(super) fn look_at_the_clock(&mut self, socket: &mut Socket, now: Instant) {
        if now < self.until() {
            return;
        }
        let is_idle = self.request.is_empty() && self.answer.is_none() && socket.state() == State::Established;
        if is_idle {
            socket.close();
            self.since = now;
        } else {
            socket.abort();
        }
    }

    /// Whether it may end for another one, and if so, since when it has got nowhere.
    pub(super) fn quiet_since(&self, socket: &Socket, now: Instant) -> Option<Instant> {
        let is_over = socket.state() == State::TimeWait;
        (is_over || now.saturating_duration_since(self.since) >= QUIET).then_some(self.since)
    }
}

/// Whether nothing is left of a connection, not even something to say about its end.
pub(super) fn is_gone(socket: &Socket) -> bool {
    socket.state() == State::Closed && socket.remote_endpoint().is_none()
}
