//! Guests at the ports of a network: what arrives, whole, and what does not.

use super::*;
use crate::network::packets::{
    Guest, NEVER, ROUTER_MAC, SOON, SUBNET, Site, echo, icmp, ipv6, is_whole, machine, tcp, udp,
};
use crate::network::{Network, NetworkConfig, Prefix, Rule};
use crate::testing::{NicConformance, NicDriver};

/// What Linux offers a receiver that it knows nothing of.
const NEEDS_CHECKSUM: u8 = 1;
const TCP6: u8 = 4;

fn open(site: &Site) {
    site.network.set_rules(&[Rule::allow()]).unwrap();
}

fn two(site: &mut Site) -> [&mut Guest; 2] {
    let [a, b, ..] = site.guests.as_mut_slice() else { unreachable!() };
    [a, b]
}

#[test]
fn a_port_keeps_the_rules_for_backends() {
    let make = || {
        let network = Network::new(NetworkConfig::new(SUBNET).mtu(65535)).unwrap();
        let [one, two] = [1, 2].map(|number| {
            let mut port = network.port(machine(number)).unwrap();
            port.passes_test_frames = true;
            port.into_nic()
        });
        (one, two)
    };
    NicConformance::of_pairs(make).run();
}

#[test]
fn a_packet_arrives_as_it_was_sent_if_a_rule_allows_it() {
    let mut site = Site::new(2);
    site.network.set_rules(&[Rule::allow().to(machine(2).ip().into()).udp(7..=7)]).unwrap();
    let [a, b] = two(&mut site);
    for len in [0, 1, 100, 1372] {
        let packet = udp((a.address, 1000), (b.address, 7), &vec![len as u8; len]);
        a.send(&packet);
        assert_eq!(b.receive(), Some(packet));
    }
    // An answer needs no rule of its own.
    let answer = udp((b.address, 7), (a.address, 1000), b"answer");
    b.send(&answer);
    assert_eq!(a.receive(), Some(answer));
}

#[test]
fn nothing_passes_in_either_direction_unless_a_rule_says_so() {
    let mut site = Site::new(2);
    let [a, b] = two(&mut site);
    a.send(&udp((a.address, 1000), (b.address, 7), b"x"));
    b.send(&tcp((b.address, 1000), (a.address, 80), 2, b""));
    a.send(&echo(a.address, b.address, 128, 1));
    assert!(a.gets_nothing() && b.gets_nothing());
    assert_eq!(site.network.dropped(Refusal::Policy), 3);
    site.network.set_rules(&[Rule::allow().to(machine(2).ip().into())]).unwrap();
    let [a, b] = two(&mut site);
    b.send(&udp((b.address, 7), (a.address, 1000), b"nobody asked"));
    assert!(a.gets_nothing());
    let asked = udp((a.address, 1000), (b.address, 7), b"x");
    a.send(&asked);
    assert_eq!(b.receive(), Some(asked));
}

#[test]
fn a_guest_speaks_from_its_own_addresses_alone() {
    let mut site = Site::new(3);
    open(&site);
    let [a, b] = two(&mut site);
    let real = udp((a.address, 1), (b.address, 2), b"x");
    let other = udp((machine(3), 1), (b.address, 2), b"x");
    let from = |mac: [u8; 6], packet: &[u8]| [&[0; 12][..], &ROUTER_MAC, &mac, &[0x86, 0xdd], packet].concat();
    a.send_raw(&from(machine(3).mac(), &real));
    a.send(&other);
    a.send(&ipv6(a.address.link_local(), b.address.ip(), 17, &real[40..]));
    a.send(&ipv6("::".parse().unwrap(), b.address.ip(), 17, &real[40..]));
    assert!(b.gets_nothing());
    assert_eq!(site.network.dropped(Refusal::SourceMac), 1);
    assert_eq!(site.network.dropped(Refusal::SourceAddress), 3);
}

#[test]
fn what_is_no_plain_packet_for_somebody_is_dropped_by_its_name() {
    let mut site = Site::new(2);
    open(&site);
    let [a, b] = two(&mut site);
    let (source, to) = (a.address.ip(), b.address.ip());
    let whole = udp((a.address, 1), (b.address, 2), b"x");
    let raw = |kind: [u8; 2], packet: &[u8]| [&[0; 12][..], &ROUTER_MAC, &machine(1).mac(), &kind, packet].concat();
    let mut cut = whole.clone();
    cut.truncate(45);
    let mut udp_lies = whole.clone();
    udp_lies[45] = 200;
    for (sent, reason) in [
        (raw([8, 0], &[0x45; 40]), Refusal::NotIpv6),
        (raw([8, 6], &[0; 28]), Refusal::NotIpv6),
        (raw([0x81, 0], &whole), Refusal::NotIpv6),
        (raw([0x86, 0xdd], &[0x45; 60]), Refusal::NotIpv6),
        (raw([0x86, 0xdd], &[]), Refusal::Malformed),
        (raw([0x86, 0xdd], &whole[..39]), Refusal::Malformed),
        (raw([0x86, 0xdd], &cut), Refusal::Malformed),
        (raw([0x86, 0xdd], &udp_lies), Refusal::Malformed),
        (raw([0x86, 0xdd], &ipv6(source, to, 17, &[])), Refusal::Malformed),
        (raw([0x86, 0xdd], &ipv6(source, to, 58, &[128, 0, 0, 0, 0, 1, 0])), Refusal::Malformed),
        (raw([0x86, 0xdd], &ipv6(source, to, 44, &[17, 0, 0, 1, 0, 0, 0, 1])), Refusal::Fragment),
        (raw([0x86, 0xdd], &ipv6(source, to, 43, &[17, 2, 0, 1, 0, 0, 0, 0])), Refusal::RoutingHeader),
        (raw([0x86, 0xdd], &ipv6(source, to, 60, &[60, 0, 1, 4, 0, 0, 0, 0])), Refusal::ExtensionHeaders),
        (raw([0x86, 0xdd], &ipv6(source, to, 41, &whole)), Refusal::Tunnelled),
        (raw([0x86, 0xdd], &ipv6(source, to, 47, &whole)), Refusal::Tunnelled),
        (raw([0x86, 0xdd], &ipv6(source, "ff02::fb".parse().unwrap(), 17, &whole[40..])), Refusal::Multicast),
        (raw([0x86, 0xdd], &ipv6(source, "fd00::1".parse().unwrap(), 17, &whole[40..])), Refusal::NoDestination),
        (raw([0x86, 0xdd], &udp((machine(1), 1), (machine(1), 2), b"x")), Refusal::NoDestination),
        (raw([0x86, 0xdd], &udp((machine(1), 1), (machine(2), 2), &[0; 1373])), Refusal::TooLong),
        (raw([0x86, 0xdd], &icmp(source, to, 137, &[0; 36])), Refusal::NeighbourClaim),
        (raw([0x86, 0xdd], &icmp(source, to, 134, &[0; 12])), Refusal::NeighbourClaim),
        (raw([0x86, 0xdd], &icmp(source, to, 139, &[0; 12])), Refusal::Policy),
    ] {
        let before = site.network.dropped(reason);
        site.guests[0].send_raw(&sent);
        assert_eq!(site.network.dropped(reason), before + 1, "{reason:?} for {sent:02x?}");
    }
    assert!(site.guests[1].gets_nothing());
}

#[test]
fn a_long_frame_stays_whole_for_a_receiver_that_cuts_it_itself() {
    let mut site = Site::new(2);
    open(&site);
    let [a, b] = two(&mut site);
    a.restart_with_offloads();
    b.restart_with_offloads();
    let data: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    let packet = tcp((a.address, 1), (b.address, 2), 0x18, &data);
    let header = [NEEDS_CHECKSUM, TCP6, 74, 0, 0x48, 0x05, 54, 0, 16, 0];
    a.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &a.address.mac(), &[0x86, 0xdd], &packet].concat());
    assert_eq!(b.receive_with_header(SOON), Some((header, packet)));
}

#[test]
fn a_long_frame_is_cut_for_a_receiver_that_does_not() {
    let mut site = Site::new(2);
    open(&site);
    let [a, b] = two(&mut site);
    a.restart_with_offloads();
    let data: Vec<u8> = (0..10_001u32).map(|n| (n % 251) as u8).collect();
    // FIN, PSH, ACK and CWR.
    let packet = tcp((a.address, 1), (b.address, 2), 0x99, &data);
    let header = [NEEDS_CHECKSUM, TCP6 | 0x80, 74, 0, 0xe8, 0x03, 54, 0, 16, 0];
    a.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &a.address.mac(), &[0x86, 0xdd], &packet].concat());
    let mut joined = Vec::new();
    for n in 0..11u32 {
        let (header, segment) = b.receive_with_header(SOON).unwrap();
        assert_eq!(header, [0; 10]);
        assert!(is_whole(&segment), "segment {n}");
        assert_eq!(usize::from(u16::from_be_bytes([segment[4], segment[5]])), segment.len() - 40);
        assert_eq!(u32::from_be_bytes(segment[44..48].try_into().unwrap()), 0x01020304 + n * 1000);
        let flags = 0x10 | if n == 0 { 0x80 } else { 0 } | if n == 10 { 0x09 } else { 0 };
        assert_eq!(segment[53], flags, "segment {n}");
        joined.extend_from_slice(&segment[60..]);
    }
    assert_eq!(joined, data);
    assert!(b.gets_nothing());
}

#[test]
fn a_checksum_that_was_left_undone_is_done_for_a_receiver_without_offloads() {
    let mut site = Site::new(2);
    open(&site);
    let [a, b] = two(&mut site);
    a.restart_with_offloads();
    let packet = udp((a.address, 1), (b.address, 2), b"sum me up");
    let mut undone = packet.clone();
    undone[46..48].fill(0x5a);
    let header = [NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 54, 0, 6, 0];
    a.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &a.address.mac(), &[0x86, 0xdd], &undone].concat());
    assert_eq!(b.receive(), Some(packet));
}

#[test]
fn headers_that_lie_about_what_is_left_to_do_are_refused() {
    let mut site = Site::new(2);
    open(&site);
    let [a, b] = two(&mut site);
    a.restart_with_offloads();
    let tcp = tcp((a.address, 1), (b.address, 2), 0x10, &[7; 3000]);
    let udp = udp((a.address, 1), (b.address, 2), &[7; 1000]);
    for (header, packet) in [
        ([NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 14, 0, 16, 0], &udp),
        ([NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 54, 0, 16, 0], &udp),
        ([NEEDS_CHECKSUM, TCP6, 74, 0, 0x48, 0x05, 54, 0, 6, 0], &udp),
        ([NEEDS_CHECKSUM, TCP6, 74, 0, 1, 0, 54, 0, 16, 0], &tcp),
        ([NEEDS_CHECKSUM, TCP6, 74, 0, 255, 0, 54, 0, 16, 0], &tcp),
    ] {
        a.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &a.address.mac(), &[0x86, 0xdd], packet].concat());
    }
    assert!(b.gets_nothing());
    assert_eq!(site.network.dropped(Refusal::Malformed), 5);
}

#[test]
fn a_receiver_that_takes_nothing_costs_its_frames_and_nobody_elses() {
    let mut site = Site::new(3);
    open(&site);
    // Machine 2 offers no buffers.
    site.guests[1].driver.restart(false, true);
    let dead = udp((machine(1), 1), (machine(2), 2), &[1; 1000]);
    let live = udp((machine(1), 1), (machine(3), 2), &[2; 1000]);
    // An answer to a guest that had lent nothing yet may be among them.
    let before = site.network.dropped(Refusal::NoRoom);
    for _ in 0..300 {
        site.guests[0].send(&dead);
        site.guests[0].send(&live);
        assert_eq!(site.guests[2].receive().as_ref(), Some(&live));
    }
    assert_eq!(site.network.dropped(Refusal::NoRoom).saturating_sub(before), 300);
}

#[test]
fn a_port_that_is_gone_is_nobody_and_its_address_is_free_again() {
    let mut site = Site::new(2);
    open(&site);
    assert!(site.network.port(machine(2)).unwrap_err().to_string().contains("is in use"));
    site.guests.pop();
    site.guests[0].send(&udp((machine(1), 1), (machine(2), 2), b"x"));
    assert_eq!(site.network.dropped(Refusal::NoDestination), 1);
    site.add(2);
    assert_eq!(site.network.machines().len(), 2);
    let packet = udp((machine(1), 1), (machine(2), 2), b"x");
    site.guests[0].send(&packet);
    assert_eq!(site.guests[1].receive(), Some(packet));
}

#[test]
fn a_guest_that_resets_and_pauses_in_the_middle_of_it_all_gets_whole_packets_or_none() {
    let mut site = Site::new(2);
    open(&site);
    let sent = udp((machine(1), 1), (machine(2), 2), &[0x5a; 1300]);
    let [a, b] = two(&mut site);
    for round in 0..200 {
        for _ in 0..8 {
            a.driver.send(&[&[0; 12][..], &ROUTER_MAC, &a.address.mac(), &[0x86, 0xdd], &sent].concat());
        }
        match round % 3 {
            0 => {
                b.driver.restart(round % 2 == 0, round % 4 != 0);
                b.driver.fill();
            }
            1 => {
                b.driver.pause(SOON).unwrap();
                b.driver.resume();
            }
            _ => {}
        }
        while let Some(packet) = b.driver.receive(std::time::Duration::ZERO) {
            assert_eq!(packet[26..], sent);
        }
        assert!(a.driver.all_sent(SOON));
    }
    assert!(!b.driver.needs_reset());
    while b.driver.receive(NEVER).is_some() {}
    b.settle();
    a.send(&sent);
    assert_eq!(b.receive(), Some(sent));
}

#[test]
fn a_pause_takes_no_buffer_away_from_the_guest() {
    let mut site = Site::new(2);
    open(&site);
    let packet = udp((machine(1), 1), (machine(2), 2), &[3; 900]);
    let [a, b] = two(&mut site);
    let before = b.driver.buffers();
    for _ in 0..50 {
        b.driver.pause(SOON).unwrap();
        b.driver.resume();
        b.settle();
        a.send(&packet);
        // A buffer that came back empty would be taken for a packet.
        assert_eq!(b.receive().as_ref(), Some(&packet));
    }
    assert_eq!(b.driver.buffers(), before);
}

#[test]
fn a_flow_ends_when_the_rule_goes_that_let_it_begin() {
    let mut site = Site::new(2);
    let rule = Rule::allow().udp(7..=7);
    site.network.set_rules(std::slice::from_ref(&rule)).unwrap();
    let ask = udp((machine(1), 1000), (machine(2), 7), b"ask");
    let answer = udp((machine(2), 7), (machine(1), 1000), b"answer");
    let [a, b] = two(&mut site);
    a.send(&ask);
    assert!(b.receive().is_some());
    site.network.set_rules(&[Rule::deny().from(Prefix::from(machine(9).ip())), rule]).unwrap();
    site.guests[1].send(&answer);
    assert_eq!(site.guests[0].receive().as_ref(), Some(&answer), "another rule still allows it");
    let counts = site.network.rule_counts();
    assert_eq!((counts[1].flows, counts[1].packets, counts[1].bytes), (2, 2, 105));
    site.network.set_rules(&[]).unwrap();
    site.guests[1].send(&answer);
    assert!(site.guests[0].gets_nothing());
}

#[test]
fn errors_pass_to_whom_they_are_about() {
    let mut site = Site::new(3);
    site.network.set_rules(&[Rule::allow().from(machine(1).ip().into()).udp(7..=7)]).unwrap();
    let ask = udp((machine(1), 1000), (machine(2), 7), b"ask");
    let refused = |from: u32, about: &[u8]| icmp(machine(from).ip(), machine(1).ip(), 1, &[&[0; 4], about].concat());
    site.guests[1].send(&refused(2, &ask));
    assert!(site.guests[0].gets_nothing(), "nobody has asked");
    site.guests[0].send(&ask);
    assert!(site.guests[1].receive().is_some());
    let error = refused(2, &ask);
    site.guests[1].send(&error);
    assert_eq!(site.guests[0].receive(), Some(error));
    // About a flow that there is not, and to one that has not begun it.
    site.guests[1].send(&refused(2, &udp((machine(1), 1001), (machine(2), 7), b"ask")));
    site.guests[1].send(&icmp(machine(2).ip(), machine(3).ip(), 1, &[&[0; 4], &ask[..]].concat()));
    assert!(site.guests[0].gets_nothing() && site.guests[2].gets_nothing());
}

#[test]
fn nobody_makes_errors_about_flows_of_others() {
    let mut site = Site::new(3);
    site.network.set_rules(&[Rule::allow().from(machine(1).ip().into()).udp(7..=7)]).unwrap();
    let ask = udp((machine(1), 1000), (machine(2), 7), b"ask");
    site.guests[0].send(&ask);
    assert!(site.guests[1].receive().is_some());
    let answer = udp((machine(2), 7), (machine(1), 1000), b"answer");
    for (to, about) in [(1, &ask), (2, &answer)] {
        let forged = icmp(machine(3).ip(), machine(to).ip(), 2, &[&[0, 0, 5, 0], &about[..]].concat());
        site.guests[2].send(&forged);
    }
    assert!(site.guests[0].gets_nothing() && site.guests[1].gets_nothing());
    assert_eq!(site.network.dropped(Refusal::Policy), 2);
}

#[test]
fn frames_for_a_guest_whose_link_is_down_do_not_come_when_it_is_up_again() {
    let mut site = Site::new(1);
    open(&site);
    let nic = site.network.port(machine(2)).unwrap().into_nic();
    let handle = nic.handle();
    let mut driver = NicDriver::new(nic, &site.io_thread).unwrap();
    driver.fill();
    let mut guest = Guest { address: machine(2), driver };
    guest.settle();
    let (before, begun) = (site.network.dropped(Refusal::NoRoom), Instant::now());
    handle.set_link(false);
    let packet = udp((machine(1), 1), (machine(2), 2), b"x");
    while site.network.dropped(Refusal::NoRoom) == before {
        site.guests[0].send(&packet);
        assert!(begun.elapsed() < SOON, "the guest's buffers are full");
    }
    // Those that came before it was down.
    while guest.driver.receive(NEVER).is_some() {}
    handle.set_link(true);
    assert!(guest.gets_nothing());
    guest.settle();
    site.guests[0].send(&packet);
    assert_eq!(guest.receive(), Some(packet));
}
