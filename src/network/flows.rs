//! The flows that a machine has begun, so that answers to them pass: bounded, so that nobody fills another's table.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::packet::{FIN, Flow, Kind, Packet, RST, SYN};
use super::policy::Policy;
use super::reason::Refusal;
use super::settings::FlowLimits;

/// A flow has no more places where it may stand.
const WAYS: usize = 8;
/// A table begins with so many.
const FIRST: usize = 64;
/// How long a flow is kept that was not answered.
const UNANSWERED: Duration = Duration::from_secs(30);
/// How long a connection is kept that has ended.
const ENDED: Duration = Duration::from_secs(10);

/// The flows of one machine, or of what lies behind one uplink. The lock around it is held for one look.
pub(super) struct Flows {
    limits: FlowLimits,
    /// Several ways each. Empty until there is a flow.
    places: Vec<Option<Entry>>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Entry {
    flow: Flow,
    /// In the time of the network.
    expires: Duration,
    version: u32,
    rule: u16,
    answered: bool,
    /// Which side has ended the connection: the one that began it, and the other.
    ended: [bool; 2],
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
        Self { limits, places: Vec::new(), hasher: RandomState::new() }
    }

    /// Whether a packet belongs to a flow that is known and still allowed; then it is counted. `flow` is as its first packet had it.
    pub(super) fn pass(&mut self, policy: &Policy, flow: &Flow, packet: &Packet, side: Side, now: Duration) -> bool {
        let Some(at) = self.find(flow, now) else { return false };
        let limits = self.limits;
        let Some(place) = self.places.get_mut(at) else { return false };
        let Some(entry) = place else { return false };
        if entry.version != policy.version() {
            let Some(rule) = policy.admit(flow) else {
                *place = None;
                return false;
            };
            (entry.version, entry.rule) = (policy.version(), rule);
        }
        entry.see(packet, side, limits, now);
        policy.count(entry.rule, packet.len);
        true
    }

    /// Whether an error about a packet that `flow` has had, or that answered it, may pass. It changes nothing.
    pub(super) fn knows(&self, policy: &Policy, flow: &Flow, now: Duration) -> bool {
        let entry = self.find(flow, now).and_then(|at| self.places.get(at)?.as_ref());
        entry.is_some_and(|entry| entry.version == policy.version())
    }

    /// Remembers a flow that a rule has let begin.
    pub(super) fn begin(&mut self, policy: &Policy, packet: &Packet, rule: u16, now: Duration) -> Result<(), Refusal> {
        let flow = packet.flow;
        let entry = Entry {
            flow,
            expires: now.saturating_add(UNANSWERED),
            version: policy.version(),
            rule,
            answered: false,
            ended: [false; 2],
        };
        if self.places.is_empty() {
            self.places = vec![None; FIRST.min(self.limits.most)];
        }
        loop {
            let set = self.set(&flow);
            let places = self.places.get_mut(set).unwrap_or_default();
            if let Some(place) = places.iter_mut().find(|place| place.is_none_or(|entry| entry.expires <= now)) {
                *place = Some(entry);
                policy.count(rule, packet.len);
                return Ok(());
            }
            if !self.grow(now) {
                return Err(Refusal::FlowTable);
            }
        }
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
            let entry = self.places.get(*at).copied().flatten();
            entry.is_some_and(|entry| entry.flow == *flow && entry.expires > now)
        })
    }

    /// Doubles the places, if that may be.
    fn grow(&mut self, now: Duration) -> bool {
        let doubled = self.places.len().saturating_mul(2);
        if doubled > self.limits.most {
            return false;
        }
        let before = std::mem::replace(&mut self.places, vec![None; doubled]);
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
                (*first, *other, self.answered) = (false, false, false);
            }
            let ended = if side == Side::First { &mut *first } else { &mut *other };
            *ended |= flags & FIN != 0;
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
