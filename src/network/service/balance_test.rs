//! Clients of services, and their members.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::packets::{Guest, ROUTER_MAC, SOON, SUBNET, Site, icmp, ipv6, is_whole, machine};
use super::super::{Network, NetworkConfig, Refusal, Rule, ServiceConfig};
use super::rig::{
    ACK, FIN_ACK, RST, SYN, balanced, connect, flows, guest, ip, is_reset, receiver, site, tcp, udp, web,
};
use crate::error::ErrorKind;

/// What Linux offers a receiver that it knows nothing of.
const NEEDS_CHECKSUM: u8 = 1;
const TCP6: u8 = 4;

#[test]
fn connections_spread_over_the_members_and_stay_where_they_are() {
    let (mut site, service) = balanced(ServiceConfig::new());
    let of: Vec<u32> = (1000..1010).map(|port| connect(&mut site, port)).collect();
    assert_eq!((flows(&service, 2), flows(&service, 3)), (5, 5), "{of:?}");
    for (port, member) in (1000..1010).zip(of) {
        guest(&mut site, 1).send(&tcp((ip(1), port), (web(), 80), ACK, b"ask"));
        assert_eq!(guest(&mut site, member).receive(), Some(tcp((ip(1), port), (ip(member), 80), ACK, b"ask")));
        guest(&mut site, member).send(&tcp((ip(member), 80), (ip(1), port), ACK, b"answer"));
        assert_eq!(guest(&mut site, 1).receive(), Some(tcp((web(), 80), (ip(1), port), ACK, b"answer")));
    }
    assert_eq!(service.metrics()["service_flows"], 10);
}

#[test]
fn a_connection_that_ends_makes_room_at_once_and_the_member_with_the_least_gets_the_next() {
    let (mut site, service) = balanced(ServiceConfig::new());
    let of: Vec<u32> = (1000..1004).map(|port| connect(&mut site, port)).collect();
    for (port, member) in (1000..).zip(of.iter().copied()).filter(|(_, member)| *member == 3) {
        guest(&mut site, 1).send(&tcp((ip(1), port), (web(), 80), FIN_ACK, b""));
        guest(&mut site, 3).receive().unwrap();
        guest(&mut site, member).send(&tcp((ip(member), 80), (ip(1), port), FIN_ACK, b""));
        guest(&mut site, 1).receive().unwrap();
        // The last word.
        guest(&mut site, 1).send(&tcp((ip(1), port), (web(), 80), ACK, b""));
        assert_eq!(guest(&mut site, 3).receive(), Some(tcp((ip(1), port), (ip(3), 80), ACK, b"")));
    }
    assert_eq!((flows(&service, 2), flows(&service, 3)), (2, 0));
    assert_eq!([connect(&mut site, 2000), connect(&mut site, 2001)], [3, 3]);
}

#[test]
fn a_member_needs_no_rule_for_itself_and_is_not_reached_but_by_the_service() {
    let (mut site, service) = balanced(ServiceConfig::new());
    let member = connect(&mut site, 1000);
    for packet in
        [tcp((ip(1), 1000), (ip(member), 80), ACK, b"past the service"), tcp((ip(1), 1001), (ip(member), 80), SYN, b"")]
    {
        guest(&mut site, 1).send(&packet);
    }
    let other = 5 - member;
    // Nobody else speaks for the service, nor for its member.
    for (who, packet) in [
        (other, tcp((ip(other), 80), (ip(1), 1000), ACK, b"spoofed")),
        (other, tcp((ip(member), 80), (ip(1), 1000), ACK, b"spoofed")),
        (other, tcp((web(), 80), (ip(1), 1000), ACK, b"spoofed")),
        (member, tcp((web(), 80), (ip(1), 1000), ACK, b"spoofed")),
        (member, tcp((ip(member), 80), (ip(1), 1001), ACK, b"another flow")),
        (member, tcp((ip(member), 81), (ip(1), 1000), ACK, b"another port")),
    ] {
        guest(&mut site, who).send(&packet);
    }
    assert!(site.guests.iter_mut().all(Guest::gets_nothing));
    assert_eq!((site.network.dropped(Refusal::Policy), site.network.dropped(Refusal::SourceAddress)), (5, 3));
    // Even if the member may be reached by itself, the ports of a flow to the service are in use.
    site.network.set_rules(&[Rule::allow()]).unwrap();
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (ip(member), 80), ACK, b"past the service"));
    assert_eq!(site.network.dropped(Refusal::FlowTable), 1);
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"by the service"));
    assert!(guest(&mut site, member).receive().is_some());
    assert_eq!(flows(&service, member), 1);
}

#[test]
fn a_client_that_speaks_with_a_member_itself_gets_another_one_by_the_same_ports() {
    let (mut site, _service) = balanced(ServiceConfig::new());
    site.network.set_rules(&[Rule::allow()]).unwrap();
    for port in 1000..1006 {
        let direct = tcp((ip(1), port), (ip(2), 80), SYN, b"");
        guest(&mut site, 1).send(&direct);
        assert_eq!(guest(&mut site, 2).receive(), Some(direct));
        assert_eq!(connect(&mut site, port), 3);
    }
}

#[test]
fn the_rules_are_about_the_address_of_the_service() {
    let (mut site, service) = balanced(ServiceConfig::new());
    let member = connect(&mut site, 1000);
    let rules = [Rule::allow().to(web().into()).tcp(443..=443), Rule::allow().to(ip(2).into())];
    site.network.set_rules(&rules).unwrap();
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"not any more"));
    guest(&mut site, 1).send(&tcp((ip(1), 1001), (web(), 80), SYN, b""));
    assert!(site.guests.iter_mut().all(Guest::gets_nothing), "what is not allowed hears nothing");
    assert_eq!((site.network.dropped(Refusal::Policy), flows(&service, member)), (2, 0));
    let counts = site.network.rule_counts();
    assert_eq!((counts[0].flows, counts[1].flows), (0, 0));
    guest(&mut site, 1).send(&tcp((ip(1), 1002), (web(), 443), SYN, b""));
    assert!(receiver(&mut site).is_some());
    assert_eq!(site.network.rule_counts()[0].flows, 1);
}

#[test]
fn a_long_frame_stays_whole_on_its_way_to_a_member_and_back_and_an_undone_checksum_stays_undone() {
    let (mut site, service) = balanced(ServiceConfig::new());
    service.remove(machine(3));
    assert_eq!(connect(&mut site, 1000), 2);
    site.guests[0].restart_with_offloads();
    // The restart of a client ends nothing.
    let data: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    let header = [NEEDS_CHECKSUM, TCP6, 74, 0, 0x48, 0x05, 54, 0, 16, 0];
    let send = |guest: &mut Guest, packet: &[u8]| {
        guest.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &guest.address.mac(), &[0x86, 0xdd], packet].concat());
    };
    // To a member that cuts nothing itself, each segment is whole.
    let short = &data[..4000];
    send(&mut site.guests[0], &tcp((ip(1), 1000), (web(), 80), 0x18, short));
    let mut joined = Vec::new();
    while joined.len() < short.len() {
        let segment = site.guests[1].receive().unwrap();
        assert!(is_whole(&segment) && segment[8..40] == [ip(1).octets(), ip(2).octets()].concat());
        joined.extend_from_slice(&segment[60..]);
    }
    assert_eq!(joined, short);
    // From one that leaves its work to its client: the sum of the pseudo header is the only thing that changes.
    site.guests[1].restart_with_offloads();
    let member = connect_again(&mut site);
    let undone = |source: Ipv6Addr, destination: Ipv6Addr| {
        let mut packet = tcp((source, 80), (destination, 1001), 0x18, &data);
        let sum = pseudo_sum(source, destination, packet.len() - 40);
        packet[56..58].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    send(&mut site.guests[1], &undone(ip(member), ip(1)));
    assert_eq!(site.guests[0].receive_with_header(SOON), Some((header, undone(web(), ip(1)))));
}

#[test]
fn errors_about_a_flow_of_a_service_pass_both_ways_with_the_addresses_that_each_side_knows() {
    let (mut site, _service) = balanced(ServiceConfig::new());
    guest(&mut site, 1).send(&udp((ip(1), 1000), (web(), 53), b"ask"));
    let (member, asked) = receiver(&mut site).unwrap();
    let about = |source: Ipv6Addr, destination: Ipv6Addr, packet: &[u8]| {
        icmp(source, destination, 1, &[&[0; 4], packet].concat())
    };
    guest(&mut site, member).send(&about(ip(member), ip(1), &asked));
    let error = guest(&mut site, 1).receive().unwrap();
    assert!(is_whole(&error));
    assert_eq!(error[8..40], [web().octets(), ip(1).octets()].concat());
    assert_eq!(error[56..88], [ip(1).octets(), web().octets()].concat());
    assert_eq!(error[88..92], asked[40..44]);
    guest(&mut site, member).send(&udp((ip(member), 53), (ip(1), 1000), b"answer"));
    let answer = guest(&mut site, 1).receive().unwrap();
    guest(&mut site, 1).send(&about(ip(1), web(), &answer));
    let error = guest(&mut site, member).receive().unwrap();
    assert!(is_whole(&error));
    assert_eq!(error[8..40], [ip(1).octets(), ip(member).octets()].concat());
    assert_eq!(error[56..88], [ip(member).octets(), ip(1).octets()].concat());
    // About what nobody has sent, and past the service.
    let lie = udp((web(), 53), (ip(1), 1001), b"answer");
    guest(&mut site, 1).send(&about(ip(1), web(), &lie));
    guest(&mut site, 1).send(&about(ip(1), ip(member), &udp((ip(member), 53), (ip(1), 1000), b"")));
    assert!(site.guests.iter_mut().all(Guest::gets_nothing));
    assert_eq!(site.network.dropped(Refusal::Policy), 2);
}

#[test]
fn an_echo_goes_to_a_member_and_comes_back_from_the_service() {
    let (mut site, _service) = balanced(ServiceConfig::new());
    let echo = |from, to, kind| icmp(from, to, kind, &[0, 7, 0, 1, 9]);
    guest(&mut site, 1).send(&echo(ip(1), web(), 128));
    let (member, asked) = receiver(&mut site).unwrap();
    assert_eq!(asked, echo(ip(1), ip(member), 128));
    guest(&mut site, member).send(&echo(ip(member), ip(1), 129));
    assert_eq!(guest(&mut site, 1).receive(), Some(echo(web(), ip(1), 129)));
}

#[test]
fn a_member_that_goes_or_begins_anew_ends_its_connections_and_the_client_hears_of_it() {
    for end in ["removed", "gone", "restarted"] {
        let (mut site, service) = balanced(ServiceConfig::new());
        let member = connect(&mut site, 1000);
        match end {
            "removed" => assert!(service.remove(machine(member))),
            "gone" => site.guests.retain(|guest| guest.address != machine(member)),
            _ => {
                guest(&mut site, member).driver.restart(false, false);
                guest(&mut site, member).driver.fill();
                guest(&mut site, member).settle();
            }
        }
        assert_eq!(service.members().len(), if end == "restarted" { 2 } else { 1 });
        if end == "removed" {
            guest(&mut site, member).send(&tcp((ip(member), 80), (ip(1), 1000), ACK, b"still here"));
            assert_eq!(site.network.dropped(Refusal::Policy), 1);
        }
        guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"are you there"));
        let reset = guest(&mut site, 1).receive().unwrap();
        assert!(is_reset(&reset, 1000), "{end}: {reset:02x?}");
        assert_eq!(site.network.dropped(Refusal::NoMember), 1);
        // The same ports begin anew.
        let next = connect(&mut site, 1000);
        assert!(end == "restarted" || next != member);
    }
}

#[test]
fn a_member_that_drains_keeps_what_it_has_and_gets_nothing_new() {
    let (mut site, service) = balanced(ServiceConfig::new());
    let member = connect(&mut site, 1000);
    assert!(service.drain(machine(member)) && !service.drain(machine(9)));
    assert!((1001..1005).all(|port| connect(&mut site, port) != member));
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"on"));
    assert!(guest(&mut site, member).receive().is_some());
    service.add(machine(member)).unwrap();
    assert_eq!(connect(&mut site, 1005), member);
}

#[test]
fn a_service_without_a_member_that_has_room_refuses_if_nobody_starts_one() {
    let (mut site, service) = balanced(ServiceConfig::new().limits(1, 2));
    for port in 1000..1004 {
        connect(&mut site, port);
    }
    for port in 1004..1010 {
        guest(&mut site, 1).send(&tcp((ip(1), port), (web(), 80), SYN, b""));
        assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), port));
    }
    guest(&mut site, 1).send(&udp((ip(1), 1), (web(), 53), b"x"));
    let error = guest(&mut site, 1).receive().unwrap();
    assert!(is_whole(&error) && error[40..42] == [1, 4] && error[48..88] == udp((ip(1), 1), (web(), 53), b"x")[..40]);
    assert_eq!((flows(&service, 2), flows(&service, 3)), (2, 2));
    assert_eq!(site.network.dropped(Refusal::NoMember), 7);
}

#[test]
fn a_member_that_asks_its_own_service_gets_another_one() {
    let (mut site, service) = balanced(ServiceConfig::new());
    for port in 1000..1004 {
        guest(&mut site, 2).send(&tcp((ip(2), port), (web(), 80), SYN, b""));
        assert_eq!(guest(&mut site, 3).receive(), Some(tcp((ip(2), port), (ip(3), 80), SYN, b"")));
    }
    service.remove(machine(3));
    guest(&mut site, 2).send(&tcp((ip(2), 1005), (web(), 80), SYN, b""));
    assert_ne!(guest(&mut site, 2).receive().unwrap()[53] & RST, 0, "refused, rather than sent to itself");
}

#[test]
fn a_guest_that_opens_a_hundred_thousand_flows_fills_its_own_table() {
    let (mut site, service) = site(4, ServiceConfig::new().limits(65536, 65536));
    (2..=3).for_each(|number| service.add(machine(number)).unwrap());
    let count = if cfg!(miri) { 1000 } else { 100_000u32 };
    for n in 0..count {
        let [high, low] = u16::try_from(n % 65536).unwrap().to_be_bytes();
        let to = 1 + u16::try_from(n / 65536).unwrap();
        let packet = udp((ip(1), u16::from_be_bytes([high, low])), (web(), to), b"");
        let frame = [&[0; 12][..], &ROUTER_MAC, &machine(1).mac(), &[0x86, 0xdd], &packet].concat();
        let sender = &mut site.guests[0];
        while !sender.driver.send(&frame) {
            assert!(sender.driver.all_sent(SOON));
        }
    }
    assert!(site.guests[0].driver.all_sent(SOON));
    let open = flows(&service, 2) + flows(&service, 3);
    assert!((512..=2048).contains(&open), "{open}");
    assert!(site.network.dropped(Refusal::FlowTable) > u64::from(count) - 2100);
    for number in 2..=3 {
        while guest(&mut site, number).driver.receive(Duration::ZERO).is_some() {}
        guest(&mut site, number).settle();
    }
    guest(&mut site, 4).send(&udp((ip(4), 1), (web(), 1), b"another guest"));
    assert!(receiver(&mut site).is_some_and(|(number, _)| number == 2 || number == 3));
}

#[test]
fn what_is_no_flow_of_a_kind_that_services_carry_goes_nowhere() {
    let (mut site, _service) = balanced(ServiceConfig::new());
    for packet in [
        ipv6(ip(1), web(), 132, &[7; 20]),
        icmp(ip(1), web(), 129, &[0, 7, 0, 1]),
        tcp((ip(1), 1), (web(), 80), RST, b""),
    ] {
        guest(&mut site, 1).send(&packet);
    }
    guest(&mut site, 1).send(&udp((ip(1), 1), (SUBNET.service(81), 80), b"no such service"));
    assert!(site.guests.iter_mut().all(Guest::gets_nothing));
    assert_eq!((site.network.dropped(Refusal::Policy), site.network.dropped(Refusal::NoDestination)), (3, 1));
}

#[test]
fn a_machine_is_idle_from_the_last_packet_that_passed() {
    let (mut site, _service) = balanced(ServiceConfig::new());
    let idle = |site: &Site, number| site.network.idle(machine(number)).unwrap();
    thread::sleep(Duration::from_millis(60));
    // What is dropped, and neighbour discovery, keep nobody awake.
    guest(&mut site, 1).send(&udp((ip(1), 1), (ip(2), 1), b"not allowed"));
    guest(&mut site, 1).settle();
    assert!([1, 2, 3].iter().all(|number| idle(&site, *number) >= Duration::from_millis(60)));
    let before = Instant::now();
    let member = connect(&mut site, 1000);
    let since = before.elapsed() + Duration::from_millis(1);
    assert!(idle(&site, 1) <= since + before.elapsed() && idle(&site, member) <= since + before.elapsed());
    assert!(idle(&site, 5 - member) >= Duration::from_millis(60));
    assert_eq!(site.network.idle(machine(9)), None);
}

#[test]
fn what_a_service_cannot_be_is_refused_with_what_is_allowed() {
    let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
    let port = network.port(machine(1)).unwrap().named("taken").unwrap();
    let service = network.service(web(), ServiceConfig::new().name("web")).unwrap();
    let new = ServiceConfig::new;
    let ms = Duration::from_millis;
    for (address, config, says) in [
        (
            ip(1),
            new(),
            "a service at fdac:1705:0:7:0:1ff:fe00:1 was asked for in the network fdac:1705:0:7::/64, allowed are fdac:1705:0:7:0:1::/96",
        ),
        (web(), new(), "the address fdac:1705:0:7:0:1:0:50 of the network fdac:1705:0:7::/64 is in use by a service"),
        (
            SUBNET.service(1),
            new().name("Web"),
            "the name \"Web\" was asked for the service fdac:1705:0:7:0:1:0:1, and is that of the service fdac:1705:0:7:0:1:0:50",
        ),
        (
            SUBNET.service(1),
            new().name("taken"),
            "the name \"taken\" was asked for the service fdac:1705:0:7:0:1:0:1, and is that of the machine fdac:1705:0:7:0:1ff:fe00:1",
        ),
        (SUBNET.service(1), new().name("a.b"), "\"a.b\" is no name"),
        (
            SUBNET.service(1),
            new().limits(0, 5),
            "limits of 0 and 5 flows for a member of a service were asked for, allowed are 1 to 65536",
        ),
        (SUBNET.service(1), new().limits(6, 5), "limits of 6 and 5 flows"),
        (SUBNET.service(1), new().limits(6, 65537), "limits of 6 and 65537 flows"),
        (SUBNET.service(1), new().held(0, 4096), "a service that holds 0 packets was asked for, allowed are 1 to 4096"),
        (
            SUBNET.service(1),
            new().held(1, 2047),
            "a service that holds 2047 bytes was asked for, allowed are 2 KiB to 16 MiB",
        ),
        (
            SUBNET.service(1),
            new().hold_time(ms(99)),
            "a service that holds packets for 99ms was asked for, allowed are 100 ms to 5 minutes",
        ),
        (
            SUBNET.service(1),
            new().call_interval(ms(9)),
            "a service that asks the host program once in 9ms was asked for, allowed are 10 ms to 1 hour",
        ),
    ] {
        let error = network.service(address, config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().starts_with(says), "{error}");
    }
    assert!(port.named("web").unwrap_err().to_string().contains("is that of the service fdac:1705:0:7:0:1:0:50"));
    let error = service.add(machine(1)).unwrap_err();
    assert!(error.to_string().contains("has no port in the network"), "its port went with the refusal: {error}");
    let _port = network.port(machine(2)).unwrap();
    service.add(machine(2)).unwrap();
    assert!(service.add(machine(2)).unwrap_err().to_string().contains("is a member of the service"));
    assert!(
        Network::new(NetworkConfig::new(SUBNET).held_bytes(1)).unwrap_err().to_string().contains("64 KiB to 1 GiB")
    );
    // Its name and its address are free again when it is dropped.
    drop(service);
    network.service(web(), ServiceConfig::new().name("web")).unwrap();
}

fn connect_again(site: &mut Site) -> u32 {
    connect(site, 1001)
}

fn pseudo_sum(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> u16 {
    let words = [source.octets(), destination.octets()].concat();
    let words = words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum::<u32>() + u32::try_from(len).unwrap() + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
