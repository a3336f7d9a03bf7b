//! Addresses that are replaced on a packet's way, with what sums them up.

use std::net::Ipv6Addr;

use super::packet::{HEAD_LEN, IPV6_LEN, Kind, Packet, UDP};

const SOURCE: usize = 8;
const DESTINATION: usize = 24;
/// Where the packet begins that an error is about.
const ABOUT: usize = IPV6_LEN + 8;

/// Which addresses of a packet are replaced, and by which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) source: Option<Ipv6Addr>,
    pub(super) destination: Option<Ipv6Addr>,
    /// Of the packet that an error is about.
    pub(super) about_source: Option<Ipv6Addr>,
    pub(super) about_destination: Option<Ipv6Addr>,
}

impl Translation {
    pub(super) const NONE: Self = Self { source: None, destination: None, about_source: None, about_destination: None };

    pub(super) fn from(source: Ipv6Addr) -> Self {
        Self { source: Some(source), ..Self::NONE }
    }

    pub(super) fn to(destination: Ipv6Addr) -> Self {
        Self { destination: Some(destination), ..Self::NONE }
    }

    /// Replaces the addresses in the beginning of a packet. Whether its checksum is right does not change: it is brought up to date
    /// (RFC 1624), without a look at the rest. One that was left undone is the sum of the pseudo header alone.
    ///
    /// The checksum inside an error is that of the packet as it was sent with the other address. Nobody can check it, as what an error
    /// repeats may be cut, and it lies behind what is looked at for TCP, so it stays.
    pub(super) fn apply(&self, packet: &mut Packet, head: &mut [u8; HEAD_LEN], is_undone: bool) {
        if *self == Self::NONE {
            return;
        }
        let (mut outer, mut inner) = (Change::default(), Change::default());
        for (at, new) in [(SOURCE, self.source), (DESTINATION, self.destination)] {
            outer.replace(head, at, new);
        }
        if let Kind::Error(about) = &mut packet.kind {
            for (at, new) in [(SOURCE, self.about_source), (DESTINATION, self.about_destination)] {
                inner.replace(head, ABOUT.saturating_add(at), new);
            }
            about.source = self.about_source.unwrap_or(about.source);
            about.destination = self.about_destination.unwrap_or(about.destination);
        }
        packet.flow.source = self.source.unwrap_or(packet.flow.source);
        packet.flow.destination = self.destination.unwrap_or(packet.flow.destination);
        let place = packet.checksum_at().and_then(|at| head.get_mut(at..)).and_then(|bytes| bytes.first_chunk_mut());
        if let Some(place) = place {
            let before = u16::from_be_bytes(*place);
            let is_udp = packet.flow.protocol == UDP && !is_undone;
            if is_udp && before == 0 {
                // It has none, which IPv6 does not allow: whoever gets it drops it.
                return;
            }
            let after = if is_undone { outer.of(before) } else { !outer.and(inner).of(!before) };
            let after = if is_udp && after == 0 { 0xffff } else { after };
            *place = after.to_be_bytes();
        }
    }
}

/// By how much a sum changes.
#[derive(Clone, Copy, Default)]
struct Change(u64);

impl Change {
    fn replace(&mut self, head: &mut [u8; HEAD_LEN], at: usize, new: Option<Ipv6Addr>) {
        let Some(new) = new else { return };
        let Some(place) = head.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut::<16>()) else { return };
        let new = new.octets();
        for (old, new) in place.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
            let (old, new) = (u16::from_be_bytes(*old), u16::from_be_bytes(*new));
            self.0 = self.0.wrapping_add((!old).into()).wrapping_add(new.into());
        }
        *place = new;
    }

    fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// What a sum becomes.
    fn of(self, sum: u16) -> u16 {
        let mut sum = self.0.wrapping_add(sum.into());
        while sum > 0xffff {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::network::packets::{checksum, icmp, is_whole, machine, tcp, udp};

    fn translated(bytes: &[u8], translation: Translation, is_undone: bool) -> Vec<u8> {
        let mut head = [0; HEAD_LEN];
        let shown = bytes.len().min(HEAD_LEN);
        head[..shown].copy_from_slice(&bytes[..shown]);
        let mut packet = Packet::parse(&head[..shown], bytes.len() as u64).unwrap();
        translation.apply(&mut packet, &mut head, is_undone);
        let translated = [&head[..shown], &bytes[shown..]].concat();
        assert_eq!(Packet::parse(&translated[..shown], bytes.len() as u64), Ok(packet), "what is known of it is true");
        translated
    }

    proptest! {
        #[test]
        fn a_packet_that_was_whole_is_whole_and_one_that_was_not_is_not(
            address: u128, is_source: bool, data: Vec<u8>, breaks: bool,
        ) {
            let translation = if is_source { Translation::from(address.into()) } else { Translation::to(address.into()) };
            let (from, to) = ((machine(1), 1), (machine(2), 2));
            let about = udp(from, to, &data);
            for mut packet in [
                udp(from, to, &data),
                tcp(from, to, 0x18, &data),
                icmp(machine(1).ip(), machine(2).ip(), 128, &data.iter().copied().chain([1; 4]).collect::<Vec<_>>()),
                icmp(machine(1).ip(), machine(2).ip(), 1, &[&[0; 4], &about[..]].concat()),
            ] {
                *packet.last_mut().unwrap() ^= u8::from(breaks);
                let translated = translated(&packet, translation, false);
                prop_assert_eq!(is_whole(&translated), !breaks);
                let at = if is_source { 8 } else { 24 };
                prop_assert_eq!(&translated[at..at + 16], &address.to_be_bytes());
            }
        }

        #[test]
        fn a_checksum_that_was_left_undone_is_that_of_the_pseudo_header(address: u128, data: Vec<u8>) {
            let mut packet = udp((machine(1), 1), (machine(2), 2), &data);
            let len = u32::try_from(packet.len() - 40).unwrap();
            let pseudo = |source: &[u8], destination: &[u8]| {
                // The same sum, by way of a packet without a payload whose length is said otherwise.
                let [a, b] = [source, destination].map(|bytes| <[u8; 16]>::try_from(bytes).unwrap().into());
                !checksum(a, b, 17, &[&(len - 4).to_be_bytes()[2..], &[0, 0]].concat())
            };
            let sum = pseudo(&packet[8..24], &packet[24..40]);
            packet[46..48].copy_from_slice(&sum.to_be_bytes());
            let translated = translated(&packet, Translation::to(address.into()), true);
            let sum = pseudo(&translated[8..24], &translated[24..40]);
            let found = u16::from_be_bytes(translated[46..48].try_into().unwrap());
            prop_assert!(found == sum || (found, sum) == (0, 0xffff) || (found, sum) == (0xffff, 0));
        }

        #[test]
        fn a_datagram_without_a_checksum_still_has_none(address: u128, data: Vec<u8>) {
            let mut packet = udp((machine(1), 1), (machine(2), 2), &data);
            packet[46..48].fill(0);
            prop_assert_eq!(&translated(&packet, Translation::from(address.into()), false)[46..48], &[0, 0]);
            prop_assert_eq!(translated(&packet, Translation::NONE, false), packet);
        }

        #[test]
        fn an_error_is_about_the_packet_as_its_sender_knows_it(address: u128, data: Vec<u8>) {
            let about = tcp((machine(1), 1), (machine(2), 2), 0x18, &data);
            let error = icmp(machine(2).ip(), machine(1).ip(), 1, &[&[0; 4], &about[..]].concat());
            let new = Some(address.into());
            let back = Translation { source: new, about_destination: new, ..Translation::NONE };
            let translated = translated(&error, back, false);
            prop_assert!(is_whole(&translated));
            prop_assert_eq!(&translated[8..24], &address.to_be_bytes());
            prop_assert_eq!(&translated[72..88], &address.to_be_bytes());
        }
    }
}
