//! The device: packets of the guest become bytes of streams, and the other way round.

mod guest;
mod host;
mod send;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Asker, Connection, Ports, State};
use super::handle::{Shared, VsockHandle};
use super::packet::Header;
use super::socket::Socket;
use super::table::Table;
use crate::config::VsockConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::memory::RangeList;
use crate::meter::{Counter, Meter};
use crate::sys::{Epoll, Ready, Watch, do_elsewhere, random_bytes_now};
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, DeviceInfo, DeviceState, Queues, VirtioDevice};

/// Packets to the guest, packets from it, and events (5.10.2).
const RX: u16 = 0;
const TX: u16 = 1;
const EVENTS: u16 = 2;
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];
/// The event that says that all connections are gone (5.10.6.7).
const TRANSPORT_RESET: u32 = 0;
/// For so long a guest may leave a connection without an answer; who asked for it may give up before.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// For so long a client may take to say where it wants to, and a guest to take leave of a host's end that is gone.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// So many resets of connections that are not known wait to be sent; meanwhile nothing more is taken from the guest.
const MOST_RESETS: usize = 256;
/// So many connections are looked at in a turn of which the other side did not answer.
const MOST_AT_ONCE: usize = 64;
/// So many streams are closed in the turn of a reset: one in which much waits to be read takes up to 50 microseconds.
const MOST_CLOSED: usize = 4;
/// Storage for so many connections whose stream takes nothing is kept for the next.
const MOST_SPARE: usize = 16;
/// Making a connection, or ending it, takes as long as copying so many bytes.
const CONNECTION_CHARGE: u64 = 4096;
/// By which the Unix socket's events are known: no connection has this key.
const SOCKET_KEY: u64 = u64::MAX;
/// There is nothing to save beside features and queues: connections do not outlive their device.
const STATE_VERSION: u32 = 1;

pub(crate) struct Vsock {
    cid: u64,
    socket: Option<Socket>,
    shared: Arc<Shared>,
    table: Table,
    resets: VecDeque<Header>,
    /// All streams are watched here, so that what the thread waits for is one descriptor.
    epoll: Epoll,
    watched: Arc<OwnedFd>,
    /// Those that a turn was too short for.
    events: Vec<Ready>,
    spare: Vec<VecDeque<u8>>,
    ranges: RangeList,
    /// The driver is ready.
    active: bool,
    /// The driver is to be told that all connections are gone.
    owes_event: bool,
    /// The last turn ended before all that was asked for was looked at.
    has_more: bool,
    /// There may be a client to accept.
    acceptable: bool,
    /// When to look for one again, after the host refused.
    accept_again: Option<Instant>,
    /// When the first connection may have waited for too long.
    due: Option<Instant>,
    tokens: Option<Tokens>,
    counters: Counters,
}

#[derive(Clone, Copy)]
struct Tokens {
    streams: Token,
    deadline: Token,
}

#[derive(Default)]
struct Counters {
    /// Connections that were asked for.
    by_guest: Counter,
    by_host: Counter,
    refused_by_guest: Counter,
    refused_by_host: Counter,
    /// Of open ones, by a side that broke a rule or did not answer.
    resets: Counter,
    bytes_to_guest: Counter,
    bytes_from_guest: Counter,
    /// Packets and buffers of the driver that are of no use.
    bad_packets: Counter,
}

impl Vsock {
    /// Makes the Unix socket, if there is to be one.
    pub(crate) fn open(config: &VsockConfig) -> Result<Self> {
        let epoll = Epoll::new()?;
        let socket = config.path.as_deref().map(Socket::new).transpose()?;
        if let Some(socket) = &socket {
            let edge = Watch { edge: true, ..Watch::READABLE };
            epoll.add(socket.listener().as_raw_fd(), edge, SOCKET_KEY)?;
        }
        Ok(Self {
            cid: config.cid,
            socket,
            shared: Arc::new(Shared::new()),
            table: Table::new(config.max_connections),
            resets: VecDeque::new(),
            watched: Arc::new(epoll.descriptor()?),
            epoll,
            events: Vec::new(),
            spare: Vec::new(),
            ranges: RangeList::default(),
            active: false,
            owes_event: false,
            has_more: false,
            acceptable: true,
            accept_again: None,
            due: None,
            tokens: None,
            counters: Counters::default(),
        })
    }

    pub(crate) fn handle(&self) -> VsockHandle {
        VsockHandle::new(Arc::clone(&self.shared))
    }

    /// The folder in which sockets are connected to while the guest runs.
    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        self.socket.as_ref().and_then(Socket::folder)
    }

    /// Whatever there is to do: it is little if nothing has happened.
    fn serve(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        if !self.active {
            return Ok(());
        }
        self.take_requests(io);
        self.expire(io);
        self.accept_clients(io);
        self.send_event(io, queues)?;
        self.send(io, queues)?;
        while !self.receive(io, queues)? {
            self.send(io, queues)?;
            if self.resets.len() >= MOST_RESETS {
                return Ok(());
            }
        }
        // The guest may have made room for them.
        self.accept_clients(io);
        self.send(io, queues)
    }

    /// A connection's stream and what else it holds are let go.
    fn forget(&mut self, index: u32) -> Option<Connection> {
        let mut connection = self.table.remove(index)?;
        if let Some(stream) = connection.stream.take() {
            let _ = self.epoll.delete(stream.as_raw_fd());
        }
        Some(connection)
    }

    /// Ends a connection, and tells a guest that knows of it.
    fn reset(&mut self, index: u32) {
        let Some(connection) = self.forget(index) else { return };
        if connection.is_known() {
            self.resets.push_back(connection.header(self.cid, super::packet::op::RST, 0, 0));
            self.counters.resets.add(1);
        }
    }

    /// The guest has ended a connection, or refused it.
    fn ended_by_guest(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let port = connection.ports.guest;
        if let State::Opening(asker) = &mut connection.state {
            self.counters.refused_by_guest.add(1);
            if let Asker::Program(Some(answer)) = asker {
                let message = format!("the guest refuses connections to its port {port}");
                let _ = answer.try_send(Err(Error::new(ErrorKind::Vsock, message)));
            }
        } else if connection.drain() {
            self.table.unname(index);
            return;
        }
        self.forget(index);
    }

    /// The other side is to answer within a time.
    fn await_answer(&mut self, index: u32, limit: Duration) {
        let until = Instant::now().checked_add(limit);
        if let Some(connection) = self.table.get(index) {
            connection.deadline = until;
            self.due = self.due.into_iter().chain(until).min();
        }
    }

    /// Ends what has waited for too long.
    fn expire(&mut self, io: &mut Io) {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let is_late = |connection: &Connection| connection.deadline.is_some_and(|until| until <= now);
        let late = self.table.iter().filter(|(_, one)| is_late(one)).map(|(index, _)| index);
        let late: Vec<_> = late.take(MOST_AT_ONCE).collect();
        for index in late {
            if io.spent() {
                self.has_more = true;
                return;
            }
            io.charge(CONNECTION_CHARGE);
            self.reset(index);
        }
        self.due = self.table.iter().filter_map(|(_, connection)| connection.deadline).min();
    }

    /// All connections are gone.
    fn clear(&mut self) {
        let all = self.table.take_all();
        if all.len() > MOST_CLOSED {
            // The turn would last too long. A stream that is closed is not waited for any more.
            do_elsewhere(move || drop(all));
        }
        self.resets.clear();
        self.due = None;
    }

    /// Makes a connection with a stream.
    fn admit(&mut self, stream: std::os::unix::net::UnixStream, state: State) -> Option<u32> {
        let epoll = &self.epoll;
        self.table.insert(|key| {
            let watch = Watch { edge: true, ..Watch::READABLE };
            epoll.add(stream.as_raw_fd(), watch, key).ok()?;
            Some(Connection::new(stream, key, state))
        })
    }

    /// Asks the guest for a connection to one of its ports.
    fn ask(&mut self, index: u32, guest: u32, asker: Asker) {
        let ports = Ports { host: self.table.free_port(guest), guest };
        let Some(connection) = self.table.get(index) else { return };
        connection.request(ports, asker);
        self.table.name(ports, index);
        self.table.queue(index);
        self.counters.by_host.add(1);
        self.await_answer(index, ANSWER_LIMIT);
    }
}

impl VirtioDevice for Vsock {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(device_id::VSOCK, &QUEUE_SIZES)
    }

    fn config(&mut self) -> Vec<u8> {
        self.cid.to_le_bytes().to_vec()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let tokens = Tokens { streams: io.token(), deadline: io.token() };
        self.tokens = Some(tokens);
        let token = io.token();
        self.shared.set_waker(io.waker(token));
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, activation: Activation) -> Result<()> {
        if let Some(state) = &activation.state {
            let (version, len) = (state.version, state.bytes.len());
            if version != STATE_VERSION || len != 0 {
                let message = format!(
                    "the saved state of a vsock is of version {version} and {len} bytes, known is {STATE_VERSION} with 0"
                );
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        }
        if activation.state.is_some() {
            let mut any = [0; 4];
            random_bytes_now(&mut any).map_err(|e| {
                Error::new(ErrorKind::Host, "the host has no random bytes for the ports of a vsock").with_source(e)
            })?;
            self.table.begin_at(u32::from_le_bytes(any));
        }
        self.active = true;
        self.owes_event = activation.state.is_some();
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, _index: u16) -> Result<()> {
        self.serve(io, queues)
    }

    fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens.filter(|_| self.active) else { return };
        wants.descriptor(tokens.streams, &self.watched, Interest::Readable);
        if self.has_more || !self.events.is_empty() {
            wants.again();
        }
        if let Some(at) = self.due.into_iter().chain(self.accept_again).min() {
            wants.deadline(tokens.deadline, at);
        }
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        if !self.active {
            return Ok(());
        }
        if !self.events.is_empty() || self.tokens.is_some_and(|tokens| event.token == tokens.streams) {
            self.take_events(io)?;
        }
        self.serve(io, queues)
    }

    fn reset(&mut self, _io: &mut Io) {
        self.clear();
        (self.active, self.owes_event) = (false, false);
    }

    fn closed(&mut self) {
        self.clear();
        self.shared.end();
        if let Some(socket) = &mut self.socket {
            socket.remove();
        }
    }

    fn metrics(&self, meter: &mut Meter) {
        let Counters { by_guest, by_host, refused_by_guest, refused_by_host, .. } = &self.counters;
        meter.counter("connections_by_guest", by_guest);
        meter.counter("connections_by_host", by_host);
        meter.counter("refused_by_guest", refused_by_guest);
        meter.counter("refused_by_host", refused_by_host);
        meter.counter("resets", &self.counters.resets);
        meter.counter("bytes_to_guest", &self.counters.bytes_to_guest);
        meter.counter("bytes_from_guest", &self.counters.bytes_from_guest);
        meter.counter("bad_packets", &self.counters.bad_packets);
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(DeviceState::new(STATE_VERSION, []))
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
