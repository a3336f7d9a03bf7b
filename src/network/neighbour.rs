//! What the switch answers by itself: neighbour discovery (RFC 4861), so that no guest hears of another, and errors about packets that are
//! too long.

use std::net::Ipv6Addr;

use super::address::MachineAddress;
use super::checksum::Sum;
use super::packet::{ETHERNET_LEN, ICMP, IPV6_LEN, Packet, address};
use super::reason::Refusal;

/// The switch, as all guests see it: their router, and the neighbour that has every other address.
pub(super) const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
pub(super) const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// No question is longer.
pub(super) const LONGEST_QUESTION: usize = 512;
/// As much of a packet as an error repeats is bounded by this.
const LONGEST: usize = 1280;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const PACKET_TOO_BIG: u8 = 2;

const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;

/// For how many seconds the switch is a guest's router without another word, and its name server.
const LIFETIME: u16 = 1800;
/// How often it says so.
pub(super) const ADVERTISE_SECONDS: u64 = 600;
/// On this link, and for addresses that guests make themselves.
const ON_LINK_AND_AUTONOMOUS: u8 = 0xc0;
/// Another router is to be preferred (RFC 4191): one to the Internet, for instance, on another card.
const LOW_PREFERENCE: u8 = 0x18;
/// It is a router, was asked, and knows better than what the guest has.
const ROUTER_SOLICITED_OVERRIDE: u8 = 0xe0;
const SOLICITED_OVERRIDE: u8 = 0x60;

/// What a guest is told about its network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) guest: MachineAddress,
    pub(super) mtu: u16,
}

/// A packet of the switch's own.
pub(super) struct Message {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Message {
    fn new(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, code: u8) -> Self {
        let mut message = Self { bytes: [0; LONGEST], len: 0 };
        // Neighbours must see that no router has passed it on.
        message.add(&[0x60, 0, 0, 0, 0, 0, ICMP, 255]);
        message.add(&source.octets());
        message.add(&destination.octets());
        message.add(&[kind, code, 0, 0]);
        message
    }

    /// What does not fit is left out.
    fn add(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len()).min(LONGEST);
        let room = self.bytes.get_mut(self.len..end).unwrap_or_default();
        for (to, byte) in room.iter_mut().zip(bytes) {
            *to = *byte;
        }
        self.len = end;
    }

    fn set(&mut self, at: usize, value: u16) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *place = value.to_be_bytes();
        }
    }

    fn finish(mut self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let payload = self.len.saturating_sub(IPV6_LEN);
        self.set(4, u16::try_from(payload).unwrap_or(u16::MAX));
        let mut sum = Sum::of_pseudo_header(source, destination, ICMP, payload);
        sum.add(self.bytes().get(IPV6_LEN..).unwrap_or_default());
        self.set(IPV6_LEN.saturating_add(2), sum.finish());
        self
    }

    /// From the IPv6 header on.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Link {
    /// Answers neighbour discovery of the guest's, if there is an answer. `bytes` is the whole packet, as the guest had it when it was
    /// looked at.
    pub(super) fn answer(&self, packet: &Packet, kind: u8, bytes: &[u8]) -> Result<Option<Message>, Refusal> {
        let hop_limit = bytes.get(7).copied();
        let code = bytes.get(IPV6_LEN.saturating_add(1)).copied();
        if (hop_limit, code) != (Some(255), Some(0)) {
            return Err(Refusal::Malformed);
        }
        let own = [self.guest.ip(), self.guest.link_local()];
        let source = packet.flow.source;
        let body = bytes.get(IPV6_LEN.saturating_add(4)..packet.len).ok_or(Refusal::Malformed)?;
        match kind {
            ROUTER_SOLICITATION => {
                self.check_options(body.get(4..).ok_or(Refusal::Malformed)?, SOURCE_LINK)?;
                Ok(Some(self.advertisement()))
            }
            NEIGHBOUR_SOLICITATION => {
                let target = address(body, 4)?;
                self.check_options(body.get(20..).ok_or(Refusal::Malformed)?, SOURCE_LINK)?;
                // The guest asks whether anybody else has its own address, before it uses it: nobody has.
                if own.contains(&target) || target.is_multicast() {
                    return Ok(None);
                }
                Ok(self.neighbour(source, target))
            }
            // The guest tells its neighbours where it is, which they need not know.
            NEIGHBOUR_ADVERTISEMENT if own.contains(&address(body, 4)?) => {
                self.check_options(body.get(20..).ok_or(Refusal::Malformed)?, TARGET_LINK)?;
                Ok(None)
            }
            _ => Err(Refusal::NeighbourClaim),
        }
    }

    /// Options of `kind` must name the guest's own card.
    fn check_options(&self, options: &[u8], kind: u8) -> Result<(), Refusal> {
        let mut rest = options;
        while let [found, len, ..] = *rest {
            let len = usize::from(len).saturating_mul(8);
            let (option, behind) = rest.split_at_checked(len).filter(|_| len > 0).ok_or(Refusal::Malformed)?;
            if found == kind && option.get(2..8) != Some(&self.guest.mac()) {
                return Err(Refusal::NeighbourClaim);
            }
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(Refusal::Malformed) }
    }

    /// Whoever is asked for, it is the switch that is to get the packets: so a question tells nothing about who is there. A guest that
    /// asks whether an address is free, so that it may take it, hears that it is not.
    fn neighbour(&self, source: Ipv6Addr, target: Ipv6Addr) -> Option<Message> {
        let in_network = self.guest.subnet().prefix().contains(target);
        let probes = source.is_unspecified();
        if target != ROUTER && !in_network && !(probes && target.is_unicast_link_local()) {
            return None;
        }
        let destination = if probes { ALL_NODES } else { source };
        let flags = match (target == ROUTER, probes) {
            (true, _) => ROUTER_SOLICITED_OVERRIDE,
            (false, false) => SOLICITED_OVERRIDE,
            (false, true) => SOLICITED_OVERRIDE & !0x40,
        };
        let mut message = Message::new(target, destination, NEIGHBOUR_ADVERTISEMENT, 0);
        message.add(&[flags, 0, 0, 0]);
        message.add(&target.octets());
        message.add(&[TARGET_LINK, 1]);
        message.add(&ROUTER_MAC);
        Some(message.finish(target, destination))
    }

    /// Tells the guest of its network: the prefix that it makes its address from, how long packets may be, and who knows names.
    pub(super) fn advertisement(&self) -> Message {
        let subnet = self.guest.subnet();
        let mut message = Message::new(ROUTER, ALL_NODES, ROUTER_ADVERTISEMENT, 0);
        let [high, low] = LIFETIME.to_be_bytes();
        message.add(&[64, LOW_PREFERENCE, high, low, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.add(&[SOURCE_LINK, 1]);
        message.add(&ROUTER_MAC);
        let [a, b] = self.mtu.to_be_bytes();
        message.add(&[MTU, 1, 0, 0, 0, 0, a, b]);
        message.add(&[PREFIX, 4, 64, ON_LINK_AND_AUTONOMOUS]);
        // Valid and preferred for ever, since the guest's address is the port's for as long as there is one.
        message.add(&[0xff; 8]);
        message.add(&[0; 4]);
        message.add(&subnet.prefix().address().octets());
        message.add(&[RDNSS, 3, 0, 0, 0, 0, high, low]);
        message.add(&subnet.dns().octets());
        message.finish(ROUTER, ALL_NODES)
    }

    /// Tells the guest that a packet is too long for where it is to go. `head` is the beginning of the packet.
    pub(super) fn too_big(&self, packet: &Packet, mtu: u16, head: &[u8]) -> Message {
        let destination = packet.flow.source;
        let mut message = Message::new(ROUTER, destination, PACKET_TOO_BIG, 0);
        message.add(&u32::from(mtu).to_be_bytes());
        message.add(head);
        message.finish(ROUTER, destination)
    }
}

/// The Ethernet header in front of a packet for a guest.
pub(super) fn ethernet(to: [u8; 6]) -> [u8; ETHERNET_LEN] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (to, ROUTER_MAC);
    [a, b, c, d, e, f, g, h, i, j, k, l, 0x86, 0xdd]
}

#[cfg(test)]
#[path = "neighbour_test.rs"]
mod tests;
