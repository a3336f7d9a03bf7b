//! The Ethernet side: what the guest sends to the service, and frames for the guest on their way.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Ipv4Packet,
};

use crate::net::TxFrame;

/// The service's own address: a locally administered one, and for the rest that of IPv4 which it usually has.
const OWN: EthernetAddress = EthernetAddress([0x02, 0, 0xa9, 0xfe, 0xa9, 0xfe]);
/// Destination, source and type.
pub(super) const ETHERNET: usize = 14;
/// The most bytes of an IP packet for the guest.
const MTU: usize = 1500;
/// So many frames for the guest wait at most.
const MOST_WAITING: usize = 32;
/// Machines behind the card, such as containers of the guest's, that are known at a time.
const MOST_NEIGHBOURS: usize = 32;

/// Whether a frame of the guest is the service's: an IPv4 packet to its address, or an ARP request for it. Frames with VLAN tags are
/// not.
pub(super) fn is_ours(frame: &TxFrame, address: Ipv4Addr) -> bool {
    let mut begin = [0; 22];
    // From the frame's type to the destination of IPv4. What is shorter has none.
    if frame.data().copy_out(12, &mut begin).is_err() {
        return false;
    }
    match begin {
        [0x08, 0x00, .., a, b, c, d] => Ipv4Addr::new(a, b, c, d) == address,
        // Hardware and protocol types do not matter: no other kind asks for an address of four bytes there.
        [0x08, 0x06, _, _, _, _, _, _, 0, 1, ..] => {
            let mut target = [0; 4];
            frame.data().copy_out(38, &mut target).is_ok() && Ipv4Addr::from(target) == address
        }
        _ => false,
    }
}

/// Frames for the guest, and to whom they go.
#[derive(Default)]
pub(super) struct Link {
    waiting: VecDeque<Vec<u8>>,
    /// Storage of frames that have gone.
    spare: Vec<Vec<u8>>,
    /// Who has which address. The one that was heard first is forgotten first.
    neighbours: VecDeque<(Ipv4Addr, EthernetAddress)>,
}

impl Link {
    /// The next frame for the guest.
    pub(super) fn next(&self) -> Option<&[u8]> {
        self.waiting.front().map(Vec::as_slice)
    }

    /// The next frame has gone.
    pub(super) fn done(&mut self) {
        self.spare.extend(self.waiting.pop_front());
    }

    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether another frame may wait.
    pub(super) fn has_room(&self) -> bool {
        self.len() < MOST_WAITING
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Answers an ARP request.
    pub(super) fn answer_arp(&mut self, payload: &[u8], address: Ipv4Addr) {
        let Ok(request) = ArpPacket::new_checked(payload).and_then(|packet| ArpRepr::parse(&packet)) else { return };
        let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. } = request else { return };
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: OWN,
            source_protocol_addr: address,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        let fill = |payload: &mut [u8]| answer.emit(&mut ArpPacket::new_unchecked(payload));
        self.put(answer.buffer_len(), fill, |_, _| Some((source_hardware_addr, EthernetProtocol::Arp)));
    }

    /// Notes who sent an IPv4 packet.
    pub(super) fn meet(&mut self, address: Ipv4Addr, hardware: EthernetAddress) {
        if let Some(known) = self.neighbours.iter_mut().find(|(known, _)| *known == address) {
            known.1 = hardware;
            return;
        }
        if self.neighbours.len() >= MOST_NEIGHBOURS {
            self.neighbours.pop_front();
        }
        self.neighbours.push_back((address, hardware));
    }

    fn hardware_of(&self, address: Ipv4Addr) -> Option<EthernetAddress> {
        self.neighbours.iter().find(|(known, _)| *known == address).map(|(_, hardware)| *hardware)
    }

    /// Puts a frame behind the others. `fill` writes its payload of `len` bytes, and `to` says to whom that goes, if to anyone.
    fn put<R>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
        to: impl FnOnce(&Self, &[u8]) -> Option<(EthernetAddress, EthernetProtocol)>,
    ) -> R {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.resize(len.saturating_add(ETHERNET), 0);
        let (header, payload) = frame.split_at_mut(ETHERNET);
        let filled = fill(payload);
        match to(self, payload).filter(|_| self.has_room()) {
            Some((dst_addr, ethertype)) => {
                let repr = EthernetRepr { src_addr: OWN, dst_addr, ethertype };
                repr.emit(&mut EthernetFrame::new_unchecked(header));
                self.waiting.push_back(frame);
            }
            None => self.spare.push(frame),
        }
        filled
    }
}

/// The device of the TCP stack, for one call: at most one packet comes, and others go.
pub(super) struct Port<'a> {
    pub(super) packet: Option<&'a [u8]>,
    pub(super) link: &'a mut Link,
}

impl Device for Port<'_> {
    type RxToken<'t>
        = Packet<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Place<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Packet(packet), Place(self.link)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        self.link.has_room().then_some(Place(self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // A guest may leave checksums to the card, and there is no wire on which bits could tip over.
        let mut checksum = ChecksumCapabilities::ignored();
        (checksum.ipv4, checksum.tcp) = (Checksum::Tx, Checksum::Tx);
        (checksum.udp, checksum.icmpv4) = (Checksum::Tx, Checksum::Tx);
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, MTU);
        capabilities.checksum = checksum;
        capabilities
    }
}

pub(super) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Place<'a>(&'a mut Link);

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.put(len, f, |link, packet| {
            let to = Ipv4Packet::new_checked(packet).ok()?.dst_addr();
            link.hardware_of(to).map(|hardware| (hardware, EthernetProtocol::Ipv4))
        })
    }
}
