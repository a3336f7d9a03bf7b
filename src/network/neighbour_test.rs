//! What the switch answers by itself.

use super::*;
use crate::network::Refusal;
use crate::network::packets::{Guest, SUBNET, Site, icmp, is_whole, machine};

fn guest(site: &mut Site) -> &mut Guest {
    &mut site.guests[0]
}

fn all_nodes() -> Ipv6Addr {
    "ff02::1".parse().unwrap()
}

fn unspecified() -> Ipv6Addr {
    Ipv6Addr::UNSPECIFIED
}

/// Asks who has `target`.
fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    icmp(source, group, 135, &[&[0; 4], &target.octets()[..], options].concat())
}

fn link_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

#[test]
fn a_router_solicitation_is_answered_with_all_that_a_guest_needs() {
    let mut site = Site::new(1);
    let guest = guest(&mut site);
    let own = guest.address;
    guest.send(&icmp(
        own.link_local(),
        "ff02::2".parse().unwrap(),
        133,
        &[&[0; 4], &link_option(1, own.mac())[..]].concat(),
    ));
    let answer = guest.receive().unwrap();
    assert!(is_whole(&answer));
    assert_eq!((&answer[8..24], &answer[24..40]), (&ROUTER.octets()[..], &all_nodes().octets()[..]));
    assert_eq!((answer[7], answer[40], answer[41]), (255, 134, 0));
    // The hop limit, low preference, and half an hour.
    assert_eq!(answer[44..48], [64, 0x18, 0x07, 0x08]);
    let mut options = &answer[56..];
    let mut found = Vec::new();
    while let [kind, len, ..] = *options {
        let (option, rest) = options.split_at(usize::from(len) * 8);
        found.push((kind, option[2..].to_vec()));
        options = rest;
    }
    let option = |kind| found.iter().find(|(found, _)| *found == kind).unwrap().1.clone();
    assert_eq!(option(1), ROUTER_MAC);
    assert_eq!(option(5), [0, 0, 0, 0, 0x05, 0x8c], "1420");
    let prefix =
        [&[64, 0xc0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], &SUBNET.prefix().address().octets()[..]];
    assert_eq!(option(3), prefix.concat());
    assert_eq!(option(25), [&[0, 0, 0, 0, 0x07, 0x08], &SUBNET.dns().octets()[..]].concat());
}

#[test]
fn the_switch_is_every_neighbour_and_tells_nothing_of_who_is_there() {
    let mut site = Site::new(2);
    let own = machine(1);
    let targets = [machine(2).ip(), machine(3).ip(), SUBNET.dns(), ROUTER];
    for target in targets {
        let guest = guest(&mut site);
        guest.send(&solicitation(own.link_local(), target, &link_option(1, own.mac())));
        let answer = guest.receive().unwrap();
        assert!(is_whole(&answer));
        assert_eq!((answer[7], answer[40]), (255, 136));
        assert_eq!((&answer[8..24], &answer[24..40]), (&target.octets()[..], &own.link_local().octets()[..]));
        assert_eq!(answer[44], if target == ROUTER { 0xe0 } else { 0x60 });
        assert_eq!(answer[48..], [&target.octets()[..], &[2, 1], &ROUTER_MAC].concat());
    }
    // What is on another link is nobody's.
    let elsewhere = ["fe80::1234", "fd00::1", "2001:db8::1"].map(|text| text.parse().unwrap());
    for target in elsewhere {
        guest(&mut site).send(&solicitation(own.link_local(), target, &[]));
    }
    assert!(guest(&mut site).gets_nothing() && site.guests[1].gets_nothing());
}

#[test]
fn a_guest_may_have_its_own_addresses_and_no_others() {
    let mut site = Site::new(1);
    let own = machine(1);
    for target in [own.ip(), own.link_local()] {
        guest(&mut site).send(&solicitation(unspecified(), target, &[]));
    }
    assert!(guest(&mut site).gets_nothing(), "nobody else has them");
    let temporary = SUBNET.with([0x12, 0x34, 0x56, 0x78, 1, 2, 3, 4]);
    for target in [temporary, "fe80::1234".parse().unwrap(), machine(2).ip()] {
        guest(&mut site).send(&solicitation(unspecified(), target, &[]));
        let answer = guest(&mut site).receive().unwrap();
        assert!(is_whole(&answer));
        assert_eq!((answer[40], answer[44], &answer[24..40]), (136, 0x20, &all_nodes().octets()[..]));
        assert_eq!(answer[48..64], target.octets());
    }
}

#[test]
fn a_guest_that_claims_what_is_not_its_own_is_not_heard() {
    let mut site = Site::new(2);
    let (own, other) = (machine(1), machine(2));
    let advertises = |target: Ipv6Addr, mac| {
        icmp(own.ip(), all_nodes(), 136, &[&[0x20, 0, 0, 0], &target.octets()[..], &link_option(2, mac)].concat())
    };
    for (packet, dropped) in [
        (advertises(own.ip(), own.mac()), false),
        (advertises(own.ip(), other.mac()), true),
        (advertises(other.ip(), own.mac()), true),
        (advertises(ROUTER, own.mac()), true),
        (solicitation(own.ip(), other.ip(), &link_option(1, other.mac())), true),
        (icmp(own.link_local(), all_nodes(), 134, &[0; 12]), true),
        (icmp(own.link_local(), own.ip(), 137, &[0; 36]), true),
    ] {
        let before = site.network.dropped(Refusal::NeighbourClaim);
        guest(&mut site).send(&packet);
        assert_eq!(site.network.dropped(Refusal::NeighbourClaim), before + u64::from(dropped), "{packet:02x?}");
    }
    assert!(guest(&mut site).gets_nothing() && site.guests[1].gets_nothing());
}

#[test]
fn discovery_that_is_malformed_or_came_over_a_router_is_dropped() {
    let mut site = Site::new(1);
    let own = machine(1);
    let good = solicitation(own.link_local(), ROUTER, &link_option(1, own.mac()));
    let mut far = good.clone();
    far[7] = 254;
    let mut code = good.clone();
    code[41] = 1;
    let with = |options: &[u8]| solicitation(own.link_local(), ROUTER, options);
    let short = icmp(own.link_local(), ROUTER, 135, &[0; 10]);
    let long = with(&[1; 600]);
    for packet in [far, code, short, with(&[1, 0, 0, 0, 0, 0, 0, 0]), with(&[1, 2, 0, 0, 0, 0, 0, 0]), with(&[1]), long]
    {
        let before = site.network.dropped(Refusal::Malformed);
        guest(&mut site).send(&packet);
        assert_eq!(site.network.dropped(Refusal::Malformed), before + 1, "{packet:02x?}");
    }
    assert!(guest(&mut site).gets_nothing());
}
