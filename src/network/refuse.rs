//! How the switch says no for a service: a reset of a connection, or an error about anything else.

use std::net::Ipv6Addr;

use super::checksum::Sum;
use super::packet::{FIN, Flow, HEAD_LEN, ICMP, IPV6_LEN, Kind, Packet, RST, SYN, TCP};

const ACK: u8 = 0x10;
/// A header of TCP without options.
const TCP_LEN_IN_WORDS: u8 = 5;
const DESTINATION_UNREACHABLE: u8 = 1;
const ADDRESS_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 4;
/// An error repeats no more than the headers that were looked at.
const LONGEST: usize = IPV6_LEN + 8 + HEAD_LEN;

/// A packet to the one that is refused, from its IPv6 header on.
pub(super) struct No {
    bytes: [u8; LONGEST],
    len: usize,
}

impl No {
    /// Answers a packet of which `head` is the beginning; `None` for one that has no answer: a reset, an error, an answer.
    pub(super) fn to(packet: &Packet, head: &[u8]) -> Option<Self> {
        match packet.kind {
            Kind::Tcp(flags) if flags & RST == 0 => Some(Self::reset(packet, flags, head)),
            Kind::Udp => Some(Self::unreachable(packet, PORT_UNREACHABLE, head)),
            Kind::EchoRequest => Some(Self::unreachable(packet, ADDRESS_UNREACHABLE, head)),
            _ => None,
        }
    }

    /// As RFC 9293, 3.10.7.1, has it.
    fn reset(packet: &Packet, flags: u8, head: &[u8]) -> Self {
        let back = packet.flow.reversed();
        let word = |at: usize| {
            let found = head.get(IPV6_LEN.saturating_add(at)..).and_then(|bytes| bytes.first_chunk());
            found.map_or(0, |word| u32::from_be_bytes(*word))
        };
        let (sequence, acknowledged, flags) = if flags & ACK != 0 {
            (word(8), 0, RST)
        } else {
            let data = u32::try_from(packet.len.saturating_sub(packet.headers)).unwrap_or(0);
            let controls = u32::from(flags & SYN != 0).wrapping_add(u32::from(flags & FIN != 0));
            (0, word(4).wrapping_add(data).wrapping_add(controls), RST | ACK)
        };
        let mut no = Self::new(&back, TCP, 64);
        no.add(&back.source_port.to_be_bytes());
        no.add(&back.port.to_be_bytes());
        no.add(&sequence.to_be_bytes());
        no.add(&acknowledged.to_be_bytes());
        no.add(&[TCP_LEN_IN_WORDS << 4, flags, 0, 0, 0, 0, 0, 0]);
        no.finish(&back, 16)
    }

    fn unreachable(packet: &Packet, code: u8, head: &[u8]) -> Self {
        let back = packet.flow.reversed();
        let mut no = Self::new(&back, ICMP, 255);
        no.add(&[DESTINATION_UNREACHABLE, code, 0, 0, 0, 0, 0, 0]);
        no.add(head.get(..packet.len.min(HEAD_LEN)).unwrap_or(head));
        no.finish(&back, 2)
    }

    fn new(flow: &Flow, protocol: u8, hop_limit: u8) -> Self {
        let mut no = Self { bytes: [0; LONGEST], len: 0 };
        no.add(&[0x60, 0, 0, 0, 0, 0, protocol, hop_limit]);
        no.add_address(flow.source);
        no.add_address(flow.destination);
        no
    }

    fn add_address(&mut self, address: Ipv6Addr) {
        self.add(&address.octets());
    }

    fn add(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    /// Fills in the length, and the checksum, which stands `at` of the payload.
    fn finish(mut self, flow: &Flow, at: usize) -> Self {
        let payload = self.len.saturating_sub(IPV6_LEN);
        self.set(4, u16::try_from(payload).unwrap_or(u16::MAX));
        let protocol = self.bytes.get(6).copied().unwrap_or(0);
        let mut sum = Sum::of_pseudo_header(flow.source, flow.destination, protocol, payload);
        sum.add(self.bytes().get(IPV6_LEN..).unwrap_or_default());
        self.set(IPV6_LEN.saturating_add(at), sum.finish());
        self
    }

    fn set(&mut self, at: usize, value: u16) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *place = value.to_be_bytes();
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::packets::{echo, icmp, is_whole, machine, tcp, udp};

    fn no(bytes: &[u8]) -> Option<Vec<u8>> {
        let head = &bytes[..bytes.len().min(HEAD_LEN)];
        No::to(&Packet::parse(head, bytes.len() as u64).unwrap(), head).map(|no| no.bytes().to_vec())
    }

    #[test]
    fn a_connection_is_reset_so_that_its_sender_believes_it() {
        let (from, to) = ((machine(1), 1000), (machine(2), 80));
        for (flags, data, sequence, acknowledged, answer) in [
            (0x02, 0, 0, 0x01020304 + 1, 0x14),
            (0x02, 5, 0, 0x01020304 + 6, 0x14),
            (0x10, 5, 9, 0, 0x04),
            (0x11, 0, 9, 0, 0x04),
        ] {
            let no = no(&tcp(from, to, flags, &vec![7; data])).unwrap();
            assert!(is_whole(&no));
            let mut expected = tcp(to, from, answer, b"");
            expected[44..48].copy_from_slice(&u32::to_be_bytes(sequence));
            expected[48..52].copy_from_slice(&u32::to_be_bytes(acknowledged));
            expected[54..58].copy_from_slice(&no[54..58]);
            assert_eq!(no, expected, "{flags:#x}");
        }
        assert_eq!(no(&tcp(from, to, 0x04, b"")), None, "nothing answers a reset");
    }

    #[test]
    fn anything_else_is_told_by_an_error_about_it_that_is_no_longer_than_its_headers() {
        let (from, to) = ((machine(1), 1000), (machine(2), 53));
        for (packet, code) in [(udp(from, to, &[1; 500]), 4), (echo(machine(1), machine(2), 128, 7), 3)] {
            let no = no(&packet).unwrap();
            let about = &packet[..packet.len().min(HEAD_LEN)];
            let expected = icmp(machine(2).ip(), machine(1).ip(), 1, &[&[0; 4], about].concat());
            assert!(is_whole(&no) && no[41] == code);
            assert_eq!((&no[..40], &no[44..]), (&expected[..40], &expected[44..]));
        }
        let error = icmp(machine(1).ip(), machine(2).ip(), 1, &[&[0; 4], &udp(to, from, b"")[..]].concat());
        assert_eq!(no(&error), None, "nothing answers an error");
        assert_eq!(no(&echo(machine(1), machine(2), 129, 7)), None);
    }
}
