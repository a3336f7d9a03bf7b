//! Guests that take themselves for another machine: what they send and get, and what the network knows of them.

use std::net::Ipv6Addr;

use super::packets::{Guest, ROUTER_MAC, SOON, SUBNET, Site, checksum, echo, icmp, is_whole, machine, tcp, udp};
use super::reason::Refusal;
use super::{MachineAddress, Prefix, Rule, ServiceConfig, Subnet};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

fn source() -> MachineAddress {
    machine(9)
}

/// Machine 1 takes itself for what it is, and 2 and 3 for machine 9.
fn site() -> Site {
    let mut site = Site::new(1);
    for number in [2, 3] {
        let port = site.network.port_for_clone(machine(number), source()).unwrap();
        assert_eq!((port.address(), port.guest_address()), (machine(number), source()));
        site.join(port);
    }
    site.network.set_rules(&[Rule::allow()]).unwrap();
    site
}

fn three(site: &mut Site) -> [&mut Guest; 3] {
    let [a, b, c] = site.guests.as_mut_slice() else { unreachable!() };
    [a, b, c]
}

/// A packet from a service's address, or to it.
fn of_service(mut packet: Vec<u8>, at: usize) -> Vec<u8> {
    packet[at..at + 16].copy_from_slice(&SUBNET.service(80).octets());
    packet[56..58].fill(0);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    let sum = checksum(address(8), address(24), 6, &packet[40..]);
    packet[56..58].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn clones_of_one_machine_speak_with_others_and_with_each_other() {
    let mut site = site();
    let [one, two, three] = three(&mut site);
    one.send(&udp((machine(1), 1000), (machine(2), 7), b"ask"));
    assert_eq!(two.receive(), Some(udp((machine(1), 1000), (source(), 7), b"ask")));
    two.send(&udp((source(), 7), (machine(1), 1000), b"answer"));
    assert_eq!(one.receive(), Some(udp((machine(2), 7), (machine(1), 1000), b"answer")));
    two.send(&tcp((source(), 1000), (machine(3), 80), SYN, b""));
    assert_eq!(three.receive(), Some(tcp((machine(2), 1000), (source(), 80), SYN, b"")));
    three.send(&echo(source(), machine(2), 128, 1));
    assert_eq!(two.receive(), Some(echo(machine(3), source(), 128, 1)));
    two.send(&echo(source(), machine(3), 129, 1));
    assert_eq!(three.receive(), Some(echo(machine(2), source(), 129, 1)));
}

#[test]
fn rules_and_the_check_of_sources_go_by_the_addresses_that_the_network_knows() {
    let mut site = site();
    site.network.set_rules(&[Rule::allow().from(machine(2).ip().into())]).unwrap();
    let [one, two, three] = three(&mut site);
    three.send(&udp((source(), 1), (machine(1), 7), b"x"));
    // Its own address is another one than it thinks.
    two.send(&udp((machine(2), 1), (machine(1), 7), b"x"));
    // And this one is it itself.
    two.send(&udp((source(), 1), (machine(2), 7), b"x"));
    assert!(one.gets_nothing() && two.gets_nothing());
    two.send(&udp((source(), 1), (machine(1), 7), b"y"));
    assert_eq!(one.receive(), Some(udp((machine(2), 1), (machine(1), 7), b"y")));
    let dropped =
        [Refusal::Policy, Refusal::SourceAddress, Refusal::NoDestination].map(|why| site.network.dropped(why));
    assert_eq!(dropped, [1, 1, 1]);
}

#[test]
fn an_error_is_about_the_packet_as_its_sender_knows_it_both_ways() {
    let mut site = site();
    let [one, two, _] = three(&mut site);
    let about = |from, to| [&[0; 4], &udp((from, 1000), (to, 9), b"nobody")[..]].concat();
    let inner = |packet: &[u8]| packet[48..].to_vec();
    one.send(&udp((machine(1), 1000), (machine(2), 9), b"nobody"));
    two.receive().unwrap();
    two.send(&icmp(source().ip(), machine(1).ip(), 1, &about(machine(1), source())));
    let error = one.receive().unwrap();
    assert!(is_whole(&error));
    assert_eq!(error[8..24], machine(2).ip().octets());
    assert_eq!(inner(&error)[..40], udp((machine(1), 1000), (machine(2), 9), b"nobody")[..40]);
    two.send(&udp((source(), 1000), (machine(1), 9), b"nobody"));
    one.receive().unwrap();
    one.send(&icmp(machine(1).ip(), machine(2).ip(), 1, &about(machine(2), machine(1))));
    let error = two.receive().unwrap();
    assert!(is_whole(&error));
    assert_eq!(error[24..40], source().ip().octets());
    assert_eq!(inner(&error)[..40], udp((source(), 1000), (machine(1), 9), b"nobody")[..40]);
    // About what somebody else was sent: the clone says nothing for others.
    two.send(&icmp(source().ip(), machine(1).ip(), 1, &about(machine(1), machine(3))));
    assert!(one.gets_nothing());
}

#[test]
fn clones_are_members_and_clients_of_services() {
    let mut site = site();
    let service = site.network.service(SUBNET.service(80), ServiceConfig::new()).unwrap();
    service.add(machine(2)).unwrap();
    let [one, two, three] = three(&mut site);
    for (client, known, own) in [(one, machine(1), machine(1)), (three, machine(3), source())] {
        let port = 1000 + known.machine() as u16;
        client.send(&of_service(tcp((own, port), (machine(1), 80), SYN, b""), 24));
        assert_eq!(two.receive(), Some(tcp((known, port), (source(), 80), SYN, b"")));
        two.send(&tcp((source(), 80), (known, port), 0x12, b""));
        assert_eq!(client.receive(), Some(of_service(tcp((machine(1), 80), (own, port), 0x12, b""), 8)));
    }
}

#[test]
fn a_clone_hears_that_a_service_refuses_it_whether_it_had_to_wait_for_that_or_not() {
    let on_demand = ServiceConfig::new().on_demand(|_| Err(crate::Error::new(crate::ErrorKind::Host, "there is none")));
    for config in [ServiceConfig::new(), on_demand] {
        let mut site = site();
        let _service = site.network.service(SUBNET.service(80), config).unwrap();
        let two = &mut site.guests[1];
        two.send(&of_service(tcp((source(), 1000), (machine(1), 80), SYN, b""), 24));
        let reset = two.receive().unwrap();
        assert!(is_whole(&reset) && reset[53] & RST != 0);
        assert_eq!((&reset[8..24], &reset[24..40]), (&SUBNET.service(80).octets()[..], &source().ip().octets()[..]));
    }
}

#[test]
fn a_clone_is_behind_a_tunnel_what_it_is_in_its_network() {
    let mut site = site();
    let mut uplink = site.network.uplink(1420, 8, || {}).unwrap();
    uplink.set_routes(&[Prefix::ALL]).unwrap();
    let far = SUBNET.machine(2, 1).unwrap();
    let two = &mut site.guests[1];
    two.send(&udp((source(), 1), (far, 7), b"out"));
    let mut expected = udp((machine(2), 1), (far, 7), b"out");
    expected[7] -= 1;
    let mut out = Vec::new();
    uplink.drain(9, |packet| {
        out.push(packet.to_vec());
        true
    });
    assert_eq!(out, [expected]);
    uplink.inject(&udp((far, 7), (machine(2), 1), b"in"));
    uplink.flush();
    assert_eq!(two.receive(), Some(udp((far, 7), (source(), 1), b"in")));
}

#[test]
fn what_a_clone_leaves_undone_is_done_or_told_by_the_address_that_the_network_knows() {
    let mut site = site();
    let [one, two, three] = three(&mut site);
    two.restart_with_offloads();
    three.restart_with_offloads();
    let undone = |to| {
        let mut packet = udp((source(), 1), (to, 2), b"sum me up");
        // What is there is the sum of the pseudo header alone, as Linux leaves it.
        let [from, to] = [source().ip(), MachineAddress::ip(to)];
        let pseudo = !checksum(from, to, 17, &[]);
        let len = u32::from(pseudo) + u32::try_from(packet.len() - 40).unwrap();
        let sum = u16::try_from((len & 0xffff) + (len >> 16)).unwrap();
        packet[46..48].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let header = [1, 0, 0, 0, 0, 0, 54, 0, 6, 0];
    let mut send = |to, packet: &[u8]| {
        two.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &source().mac(), &[0x86, 0xdd], packet].concat());
        to
    };
    assert_eq!(
        send(&mut *one, &undone(machine(1))).receive(),
        Some(udp((machine(2), 1), (machine(1), 2), b"sum me up"))
    );
    let (told, packet) = send(three, &undone(machine(3))).receive_with_header(SOON).unwrap();
    assert_eq!(told, header);
    let mut summed = packet.clone();
    summed[46..48].fill(0);
    let partial = u32::from(u16::from_be_bytes([packet[46], packet[47]]));
    let rest = u32::from(!checksum(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, 0, &summed[40..]));
    // The length of the payload counts in the sum of both.
    let sum = partial + rest - u32::try_from(packet.len() - 40).unwrap();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    assert_eq!(
        [&packet[..46], &sum.to_be_bytes(), &packet[48..]].concat(),
        udp((machine(2), 1), (source(), 2), b"sum me up")
    );
}

#[test]
fn a_clone_of_a_machine_of_another_network_is_refused() {
    let site = site();
    let foreign = Subnet::new([1, 2, 3], 4).machine(1, 1).unwrap();
    let message = site.network.port_for_clone(machine(4), foreign).unwrap_err().to_string();
    assert!(message.contains(&foreign.to_string()), "{message}");
    let message = site.network.port_for_clone(machine(2), source()).unwrap_err().to_string();
    assert!(message.contains("is in use"), "{message}");
}
