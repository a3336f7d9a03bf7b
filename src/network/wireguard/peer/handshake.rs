//! Handshakes that come, from their first message to a key.

use std::net::SocketAddr;
use std::time::Instant;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;

use super::super::clock::after;
use super::super::message;
use super::{INITIATION_INTERVAL, Peer, Session, UPKEEP, Work, slot};

impl Peer {
    /// A handshake that the peer began.
    pub(in super::super) fn take_initiation(&mut self, datagram: &[u8], from: SocketAddr, work: &mut Work<'_>) {
        if self.last_answer.is_some_and(|last| after(last, INITIATION_INTERVAL) > work.now) {
            return work.counters.dropped_handshake_limit.add(1);
        }
        self.look_after(work);
        let answer = match self.tunn.decapsulate(None, datagram, work.scratch) {
            TunnResult::WriteToNetwork(answer) => answer,
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => return work.counters.dropped_replayed.add(1),
            _ => return work.counters.dropped_wrong_key.add(1),
        };
        let (ours, theirs) = (message::sender(answer), message::sender(datagram));
        self.last_answer = Some(work.now);
        self.keep(ours, theirs, false, work.now);
        if !work.outgoing.push(from, answer) {
            work.counters.dropped_no_room.add(1);
        }
        // One that was recorded and is sent again by somebody else must not lead an answer astray: only what comes by the new key
        // shows where the peer is, unless nobody knows.
        if self.endpoint.is_none() {
            self.moved(from);
        }
        self.clock.received_any(work.now);
        self.clock.sent_any(work.now);
        self.is_live(work);
        self.upkeep_at = Some(after(work.now, UPKEEP));
    }

    fn keep(&mut self, ours: Option<u32>, theirs: Option<u32>, initiator: bool, now: Instant) {
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && let Some(slot) = self.sessions.get_mut(slot(ours))
        {
            *slot = Some(Session { ours, theirs, born: now, initiator, confirmed: initiator });
        }
    }

    pub(super) fn moved(&mut self, from: SocketAddr) {
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            self.figures.set_endpoint(from);
        }
    }

    /// An answer to a handshake of ours.
    pub(in super::super) fn take_answer(&mut self, datagram: &[u8], from: SocketAddr, work: &mut Work<'_>) {
        self.look_after(work);
        let confirmation = match self.tunn.decapsulate(None, datagram, work.scratch) {
            TunnResult::WriteToNetwork(confirmation) => confirmation,
            _ => return work.counters.dropped_no_key.add(1),
        };
        self.keep(message::answered(datagram), message::sender(datagram), true, work.now);
        self.moved(from);
        // If there is no room for it, the first packet confirms the key as well.
        work.outgoing.push(from, confirmation);
        self.clock.sent_any(work.now);
        self.clock.received_any(work.now);
        self.established(work);
    }

    pub(super) fn established(&mut self, work: &mut Work<'_>) {
        self.clock.established();
        self.worn = None;
        self.is_live(work);
        self.figures.set_handshake(work.now);
        work.counters.handshakes.add(1);
        self.forget_at = self.forget_at.map(|_| after(work.now, work.limits.forget_after));
        self.flush(work);
    }

    /// An answer to a handshake that wants a cookie first: the next one has it.
    pub(in super::super) fn take_cookie(&mut self, datagram: &[u8], work: &mut Work<'_>) {
        self.look_after(work);
        if let TunnResult::Err(_) = self.tunn.decapsulate(None, datagram, work.scratch) {
            work.counters.dropped_no_key.add(1);
        }
    }
}
