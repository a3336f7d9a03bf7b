//! Frames that can be told apart, and from those of others on the same wire.

use crate::net::VnetHeader;

/// The EtherType for local experiments, which no kernel sends by itself.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Addresses and type.
const ETHERNET: usize = 14;
/// The shortest frame that has a number.
pub(super) const NUMBERED: usize = ETHERNET + 8;

/// A packet whose frame has `len` bytes, at least 14, and a number if it has room for one.
pub(super) fn packet(number: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; VnetHeader::LEN];
    // To everybody, so that whatever lies in between passes it on.
    packet.extend([0xff; 6]);
    packet.extend([2, 0, 0, 0, 0x88, 0xb5]);
    packet.extend(ETHERTYPE);
    packet.extend(number.to_le_bytes());
    let noise = (0..len as u64).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(17) ^ at >> 8).to_le_bytes()[0]);
    packet.extend(noise.skip(NUMBERED));
    packet.truncate(VnetHeader::LEN + len);
    packet
}

/// Asks for the checksum of TCP in a packet.
pub(super) fn leave_checksum_undone(packet: &mut [u8]) {
    let [start, offset] = [34u16, 16].map(u16::to_le_bytes);
    packet[0] = 1;
    packet[6..8].copy_from_slice(&start);
    packet[8..10].copy_from_slice(&offset);
}

/// The frame of a packet, if it is one of ours.
pub(super) fn frame(packet: &[u8]) -> Option<&[u8]> {
    packet.get(VnetHeader::LEN..).filter(|frame| frame.get(12..ETHERNET) == Some(&ETHERTYPE))
}

/// The number of a frame that has one.
pub(super) fn number(frame: &[u8]) -> Option<u64> {
    frame.get(ETHERNET..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
