//! Packets for the tests of tunnels.

/// An IPv6 packet from one host's prefix to another's.
pub(super) fn packet(from: u8, to: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0xab; 40 + len];
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 59, 64]);
    packet[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    for (at, host) in [(8, from), (24, to)] {
        packet[at..at + 16].copy_from_slice(&[0xfd, 0, 0, host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    }
    packet
}
