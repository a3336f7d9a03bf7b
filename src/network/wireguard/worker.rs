//! A tunnel on its I/O thread: datagrams from the socket to the network, packets from the network to the socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::super::prefix::Prefix;
use super::super::uplink::Uplink;
use super::config::PeerConfig;
use super::engine::{Engine, Received};
use super::key::PublicKey;
use super::shared::{Command, Shared};
use super::socket::Socket;
use crate::error::Result;
use crate::event::{Event, Interest, Io, Participant, Token, Wants};
use crate::sys::lock;
use crate::sys::sync::mpsc::SyncSender;

/// How many packets are sealed before the turn looks whether it is over.
const PACKETS: usize = 32;

pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) socket: Socket,
    pub(super) uplink: Uplink,
    pub(super) shared: Arc<Shared>,
    /// To the thread that asks the host program.
    pub(super) questions: Option<SyncSender<(PublicKey, SocketAddr)>>,
    pub(super) tokens: Option<Tokens>,
    pub(super) more: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Tokens {
    socket: Token,
    clock: Token,
}

impl Worker {
    fn commands(&mut self, now: Instant) {
        while let Some(command) = self.shared.next() {
            match command {
                Command::Add(peer, reply) => {
                    let _ = reply.send(self.add(&peer, now));
                }
                Command::Remove(key, reply) => {
                    let _ = reply.send(self.remove(&key, now));
                }
                Command::Answer(key, answer) => self.answer(key, answer.as_deref(), now),
            }
        }
    }

    fn add(&mut self, peer: &PeerConfig, now: Instant) -> Result<()> {
        let figures = self.engine.add_peer(peer, false, now)?;
        lock(&self.shared.figures).insert(peer.public_key, figures);
        self.set_routes().inspect_err(|_| {
            self.remove(&peer.public_key, now);
        })
    }

    fn remove(&mut self, key: &PublicKey, now: Instant) -> bool {
        let removed = self.engine.remove_peer(key, now);
        lock(&self.shared.figures).remove(key);
        // Fewer of them overlap nothing that more of them did not overlap.
        let _ = self.set_routes();
        removed
    }

    fn answer(&mut self, key: PublicKey, answer: Option<&PeerConfig>, now: Instant) {
        let Ok(Some(figures)) = self.engine.answer(key, answer, now) else { return };
        lock(&self.shared.figures).insert(key, figures);
        if self.set_routes().is_err() {
            self.remove(&key, now);
            let _ = self.engine.answer(key, None, now);
        }
    }

    /// Tells the network which addresses lie behind the tunnel.
    fn set_routes(&mut self) -> Result<()> {
        let six = |prefix: super::AllowedIp| match prefix.address() {
            IpAddr::V6(address) => Prefix::new(address, prefix.len()).ok(),
            IpAddr::V4(_) => None,
        };
        let routes: Vec<Prefix> = self.engine.prefixes().filter_map(six).collect();
        self.uplink.set_routes(&routes)
    }

    fn tick(&mut self, now: Instant) {
        let forgotten = self.engine.tick(now);
        if !forgotten.is_empty() {
            forgotten.iter().for_each(|key| drop(lock(&self.shared.figures).remove(key)));
            let _ = self.set_routes();
        }
    }

    /// Takes what has come, until there is nothing or the turn is over.
    fn receive(&mut self, io: &mut Io, now: Instant) {
        let Self { engine, socket, uplink, questions, .. } = self;
        while !io.spent() {
            let Some(batch) = socket.receive() else { return };
            // One without bytes costs as much as others.
            io.charge(u64::try_from(batch.bytes.len()).unwrap_or(0).max(64));
            for datagram in batch.datagrams() {
                match engine.receive(datagram, batch.from, now) {
                    Received::Packet(packet) => {
                        uplink.inject(packet);
                    }
                    Received::Question(key, from) => {
                        let asked = questions.as_ref().map(|questions| questions.try_send((key, from)));
                        if !matches!(asked, Some(Ok(()))) {
                            let _ = engine.answer(key, None, now);
                        }
                    }
                    Received::Nothing => {}
                }
            }
        }
        self.more = true;
    }

    /// Seals and sends what the network has, until there is nothing, the socket is full, or the turn is over.
    fn send(&mut self, io: &mut Io, now: Instant) {
        loop {
            if io.spent() {
                self.more = true;
                return;
            }
            let (engine, mut bytes) = (&mut self.engine, 0_u64);
            let count = self.uplink.drain(PACKETS, |packet| {
                bytes = bytes.saturating_add(u64::try_from(packet.len()).unwrap_or(0));
                engine.send(packet, now)
            });
            io.charge(bytes);
            if count == PACKETS && !self.engine.outgoing().is_nearly_full() {
                continue;
            }
            self.flush();
            if self.socket.is_full || count == 0 {
                return;
            }
        }
    }

    fn flush(&mut self) {
        let Self { engine, socket, shared, .. } = self;
        socket.send(engine.outgoing(), &shared.counters);
    }
}

impl Participant for Worker {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.tokens = Some(Tokens { socket: io.token(), clock: io.token() });
        let woken = io.token();
        let _ = self.shared.waker.set(io.waker(woken));
        self.set_routes()
    }

    fn turn(&mut self, io: &mut Io, _events: &[Event]) {
        let now = Instant::now();
        self.more = false;
        self.commands(now);
        self.tick(now);
        self.receive(io, now);
        self.uplink.flush();
        self.send(io, now);
        self.flush();
    }

    fn wants(&self, wants: &mut Wants) {
        let Some(tokens) = self.tokens else { return };
        let interest = if self.socket.is_full { Interest::Both } else { Interest::Readable };
        wants.descriptor(tokens.socket, &self.socket.udp, interest);
        if let Some(at) = self.engine.next() {
            wants.deadline(tokens.clock, at);
        }
        if self.more {
            wants.again();
        }
    }
}
