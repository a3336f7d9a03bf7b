//! The protocol without sockets or threads: datagrams and packets in, datagrams and packets out, at the time that it is told.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};

use super::allowed_ip::AllowedIp;
use super::config::{Config, PeerConfig};
use super::counters::{Counters, PeerFigures};
use super::key::{PrivateKey, PublicKey};
use super::message;
use super::outgoing::{MAX_MESSAGE, Outgoing};
use super::peer::{Peer, Sealed, Work};
use super::refused;
use super::settings::{Timing, TunnelLimits};
use super::sources::Sources;
use super::table::Table;
use super::unknown::Unknown;
use crate::error::Result;

mod roster;

/// Room for any datagram, opened or made, and more than the least that boringtun demands.
const SCRATCH: usize = 1 << 16;
/// The unit in which the length of a packet shows.
const PADDING: usize = 16;
/// How many peers have their turn in one call.
const TICKS: usize = 64;

/// All peers of an interface.
pub(crate) struct Engine {
    private: PrivateKey,
    public: PublicKey,
    limiter: RateLimiter,
    /// For boringtun, which counts by itself what was counted before.
    unlimited: Arc<RateLimiter>,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    by_key: HashMap<PublicKey, u32>,
    by_index: HashMap<u32, u32>,
    table: Table,
    due: BTreeSet<(Instant, u32)>,
    sources: Sources,
    unknown: Unknown,
    asks: bool,
    timing: Timing,
    limits: TunnelLimits,
    counters: Counters,
    outgoing: Outgoing,
    scratch: Box<[u8]>,
    padded: Vec<u8>,
    waiting: usize,
    mtu: usize,
    second: Instant,
}

/// What came of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A packet of a peer that may send from its source.
    Packet(&'a [u8]),
    /// The host program is to be asked about a peer.
    Question(PublicKey, SocketAddr),
    /// Nothing to be done by the caller.
    Nothing,
}

impl Engine {
    /// `asks` says whether the host program wants to be asked about peers that are not known.
    pub(crate) fn new(config: &Config, limits: TunnelLimits, timing: Timing, asks: bool, now: Instant) -> Result<Self> {
        config.check()?;
        limits.check()?;
        timing.check()?;
        let public = config.private_key.public_key();
        let mut engine = Self {
            limiter: RateLimiter::new(&public.point(), limits.handshakes_without_cookie),
            unlimited: Arc::new(RateLimiter::new(&public.point(), u64::MAX)),
            private: config.private_key.clone(),
            public,
            peers: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            table: Table::default(),
            due: BTreeSet::new(),
            sources: Sources::default(),
            unknown: Unknown::default(),
            asks,
            timing,
            limits,
            counters: Counters::default(),
            outgoing: Outgoing::new(),
            scratch: vec![0; SCRATCH].into(),
            padded: Vec::with_capacity(SCRATCH),
            waiting: 0,
            mtu: MAX_MESSAGE.saturating_sub(message::OVERHEAD),
            second: now,
        };
        config.peers.iter().try_for_each(|peer| engine.add_peer(peer, false, now).map(|_| ()))?;
        Ok(engine)
    }

    /// What is padded is not padded to more than this.
    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// All prefixes that belong to peers.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = AllowedIp> {
        self.table.prefixes()
    }

    /// What is known of each peer, for other threads.
    pub(super) fn figures(&self) -> HashMap<PublicKey, Arc<PeerFigures>> {
        self.peers.iter().flatten().map(|peer| (peer.key, Arc::clone(&peer.figures))).collect()
    }

    #[cfg(test)]
    pub(super) fn has_peer(&self, key: &PublicKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Sends a packet of the network's. Says whether it was taken; if not, the socket has no room now.
    pub(crate) fn send(&mut self, packet: &[u8], now: Instant) -> bool {
        let peer = message::destination(packet).and_then(|destination| self.table.get(destination));
        let Some(slot) = peer else {
            self.counters.dropped_no_peer.add(1);
            return true;
        };
        let len = packet.len();
        let padded = len.checked_next_multiple_of(PADDING).unwrap_or(len).min(self.mtu).max(len);
        if padded.saturating_add(message::OVERHEAD) > MAX_MESSAGE {
            self.counters.dropped_no_room.add(1);
            return true;
        }
        let mut storage = std::mem::take(&mut self.padded);
        storage.clear();
        storage.extend_from_slice(packet);
        storage.resize(padded, 0);
        let sealed = self.with(slot, now, |peer, work| peer.send(&storage, len, work));
        self.padded = storage;
        sealed != Some(Sealed::NoRoom)
    }

    /// Takes a datagram that came.
    pub(crate) fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Received<'_> {
        let from = canonical(from);
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.limiter.reset_count();
        }
        // What this room is for is shorter than what it has, whatever came.
        if datagram.len() > SCRATCH {
            self.counters.dropped_not_wireguard.add(1);
            return Received::Nothing;
        }
        let mut cookie = [0; 64];
        match self.limiter.verify_packet(Some(from.ip()), datagram, &mut cookie) {
            Ok(Packet::PacketData(_)) => self.open(datagram, from, now),
            Ok(packet) => self.handshake(&packet, datagram, from, now),
            Err(TunnResult::WriteToNetwork(cookie)) => {
                if self.outgoing.push(from, cookie) {
                    self.counters.cookies_sent.add(1);
                }
                Received::Nothing
            }
            Err(_) => {
                let handshake = matches!((message::kind(datagram), datagram.len()), (1, 148) | (2, 92));
                let counters = &self.counters;
                let counter = if handshake { &counters.dropped_wrong_key } else { &counters.dropped_not_wireguard };
                counter.add(1);
                Received::Nothing
            }
        }
    }

    fn handshake(&mut self, packet: &Packet<'_>, datagram: &[u8], from: SocketAddr, now: Instant) -> Received<'_> {
        if !matches!(packet, Packet::PacketCookieReply(_)) && !self.sources.admit(from.ip(), &self.limits, now) {
            self.counters.dropped_handshake_limit.add(1);
            return Received::Nothing;
        }
        match packet {
            Packet::HandshakeInit(_) => return self.initiation(packet, datagram, from, now),
            Packet::HandshakeResponse(answer) => {
                self.at_index(answer.receiver_idx, now, |peer, work| peer.take_answer(datagram, from, work));
            }
            Packet::PacketCookieReply(reply) => {
                self.at_index(reply.receiver_idx, now, |peer, work| peer.take_cookie(datagram, work));
            }
            Packet::PacketData(_) => {}
        }
        Received::Nothing
    }

    fn initiation(&mut self, packet: &Packet<'_>, datagram: &[u8], from: SocketAddr, now: Instant) -> Received<'_> {
        let Packet::HandshakeInit(initiation) = packet else { return Received::Nothing };
        let half = parse_handshake_anon(&self.private.secret(), &self.public.point(), initiation);
        let Ok(half) = half else {
            self.counters.dropped_wrong_key.add(1);
            return Received::Nothing;
        };
        let key = PublicKey::from_bytes(half.peer_static_public);
        if let Some(slot) = self.by_key.get(&key).copied() {
            self.with(slot, now, |peer, work| peer.take_initiation(datagram, from, work));
            return Received::Nothing;
        }
        if self.asks && self.unknown.ask(key, datagram, from, &self.limits, now) {
            return Received::Question(key, from);
        }
        self.counters.dropped_unknown_peer.add(1);
        Received::Nothing
    }

    /// The host program has answered a question. A peer that it knows is answered at once, if its handshake still waits.
    ///
    /// # Errors
    /// Those of [`add_peer`](Self::add_peer); a key that was not asked about.
    pub(super) fn answer(
        &mut self,
        key: PublicKey,
        answer: Option<&PeerConfig>,
        now: Instant,
    ) -> Result<Option<Arc<PeerFigures>>> {
        let Some(config) = answer else {
            self.unknown.refuse(&key, &self.limits, now);
            return Ok(None);
        };
        let added = match config.public_key == key {
            true => self.add_peer(config, true, now),
            false => Err(refused(format!("the peer {key} was asked about, and {} was the answer", config.public_key))),
        };
        let figures = added.inspect_err(|_| self.unknown.refuse(&key, &self.limits, now))?;
        if let (Some(held), Some(slot)) = (self.unknown.take(&key), self.by_key.get(&key).copied()) {
            self.with(slot, now, |peer, work| peer.take_initiation(&held.datagram, held.from, work));
        }
        Ok(Some(figures))
    }

    /// As [`answer`](Self::answer), for tests: says whether there is such a peer now.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn answered(&mut self, key: PublicKey, answer: Option<&PeerConfig>, now: Instant) -> bool {
        self.answer(key, answer, now).is_ok_and(|figures| figures.is_some())
    }

    fn open(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Received<'_> {
        let index = message::receiver(datagram).unwrap_or_default();
        let opened = self.at_index(index, now, |peer, work| {
            let opened = peer.open(datagram, from, work);
            opened.map(|(len, source)| (len, source, Arc::clone(&peer.figures)))
        });
        let Some((slot, Some((len, source, figures)))) = opened else { return Received::Nothing };
        if self.table.get(source) != Some(slot) {
            self.counters.dropped_source.add(1);
            return Received::Nothing;
        }
        let bytes = u64::try_from(len).unwrap_or(0);
        figures.received_bytes.add(bytes);
        self.counters.received_packets.add(1);
        self.counters.received_bytes.add(bytes);
        self.scratch.get(..len).map_or(Received::Nothing, Received::Packet)
    }

    fn at_index<R>(
        &mut self,
        index: u32,
        now: Instant,
        f: impl FnOnce(&mut Peer, &mut Work<'_>) -> R,
    ) -> Option<(u32, R)> {
        let slot = self.by_index.get(&(index >> 8)).copied();
        let done = slot.and_then(|slot| Some((slot, self.with(slot, now, f)?)));
        if done.is_none() {
            self.counters.dropped_no_key.add(1);
        }
        done
    }

    /// Lends a peer what it works with; afterwards, its next moment is known.
    fn with<R>(&mut self, slot: u32, now: Instant, f: impl FnOnce(&mut Peer, &mut Work<'_>) -> R) -> Option<R> {
        let at = usize::try_from(slot).ok()?;
        let peer = self.peers.get_mut(at)?.as_mut()?;
        let mut work = Work {
            now,
            timing: &self.timing,
            limits: &self.limits,
            counters: &self.counters,
            outgoing: &mut self.outgoing,
            scratch: &mut self.scratch,
            waiting: &mut self.waiting,
        };
        let result = f(peer, &mut work);
        // A moment that has moved on is found out when it comes: most of them move with each packet.
        if let Some(next) = peer.next().filter(|next| peer.registered.is_none_or(|registered| *next < registered)) {
            if let Some(registered) = peer.registered.replace(next) {
                self.due.remove(&(registered, slot));
            }
            self.due.insert((next, slot));
        }
        Some(result)
    }

    /// Does what is due, for a bounded number of peers. Returns the keys of those that were forgotten.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<PublicKey> {
        let mut forgotten = Vec::new();
        for _ in 0..TICKS {
            let Some(slot) = pop_due(&mut self.due, now) else { break };
            let ended = self.with(slot, now, |peer, work| {
                peer.registered = None;
                peer.tick(work).then_some(peer.key)
            });
            if let Some(key) = ended.flatten() {
                self.remove_peer(&key, now);
                forgotten.push(key);
            }
        }
        forgotten
    }

    /// Takes the datagrams that wait for the socket.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((run, bytes)) = self.outgoing.first() {
            all.extend(bytes.chunks(run.segment.max(1)).map(|datagram| (run.to, datagram.to_vec())));
            self.outgoing.sent(usize::MAX);
        }
        all
    }

    /// How many bytes wait for handshakes.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// The first peer that is due, which is not due any more then.
fn pop_due(due: &mut BTreeSet<(Instant, u32)>, now: Instant) -> Option<u32> {
    let first = *due.first().filter(|(at, _)| *at <= now)?;
    due.remove(&first);
    Some(first.1)
}

/// An IPv4 address as such, also if it came over a socket of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        // With its scope.
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
