//! Why a frame or a packet is dropped, and how often it was.

use crate::meter::{Counter, Meter};

/// Why a network drops what it was given. Each reason has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is cut short, its lengths contradict each other, or it has a header that breaks the rules.
    Malformed,
    /// It is not IPv6: IPv4, ARP, a VLAN's, or anything else.
    NotIpv6,
    /// It is longer than the network's MTU and is not to be cut by the switch.
    TooLong,
    /// It comes from a MAC address that is not the port's own.
    SourceMac,
    /// It comes from an IPv6 address that is not the port's own, or, from an uplink, from one that does not lie behind it.
    SourceAddress,
    /// It claims, announces or redirects addresses of others: neighbour discovery that only the switch may speak.
    NeighbourClaim,
    /// It is a fragment.
    Fragment,
    /// It has a routing header.
    RoutingHeader,
    /// It has more extension headers, or longer ones, than are looked at, or some of a kind that no packet of this network needs.
    ExtensionHeaders,
    /// It carries another packet: IPv6 or IPv4 in IPv6, GRE, or the like.
    Tunnelled,
    /// It goes to a group, and is nothing that the switch answers.
    Multicast,
    /// No rule allows it.
    Policy,
    /// It has passed too many networks.
    HopLimit,
    /// There is no room to remember one more flow, or the machine speaks with the same machine by the same ports already, to it and by a
    /// service of it.
    FlowTable,
    /// Nobody has its destination.
    NoDestination,
    /// Its receiver has no room for it now.
    NoRoom,
    /// It goes to a service that has no member for it. Its sender was told.
    NoMember,
    /// It goes to a service, and another packet of its connection waits there for a member.
    Waiting,
}

impl Refusal {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::NotIpv6,
        Self::TooLong,
        Self::SourceMac,
        Self::SourceAddress,
        Self::NeighbourClaim,
        Self::Fragment,
        Self::RoutingHeader,
        Self::ExtensionHeaders,
        Self::Tunnelled,
        Self::Multicast,
        Self::Policy,
        Self::HopLimit,
        Self::FlowTable,
        Self::NoDestination,
        Self::NoRoom,
        Self::NoMember,
        Self::Waiting,
    ];

    /// Returns the name that its counter has, behind `network_dropped_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIpv6 => "not_ipv6",
            Self::TooLong => "too_long",
            Self::SourceMac => "source_mac",
            Self::SourceAddress => "source_address",
            Self::NeighbourClaim => "neighbour_claim",
            Self::Fragment => "fragment",
            Self::RoutingHeader => "routing_header",
            Self::ExtensionHeaders => "extension_headers",
            Self::Tunnelled => "tunnelled",
            Self::Multicast => "multicast",
            Self::Policy => "policy",
            Self::HopLimit => "hop_limit",
            Self::FlowTable => "flow_table",
            Self::NoDestination => "no_destination",
            Self::NoRoom => "no_room",
            Self::NoMember => "no_member",
            Self::Waiting => "waiting",
        }
    }
}

/// A counter for each reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals([Counter; Refusal::ALL.len()]);

impl Refusals {
    pub(super) fn count(&self, reason: Refusal) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.add(1);
        }
    }

    pub(super) fn get(&self, reason: Refusal) -> u64 {
        self.0.get(reason as usize).map_or(0, Counter::get)
    }

    pub(super) fn tell(&self, meter: &mut Meter) {
        for (reason, counter) in Refusal::ALL.into_iter().zip(&self.0) {
            meter.counter(format!("network_dropped_{}", reason.name()), counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let refusals = Refusals::default();
        for (times, reason) in (1..).zip(Refusal::ALL) {
            (0..times).for_each(|_| refusals.count(reason));
        }
        let mut meter = Meter::new();
        refusals.tell(&mut meter);
        let read = meter.read();
        assert_eq!(read.len(), Refusal::ALL.len());
        for (times, reason) in (1..).zip(Refusal::ALL) {
            assert_eq!((refusals.get(reason), read[&format!("network_dropped_{}", reason.name())]), (times, times));
        }
    }
}
