use super::super::rule::Rule;
use super::*;
use crate::network::packets::{machine, tcp, udp};

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
