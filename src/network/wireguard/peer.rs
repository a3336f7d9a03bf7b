//! One peer: its keys, its timers, and what waits for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};

use super::allowed_ip::AllowedIp;
use super::clock::{Clock, Due, after};
use super::counters::{Counters, PeerFigures};
use super::key::{PrivateKey, PublicKey};
use super::message;
use super::outgoing::Outgoing;
use super::settings::{Timing, TunnelLimits};
use super::waiting::Waiting;

mod handshake;

/// From here on nothing is sealed or opened by a key (section 6.1 of the paper: 2^64 - 2^13 - 1).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// From here on a new key is made (2^60).
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// How soon after one handshake of a peer another one is answered.
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// How often the state of handshakes and keys is looked after.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long what found no room for it waits for another try.
const NO_ROOM_WAIT: Duration = Duration::from_millis(10);
/// How long a peer that was made just in time may take for its first handshake.
const PROVE_WITHIN: Duration = Duration::from_secs(15);
/// Keys of a peer that may be in use at once; boringtun keeps as many, by the lowest bits of our index.
const SESSIONS: usize = 8;

/// What a peer works with, lent for one call.
pub(super) struct Work<'a> {
    pub(super) now: Instant,
    pub(super) timing: &'a Timing,
    pub(super) limits: &'a TunnelLimits,
    pub(super) counters: &'a Counters,
    pub(super) outgoing: &'a mut Outgoing,
    /// Room for what is opened. It has more bytes than any datagram.
    pub(super) scratch: &'a mut [u8],
    /// The bytes that wait for all peers.
    pub(super) waiting: &'a mut usize,
}

pub(super) struct Peer {
    pub(super) key: PublicKey,
    pub(super) index: u32,
    pub(super) allowed: Vec<AllowedIp>,
    pub(super) figures: Arc<PeerFigures>,
    /// When the engine has been told to look at it next.
    pub(super) registered: Option<Instant>,
    tunn: Box<Tunn>,
    endpoint: Option<SocketAddr>,
    sessions: [Option<Session>; SESSIONS],
    /// Packets can be sealed.
    live: bool,
    /// The peer's index of the key that is too old, which is the one that boringtun would seal by.
    worn: Option<u32>,
    clock: Clock,
    upkeep_at: Option<Instant>,
    waiting: Waiting,
    retry_at: Option<Instant>,
    last_answer: Option<Instant>,
    forget_at: Option<Instant>,
}

/// What there is to know of a key beside what boringtun knows.
#[derive(Clone, Copy, Debug)]
struct Session {
    ours: u32,
    theirs: u32,
    born: Instant,
    initiator: bool,
    /// The peer is known to have it, too.
    confirmed: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    Sent,
    /// There is no key now.
    NoKey,
    NoRoom,
}

/// What is needed to make a peer.
pub(super) struct NewPeer<'a> {
    pub(super) private: &'a PrivateKey,
    pub(super) key: PublicKey,
    pub(super) preshared: Option<[u8; 32]>,
    pub(super) index: u32,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) persistent_keepalive: u16,
    pub(super) limiter: Arc<RateLimiter>,
    pub(super) temporary: bool,
}

impl Peer {
    pub(super) fn new(new: NewPeer<'_>, allowed: Vec<AllowedIp>, now: Instant) -> Self {
        let secret = new.private.secret();
        let tunn = Tunn::new(secret, new.key.point(), new.preshared, None, new.index, Some(new.limiter));
        let figures = Arc::new(PeerFigures::new(now));
        if let Some(endpoint) = new.endpoint {
            figures.set_endpoint(endpoint);
        }
        Self {
            key: new.key,
            index: new.index,
            allowed,
            figures,
            registered: None,
            tunn: Box::new(tunn),
            endpoint: new.endpoint,
            sessions: [None; SESSIONS],
            live: false,
            worn: None,
            clock: Clock::new(new.persistent_keepalive, now),
            upkeep_at: None,
            waiting: Waiting::default(),
            retry_at: None,
            last_answer: None,
            forget_at: new.temporary.then(|| after(now, PROVE_WITHIN)),
        }
    }

    /// Seals a packet, or keeps it until there is a key. `packet` has `len` bytes and the padding behind them.
    pub(super) fn send(&mut self, packet: &[u8], len: usize, work: &mut Work<'_>) -> Sealed {
        if self.endpoint.is_none() {
            work.counters.dropped_no_endpoint.add(1);
            return Sealed::Sent;
        }
        // What waits goes first.
        let sealed = if self.waiting.is_empty() { self.seal(packet, work) } else { Sealed::NoKey };
        match sealed {
            Sealed::Sent => self.sent_data(len, work),
            Sealed::NoKey => {
                if !self.waiting.add(packet, len, work.limits, work.waiting, work.now) {
                    work.counters.dropped_waiting.add(1);
                }
                if self.live && self.worn.is_none() {
                    self.flush(work);
                } else if !self.clock.is_trying() {
                    self.initiate(work);
                }
            }
            Sealed::NoRoom => return Sealed::NoRoom,
        }
        Sealed::Sent
    }

    fn seal(&mut self, packet: &[u8], work: &mut Work<'_>) -> Sealed {
        let Some(to) = self.endpoint.filter(|_| self.live && self.worn.is_none()) else { return Sealed::NoKey };
        let Some(room) = work.outgoing.room() else { return Sealed::NoRoom };
        // It panics on less, and makes no message longer than that.
        if room.len() < packet.len().saturating_add(message::OVERHEAD).max(148) {
            work.counters.dropped_no_room.add(1);
            return Sealed::Sent;
        }
        let TunnResult::WriteToNetwork(sealed) = self.tunn.encapsulate(packet, room) else { return Sealed::NoKey };
        let (Some(theirs), Some(counter)) = (message::receiver(sealed), message::counter(sealed)) else {
            return Sealed::NoKey;
        };
        let (len, is_data) = (sealed.len(), message::kind(sealed) == message::DATA);
        let Some(session) = self.sessions.iter().flatten().find(|session| is_data && session.theirs == theirs) else {
            self.live = false;
            return Sealed::NoKey;
        };
        let (age, initiator) = (work.now.saturating_duration_since(session.born), session.initiator);
        if age >= work.timing.reject_after || counter >= REJECT_AFTER_MESSAGES {
            // What was sealed is not sent: it is as if it had been lost.
            self.worn = Some(theirs);
            return Sealed::NoKey;
        }
        work.outgoing.add(to, len);
        self.clock.sent_any(work.now);
        if counter >= REKEY_AFTER_MESSAGES || (initiator && age >= work.timing.rekey_after && !packet.is_empty()) {
            self.renew(work);
        }
        Sealed::Sent
    }

    fn sent_data(&mut self, len: usize, work: &mut Work<'_>) {
        self.clock.sent_data(work.timing, work.now);
        let bytes = u64::try_from(len).unwrap_or(0);
        self.figures.sent_bytes.add(bytes);
        work.counters.sent_packets.add(1);
        work.counters.sent_bytes.add(bytes);
    }

    /// Sends what waits.
    fn flush(&mut self, work: &mut Work<'_>) {
        self.retry_at = None;
        while let Some((packet, len)) = self.waiting.first() {
            let packet = packet.to_vec();
            match self.seal(&packet, work) {
                Sealed::Sent => self.sent_data(len, work),
                Sealed::NoKey => break,
                Sealed::NoRoom => {
                    self.retry_at = Some(after(work.now, NO_ROOM_WAIT));
                    break;
                }
            }
            self.waiting.remove_first(work.waiting);
        }
    }

    /// Starts a handshake while there is a key.
    fn renew(&mut self, work: &mut Work<'_>) {
        if !self.clock.is_trying() {
            self.initiate(work);
        }
    }

    fn initiate(&mut self, work: &mut Work<'_>) {
        let Some(to) = self.endpoint else { return };
        if !self.clock.may_initiate(work.timing, work.now) {
            return;
        }
        if self.look_after(work) {
            return;
        }
        self.clock.initiated(work.timing, work.now);
        let made = work.outgoing.room().map(|room| match self.tunn.format_handshake_initiation(room, true) {
            TunnResult::WriteToNetwork(made) => made.len(),
            _ => 0,
        });
        match made {
            Some(len @ 1..) => {
                work.outgoing.add(to, len);
                work.counters.handshakes_sent.add(1);
                self.clock.sent_any(work.now);
            }
            _ => work.counters.dropped_no_room.add(1),
        }
    }

    /// Lets boringtun know the time, by which it drops old keys and cookies. It has timers of its own; what they make is sent as if ours had
    /// made it, which come to the same. Says whether a handshake was begun.
    fn look_after(&mut self, work: &mut Work<'_>) -> bool {
        let made = match self.tunn.update_timers(work.scratch) {
            TunnResult::WriteToNetwork(made) => made.len(),
            _ => 0,
        };
        let made = work.scratch.get(..made).unwrap_or_default();
        let initiated = message::kind(made) == message::INITIATION;
        if initiated {
            self.clock.initiated(work.timing, work.now);
            work.counters.handshakes_sent.add(1);
        }
        if let Some(to) = self.endpoint.filter(|_| initiated || (!made.is_empty() && self.worn.is_none()))
            && work.outgoing.push(to, made)
        {
            self.clock.sent_any(work.now);
        }
        // boringtun has dropped its half by then, which it only does in a call like this one.
        let end = work.timing.reject_after.saturating_add(UPKEEP).saturating_add(UPKEEP);
        for session in &mut self.sessions {
            session.take_if(|session| work.now.saturating_duration_since(session.born) > end);
        }
        self.is_live(work);
        let busy = self.sessions.iter().any(Option::is_some) || self.clock.is_trying();
        self.upkeep_at = busy.then(|| after(work.now, UPKEEP));
        initiated
    }

    fn is_live(&mut self, work: &Work<'_>) {
        let young = |session: &Session| work.now.saturating_duration_since(session.born) < work.timing.reject_after;
        self.live = self.sessions.iter().flatten().any(young) && self.tunn.time_since_last_handshake().is_some();
    }

    /// Opens a message of data: the packet's length and source. It begins at the beginning of the scratch.
    pub(super) fn open(&mut self, datagram: &[u8], from: SocketAddr, work: &mut Work<'_>) -> Option<(usize, IpAddr)> {
        let counter = message::counter(datagram).unwrap_or(u64::MAX);
        let known = message::receiver(datagram).and_then(|ours| self.session(ours));
        let Some(session) = known else {
            work.counters.dropped_no_key.add(1);
            return None;
        };
        let age = work.now.saturating_duration_since(session.born);
        if age >= work.timing.reject_after || counter >= REJECT_AFTER_MESSAGES {
            work.counters.dropped_expired.add(1);
            return None;
        }
        let opened = match self.tunn.decapsulate(None, datagram, work.scratch) {
            TunnResult::WriteToTunnelV4(packet, source) => Some((packet.len(), IpAddr::V4(source))),
            TunnResult::WriteToTunnelV6(packet, source) => Some((packet.len(), IpAddr::V6(source))),
            TunnResult::Done => None,
            TunnResult::Err(error) => {
                count_refusal(&error, work.counters);
                return None;
            }
            TunnResult::WriteToNetwork(_) => return None,
        };
        self.opened(session, age, from, opened.is_some(), work);
        opened
    }

    fn session(&self, ours: u32) -> Option<Session> {
        self.sessions.get(slot(ours)).copied().flatten().filter(|session| session.ours == ours)
    }

    /// A message was authentic.
    fn opened(&mut self, session: Session, age: Duration, from: SocketAddr, is_data: bool, work: &mut Work<'_>) {
        self.moved(from);
        self.clock.received_any(work.now);
        if is_data {
            self.clock.received_data(work.timing, work.now);
        }
        if !session.confirmed {
            if let Some(Some(kept)) = self.sessions.get_mut(slot(session.ours)) {
                kept.confirmed = true;
            }
            self.established(work);
        } else if !self.live || self.worn.is_some() {
            self.worn = self.worn.filter(|worn| *worn == session.theirs);
            self.is_live(work);
        }
        let patience = work.timing.keepalive.saturating_add(work.timing.rekey_timeout);
        if session.initiator && age >= work.timing.reject_after.saturating_sub(patience).max(work.timing.rekey_after) {
            self.renew(work);
        }
    }

    /// What is due; says whether the peer is to be forgotten.
    pub(super) fn tick(&mut self, work: &mut Work<'_>) -> bool {
        if self.upkeep_at.is_some_and(|at| at <= work.now) {
            self.look_after(work);
        }
        if self.retry_at.is_some_and(|at| at <= work.now) {
            self.flush(work);
        }
        let late = self.waiting.drop_until(Some(work.now), work.waiting);
        work.counters.dropped_waiting.add(late);
        while let Some(due) = self.clock.due(work.now) {
            self.act(due, work);
        }
        self.is_forgotten(work)
    }

    fn act(&mut self, due: Due, work: &mut Work<'_>) {
        match due {
            Due::Initiation => self.initiate(work),
            Due::Keepalive => match self.seal(&[], work) {
                Sealed::Sent => work.counters.keepalives_sent.add(1),
                Sealed::NoKey if !self.clock.is_trying() => self.initiate(work),
                Sealed::NoKey => {}
                Sealed::NoRoom => work.counters.dropped_no_room.add(1),
            },
            Due::GivingUp => {
                let dropped = self.waiting.drop_until(None, work.waiting);
                work.counters.dropped_waiting.add(dropped);
            }
        }
    }

    fn is_forgotten(&mut self, work: &mut Work<'_>) -> bool {
        let Some(at) = self.forget_at.filter(|at| *at <= work.now) else { return false };
        let young = |session: &Session| {
            session.confirmed && work.now.saturating_duration_since(session.born) < work.timing.reject_after
        };
        if self.sessions.iter().flatten().any(young) {
            self.forget_at = Some(after(at, work.limits.forget_after.max(UPKEEP)));
            return false;
        }
        true
    }

    /// When it is to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        let moments = [self.clock.next(), self.upkeep_at, self.waiting.until(), self.retry_at, self.forget_at];
        moments.into_iter().flatten().min()
    }

    /// Drops what waits, before the peer is dropped.
    pub(super) fn end(&mut self, work: &mut Work<'_>) {
        let dropped = self.waiting.drop_until(None, work.waiting);
        work.counters.dropped_waiting.add(dropped);
    }
}

fn slot(ours: u32) -> usize {
    usize::try_from(ours).unwrap_or(0) % SESSIONS
}

fn count_refusal(error: &WireGuardError, counters: &Counters) {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => counters.dropped_replayed.add(1),
        WireGuardError::InvalidPacket => counters.dropped_malformed.add(1),
        _ => counters.dropped_no_key.add(1),
    }
}
