//! What a packet is, by its headers: checked once, on a copy that nobody changes.

use std::net::Ipv6Addr;

use super::reason::Refusal;

pub(super) const ETHERNET_LEN: usize = 14;
pub(super) const IPV6_LEN: usize = 40;
/// No more of a packet is looked at: the IPv6 header, and the longest of TCP's.
pub(super) const HEAD_LEN: usize = IPV6_LEN + 60;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 58;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const CWR: u8 = 0x80;

/// The headers of an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) flow: Flow,
    /// With its IPv6 header.
    pub(super) len: usize,
    /// All headers.
    pub(super) headers: usize,
    pub(super) kind: Kind,
}

/// Who speaks to whom. For an echo, both ports are its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With its flags.
    Tcp(u8),
    Udp,
    EchoRequest,
    EchoReply,
    /// An error about a packet of this flow.
    Error(Flow),
    /// Neighbour discovery, of this type.
    Neighbour(u8),
    /// Any other protocol.
    Other,
}

impl Flow {
    /// The way back.
    pub(super) fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.port,
            port: self.source_port,
            ..self
        }
    }
}

impl Packet {
    /// Reads the headers of a packet of which `head` holds the first bytes, as many as are looked at or there are, and of which
    /// `available` bytes have come.
    pub(super) fn parse(head: &[u8], available: u64) -> Result<Self, Refusal> {
        if head.first().is_some_and(|byte| byte >> 4 != 6) {
            return Err(Refusal::NotIpv6);
        }
        let fixed = head.first_chunk::<IPV6_LEN>().ok_or(Refusal::Malformed)?;
        let payload = usize::from(be16(fixed, 4)?);
        let len = IPV6_LEN.saturating_add(payload);
        // Also a jumbogram has none.
        if payload == 0 || len as u64 > available {
            return Err(Refusal::Malformed);
        }
        let (source, destination) = (address(fixed, 8)?, address(fixed, 24)?);
        let protocol = protocol(*fixed.get(6).ok_or(Refusal::Malformed)?, destination)?;
        let rest = head.get(IPV6_LEN..len.min(head.len())).ok_or(Refusal::Malformed)?;
        let flow = Flow { source, destination, protocol, source_port: 0, port: 0 };
        let read = match protocol {
            TCP => tcp(rest, payload, flow)?,
            UDP => udp(rest, payload, flow)?,
            ICMP => icmp(rest, flow)?,
            _ => (flow, 0, Kind::Other),
        };
        let (flow, transport, kind) = read;
        Ok(Self { flow, len, headers: IPV6_LEN.saturating_add(transport), kind })
    }

    /// Where the checksum stands, from the IPv6 header on.
    pub(super) fn checksum_at(&self) -> Option<usize> {
        let behind = match self.flow.protocol {
            TCP => 16,
            UDP => 6,
            ICMP => 2,
            _ => return None,
        };
        IPV6_LEN.checked_add(behind)
    }
}

/// What a packet carries, if that may pass at all.
fn protocol(next_header: u8, destination: Ipv6Addr) -> Result<u8, Refusal> {
    match next_header {
        43 => Err(Refusal::RoutingHeader),
        44 => Err(Refusal::Fragment),
        // Guests tell routers by such packets which groups they listen to: nothing wrong, but there is none to tell.
        0 if destination.is_multicast() => Err(Refusal::Multicast),
        // Hop-by-hop and destination options, authentication, "no next header", mobility, host identity, shim, and those for experiments.
        0 | 51 | 59 | 60 | 135 | 139 | 140 | 253 | 254 => Err(Refusal::ExtensionHeaders),
        // IPv4, IPv6, routing encapsulation, Ethernet, and the like in IPv6.
        4 | 41 | 47 | 55 | 94 | 97 | 98 | 115 | 137 | 143 => Err(Refusal::Tunnelled),
        other => Ok(other),
    }
}

type Transport = (Flow, usize, Kind);

fn tcp(bytes: &[u8], payload: usize, flow: Flow) -> Result<Transport, Refusal> {
    let offset = usize::from(*bytes.get(12).ok_or(Refusal::Malformed)? >> 4).saturating_mul(4);
    if !(20..=payload).contains(&offset) || offset > bytes.len() {
        return Err(Refusal::Malformed);
    }
    let flags = *bytes.get(13).ok_or(Refusal::Malformed)?;
    // Nobody begins a connection and ends it at once.
    if flags & SYN != 0 && flags & (FIN | RST) != 0 {
        return Err(Refusal::Malformed);
    }
    Ok((with_ports(bytes, flow)?, offset, Kind::Tcp(flags)))
}

fn udp(bytes: &[u8], payload: usize, flow: Flow) -> Result<Transport, Refusal> {
    if usize::from(be16(bytes, 4)?) != payload || payload < 8 {
        return Err(Refusal::Malformed);
    }
    Ok((with_ports(bytes, flow)?, 8, Kind::Udp))
}

fn icmp(bytes: &[u8], flow: Flow) -> Result<Transport, Refusal> {
    // No message is shorter.
    let [kind, _, _, _, _, _, _, _, ..] = *bytes else { return Err(Refusal::Malformed) };
    let number = be16(bytes, 4)?;
    let echo = Flow { source_port: number, port: number, ..flow };
    match kind {
        128 => Ok((echo, 8, Kind::EchoRequest)),
        129 => Ok((echo, 8, Kind::EchoReply)),
        1..=4 => {
            let about = bytes.get(8..).and_then(about).ok_or(Refusal::Malformed)?;
            Ok((flow, 8, Kind::Error(about)))
        }
        133..=137 => Ok((flow, 8, Kind::Neighbour(kind))),
        // Which groups a guest listens to.
        130..=132 | 143 => Err(Refusal::Multicast),
        // What else there is asks for more than a network of this kind gives: names, renumbering, mobility.
        _ => Err(Refusal::Policy),
    }
}

/// The flow of the packet that an error is about, as far as that is there.
fn about(bytes: &[u8]) -> Option<Flow> {
    let protocol = *bytes.get(6)?;
    let flow = Flow {
        source: address(bytes, 8).ok()?,
        destination: address(bytes, 24).ok()?,
        protocol,
        source_port: 0,
        port: 0,
    };
    let rest = bytes.get(IPV6_LEN..)?;
    match protocol {
        TCP | UDP => with_ports(rest, flow).ok(),
        ICMP => {
            let number = be16(rest, 4).ok()?;
            Some(Flow { source_port: number, port: number, ..flow })
        }
        _ => Some(flow),
    }
}

fn with_ports(bytes: &[u8], flow: Flow) -> Result<Flow, Refusal> {
    Ok(Flow { source_port: be16(bytes, 0)?, port: be16(bytes, 2)?, ..flow })
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Result<u16, Refusal> {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.map(|pair| u16::from_be_bytes(*pair)).ok_or(Refusal::Malformed)
}

pub(super) fn address(bytes: &[u8], at: usize) -> Result<Ipv6Addr, Refusal> {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<16>());
    found.map(|octets| Ipv6Addr::from(*octets)).ok_or(Refusal::Malformed)
}

#[cfg(test)]
#[path = "packet_test.rs"]
mod tests;
