//! The service's TCP stack: frames of the guest go in, frames for the guest come out. It does no I/O, and has no clock.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr, IpProtocol, Ipv4Packet, TcpPacket};

use super::connection::{Connection, INCOMING, World, is_gone, listener};
use super::counters::Counters;
use super::link::{ETHERNET, Link, Port};
use super::request::Service;
use super::service::Metadata;
use super::token::Tokens;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{catch_panic, random_bytes};

const PORT: u16 = 80;
/// The most connections at a time.
const MOST_CONNECTIONS: usize = 30;
/// The longest frame that is looked at: what a client may have under way, behind the longest headers of IP and TCP.
pub(super) const LONGEST: usize = ETHERNET + 60 + 60 + INCOMING;
/// If nothing came of a look at the connections, the next one is not before this.
const BREATH: Duration = Duration::from_millis(10);

/// The service on one card.
pub(crate) struct Stack {
    service: Service,
    counters: Counters,
    /// When this was made: the clocks of tokens and of TCP begin here.
    epoch: Instant,
    seed: u64,
    link: Link,
    /// Made when the guest first says something.
    network: Option<Network>,
    /// When there is something to do if nothing comes.
    due: Option<Instant>,
}

struct Network {
    interface: Interface,
    sockets: SocketSet<'static>,
    /// The socket that waits for a client, unless there are as many as may be.
    listener: Option<SocketHandle>,
    connections: Vec<Connection>,
}

impl Stack {
    /// # Errors
    /// If the host has no random bytes.
    pub(crate) fn new(metadata: Metadata, epoch: Instant) -> Result<Self> {
        let mut seed = [0; 8];
        random_bytes(&mut seed)
            .map_err(|e| Error::new(ErrorKind::Host, "cannot get random bytes for TCP").with_source(e))?;
        let service = Service { metadata, tokens: Tokens::new()? };
        let (link, counters) = (Link::default(), Counters::default());
        Ok(Self { service, counters, epoch, seed: u64::from_ne_bytes(seed), link, network: None, due: None })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Forgets all connections, since the guest has: its driver begins anew.
    pub(crate) fn reset(&mut self) {
        (self.network, self.due) = (None, None);
        self.link.clear();
    }

    /// Takes a frame of the guest that is the service's.
    pub(crate) fn take(&mut self, frame: &[u8], now: Instant) {
        let address = self.service.metadata.settings.address;
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.link.answer_arp(ethernet.payload(), address),
            EthernetProtocol::Ipv4 => {
                let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else { return };
                self.link.meet(packet.src_addr(), ethernet.src_addr());
                self.contained(now, |network, link, world, clock| network.take(ethernet.payload(), link, world, clock));
            }
            _ => {}
        }
    }

    /// Goes on with all connections, as far as frames for the guest may wait.
    pub(crate) fn go_on(&mut self, now: Instant) {
        if self.network.is_some() {
            self.contained(now, |network, link, world, clock| network.go_on(link, world, clock));
        }
    }

    /// The next frame for the guest.
    pub(crate) fn next(&self) -> Option<&[u8]> {
        self.link.next()
    }

    /// The next frame has gone.
    pub(crate) fn done(&mut self) {
        self.link.done();
    }

    /// When [`go_on`](Self::go_on) is to be called if nothing comes. If a frame waits for the guest, that is now.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.link.next().is_some() { Some(self.epoch) } else { self.due }
    }

    /// Makes a call to the network. If it panics, which no input is known to make it do, the connections are lost and nothing else.
    fn contained(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut Network, &mut Link, &World, smoltcp::time::Instant) -> Option<Instant>,
    ) {
        let since = now.saturating_duration_since(self.epoch);
        let clock = smoltcp::time::Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let Self { service, counters, seed, link, network, .. } = self;
        let address = service.metadata.settings.address;
        let world = World { service, counters, now, millis };
        let due = catch_panic(|| {
            let network = network.get_or_insert_with(|| Network::new(address, *seed, link, clock));
            call(network, link, &world, clock)
        });
        match due {
            Ok(due) => self.due = due,
            Err(_) => {
                self.counters.failures.add(1);
                self.reset();
            }
        }
    }
}

impl Network {
    fn new(address: Ipv4Addr, seed: u64, link: &mut Link, clock: smoltcp::time::Instant) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut Port { packet: None, link }, clock);
        // There is room for the only address.
        interface.update_ip_addrs(|addresses| _ = addresses.push(IpCidr::new(address.into(), 32)));
        Self { interface, sockets: SocketSet::new(Vec::new()), listener: None, connections: Vec::new() }
    }

    /// Takes an IPv4 packet. Returns when there is something to do if nothing else comes.
    fn take(
        &mut self,
        packet: &[u8],
        link: &mut Link,
        world: &World,
        clock: smoltcp::time::Instant,
    ) -> Option<Instant> {
        if !self.listens(world.now) && begins_connection(packet) {
            // The client tries again soon.
            return self.due(world, clock);
        }
        self.interface.poll_ingress_single(clock, &mut Port { packet: Some(packet), link }, &mut self.sockets);
        let has_client = |handle: &SocketHandle| self.sockets.get::<Socket>(*handle).state() != State::Listen;
        if let Some(handle) = self.listener.take_if(|handle| has_client(handle)) {
            world.counters.connections.add(1);
            self.connections.push(Connection::new(handle, world.now));
        }
        self.serve(world);
        self.due(world, clock)
    }

    /// Sees to it that a socket waits for a client, if there may be another one; says whether there is.
    fn listens(&mut self, now: Instant) -> bool {
        if self.listener.is_none() && self.has_place(now) {
            self.listener = listener(PORT).map(|socket| self.sockets.add(socket));
        }
        self.listener.is_some()
    }

    /// Whether there may be another connection. One that has got nowhere for long ends if that helps.
    fn has_place(&mut self, now: Instant) -> bool {
        if self.connections.len() < MOST_CONNECTIONS {
            return true;
        }
        let quiet = self.connections.iter().enumerate().filter_map(|(index, connection)| {
            Some((connection.quiet_since(self.sockets.get(connection.handle), now)?, index))
        });
        let Some((_, index)) = quiet.min() else { return false };
        let ended = self.connections.swap_remove(index);
        self.sockets.remove(ended.handle);
        true
    }

    fn go_on(&mut self, link: &mut Link, world: &World, clock: smoltcp::time::Instant) -> Option<Instant> {
        let mut came_to_nothing = true;
        loop {
            self.serve(world);
            let mut port = Port { packet: None, link: &mut *link };
            let result = self.interface.poll_egress(clock, &mut port, &mut self.sockets);
            came_to_nothing &= result == PollResult::None;
            // What goes out is bounded by the clients' windows.
            if result == PollResult::None || !link.has_room() {
                break;
            }
        }
        self.forget_gone();
        let due = self.due(world, clock);
        let soon = world.now.checked_add(BREATH).unwrap_or(world.now);
        if came_to_nothing { due.map(|due| due.max(soon)) } else { due }
    }

    fn serve(&mut self, world: &World) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut(connection.handle);
            connection.serve(socket, world);
            connection.look_at_the_clock(socket, world.now);
        }
    }

    fn forget_gone(&mut self) {
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let is_gone = is_gone(sockets.get(connection.handle));
            if is_gone {
                sockets.remove(connection.handle);
            }
            !is_gone
        });
    }

    fn due(&mut self, world: &World, clock: smoltcp::time::Instant) -> Option<Instant> {
        let of_tcp = self.interface.poll_at(clock, &self.sockets).map(|at| {
            let ahead = u64::try_from(at.total_micros().saturating_sub(clock.total_micros())).unwrap_or(0);
            world.now.checked_add(Duration::from_micros(ahead)).unwrap_or(world.now)
        });
        self.connections.iter().map(Connection::until).chain(of_tcp).min()
    }
}

/// Whether a packet asks for a connection.
fn begins_connection(packet: &[u8]) -> bool {
    let Ok(packet) = Ipv4Packet::new_checked(packet) else { return false };
    let segment = Some(&packet).filter(|packet| packet.next_header() == IpProtocol::Tcp);
    let segment = segment.and_then(|packet| TcpPacket::new_checked(packet.payload()).ok());
    segment.is_some_and(|segment| segment.syn() && !segment.ack())
}

#[cfg(test)]
#[path = "stack_test.rs"]
mod tests;
