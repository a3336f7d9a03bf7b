use std::sync::Arc;

use super::super::pulse::Pulse;
use super::super::rule::Rule;
use super::super::service::member::Member;
use super::*;
use crate::network::packets::{SUBNET, machine, tcp, udp};

const LIMITS: FlowLimits =
    FlowLimits { most: 128, tcp_idle: Duration::from_secs(1000), idle: Duration::from_secs(100) };

fn packet(bytes: &[u8]) -> Packet {
    Packet::parse(&bytes[..bytes.len().min(100)], bytes.len() as u64).unwrap()
}

fn open() -> Policy {
    Policy::default().with(&[Rule::allow()]).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A table with one connection, which has begun at 0, and what passes by it.
fn connection() -> (Flows, Policy, impl Fn(&mut Flows, Side, u8, u64) -> bool) {
    let (mut flows, policy) = (Flows::new(LIMITS), open());
    let begun = packet(&tcp((machine(1), 1), (machine(2), 2), 2, b""));
    flows.begin(&policy, &begun, 0, seconds(0)).unwrap();
    let rules = policy.clone();
    let pass = move |flows: &mut Flows, side, flags, at| {
        let seen = packet(&tcp((machine(1), 1), (machine(2), 2), flags, b""));
        flows.pass(&rules, &begun.flow, &seen, side, seconds(at)) == Known::Yes
    };
    (flows, policy, pass)
}

#[test]
fn a_connection_is_kept_for_as_long_as_its_state_says() {
    let (mut flows, _, pass) = connection();
    assert!(pass(&mut flows, Side::First, 2, 29), "not answered yet");
    assert!(pass(&mut flows, Side::Other, 0x12, 58));
    assert!(pass(&mut flows, Side::First, 0x10, 1000), "answered");
    assert!(pass(&mut flows, Side::First, 0x11, 1999), "one side ends");
    assert!(pass(&mut flows, Side::Other, 0x10, 2998), "the other goes on");
    assert!(pass(&mut flows, Side::Other, 0x11, 3000));
    assert!(pass(&mut flows, Side::First, 0x10, 3009), "the last word");
    assert!(!pass(&mut flows, Side::First, 0x10, 3020));
    let (mut flows, _, pass) = connection();
    assert!(pass(&mut flows, Side::Other, 0x14, 1), "refused");
    assert!(!pass(&mut flows, Side::Other, 0x10, 12));
    let (mut flows, _, pass) = connection();
    assert!(!pass(&mut flows, Side::Other, 0x12, 31), "too late");
}

#[test]
fn no_more_flows_are_remembered_than_may_be_and_those_that_ended_make_room() {
    let (mut flows, policy) = (Flows::new(LIMITS), open());
    let begin = |flows: &mut Flows, port: u16, at| {
        let packet = packet(&udp((machine(1), port), (machine(2), 2), b""));
        flows.begin(&policy, &packet, 0, seconds(at))
    };
    let begun: Vec<u16> = (1..=1000).filter(|port| begin(&mut flows, *port, 0).is_ok()).collect();
    // A set of ways may be full before the others are.
    assert!((64..=128).contains(&begun.len()), "{}", begun.len());
    assert_eq!(begin(&mut flows, 2000, 29), Err(Refusal::FlowTable).or(begin(&mut flows, 2000, 29)));
    for port in &begun {
        let seen = packet(&udp((machine(1), *port), (machine(2), 2), b""));
        assert_eq!(flows.pass(&policy, &seen.flow, &seen, Side::First, seconds(10)), Known::Yes, "{port}");
    }
    let again = (1001..=2000).filter(|port| begin(&mut flows, *port, 50).is_ok()).count();
    assert!((64..=128).contains(&again), "{again}");
}

#[test]
fn a_table_without_flows_takes_no_memory() {
    let flows = Flows::new(LIMITS);
    let unknown = packet(&udp((machine(1), 1), (machine(2), 2), b""));
    assert_eq!((flows.places.capacity(), flows.find(&unknown.flow, seconds(0))), (0, None));
    assert!(size_of::<Option<Entry>>() <= 88, "{}", size_of::<Option<Entry>>());
}

#[test]
fn a_connection_that_begins_again_by_the_ports_of_one_that_ended_is_kept_like_any_other() {
    let (mut flows, _, pass) = connection();
    assert!(pass(&mut flows, Side::Other, 0x14, 1), "refused");
    assert!(pass(&mut flows, Side::First, 2, 2), "tried again");
    assert!(pass(&mut flows, Side::Other, 0x12, 3));
    assert!(pass(&mut flows, Side::First, 0x10, 4));
    assert!(pass(&mut flows, Side::Other, 0x18, 900), "the answer takes a while");
}

/// A packet of machine 1's to the service by UDP.
fn to_service(port: u16) -> Packet {
    let mut packet = packet(&udp((machine(1), port), (machine(2), 53), b""));
    packet.flow.destination = SUBNET.service(1);
    packet
}

fn member() -> (Arc<Member>, Arc<Pulse>) {
    let pulse = Arc::new(Pulse::new(Duration::ZERO));
    (Arc::new(Member::new(machine(2), Arc::clone(&pulse))), pulse)
}

fn sweep(flows: &mut Flows, at: u64) {
    let mut from = Some(0);
    while let Some(place) = from {
        from = flows.sweep(place, seconds(at));
    }
}

#[test]
fn a_flow_to_a_service_counts_for_its_member_until_it_was_idle_for_too_long() {
    let ((member, _), mut flows, policy) = (member(), Flows::new(LIMITS), open());
    for port in 1..=10 {
        assert_eq!(flows.begin_leased(&policy, &to_service(port), 0, member.lease(), seconds(0)), Ok(true));
    }
    assert_eq!(flows.begin_leased(&policy, &to_service(1), 0, member.lease(), seconds(0)), Ok(false), "once");
    assert_eq!(member.open(), 10);
    let answer = packet(&udp((machine(2), 53), (machine(1), 1), b""));
    let answered = flows.pass(&policy, &answer.flow.reversed(), &answer, Side::Other, seconds(20));
    assert_eq!(answered, Known::OfService(SUBNET.service(1)));
    sweep(&mut flows, 31);
    assert_eq!((member.open(), flows.has_leases), (1, true), "one was answered");
    let packet = to_service(1);
    let followed = flows.follow(&policy, &packet.flow, &packet, Side::First, seconds(100));
    assert_eq!(followed, Followed::Member(machine(2)));
    sweep(&mut flows, 201);
    assert_eq!((member.open(), flows.has_leases), (0, false), "nothing is left to be swept");
    assert_eq!(flows.places.iter().flatten().filter(|entry| entry.expires > seconds(201)).count(), 0);
}

#[test]
fn flows_of_a_member_that_is_gone_or_has_begun_anew_are_forgotten_on_both_sides() {
    for restarts in [true, false] {
        let ((member, pulse), mut flows, policy) = (member(), Flows::new(LIMITS), open());
        (1..=2).for_each(|port| {
            flows.begin_leased(&policy, &to_service(port), 0, member.lease(), seconds(0)).unwrap();
        });
        if restarts {
            pulse.started()
        } else {
            member.remove()
        }
        let answer = packet(&udp((machine(2), 53), (machine(1), 1), b""));
        let back = answer.flow.reversed();
        assert_eq!(flows.pass(&policy, &back, &answer, Side::Other, seconds(1)), Known::No);
        assert_eq!((member.open(), flows.find(&back, seconds(1))), (1, None));
        sweep(&mut flows, 1);
        assert_eq!((member.open(), flows.places.iter().flatten().count()), (0, 0));
    }
}

#[test]
fn a_table_that_is_full_of_flows_to_services_gives_back_what_it_could_not_keep() {
    let ((member, _), mut flows, policy) = (member(), Flows::new(LIMITS), open());
    let begun = (1..=1000).filter(|port| {
        let begun = flows.begin_leased(&policy, &to_service(*port), 0, member.lease(), seconds(0));
        assert!(matches!(begun, Ok(true) | Err(Refusal::FlowTable)), "{begun:?}");
        begun.is_ok()
    });
    let begun = begun.count();
    assert_eq!((member.open(), flows.places.iter().flatten().count()), (begun, 2 * begun));
    assert!((32..=64).contains(&begun), "{begun}");
}
