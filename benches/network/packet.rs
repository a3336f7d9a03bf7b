//! Datagrams from one machine to another.

use std::net::Ipv6Addr;

use vmcell::network::{MachineAddress, Subnet};

pub const SUBNET: Subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// The headers of IPv6 and UDP.
pub const HEADERS: usize = 48;

const IPV6: usize = 40;
const PROTOCOL: u8 = 17;
const PORT: [u8; 2] = 7u16.to_be_bytes();

/// A packet of `len` bytes with its headers, the rest of which are zeroes.
pub fn datagram(from: MachineAddress, to: MachineAddress, len: usize) -> Vec<u8> {
    datagram_to(from.ip(), to.ip(), len)
}

/// The same between any two addresses.
pub fn datagram_to(from: Ipv6Addr, to: Ipv6Addr, len: usize) -> Vec<u8> {
    let payload = u16::try_from(len.saturating_sub(IPV6)).unwrap_or(u16::MAX);
    let udp = [PORT, PORT, payload.to_be_bytes()].concat();
    let (from, to) = (from.octets(), to.octets());
    let pseudo = [&from[..], &to, &u32::from(payload).to_be_bytes(), &u32::from(PROTOCOL).to_be_bytes()].concat();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(payload.to_be_bytes());
    packet.extend([PROTOCOL, 64]);
    packet.extend(from.iter().chain(&to).chain(&udp));
    packet.extend(checksum(&[pseudo, udp].concat()).to_be_bytes());
    packet.resize(len.max(HEADERS), 0);
    packet
}

/// Of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // Which would say that there is none.
        0 => 0xffff,
        checksum => checksum,
    }
}
