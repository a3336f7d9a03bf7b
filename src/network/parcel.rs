//! A packet on its way: copied once, with what its sender left undone done if its receiver does not do it.

use super::checksum::Sum;
use super::packet::{CWR, ETHERNET_LEN, FIN, HEAD_LEN, IPV6_LEN, Kind, PSH, Packet, UDP};
use super::party::{Destination, Target};
use super::reason::Refusal;
use crate::memory::GuestRanges;
use crate::net::{Offloads, VnetHeader};

/// Nobody cuts a frame into shorter segments: one frame would become thousands.
const SHORTEST_SEGMENT: u16 = 256;
const SEQUENCE: usize = IPV6_LEN + 4;
const FLAGS: usize = IPV6_LEN + 13;

/// Where the bytes of a packet are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// In a guest's memory, behind an Ethernet header. The guest may change them meanwhile.
    Guest(&'a GuestRanges),
    /// With us.
    Host(&'a [u8]),
}

/// What the sender of a packet left undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Undone {
    checksum: bool,
    /// How long the segments are to be, and whether only the first says that the sender's window was reduced.
    segments: Option<(u16, bool)>,
}

pub(super) struct Parcel<'a> {
    pub(super) packet: &'a Packet,
    /// The beginning of the packet: what was checked, and what goes out.
    pub(super) head: [u8; HEAD_LEN],
    pub(super) source: Source<'a>,
    pub(super) undone: Undone,
}

impl Undone {
    /// Whether the checksum was left undone.
    pub(super) fn checksum(self) -> bool {
        self.checksum
    }

    /// What the header in front of a frame says, if that is true of the packet in it, and allowed.
    pub(super) fn of(header: &VnetHeader, packet: &Packet, mtu: u16) -> Result<Self, Refusal> {
        let behind = packet.checksum_at().and_then(|at| at.checked_sub(IPV6_LEN));
        let checksum = match header.checksum() {
            None => false,
            Some((start, offset)) => {
                let start_is_right = usize::from(start) == ETHERNET_LEN.wrapping_add(IPV6_LEN);
                if !start_is_right || Some(usize::from(offset)) != behind {
                    return Err(Refusal::Malformed);
                }
                true
            }
        };
        let segments = header.segments().map_err(|()| Refusal::Malformed)?;
        let longest = match segments {
            None => packet.len,
            Some((size, _)) => {
                if !checksum || size < SHORTEST_SEGMENT || !matches!(packet.kind, Kind::Tcp(_)) {
                    return Err(Refusal::Malformed);
                }
                packet.len.min(packet.headers.saturating_add(size.into()))
            }
        };
        if longest > usize::from(mtu) {
            return Err(Refusal::TooLong);
        }
        Ok(Self { checksum, segments: segments.filter(|_| longest < packet.len) })
    }
}

impl Parcel<'_> {
    /// Puts it where it goes, and says what that has cost beside the copy, in bytes that could have been copied in the time.
    ///
    /// # Errors
    /// Why it, or the rest of it, is dropped.
    pub(super) fn deliver(&mut self, to: &Destination) -> Result<u64, Refusal> {
        let offloads = to.offloads().ok_or(Refusal::NoRoom)?;
        if let Some(mtu) = to.mtu() {
            self.undone.segments = match self.undone.segments {
                // Shorter segments are as good for their receiver.
                Some((size, ecn)) => {
                    let room = usize::from(mtu).saturating_sub(self.packet.headers);
                    Some((size.min(u16::try_from(room).unwrap_or(u16::MAX)), ecn))
                }
                None if self.packet.len > usize::from(mtu) => return Err(Refusal::TooLong),
                None => None,
            };
            let hops = self.head.get_mut(7).ok_or(Refusal::Malformed)?;
            *hops = hops.checked_sub(1).filter(|left| *left > 0).ok_or(Refusal::HopLimit)?;
        }
        match self.undone {
            Undone { segments: Some((size, ecn)), .. } if !is_cut_by(offloads, ecn) => self.cut(to, size),
            Undone { checksum: true, .. } if !offloads.checksum => {
                self.whole(to, true)?;
                Ok(self.packet.len as u64)
            }
            _ => self.whole(to, false).map(|()| 0),
        }
    }

    fn whole(&mut self, to: &Destination, sums: bool) -> Result<(), Refusal> {
        let len = self.packet.len;
        let mut target = to.open(len).ok_or(Refusal::NoRoom)?;
        if sums {
            self.set_checksum(0);
        }
        // All that was looked at, which for an error is more than the headers.
        let known = len.min(HEAD_LEN);
        target.write(0, self.head.get(..known).unwrap_or_default());
        self.copy(&mut target, known, known, len.saturating_sub(known));
        if sums {
            self.sum(&mut target, len);
        }
        to.close(target, if sums { VnetHeader::default() } else { self.header() }, len);
        Ok(())
    }

    /// Cuts it into segments of `size` bytes, each of which is complete.
    fn cut(&mut self, to: &Destination, size: u16) -> Result<u64, Refusal> {
        let Packet { len, headers, .. } = *self.packet;
        let (first_sequence, flags) = (be32(&self.head, SEQUENCE), self.head.get(FLAGS).copied().unwrap_or(0));
        let mut at = headers;
        while let Some(left @ 1..) = len.checked_sub(at) {
            let part = left.min(size.into());
            let (is_first, is_last) = (at == headers, part == left);
            let done = u32::try_from(at.saturating_sub(headers)).unwrap_or(0);
            let segment = headers.saturating_add(part);
            let mut target = to.open(segment).ok_or(Refusal::NoRoom)?;
            self.set(4, &u16::try_from(segment.saturating_sub(IPV6_LEN)).unwrap_or(u16::MAX).to_be_bytes());
            self.set(SEQUENCE, &first_sequence.wrapping_add(done).to_be_bytes());
            let dropped = if is_last { 0 } else { FIN | PSH } | if is_first { 0 } else { CWR };
            self.set(FLAGS, &[flags & !dropped]);
            self.set_checksum(0);
            target.write(0, self.head.get(..headers).unwrap_or_default());
            self.copy(&mut target, headers, at, part);
            self.sum(&mut target, segment);
            to.close(target, VnetHeader::default(), segment);
            if matches!(to, Destination::Service(_)) {
                // Of a connection, one packet waits: its sender says the rest again.
                break;
            }
            at = at.saturating_add(part);
        }
        Ok((len as u64).saturating_mul(2))
    }

    fn copy(&self, target: &mut Target, at: usize, offset: usize, len: usize) {
        match self.source {
            Source::Guest(data) => target.copy(at, data, offset.saturating_add(ETHERNET_LEN), len),
            Source::Host(bytes) => {
                target.write(at, bytes.get(offset..offset.saturating_add(len)).unwrap_or_default());
            }
        }
    }

    /// Fills in the checksum of the segment of `len` bytes that has been put there.
    fn sum(&self, target: &mut Target, len: usize) {
        let Some(at) = self.packet.checksum_at() else { return };
        let flow = self.packet.flow;
        let payload = len.saturating_sub(IPV6_LEN);
        let mut sum = Sum::of_pseudo_header(flow.source, flow.destination, flow.protocol, payload);
        target.sum(IPV6_LEN, payload, &mut sum);
        let checksum = match sum.finish() {
            // Which would say that there is none.
            0 if flow.protocol == UDP => 0xffff,
            checksum => checksum,
        };
        target.write(at, &checksum.to_be_bytes());
    }

    /// What the receiver is told that is left to do.
    fn header(&self) -> VnetHeader {
        let Some(behind) = self.packet.checksum_at().and_then(|at| at.checked_sub(IPV6_LEN)) else {
            return VnetHeader::default();
        };
        let start = u16::try_from(ETHERNET_LEN.wrapping_add(IPV6_LEN)).unwrap_or(0);
        let partial = VnetHeader::partial(start, u16::try_from(behind).unwrap_or(0));
        let headers = u16::try_from(ETHERNET_LEN.saturating_add(self.packet.headers)).unwrap_or(u16::MAX);
        match self.undone {
            Undone { segments: Some((size, ecn)), .. } => partial.to_be_cut(headers, size, ecn),
            Undone { checksum: true, .. } => partial,
            Undone { .. } => VnetHeader::default(),
        }
    }

    fn set_checksum(&mut self, checksum: u16) {
        if let Some(at) = self.packet.checksum_at() {
            self.set(at, &checksum.to_be_bytes());
        }
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if let Some(place) = self.head.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
    }
}

/// Whether a receiver cuts such frames itself.
fn is_cut_by(offloads: Offloads, ecn: bool) -> bool {
    offloads.checksum && offloads.tso6 && (!ecn || offloads.ecn)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::*;
    use crate::network::flows::Flows;
    use crate::network::outbox::Outbox;
    use crate::network::packets::{SUBNET, icmp, machine, udp};
    use crate::network::party::UplinkEnd;
    use crate::network::reason::Refusals;
    use crate::network::settings::NetworkConfig;
    use crate::sys::sync::Mutex;

    #[test]
    fn what_was_judged_goes_out_whatever_its_sender_writes_there_meanwhile() {
        let about = udp((machine(2), 7), (machine(1), 1000), b"x");
        let error = icmp(machine(1).ip(), machine(2).ip(), 1, &[&[0; 4], &about[..]].concat());
        for judged in [error, udp((machine(1), 1), (machine(2), 7), b"data")] {
            let packet = Packet::parse(&judged, judged.len() as u64).unwrap();
            let mut head = [0; HEAD_LEN];
            head[..judged.len()].copy_from_slice(&judged);
            let flows = Mutex::new(Flows::new(NetworkConfig::new(SUBNET).flows));
            let outbox = Arc::new(Outbox::new(1, || {}));
            let end = UplinkEnd { outbox: Arc::clone(&outbox), mtu: 1420, flows, refusals: Refusals::default() };
            let meanwhile = vec![0xee; judged.len()];
            let (source, undone) = (Source::Host(&meanwhile), Undone::default());
            Parcel { packet: &packet, head, source, undone }.deliver(&Destination::Uplink(Arc::new(end))).unwrap();
            let mut out = VecDeque::new();
            outbox.take(&mut out, &mut Vec::new());
            let mut expected = judged.clone();
            expected[7] -= 1;
            assert_eq!(out, [expected]);
        }
    }
}
