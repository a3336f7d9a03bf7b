//! Members of services at other hosts, which a tunnel leads to.

use std::time::Instant;

use super::super::packets::{SOON, SUBNET, Site, is_whole, machine};
use super::super::{Injected, MachineAddress, Prefix, Refusal, Rule, Service, ServiceConfig, Uplink};
use super::rig::{ACK, SYN, SYN_ACK, flows, guest, ip, is_reset, site, tcp, udp, web};

fn far(number: u32) -> MachineAddress {
    SUBNET.machine(2, number).unwrap()
}

fn tunnel(site: &Site, routes: &[Prefix]) -> Uplink {
    let mut uplink = site.network.uplink(1280, 64, || {}).unwrap();
    uplink.set_routes(routes).unwrap();
    uplink
}

/// A client, and a service whose one member is machine 5 of host 2.
fn far_site() -> (Site, Service, Uplink) {
    let (site, service) = site(2, ServiceConfig::new());
    let uplink = tunnel(&site, &[SUBNET.host_prefix(2)]);
    service.add_remote(far(5)).unwrap();
    (site, service, uplink)
}

/// The next packet that comes out.
fn next(uplink: &mut Uplink) -> Vec<u8> {
    let (begun, mut packet) = (Instant::now(), Vec::new());
    while packet.is_empty() {
        assert!(begun.elapsed() < SOON, "nothing came out");
        uplink.drain(1, |bytes| {
            packet = bytes.to_vec();
            true
        });
    }
    packet
}

fn passed_on(mut packet: Vec<u8>) -> Vec<u8> {
    packet[7] -= 1;
    packet
}

#[test]
fn a_flow_goes_to_a_member_at_another_host_and_its_answers_come_from_the_service() {
    let (mut site, service, mut uplink) = far_site();
    for (flags, answer) in [(SYN, SYN_ACK), (ACK, ACK)] {
        guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), flags, b"ask"));
        assert_eq!(next(&mut uplink), passed_on(tcp((ip(1), 1000), (far(5).ip(), 80), flags, b"ask")));
        assert_eq!(uplink.inject(&tcp((far(5).ip(), 80), (ip(1), 1000), answer, b"yes")), Injected::Delivered);
        uplink.flush();
        assert_eq!(guest(&mut site, 1).receive(), Some(tcp((web(), 80), (ip(1), 1000), answer, b"yes")));
    }
    let member = service.members()[0];
    assert_eq!((member.machine, member.runs, member.flows, member.flows_total), (far(5), true, 1, 1));
    // Nobody else of that host answers, and the member begins nothing.
    for packet in [
        tcp((far(6).ip(), 80), (ip(1), 1000), ACK, b"x"),
        tcp((far(5).ip(), 81), (ip(1), 1000), ACK, b"x"),
        tcp((far(5).ip(), 80), (ip(1), 1001), SYN, b"x"),
    ] {
        assert_eq!(uplink.inject(&packet), Injected::Dropped(Refusal::Policy));
    }
    // A packet that is too long for the tunnel is told of as one to the service.
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, &[0; 1300]));
    let told = guest(&mut site, 1).receive().unwrap();
    assert!(is_whole(&told) && told[40] == 2 && told[48 + 24..48 + 40] == web().octets(), "{told:?}");
}

#[test]
fn a_member_whose_host_is_gone_is_removed_and_another_one_gets_what_begins() {
    let (mut site, service, mut uplink) = far_site();
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), SYN, b""));
    next(&mut uplink);
    service.add(machine(2)).unwrap();
    assert!(service.remove(far(5)) && !service.remove(far(5)));
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b""));
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1000));
    let again = tcp((ip(1), 1001), (web(), 80), SYN, b"");
    guest(&mut site, 1).send(&again);
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((ip(1), 1001), (ip(2), 80), SYN, b"")));
    assert_eq!(flows(&service, 2), 1);
}

#[test]
fn a_member_that_no_tunnel_leads_to_gets_no_flow() {
    let (mut site, service, mut uplink) = far_site();
    uplink.set_routes(&[]).unwrap();
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), SYN, b""));
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1000));
    assert_eq!(service.members()[0].flows_total, 0);
}

#[test]
fn who_comes_by_a_tunnel_gets_no_member_behind_the_same_one() {
    let (mut site, service, mut uplink) = far_site();
    let laptop = "fd00::1".parse().unwrap();
    let mut laptops = tunnel(&site, &[Prefix::new(laptop, 128).unwrap()]);
    let ask = |from, port| udp((from, port), (web(), 53), b"ask");
    assert_eq!(uplink.inject(&ask(far(1).ip(), 1)), Injected::Dropped(Refusal::NoMember));
    next(&mut uplink);
    assert_eq!(laptops.inject(&ask(laptop, 1)), Injected::Delivered);
    assert_eq!(next(&mut uplink), passed_on(udp((laptop, 1), (far(5).ip(), 53), b"ask")));
    assert_eq!(uplink.inject(&udp((far(5).ip(), 53), (laptop, 1), b"yes")), Injected::Delivered);
    assert_eq!(next(&mut laptops), passed_on(udp((web(), 53), (laptop, 1), b"yes")));
    service.add(machine(2)).unwrap();
    for port in 2..6 {
        assert_eq!(uplink.inject(&ask(far(1).ip(), port)), Injected::Delivered);
        uplink.flush();
        assert_eq!(guest(&mut site, 2).receive(), Some(udp((far(1).ip(), port), (ip(2), 53), b"ask")));
    }
}

#[test]
fn what_is_no_machine_of_another_host_is_refused() {
    let (site, service, _uplink) = far_site();
    let other = super::super::Subnet::new([1, 2, 3], 4).machine(2, 1).unwrap();
    for (machine, why) in [(machine(1), "has a port"), (far(5), "is a member"), (other, "in the network")] {
        let error = service.add_remote(machine).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(service.drain(far(5)));
    service.add_remote(far(5)).unwrap();
    site.network.set_rules(&[Rule::allow()]).unwrap();
    assert_eq!(service.members().len(), 1);
}
