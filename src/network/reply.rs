//! Packets of the network's DNS server.

use super::checksum::Sum;
use super::dns::{LONGEST, answer};
use super::names::Names;
use super::packet::{IPV6_LEN, Kind, Packet, UDP};
use super::reason::Refusal;

const HEADERS: usize = IPV6_LEN + 8;
/// The port of name servers.
const PORT: u16 = 53;
/// No query is longer, with all headers.
pub(super) const LONGEST_QUERY: usize = 640;

/// The answer to a query, from its IPv6 header on.
pub(super) struct Reply {
    bytes: [u8; HEADERS + LONGEST],
    len: usize,
}

impl Reply {
    /// Answers a packet, of which `bytes` is the whole.
    pub(super) fn to(packet: &Packet, bytes: &[u8], names: &Names) -> Result<Self, Refusal> {
        if packet.kind != Kind::Udp || packet.flow.port != PORT {
            return Err(Refusal::NoDestination);
        }
        let query = bytes.get(HEADERS..packet.len).ok_or(Refusal::Malformed)?;
        let answer = answer(query, names).ok_or(Refusal::Malformed)?;
        let flow = packet.flow.reversed();
        let payload = answer.bytes().len().saturating_add(8);
        let len = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
        let mut reply = Self { bytes: [0; HEADERS + LONGEST], len: 0 };
        reply.add(&[0x60, 0, 0, 0]);
        reply.add(&len);
        reply.add(&[UDP, 64]);
        reply.add(&flow.source.octets());
        reply.add(&flow.destination.octets());
        reply.add(&flow.source_port.to_be_bytes());
        reply.add(&flow.port.to_be_bytes());
        reply.add(&len);
        reply.add(&[0, 0]);
        reply.add(answer.bytes());
        let mut sum = Sum::of_pseudo_header(flow.source, flow.destination, UDP, payload);
        sum.add(reply.bytes().get(IPV6_LEN..).unwrap_or_default());
        let checksum = match sum.finish() {
            0 => 0xffff,
            checksum => checksum,
        };
        let at = HEADERS.saturating_sub(2);
        if let Some(place) = reply.bytes.get_mut(at..HEADERS) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(reply)
    }

    fn add(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
