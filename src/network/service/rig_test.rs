//! Guests at a network with a service, and packets between any addresses.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::packets::{Guest, SOON, SUBNET, Site, checksum, is_whole, machine};
use super::super::{Rule, Service, ServiceConfig};

pub(super) const SYN: u8 = 0x02;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN_ACK: u8 = 0x11;
pub(super) const RST: u8 = 0x04;

pub(super) fn web() -> Ipv6Addr {
    SUBNET.service(80)
}

/// A packet of TCP or UDP between any addresses, built by way of machines.
pub(super) fn at(packet: Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut packet = packet;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    let place = 40 + if packet[6] == 6 { 16 } else { 6 };
    packet[place..place + 2].fill(0);
    let sum = checksum(source, destination, packet[6], &packet[40..]);
    packet[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub(super) fn tcp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags: u8, data: &[u8]) -> Vec<u8> {
    at(super::super::packets::tcp((machine(1), from.1), (machine(2), to.1), flags, data), from.0, to.0)
}

pub(super) fn udp(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), data: &[u8]) -> Vec<u8> {
    at(super::super::packets::udp((machine(1), from.1), (machine(2), to.1), data), from.0, to.0)
}

pub(super) fn ip(number: u32) -> Ipv6Addr {
    machine(number).ip()
}

/// Guests 1 to `count`, which may all use the service, and nothing else.
pub(super) fn site(count: u32, config: ServiceConfig) -> (Site, Service) {
    let site = Site::new(count);
    let service = site.network.service(web(), config).unwrap();
    site.network.set_rules(&[Rule::allow().to(web().into())]).unwrap();
    (site, service)
}

/// One client, and two members behind the service.
pub(super) fn balanced(config: ServiceConfig) -> (Site, Service) {
    let (site, service) = site(3, config);
    service.add(machine(2)).unwrap();
    service.add(machine(3)).unwrap();
    (site, service)
}

/// Which guest got something, and what.
pub(super) fn receiver(site: &mut Site) -> Option<(u32, Vec<u8>)> {
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        for guest in &mut site.guests {
            if let Some((_, packet)) = guest.receive_with_header(Duration::from_millis(1)) {
                return Some((guest.address.machine(), packet));
            }
        }
    }
    None
}

pub(super) fn guest(site: &mut Site, number: u32) -> &mut Guest {
    site.guests.iter_mut().find(|guest| guest.address == machine(number)).unwrap()
}

/// Begins a connection of guest 1's, by which both sides speak, and says which member has it.
pub(super) fn connect(site: &mut Site, port: u16) -> u32 {
    guest(site, 1).send(&tcp((ip(1), port), (web(), 80), SYN, b""));
    let (member, syn) = receiver(site).unwrap();
    assert_eq!(syn, tcp((ip(1), port), (ip(member), 80), SYN, b""), "to the member, with a checksum that is right");
    guest(site, member).send(&tcp((ip(member), 80), (ip(1), port), SYN_ACK, b""));
    assert_eq!(guest(site, 1).receive(), Some(tcp((web(), 80), (ip(1), port), SYN_ACK, b"")), "from the service");
    member
}

pub(super) fn flows(service: &Service, number: u32) -> usize {
    service.members().iter().find(|member| member.machine == machine(number)).unwrap().flows
}

pub(super) fn is_reset(packet: &[u8], port: u16) -> bool {
    is_whole(packet)
        && packet[..40] == tcp((web(), 80), (ip(1), port), RST, b"")[..40]
        && packet[40..44] == [&80u16.to_be_bytes()[..], &port.to_be_bytes()].concat()
        && packet[53] & RST != 0
}

pub(super) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}
