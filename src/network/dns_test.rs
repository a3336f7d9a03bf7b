//! Names: what is answered, what is refused, and what is no question.

use proptest::prelude::*;

use super::*;
use crate::network::packets::{Guest, SUBNET, Site, is_whole, machine};
use crate::network::{Injected, Refusal, Rule};

/// A question as a resolver puts it.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// The code, and the data of the records.
fn read(query: &[u8], answer: &[u8]) -> (u8, Vec<Vec<u8>>) {
    assert_eq!(answer[..2], query[..2]);
    assert_eq!(answer[2] & 0x86, 0x84, "an authority's answer");
    let asked = query[12..].iter().position(|byte| *byte == 0).map_or(query.len(), |end| 12 + end + 5);
    assert_eq!(answer[12..asked], query[12..asked]);
    let mut rest = &answer[asked..];
    let mut data = Vec::new();
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        assert_eq!(rest[..2], [0xc0, 12], "about the name that was asked for");
        assert_eq!(rest[4..10], [0, 1, 0, 0, 0, 5]);
        let len = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        data.push(rest[12..12 + len].to_vec());
        rest = &rest[12 + len..];
    }
    assert_eq!(rest.len(), if answer[11] == 1 { 11 } else { 0 });
    (answer[3], data)
}

fn udp(source_port: u16, port: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len() + 8).unwrap();
    [&source_port.to_be_bytes()[..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], data].concat()
}

fn ask(guest: &mut Guest, query: &[u8]) -> (u8, Vec<Vec<u8>>) {
    let packet = crate::network::packets::ipv6(guest.address.ip(), SUBNET.dns(), 17, &udp(5353, 53, query));
    guest.send(&packet);
    let answer = guest.receive().unwrap();
    assert!(is_whole(&answer));
    assert_eq!((&answer[8..24], &answer[24..40]), (&packet[24..40], &packet[8..24]));
    assert_eq!(answer[40..44], [0, 53, 0x14, 0xe9]);
    read(query, &answer[48..])
}

fn named(site: &mut Site, number: u32, names: &[&str]) {
    let port = site.network.port(machine(number)).unwrap();
    let port = names.iter().try_fold(port, |port, name| port.named(name)).unwrap();
    site.join(port);
}

#[test]
fn names_have_the_addresses_of_the_machines_that_run() {
    let mut site = Site::new(1);
    named(&mut site, 2, &["Web", "two"]);
    named(&mut site, 3, &["web"]);
    let ip = |number| machine(number).ip().octets().to_vec();
    let sorted = |(code, mut records): (u8, Vec<Vec<u8>>)| {
        records.sort_unstable();
        (code, records)
    };
    assert_eq!(sorted(ask(&mut site.guests[0], &question("web.internal", 28))), (0, vec![ip(2), ip(3)]));
    assert_eq!(ask(&mut site.guests[0], &question("TWO.Internal", 28)), (0, vec![ip(2)]));
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    assert_eq!(ask(&mut site.guests[0], &question("two.internal", 16)), (0, vec![text("host=1 machine=2")]));
    let names = sorted(ask(&mut site.guests[0], &question("_names.internal", 16)));
    assert_eq!(names, (0, vec![text("two"), text("web")]));
    // One is paused, and one is gone.
    site.guests[2].driver.pause(crate::network::packets::SOON).unwrap();
    assert_eq!(ask(&mut site.guests[0], &question("web.internal", 28)), (0, vec![ip(2)]));
    site.guests.remove(1);
    assert_eq!(ask(&mut site.guests[0], &question("web.internal", 28)), (3, vec![]));
    assert_eq!(ask(&mut site.guests[0], &question("two.internal", 28)), (3, vec![]));
    site.guests[1].driver.resume();
    site.guests[1].settle();
    assert_eq!(ask(&mut site.guests[0], &question("web.internal", 28)), (0, vec![ip(3)]));
}

#[test]
fn what_is_not_asked_of_this_server_is_refused_and_what_is_not_there_is_not() {
    let mut site = Site::new(1);
    named(&mut site, 2, &["web"]);
    let guest = &mut site.guests[0];
    let mut chaos = question("web.internal", 28);
    *chaos.last_mut().unwrap() = 3;
    let mut update = question("web.internal", 28);
    update[2] = 0x28;
    for (query, code) in [
        (question("debian.org", 28), 5),
        (question("web.internal.org", 28), 5),
        (question("winternal", 28), 5),
        (question("", 2), 5),
        (chaos, 5),
        (update, 4),
        (question("web.internal", 1), 0),
        (question("internal", 28), 0),
        (question("nobody.internal", 28), 3),
        (question("deep.web.internal", 28), 3),
    ] {
        assert_eq!(ask(guest, &query), (code, vec![]), "{query:02x?}");
    }
    let mut two = question("web.internal", 28);
    two[5] = 2;
    let mut points = question("web.internal", 28);
    points[12] = 0xc0;
    for query in [two, points, question("web.internal", 28)[..20].to_vec()] {
        let answer = answer(&query, &Names::default()).unwrap();
        assert_eq!((answer.bytes()[3], answer.bytes()[5], answer.bytes().len()), (1, 0, 12));
    }
    let mut is_answer = question("web.internal", 28);
    is_answer[2] |= 0x80;
    assert!(answer(&is_answer, &Names::default()).is_none() && answer(&[0; 11], &Names::default()).is_none());
}

#[test]
fn an_answer_is_as_long_as_the_asker_can_take_and_each_machine_is_named_in_its_turn() {
    let mut site = Site::new(1);
    (2..=60).for_each(|number| named(&mut site, number, &["many"]));
    let plain = question("many.internal", 28);
    let mut extended = plain.clone();
    extended[11] = 1;
    extended.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    let (_, short) = ask(&mut site.guests[0], &plain);
    assert_eq!(short.len(), (512 - plain.len()) / 28);
    let (_, long) = ask(&mut site.guests[0], &extended);
    assert_eq!(long.len(), (1232 - plain.len() - 11) / 28);
    let mut seen: Vec<_> = (0..60).flat_map(|_| ask(&mut site.guests[0], &plain).1).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 59);
}

#[test]
fn a_tunnel_may_ask_if_a_rule_says_so() {
    let mut site = Site::new(0);
    named(&mut site, 2, &["web"]);
    let mut uplink = site.network.uplink(1420, 8, || {}).unwrap();
    uplink.set_routes(&[SUBNET.host_prefix(9)]).unwrap();
    let laptop = SUBNET.machine(9, 1).unwrap().ip();
    let query = question("web.internal", 28);
    let packet = crate::network::packets::ipv6(laptop, SUBNET.dns(), 17, &udp(5353, 53, &query));
    assert_eq!(uplink.inject(&packet), Injected::Dropped(Refusal::Policy));
    site.network.set_rules(&[Rule::allow().to(SUBNET.dns().into()).udp(53..=53)]).unwrap();
    assert_eq!(uplink.inject(&packet), Injected::Answered);
    let mut answers = Vec::new();
    uplink.drain(9, |packet| {
        answers.push(packet.to_vec());
        true
    });
    assert!(is_whole(&answers[0]));
    assert_eq!(read(&query, &answers[0][48..]), (0, vec![machine(2).ip().octets().to_vec()]));
}

#[test]
fn only_questions_go_to_the_name_server() {
    let mut site = Site::new(1);
    site.network.set_rules(&[Rule::allow()]).unwrap();
    let guest = &mut site.guests[0];
    let send = |guest: &mut Guest, payload: &[u8]| {
        let packet = crate::network::packets::ipv6(guest.address.ip(), SUBNET.dns(), 17, payload);
        guest.send(&packet);
    };
    send(guest, &udp(5353, 80, b"x"));
    send(guest, &udp(5353, 53, b"x"));
    send(guest, &udp(5353, 53, &[0; 1000]));
    assert!(guest.gets_nothing());
    let dropped = [Refusal::NoDestination, Refusal::Malformed, Refusal::TooLong].map(|why| site.network.dropped(why));
    assert_eq!(dropped, [1, 1, 1]);
}

#[test]
fn what_is_no_name_is_refused() {
    let site = Site::new(0);
    for name in ["", "-a", "a-", "a.b", "a b", "ä", &"a".repeat(64)] {
        let error = site.network.port(machine(1)).unwrap().named(name).unwrap_err();
        assert!(error.to_string().contains("is no name of a machine or a service"), "{error}");
    }
    let mut port = site.network.port(machine(1)).unwrap();
    for n in 0..8 {
        port = port.named(&format!("n{n}")).unwrap();
    }
    assert!(port.named("n9").unwrap_err().to_string().contains("has 8 names, which is the limit"));
    let port = site.network.port(machine(1)).unwrap().named("A").unwrap();
    assert!(port.named("a").unwrap_err().to_string().contains("already"));
}

proptest! {
    #[test]
    fn whatever_is_asked_is_answered_within_bounds(mut query in prop::collection::vec(any::<u8>(), 0..300), plain: bool) {
        if plain && query.len() > 12 {
            query[2] &= 0x07;
            query[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        }
        if let Some(answer) = answer(&query, &Names::default()) {
            prop_assert!((12..=512).contains(&answer.bytes().len()));
            prop_assert_eq!(&answer.bytes()[..2], &query[..2]);
        }
    }
}
