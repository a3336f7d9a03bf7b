//! Packets and guests for the tests of this room. What is built here is built apart from what is tested.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::address::{MachineAddress, Subnet};
use super::port::Port;
use super::settings::NetworkConfig;
use super::switch::Network;
use crate::event::IoThread;
use crate::testing::NicDriver;

pub(super) const SUBNET: Subnet = Subnet::new([0xac, 0x17, 0x05], 7);
pub(super) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Longer than anything takes that arrives.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// For what must not arrive.
pub(super) const NEVER: Duration = Duration::from_millis(100);

pub(super) fn machine(number: u32) -> MachineAddress {
    SUBNET.machine(1, number).unwrap()
}

/// An IPv6 packet.
pub(super) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next_header, if next_header == 58 { 255 } else { 64 }]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// The same, with the checksum `at` of its payload filled in.
fn summed(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    payload[at..at + 2].fill(0);
    let sum = checksum(source, destination, next_header, &payload);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, destination, next_header, &payload)
}

/// As RFC 8200, 8.1, has it.
pub(super) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, next_header]);
    bytes.extend(payload);
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Whether the checksum of a packet of TCP, UDP or ICMPv6 is right.
pub(super) fn is_whole(packet: &[u8]) -> bool {
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    checksum(address(8), address(24), packet[6], &packet[40..]) == 0
}

pub(super) fn udp(from: (MachineAddress, u16), to: (MachineAddress, u16), data: &[u8]) -> Vec<u8> {
    let mut payload = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    payload.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    summed(from.0.ip(), to.0.ip(), 17, payload, 6)
}

pub(super) fn tcp(from: (MachineAddress, u16), to: (MachineAddress, u16), flags: u8, data: &[u8]) -> Vec<u8> {
    let mut payload = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    payload.extend(0x01020304u32.to_be_bytes());
    payload.extend([0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    payload.extend(data);
    summed(from.0.ip(), to.0.ip(), 6, payload, 16)
}

/// A message of ICMPv6, of which `body` begins behind the checksum.
pub(super) fn icmp(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    summed(source, destination, 58, [&[kind, 0, 0, 0], body].concat(), 2)
}

pub(super) fn echo(from: MachineAddress, to: MachineAddress, kind: u8, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    icmp(from.ip(), to.ip(), kind, &[high, low, 0, 1, 1, 2, 3])
}

/// A network, and guests at its ports.
pub(super) struct Site {
    pub(super) network: Network,
    pub(super) guests: Vec<Guest>,
    pub(super) io_thread: IoThread,
}

pub(super) struct Guest {
    /// Who it takes itself for.
    pub(super) address: MachineAddress,
    pub(super) driver: NicDriver,
}

impl Site {
    /// Machines 1 to `count`, without offloads.
    pub(super) fn new(count: u32) -> Self {
        Self::with(NetworkConfig::new(SUBNET), count)
    }

    pub(super) fn with(config: NetworkConfig, count: u32) -> Self {
        let io_thread = IoThread::new("network-test").unwrap();
        let network = Network::new(config).unwrap();
        let mut site = Self { network, guests: Vec::new(), io_thread };
        (1..=count).for_each(|number| site.add(number));
        site
    }

    pub(super) fn add(&mut self, number: u32) {
        let port = self.network.port(machine(number)).unwrap();
        self.join(port);
    }

    /// Brings a guest up at a port.
    pub(super) fn join(&mut self, port: Port) {
        let address = port.guest_address();
        let mut driver = NicDriver::new(port.into_nic(), &self.io_thread).unwrap();
        driver.fill();
        let mut guest = Guest { address, driver };
        guest.settle();
        self.guests.push(guest);
    }
}

impl Guest {
    /// Brings the card up anew.
    pub(super) fn restart_with_offloads(&mut self) {
        self.driver.restart(true, true);
        self.driver.fill();
        self.settle();
    }

    /// Sends a packet by the router.
    pub(super) fn send(&mut self, packet: &[u8]) {
        let header = [0; 12];
        let sent = [&header[..], &ROUTER_MAC, &self.address.mac(), &[0x86, 0xdd], packet].concat();
        self.send_raw(&sent);
    }

    /// Waits until the network has the guest's buffers: asks for routers until there is an answer.
    pub(super) fn settle(&mut self) {
        let asks = icmp(self.address.link_local(), "ff02::2".parse().unwrap(), 133, &[0; 4]);
        let begun = Instant::now();
        loop {
            self.send(&asks);
            if self.driver.receive(NEVER).is_some() {
                break;
            }
            assert!(begun.elapsed() < SOON, "no answer of the router");
        }
        // Late answers.
        while self.driver.receive(Duration::from_millis(2)).is_some() {}
    }

    /// Sends a header and a frame.
    pub(super) fn send_raw(&mut self, sent: &[u8]) {
        assert!(self.driver.send(sent));
        assert!(self.driver.all_sent(SOON));
    }

    /// The next packet for the guest, and the header in front of its frame.
    pub(super) fn receive_with_header(&mut self, limit: Duration) -> Option<([u8; 10], Vec<u8>)> {
        let frame = self.driver.receive(limit)?;
        assert_eq!(frame[12..18], self.address.mac(), "to the guest");
        assert_eq!(frame[18..24], ROUTER_MAC, "and from nobody but the switch");
        assert_eq!(frame[24..26], [0x86, 0xdd]);
        Some((frame[..10].try_into().unwrap(), frame[26..].to_vec()))
    }

    pub(super) fn receive(&mut self) -> Option<Vec<u8>> {
        self.receive_with_header(SOON).map(|(_, packet)| packet)
    }

    pub(super) fn gets_nothing(&mut self) -> bool {
        self.driver.receive(NEVER).is_none()
    }
}
