//! One connection: what is known of its guest's end and of its host's end, and what is owed to the guest.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::handle::Answer;
use super::packet::{HEADER_LEN, HOST_CID, Header, STREAM, ends, op};
use crate::memory::GuestRanges;
use crate::sys::{Epoll, Watch};
use crate::virtio::Chain;

/// What the guest may have on its way to a stream that does not take it.
pub(super) const ROOM: u32 = 64 << 10;
/// It is told of room that it has again once there is so much more than it knows.
const TELL: u32 = ROOM / 2;
/// Bytes of the guest are copied in pieces of this size.
const PIECE: u32 = 4096;

/// The two ends of a connection; the context IDs are those of the guest and of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum State {
    /// A client of the Unix socket has not said yet where it wants to.
    Greeting,
    /// The guest has not answered yet.
    Opening(Asker),
    Open,
    /// The host's end is gone, and the guest knows.
    Closing,
    /// The guest's end is gone. What it sent before waits for the host's end to read.
    Draining,
}

/// Who asked for a connection to the guest.
#[derive(Debug)]
pub(super) enum Asker {
    Program(Option<Answer>),
    Client,
}

/// The guest broke a rule, so that the connection is to be reset.
#[derive(Debug)]
pub(super) struct Violation;

/// A packet that a connection has for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Control {
        op: u16,
        flags: u32,
    },
    /// As many bytes as the stream has, and at most so many.
    Data {
        most: u32,
    },
}

pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) state: State,
    /// Until when the other side must have answered.
    pub(super) deadline: Option<Instant>,
    /// Our end of the Unix socket.
    pub(super) stream: Option<UnixStream>,
    /// By which its events are known.
    key: u64,
    /// What the guest has sent and the stream has not taken.
    held: VecDeque<u8>,
    /// The stream is waited for until it takes more.
    is_full: bool,
    /// There may be something to read.
    readable: bool,
    /// Nobody had the other end of the stream any more when the guest had not answered yet.
    has_left: bool,
    /// How many bytes the guest has sent, how many went on to the stream, and how many of these it knows of. All wrap around.
    received: u32,
    forwarded: u32,
    told: u32,
    /// How many bytes were sent to the guest, how many of these its program has read, and how many may be on their way.
    sent: u32,
    consumed: u32,
    guest_room: u32,
    /// What either side does no more.
    guest_ended: u32,
    host_ended: u32,
    owed: Owed,
}

/// What the guest is to be told.
#[derive(Debug, Default)]
struct Owed {
    request: bool,
    response: bool,
    shutdown: bool,
    credit: bool,
    /// It was asked for room and has not given any yet.
    asked: bool,
}

impl Connection {
    /// One whose guest is not known yet.
    pub(super) fn new(stream: UnixStream, key: u64, state: State) -> Self {
        Self {
            ports: Ports::default(),
            state,
            deadline: None,
            stream: Some(stream),
            key,
            held: VecDeque::new(),
            is_full: false,
            readable: true,
            has_left: false,
            received: 0,
            forwarded: 0,
            told: 0,
            sent: 0,
            consumed: 0,
            guest_room: 0,
            guest_ended: 0,
            host_ended: 0,
            owed: Owed::default(),
        }
    }

    /// Asks the guest for a connection.
    pub(super) fn request(&mut self, ports: Ports, asker: Asker) {
        self.ports = ports;
        self.owed.request = true;
        self.state = State::Opening(asker);
    }

    /// Accepts one that the guest asked for.
    pub(super) fn respond(&mut self, ports: Ports) {
        self.ports = ports;
        self.owed.response = true;
    }

    /// Whether the guest knows of it.
    pub(super) fn is_known(&self) -> bool {
        !self.owed.request && !matches!(self.state, State::Greeting | State::Draining)
    }

    /// Notes what each packet of the guest says.
    pub(super) fn note_room(&mut self, header: &Header) {
        (self.guest_room, self.consumed) = (header.buf_alloc, header.fwd_cnt);
        if self.credit() > 0 {
            self.owed.asked = false;
        }
    }

    pub(super) fn note_left(&mut self) {
        self.has_left = true;
    }

    /// The guest has accepted what it was asked for.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
        self.deadline = None;
        if self.has_left {
            self.hang_up();
        }
    }

    pub(super) fn note_readable(&mut self) {
        self.readable = true;
    }

    /// How many bytes the guest has room for.
    fn credit(&self) -> u32 {
        self.guest_room.saturating_sub(self.sent.wrapping_sub(self.consumed))
    }

    /// The guest wants to know how much room it has.
    pub(super) fn owe_credit(&mut self) {
        self.owed.credit = true;
    }

    /// What is to be sent to the guest next.
    pub(super) fn next(&self) -> Option<Packet> {
        let control = |op| Some(Packet::Control { op, flags: 0 });
        if self.owed.request {
            return control(op::REQUEST);
        }
        if self.owed.response {
            return control(op::RESPONSE);
        }
        if self.owed.shutdown {
            return Some(Packet::Control { op: op::SHUTDOWN, flags: self.host_ended });
        }
        if self.may_read() {
            match self.credit() {
                0 if !self.owed.asked => return control(op::CREDIT_REQUEST),
                0 => {}
                most => return Some(Packet::Data { most }),
            }
        }
        if self.owed.credit { control(op::CREDIT_UPDATE) } else { None }
    }

    fn may_read(&self) -> bool {
        let open = matches!(self.state, State::Open);
        open && self.readable && self.host_ended & ends::SENDS == 0 && self.guest_ended & ends::RECEIVES == 0
    }

    /// The header of a packet to the guest.
    pub(super) fn header(&self, guest_cid: u64, op: u16, flags: u32, len: u32) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: STREAM,
            op,
            flags,
            buf_alloc: ROOM,
            fwd_cnt: self.forwarded,
        }
    }

    /// A packet went to the guest, with so many bytes of the stream. Each one tells it how much room it has.
    pub(super) fn note_sent(&mut self, op: u16, len: u32) {
        self.sent = self.sent.wrapping_add(len);
        self.told = self.forwarded;
        self.owed.credit = false;
        match op {
            op::REQUEST => self.owed.request = false,
            op::RESPONSE => self.owed.response = false,
            op::SHUTDOWN => self.owed.shutdown = false,
            op::CREDIT_REQUEST => self.owed.asked = true,
            _ => {}
        }
    }

    /// Fills `room` with what the stream has; `None` if there is nothing to send now.
    pub(super) fn read(&mut self, mut room: GuestRanges) -> (Option<u32>, GuestRanges) {
        let Some(stream) = &self.stream else { return (None, room) };
        match room.read_stream(stream) {
            Ok(0) => self.end_host(ends::SENDS),
            Ok(len) => return (u32::try_from(len).ok(), room),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => self.end_host(ends::BOTH),
        }
        (None, room)
    }

    /// The host's end sends or receives no more.
    pub(super) fn end_host(&mut self, what: u32) {
        if what & ends::RECEIVES != 0 {
            // What it does not take any more is done with.
            self.forwarded = self.received;
            self.held = VecDeque::new();
            self.is_full = false;
        }
        let ended = self.host_ended | what;
        if ended != self.host_ended && matches!(self.state, State::Open) {
            self.host_ended = ended;
            self.owed.shutdown = true;
        }
    }

    /// Nobody has the other end of the stream any more. What was written there before can still be read.
    pub(super) fn hang_up(&mut self) {
        let is_read = self.guest_ended & ends::RECEIVES == 0;
        self.end_host(if is_read { ends::RECEIVES } else { ends::BOTH });
    }

    /// Whether the guest has been told that the host's end is gone.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.host_ended == ends::BOTH && !self.owed.shutdown && matches!(self.state, State::Open)
    }

    /// The guest sends or receives no more. Says whether it does neither.
    pub(super) fn end_guest(&mut self, what: u32) -> bool {
        self.guest_ended |= what & ends::BOTH;
        self.pass_ends_on();
        self.guest_ended == ends::BOTH
    }

    /// The guest is gone; says whether the host's end still has to read what it sent before.
    pub(super) fn drain(&mut self) -> bool {
        let has_said_so = self.guest_ended & ends::SENDS != 0;
        self.guest_ended = ends::BOTH;
        self.state = State::Draining;
        self.deadline = None;
        has_said_so && !self.held.is_empty()
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// Tells the host's end what the guest does no more, once it has all that was sent.
    fn pass_ends_on(&mut self) {
        let Some(stream) = &self.stream else { return };
        // What fails here is a stream whose other end is gone, which is noticed elsewhere.
        if self.guest_ended & ends::SENDS != 0 && self.held.is_empty() {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if self.guest_ended & ends::RECEIVES != 0 {
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Takes `len` bytes of the guest, which are those of `chain` behind its header and those of `data`.
    ///
    /// # Errors
    /// If the guest may not send them.
    pub(super) fn take(
        &mut self,
        epoll: &Epoll,
        chain: &Chain,
        data: &GuestRanges,
        spare: &mut Vec<VecDeque<u8>>,
    ) -> Result<(), Violation> {
        let len = u32::try_from(data.len()).map_err(|_| Violation)?;
        let unknown = self.received.wrapping_sub(self.told);
        let fits = unknown.checked_add(len).is_some_and(|all| all <= ROOM);
        if !fits || !matches!(self.state, State::Open) || self.guest_ended & ends::SENDS != 0 {
            return Err(Violation);
        }
        self.received = self.received.wrapping_add(len);
        let written = if self.held.is_empty() && !self.is_full { self.write(data, len) } else { 0 };
        if self.host_ended & ends::RECEIVES != 0 {
            self.forwarded = self.received;
        } else if written < len {
            self.hold(chain, written, len, spare);
            self.watch(epoll, true);
        }
        self.note_forwarded();
        Ok(())
    }

    /// Writes to the stream what it takes.
    fn write(&mut self, data: &GuestRanges, len: u32) -> u32 {
        let Some(stream) = &self.stream else { return 0 };
        match data.write_stream(stream) {
            Ok(written) => {
                let written = u32::try_from(written).unwrap_or(len).min(len);
                self.forwarded = self.forwarded.wrapping_add(written);
                return written;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.end_host(ends::RECEIVES),
        }
        0
    }

    /// Keeps bytes of a chain until the stream takes them.
    fn hold(&mut self, chain: &Chain, from: u32, to: u32, spare: &mut Vec<VecDeque<u8>>) {
        if self.held.capacity() == 0 {
            self.held = spare.pop().unwrap_or_default();
        }
        let mut at = from;
        let mut piece = [0; PIECE as usize];
        while at < to {
            let len = to.saturating_sub(at).min(PIECE);
            let bytes = piece.get_mut(..len as usize).unwrap_or_default();
            // They are there: the chain was measured before.
            let _ = chain.read(HEADER_LEN.saturating_add(at), bytes);
            self.held.extend(bytes.iter());
            at = at.saturating_add(len);
        }
    }

    /// Writes what is held, as far as the stream takes it, and gives back storage that is not needed any more. Says how many bytes it took.
    pub(super) fn flush(&mut self, epoll: &Epoll, spare: &mut Vec<VecDeque<u8>>, most_spare: usize) -> u64 {
        let mut all = 0u64;
        while !self.held.is_empty() {
            let (Some(stream), (bytes, _)) = (&mut self.stream, self.held.as_slices()) else { return all };
            match stream.write(bytes) {
                Ok(written) => {
                    self.held.drain(..written.min(self.held.len()));
                    self.forwarded = self.forwarded.wrapping_add(u32::try_from(written).unwrap_or_default());
                    all = all.saturating_add(written as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.note_forwarded();
                    return all;
                }
                Err(_) => self.end_host(ends::RECEIVES),
            }
        }
        if self.held.capacity() > 0 {
            let storage = std::mem::take(&mut self.held);
            if spare.len() < most_spare {
                spare.push(storage);
            }
        }
        self.watch(epoll, false);
        self.pass_ends_on();
        self.note_forwarded();
        all
    }

    /// Owes the guest news of its room if there is much more than it knows.
    fn note_forwarded(&mut self) {
        self.owed.credit |= self.forwarded.wrapping_sub(self.told) >= TELL;
    }

    /// Waits for the stream until it takes more, too, or only until there is something to read.
    fn watch(&mut self, epoll: &Epoll, is_full: bool) {
        let Some(stream) = &self.stream else { return };
        if self.is_full == is_full {
            return;
        }
        let watch = Watch { readable: true, writable: is_full, edge: true };
        match epoll.modify(stream.as_raw_fd(), watch, self.key) {
            Ok(()) => self.is_full = is_full,
            // It would never be heard of again.
            Err(_) => self.end_host(ends::BOTH),
        }
    }
}
