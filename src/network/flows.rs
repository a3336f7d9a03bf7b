//! The flows that a machine has begun, so that answers to them pass: bounded, so that nobody fills another's table.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::time::Duration;

use super::address::MachineAddress;
use super::packet::{FIN, Flow, Kind, Packet, RST, SYN};
use super::policy::Policy;
use super::reason::Refusal;
use super::service::member::Lease;
use super::settings::FlowLimits;

/// A flow has no more places where it may stand.
const WAYS: usize = 8;
/// A table begins with so many.
const FIRST: usize = 64;
/// How long a flow is kept that was not answered.
const UNANSWERED: Duration = Duration::from_secs(30);
/// How long a connection is kept that has ended.
const ENDED: Duration = Duration::from_secs(10);
/// So many places are swept at once.
const SWEPT: usize = 256;

/// The flows of one machine, or of what lies behind one uplink. The lock around it is held for one look.
pub(super) struct Flows {
    limits: FlowLimits,
    /// Several ways each. Empty until there is a flow.
    places: Vec<Option<Entry>>,
    hasher: RandomState,
    /// There may be flows to services among them; and whether the sweep that goes on has seen one.
    has_leases: bool,
    lease_seen: bool,
}

struct Entry {
    flow: Flow,
    /// In the time of the network.
    expires: Duration,
    version: u32,
    rule: u16,
    answered: bool,
    /// Which side has ended the connection: the one that began it, and the other.
    ended: [bool; 2],
    /// The other side has said so itself: it may not have believed the first one.
    is_sure: bool,
    via: Via,
}

/// By which addresses a flow goes. One to a service has two entries: as its client has it, and as the member has it.
enum Via {
    Direct,
    /// It goes to a service, and this member answers.
    Service(Lease),
    /// It goes to a member, and from there back as the answer of this service.
    Member(Ipv6Addr),
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    No,
    /// It has begun, and is still allowed.
    Yes,
    /// It is one to this service, and the packet is its member's.
    OfService(Ipv6Addr),
}

/// What is known of a flow to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    No,
    /// This member has it.
    Member(MachineAddress),
    /// Its member does not know of it any more, and neither does this table.
    Gone,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that began the flow.
    First,
    Other,
}

impl Flows {
    pub(super) fn new(limits: FlowLimits) -> Self {
        Self { limits, places: Vec::new(), hasher: RandomState::new(), has_leases: false, lease_seen: false }
    }

    /// Whether a packet belongs to a flow that is known and still allowed; then it is counted. `flow` is as its first packet had it.
    pub(super) fn pass(&mut self, policy: &Policy, flow: &Flow, packet: &Packet, side: Side, now: Duration) -> Known {
        let Some(at) = self.find(flow, now) else { return Known::No };
        let limits = self.limits;
        let Some(place) = self.places.get_mut(at) else { return Known::No };
        let Some(entry) = place else { return Known::No };
        match entry.via {
            Via::Direct => {}
            Via::Member(service) if side == Side::Other => {
                let there = Flow { destination: service, ..*flow };
                let followed = self.follow(policy, &there, packet, side, now);
                return if matches!(followed, Followed::Member(_)) { Known::OfService(service) } else { Known::No };
            }
            // A client has nothing to say to a member but by its service.
            Via::Member(_) | Via::Service(_) => return Known::No,
        }
        if entry.version != policy.version() {
            let Some(rule) = policy.admit(flow) else {
                *place = None;
                return Known::No;
            };
            (entry.version, entry.rule) = (policy.version(), rule);
        }
        entry.see(packet, side, limits, now);
        policy.count(entry.rule, packet.len);
        Known::Yes
    }

    /// Which member has a flow to a service that is known and still allowed; then the packet is counted. `flow` is as its client has it.
    pub(super) fn follow(
        &mut self,
        policy: &Policy,
        flow: &Flow,
        packet: &Packet,
        side: Side,
        now: Duration,
    ) -> Followed {
        let limits = self.limits;
        let at = self.find(flow, now);
        let Some(entry) = at.and_then(|at| self.places.get_mut(at)).and_then(Option::as_mut) else {
            return Followed::No;
        };
        let Via::Service(lease) = &entry.via else { return Followed::No };
        let (member, is_valid) = (lease.member().address(), lease.is_valid());
        // Another connection by the same ports may go to another member.
        let begins = side == Side::First && matches!(packet.kind, Kind::Tcp(flags) if flags & SYN != 0);
        if !is_valid || begins && entry.ended == [true; 2] {
            self.end(flow, member.ip(), now);
            return if is_valid { Followed::No } else { Followed::Gone };
        }
        if entry.version != policy.version() {
            let Some(rule) = policy.admit(flow) else {
                self.end(flow, member.ip(), now);
                return Followed::No;
            };
            (entry.version, entry.rule) = (policy.version(), rule);
        }
        entry.see(packet, side, limits, now);
        policy.count(entry.rule, packet.len);
        // Otherwise it counts until nothing has passed for a while: a client cannot talk its member into having more than it may.
        if let (Via::Service(lease), [true, true], true) = (&mut entry.via, entry.ended, entry.is_sure) {
            lease.release();
        }
        let expires = entry.expires;
        let there = Flow { destination: member.ip(), ..*flow };
        let other = self.find(&there, now).and_then(|at| self.places.get_mut(at)).and_then(Option::as_mut);
        if let Some(other) = other {
            other.expires = expires;
        }
        Followed::Member(member)
    }

    /// Whether an error about a packet that `flow` has had, or that answered it, may pass. It changes nothing.
    pub(super) fn knows(&self, policy: &Policy, flow: &Flow, now: Duration) -> Known {
        let entry = |flow: &Flow| {
            let entry = self.find(flow, now).and_then(|at| self.places.get(at)?.as_ref());
            entry.filter(|entry| entry.version == policy.version() || matches!(entry.via, Via::Member(_)))
        };
        match entry(flow).map(|entry| &entry.via) {
            Some(Via::Direct) => Known::Yes,
            Some(Via::Member(service)) => {
                let there = entry(&Flow { destination: *service, ..*flow });
                if there.is_some() { Known::OfService(*service) } else { Known::No }
            }
            Some(Via::Service(_)) | None => Known::No,
        }
    }

    /// Which member has a flow to a service, of which `flow` is as its client has it. It changes nothing.
    pub(super) fn member(&self, policy: &Policy, flow: &Flow, now: Duration) -> Option<MachineAddress> {
        let entry = self.find(flow, now).and_then(|at| self.places.get(at)?.as_ref())?;
        match &entry.via {
            Via::Service(lease) if entry.version == policy.version() && lease.is_valid() => {
                Some(lease.member().address())
            }
            _ => None,
        }
    }

    /// Remembers a flow that a rule has let begin.
    pub(super) fn begin(&mut self, policy: &Policy, packet: &Packet, rule: u16, now: Duration) -> Result<(), Refusal> {
        if self.find(&packet.flow, now).is_some() {
            // The client speaks with that machine by a service, and these ports.
            return Err(Refusal::FlowTable);
        }
        self.keep(packet.flow, Via::Direct, policy, rule, now)?;
        policy.count(rule, packet.len);
        Ok(())
    }

    /// Remembers a flow to a service, which has a member. Says no if the client speaks with that member by the same ports, to it
    /// or to another of its services.
    pub(super) fn begin_leased(
        &mut self,
        policy: &Policy,
        packet: &Packet,
        rule: u16,
        lease: Lease,
        now: Duration,
    ) -> Result<bool, Refusal> {
        let (flow, member) = (packet.flow, lease.member().ip());
        let there = Flow { destination: member, ..flow };
        if self.find(&there, now).is_some() {
            return Ok(false);
        }
        (self.has_leases, self.lease_seen) = (true, true);
        self.keep(there, Via::Member(flow.destination), policy, rule, now)?;
        if let Err(refusal) = self.keep(flow, Via::Service(lease), policy, rule, now) {
            self.end(&flow, member, now);
            return Err(refusal);
        }
        policy.count(rule, packet.len);
        Ok(true)
    }

    /// Puts a flow where there is room for it.
    fn keep(&mut self, flow: Flow, via: Via, policy: &Policy, rule: u16, now: Duration) -> Result<(), Refusal> {
        if self.places.is_empty() {
            self.places.resize_with(FIRST.min(self.limits.most), || None);
        }
        loop {
            let set = self.set(&flow);
            let places = self.places.get_mut(set).unwrap_or_default();
            let is_free = |place: &&mut Option<Entry>| place.as_ref().is_none_or(|entry| entry.expires <= now);
            if let Some(place) = places.iter_mut().find(is_free) {
                let (expires, version) = (now.saturating_add(UNANSWERED), policy.version());
                *place = Some(Entry {
                    flow,
                    expires,
                    version,
                    rule,
                    answered: false,
                    ended: [false; 2],
                    is_sure: false,
                    via,
                });
                return Ok(());
            }
            if !self.grow(now) {
                return Err(Refusal::FlowTable);
            }
        }
    }

    /// Forgets a flow to a service, as its client has it and as its member has it.
    fn end(&mut self, flow: &Flow, member: Ipv6Addr, now: Duration) {
        for flow in [*flow, Flow { destination: member, ..*flow }] {
            if let Some(place) = self.find(&flow, now).and_then(|at| self.places.get_mut(at)) {
                *place = None;
            }
        }
    }

    /// Forgets flows to services that have ended, so that they do not count any more: some of them, from a place on. Says where to go on.
    pub(super) fn sweep(&mut self, from: usize, now: Duration) -> Option<usize> {
        if !self.has_leases {
            return None;
        }
        self.lease_seen &= from > 0;
        let to = from.saturating_add(SWEPT).min(self.places.len());
        for at in from..to {
            let Some(place) = self.places.get_mut(at) else { break };
            let Some(Entry { flow, expires, via: Via::Service(lease), .. }) = place else { continue };
            if *expires <= now || !lease.is_valid() {
                let (flow, member) = (*flow, lease.member().ip());
                *place = None;
                self.end(&flow, member, now);
            } else {
                self.lease_seen = true;
            }
        }
        if to < self.places.len() {
            return Some(to);
        }
        self.has_leases = self.lease_seen;
        None
    }

    /// Where the ways of a flow are.
    fn set(&self, flow: &Flow) -> std::ops::Range<usize> {
        let sets = self.places.len().checked_div(WAYS).unwrap_or(0);
        let hash = usize::try_from(self.hasher.hash_one(flow)).unwrap_or(0);
        let first = hash.checked_rem(sets).unwrap_or(0).saturating_mul(WAYS);
        first..first.saturating_add(WAYS).min(self.places.len())
    }

    fn find(&self, flow: &Flow, now: Duration) -> Option<usize> {
        let mut set = self.set(flow);
        set.find(|at| {
            let entry = self.places.get(*at).and_then(Option::as_ref);
            entry.is_some_and(|entry| entry.flow == *flow && entry.expires > now)
        })
    }

    /// Doubles the places, if that may be.
    fn grow(&mut self, now: Duration) -> bool {
        let doubled = self.places.len().saturating_mul(2);
        if doubled > self.limits.most {
            return false;
        }
        let before = std::mem::take(&mut self.places);
        self.places.resize_with(doubled, || None);
        for entry in before.into_iter().flatten().filter(|entry| entry.expires > now) {
            let set = self.set(&entry.flow);
            // Each set's flows go to two sets, so that there is room for them.
            let places = self.places.get_mut(set).unwrap_or_default();
            if let Some(place) = places.iter_mut().find(|place| place.is_none()) {
                *place = Some(entry);
            }
        }
        true
    }
}

impl Entry {
    fn see(&mut self, packet: &Packet, side: Side, limits: FlowLimits, now: Duration) {
        self.answered |= side == Side::Other;
        let [first, other] = &mut self.ended;
        if let Kind::Tcp(flags) = packet.kind {
            if flags & SYN != 0 && side == Side::First && *first && *other {
                // Another connection by the same ports.
                (*first, *other, self.answered, self.is_sure) = (false, false, false, false);
            }
            let ended = if side == Side::First { &mut *first } else { &mut *other };
            *ended |= flags & FIN != 0;
            self.is_sure |= side == Side::Other && flags & (FIN | RST) != 0;
            if flags & RST != 0 {
                (*first, *other) = (true, true);
            }
        }
        let kept = match packet.kind {
            _ if *first && *other => ENDED,
            _ if !self.answered => UNANSWERED,
            Kind::Tcp(_) => limits.tcp_idle,
            _ => limits.idle,
        };
        self.expires = now.saturating_add(kept);
    }
}

#[cfg(test)]
#[path = "flows_test.rs"]
mod tests;
