//! A tunnel on a network: what comes out of it, and what it may bring.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::network::packets::{ROUTER_MAC, SUBNET, Site, icmp, ipv6, is_whole, machine, tcp, udp};
use crate::network::{MachineAddress, Rule, Uplink};

fn far(number: u32) -> MachineAddress {
    SUBNET.machine(2, number).unwrap()
}

/// A guest, and a tunnel behind which host 2 lies.
fn site(mtu: u16) -> (Site, Uplink, Arc<AtomicUsize>) {
    let site = Site::new(1);
    site.network.set_rules(&[Rule::allow()]).unwrap();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&wakes);
    let wake = move || {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    let mut uplink = site.network.uplink(mtu, 64, wake).unwrap();
    uplink.set_routes(&[SUBNET.host_prefix(2)]).unwrap();
    (site, uplink, wakes)
}

fn all(uplink: &mut Uplink) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    uplink.drain(usize::MAX, |packet| {
        packets.push(packet.to_vec());
        true
    });
    packets
}

#[test]
fn packets_go_out_and_answers_come_in() {
    let (mut site, mut uplink, wakes) = site(1420);
    let ask = udp((machine(1), 1000), (far(5), 7), b"ask");
    site.guests[0].send(&ask);
    assert_eq!(wakes.load(Ordering::SeqCst), 1);
    let mut passed_on = ask.clone();
    passed_on[7] -= 1;
    assert_eq!(all(&mut uplink), [passed_on]);
    let answer = udp((far(5), 7), (machine(1), 1000), b"answer");
    assert_eq!(uplink.inject(&answer), Injected::Delivered);
    uplink.flush();
    assert_eq!(site.guests[0].receive(), Some(answer));
}

#[test]
fn what_a_tunnel_brings_is_checked_like_a_guests() {
    let (mut site, mut uplink, _) = site(1420);
    let good = udp((far(5), 7), (machine(1), 1000), b"x");
    let mut cut = good.clone();
    cut.truncate(44);
    for (packet, reason) in [
        (udp((machine(1), 7), (machine(1), 8), b"x"), Refusal::SourceAddress),
        (udp((SUBNET.machine(3, 1).unwrap(), 7), (machine(1), 8), b"x"), Refusal::SourceAddress),
        (udp((far(5), 7), (machine(9), 8), b"x"), Refusal::NoDestination),
        (udp((far(5), 7), (far(6), 8), b"x"), Refusal::NoDestination),
        (udp((far(5), 7), (machine(1), 8), &[0; 1400]), Refusal::TooLong),
        (cut, Refusal::Malformed),
        (vec![0x45; 60], Refusal::NotIpv6),
        (Vec::new(), Refusal::Malformed),
    ] {
        assert_eq!(uplink.inject(&packet), Injected::Dropped(reason), "{packet:02x?}");
    }
    site.network.set_rules(&[Rule::allow().from(SUBNET.host_prefix(1))]).unwrap();
    assert_eq!(uplink.inject(&good), Injected::Dropped(Refusal::Policy));
    uplink.flush();
    assert!(site.guests[0].gets_nothing());
}

#[test]
fn a_packet_that_is_too_long_for_the_tunnel_tells_its_guest() {
    let (mut site, mut uplink, _) = site(1280);
    let long = udp((machine(1), 1), (far(5), 2), &[7; 1300]);
    site.guests[0].send(&long);
    let answer = site.guests[0].receive().unwrap();
    assert!(is_whole(&answer));
    assert_eq!((answer[40], u32::from_be_bytes(answer[44..48].try_into().unwrap())), (2, 1280));
    assert_eq!(answer[48..96], long[..48]);
    assert_eq!(site.network.dropped(Refusal::TooLong), 1);
    assert_eq!(all(&mut uplink), [[0; 0]; 0]);
}

#[test]
fn a_long_frame_is_cut_so_that_it_fits_the_tunnel() {
    let (mut site, mut uplink, _) = site(1280);
    let guest = &mut site.guests[0];
    guest.restart_with_offloads();
    let data: Vec<u8> = (0..5000u32).map(|n| (n % 253) as u8).collect();
    let packet = tcp((guest.address, 1), (far(5), 2), 0x18, &data);
    let header = [1, 4, 74, 0, 0x48, 0x05, 54, 0, 16, 0];
    guest.send_raw(&[&header[..], &[0; 2], &ROUTER_MAC, &guest.address.mac(), &[0x86, 0xdd], &packet].concat());
    let packets = all(&mut uplink);
    assert!(packets.iter().all(|packet| packet.len() <= 1280 && is_whole(packet)));
    assert_eq!(packets.iter().flat_map(|packet| packet[60..].to_vec()).collect::<Vec<_>>(), data);
}

#[test]
fn a_tunnel_that_takes_nothing_costs_what_is_for_it() {
    let (mut site, uplink, _) = site(1420);
    // An answer to a guest that had lent nothing yet may be among them.
    let before = site.network.dropped(Refusal::NoRoom);
    for _ in 0..100 {
        site.guests[0].send(&udp((machine(1), 1000), (far(5), 7), b"x"));
    }
    assert_eq!(site.network.dropped(Refusal::NoRoom).saturating_sub(before), 100 - 64);
    drop(uplink);
    site.guests[0].send(&udp((machine(1), 1000), (far(5), 7), b"x"));
    assert_eq!(site.network.dropped(Refusal::NoDestination), 1, "nothing lies behind it any more");
}

#[test]
fn a_packet_does_not_go_round_for_ever() {
    let (mut site, mut uplink, _) = site(1420);
    let mut other = site.network.uplink(1420, 8, || {}).unwrap();
    other.set_routes(&[SUBNET.host_prefix(3)]).unwrap();
    let mut packet = udp((far(5), 1), (SUBNET.machine(3, 1).unwrap(), 2), b"x");
    packet[7] = 2;
    assert_eq!(uplink.inject(&packet), Injected::Delivered);
    packet[7] = 1;
    assert_eq!(uplink.inject(&packet), Injected::Dropped(Refusal::HopLimit));
    assert_eq!(all(&mut other).len(), 1);
    assert!(site.guests[0].gets_nothing());
}

#[test]
fn what_lies_behind_one_uplink_does_not_lie_behind_another() {
    let (site, mut uplink, _) = site(1420);
    let mut other = site.network.uplink(1420, 8, || {}).unwrap();
    let error = other.set_routes(&[SUBNET.host_prefix(3), SUBNET.prefix()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the prefix fdac:1705:0:7::/64 overlaps fdac:1705:0:7:0:200::/88, which lies behind another uplink"
    );
    // Nothing of it was taken, and what an uplink has itself is in nobody's way.
    uplink.set_routes(&[SUBNET.host_prefix(2), SUBNET.host_prefix(3)]).unwrap();
    drop(uplink);
    other.set_routes(&[SUBNET.prefix()]).unwrap();
}

#[test]
fn numbers_out_of_range_are_refused() {
    let (site, _, _) = site(1420);
    for (mtu, packets, says) in [
        (1279, 64, "an uplink with an MTU of 1279 was asked for, allowed are 1280 to 65535"),
        (1420, 0, "an uplink for 0 packets was asked for, allowed are 1 to 65536"),
    ] {
        assert_eq!(site.network.uplink(mtu, packets, || {}).unwrap_err().to_string(), says);
    }
}

#[test]
fn a_tunnel_does_not_speak_for_the_network_itself_nor_from_addresses_that_lead_nowhere() {
    let (mut site, mut uplink, _) = site(1420);
    uplink.set_routes(&[Prefix::ALL]).unwrap();
    let plain = udp((far(5), 53), (machine(1), 1000), b"x");
    for source in [
        SUBNET.dns(),
        "fe80::1".parse().unwrap(),
        "::1".parse().unwrap(),
        "::".parse().unwrap(),
        "ff02::1".parse().unwrap(),
    ] {
        let packet = ipv6(source, machine(1).ip(), 17, &plain[40..]);
        assert_eq!(uplink.inject(&packet), Injected::Dropped(Refusal::SourceAddress), "{source}");
    }
    uplink.flush();
    assert!(site.guests[0].gets_nothing());
    for destination in ["fe80::5", "::1", "::"] {
        site.guests[0].send(&ipv6(machine(1).ip(), destination.parse().unwrap(), 17, &plain[40..]));
    }
    assert_eq!((all(&mut uplink).len(), site.network.dropped(Refusal::NoDestination)), (0, 3));
}

#[test]
fn errors_come_by_the_tunnel_behind_which_their_flow_goes() {
    let (mut site, mut uplink, _) = site(1420);
    let mut other = site.network.uplink(1420, 8, || {}).unwrap();
    other.set_routes(&[SUBNET.host_prefix(3)]).unwrap();
    site.network.set_rules(&[Rule::allow().from(SUBNET.host_prefix(1))]).unwrap();
    let ask = udp((machine(1), 1000), (far(5), 7), b"ask");
    site.guests[0].send(&ask);
    let about = |from: MachineAddress| icmp(from.ip(), machine(1).ip(), 1, &[&[0; 4], &ask[..]].concat());
    assert_eq!(other.inject(&about(SUBNET.machine(3, 1).unwrap())), Injected::Dropped(Refusal::Policy));
    assert_eq!(uplink.inject(&about(far(6))), Injected::Delivered, "a router on the way");
}
