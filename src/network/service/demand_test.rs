//! Members that are started when a packet comes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::packets::{Guest, NEVER, ROUTER_MAC, SOON, SUBNET, Site, is_whole, machine};
use super::super::{Injected, MachineAddress, NetworkConfig, Refusal, Rule, Service, ServiceConfig, Uplink};
use super::rig::{ACK, RST, SYN, SYN_ACK, connect, flows, guest, ip, is_reset, site, tcp, udp, wait_until, web};
use crate::error::{Error, ErrorKind};
use crate::testing::NicDriver;

/// A service whose host program is told of, answered by what is sent to it.
fn on_demand(config: ServiceConfig) -> (ServiceConfig, Receiver<Asked>) {
    let (sender, asked) = channel();
    let sender = Mutex::new(sender);
    let config = config.on_demand(move |demand| {
        let (answer, answered) = channel();
        let asked = Asked { member: demand.member(), answer };
        sender.lock().unwrap_or_else(PoisonError::into_inner).send(asked).unwrap();
        let says = answered.recv_timeout(SOON).unwrap();
        if says { Ok(()) } else { Err(Error::new(ErrorKind::Host, "no")) }
    });
    (config, asked)
}

struct Asked {
    member: Option<MachineAddress>,
    answer: Sender<bool>,
}

/// A tunnel behind which host 2 lies.
fn uplink(site: &Site) -> Uplink {
    let mut uplink = site.network.uplink(1420, 64, || {}).unwrap();
    uplink.set_routes(&[SUBNET.host_prefix(2)]).unwrap();
    uplink
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
fn nobody_behind_a_tunnel_that_has_everything_answers_for_a_service_that_is_not_there() {
    let mut site = Site::with(NetworkConfig::new(SUBNET), 1);
    site.network.set_rules(&[Rule::allow()]).unwrap();
    let mut uplink = site.network.uplink(1420, 64, || {}).unwrap();
    let (request, claim) = (udp((ip(1), 1000), (web(), 53), b"x"), udp((web(), 53), (ip(1), 1000), b"y"));
    for routes in [super::super::Prefix::ALL, SUBNET.prefix()] {
        uplink.set_routes(&[routes]).unwrap();
        guest(&mut site, 1).send(&request);
        wait_until("it was dropped", || site.network.dropped(Refusal::NoDestination) > 0);
        assert!(all(&mut uplink).is_empty(), "{routes}");
        assert_eq!(uplink.inject(&claim), Injected::Dropped(Refusal::SourceAddress));
    }
    // Another host has it.
    uplink.set_routes(&[SUBNET.services()]).unwrap();
    guest(&mut site, 1).send(&request);
    let begun = Instant::now();
    while all(&mut uplink).is_empty() {
        assert!(begun.elapsed() < SOON, "it did not come out");
    }
}

#[test]
fn a_packet_for_a_service_without_a_member_waits_until_one_runs() {
    let (config, asked) = on_demand(ServiceConfig::new());
    let (mut site, service) = site(1, config);
    let syn = tcp((ip(1), 1000), (web(), 80), SYN, b"");
    // The client is not patient.
    (0..3).for_each(|_| guest(&mut site, 1).send(&syn));
    let first = asked.recv_timeout(SOON).unwrap();
    assert_eq!((first.member, service.waiting(), site.network.dropped(Refusal::Waiting)), (None, 1, 2));
    // It is added before its driver is up.
    let port = site.network.port(machine(2)).unwrap();
    service.add(machine(2)).unwrap();
    first.answer.send(true).unwrap();
    assert!(asked.recv_timeout(NEVER).is_err(), "one call");
    assert_eq!(service.waiting(), 1);
    let mut driver = NicDriver::new(port.into_nic(), &site.io_thread).unwrap();
    driver.fill();
    site.guests.push(Guest { address: machine(2), driver });
    let got = loop {
        let packet = guest(&mut site, 2).receive().unwrap();
        // It may hear of its network before.
        if packet[6] == 6 {
            break packet;
        }
    };
    assert_eq!(got, tcp((ip(1), 1000), (ip(2), 80), SYN, b""));
    guest(&mut site, 2).send(&tcp((ip(2), 80), (ip(1), 1000), SYN_ACK, b""));
    assert_eq!(guest(&mut site, 1).receive(), Some(tcp((web(), 80), (ip(1), 1000), SYN_ACK, b"")));
    wait_until("it has gone", || service.metrics()["service_replayed"] == 1);
    let metrics = service.metrics();
    assert_eq!((metrics["service_held"], metrics["service_refused"], service.waiting()), (1, 0, 0));
    assert_eq!(site.network.rule_counts()[0].flows, 1, "it has begun once");
}

#[test]
fn a_host_that_says_no_refuses_what_waits_and_what_comes_soon_after_and_is_asked_again_later() {
    let interval = Duration::from_millis(300);
    let (config, asked) = on_demand(ServiceConfig::new().call_interval(interval));
    let (mut site, service) = site(1, config);
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), SYN, b""));
    asked.recv_timeout(SOON).unwrap().answer.send(false).unwrap();
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1000));
    let refused = Instant::now();
    guest(&mut site, 1).send(&tcp((ip(1), 1001), (web(), 80), SYN, b""));
    if refused.elapsed() < interval / 2 {
        assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1001), "at once");
        assert_eq!(service.metrics()["service_calls"], 1);
    }
    thread::sleep(interval);
    guest(&mut site, 1).send(&tcp((ip(1), 1002), (web(), 80), SYN, b""));
    asked.recv_timeout(SOON).unwrap().answer.send(false).unwrap();
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1002));
    wait_until("it is counted", || service.metrics()["service_calls_refused"] == 2);
}

#[test]
fn a_call_that_panics_refuses_like_one_that_says_no() {
    let config = ServiceConfig::new().on_demand(|_| panic!("a host program that fails"));
    let (mut site, _service) = site(1, config);
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), SYN, b""));
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1000));
}

#[test]
fn what_waits_for_too_long_is_refused() {
    let (config, asked) = on_demand(ServiceConfig::new().hold_time(Duration::from_millis(200)));
    let (mut site, service) = site(1, config);
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), SYN, b""));
    // The call is never answered in time.
    let call = asked.recv_timeout(SOON).unwrap();
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1000));
    assert_eq!((service.waiting(), service.metrics()["service_refused"]), (0, 1));
    call.answer.send(true).unwrap();
}

#[test]
fn what_finds_no_room_to_wait_is_refused_and_a_flood_costs_one_call() {
    let (config, asked) = on_demand(ServiceConfig::new().held(8, 2500));
    let (mut site, service) = site(1, config);
    for port in 0..1000 {
        guest(&mut site, 1).send(&udp((ip(1), port), (web(), 53), &[7; 100]));
        if port >= 8 {
            assert_eq!(guest(&mut site, 1).receive().unwrap()[40..42], [1, 4]);
        }
    }
    assert_eq!((service.waiting(), service.metrics()["service_calls"]), (8, 1));
    guest(&mut site, 1).send(&udp((ip(1), 2000), (web(), 53), &[7; 1300]));
    assert_eq!(site.network.dropped(Refusal::NoMember), 993);
    drop(service);
    asked.recv_timeout(SOON).unwrap().answer.send(true).unwrap();
    // With the call goes the service.
    let refused = (0..9).filter_map(|_| guest(&mut site, 1).receive()).count();
    assert_eq!(refused, 9);
}

#[test]
fn packets_that_wait_for_all_services_of_a_network_are_bounded_together() {
    let mut site = Site::with(NetworkConfig::new(SUBNET).held_bytes(64 << 10), 1);
    site.network.set_rules(&[Rule::allow()]).unwrap();
    let (config, asked) = on_demand(ServiceConfig::new().held(4096, 1 << 20));
    let services = [1, 2].map(|number| site.network.service(SUBNET.service(number), config.clone()).unwrap());
    for port in 0..100 {
        for number in [1, 2] {
            guest(&mut site, 1).send(&udp((ip(1), port), (SUBNET.service(number), 53), &[7; 872 - 48]));
            while guest(&mut site, 1).driver.receive(Duration::ZERO).is_some() {}
        }
    }
    assert_eq!(services.iter().map(Service::waiting).sum::<usize>(), (64 << 10) / 1000);
    drop(services);
    (0..2).for_each(|_| asked.recv_timeout(SOON).unwrap().answer.send(false).unwrap());
}

#[test]
fn above_the_soft_limit_the_host_is_asked_and_nothing_waits_below_the_hard_one() {
    let (config, asked) = on_demand(ServiceConfig::new().limits(1, 2).call_interval(Duration::from_millis(10)));
    let (mut site, service) = site(3, config);
    service.add(machine(2)).unwrap();
    assert_eq!(connect(&mut site, 1000), 2);
    assert!(asked.recv_timeout(NEVER).is_err());
    assert_eq!(connect(&mut site, 1001), 2);
    let call = asked.recv_timeout(SOON).unwrap();
    // The third one waits for the member that is on its way.
    guest(&mut site, 1).send(&tcp((ip(1), 1002), (web(), 80), SYN, b""));
    assert!(guest(&mut site, 2).gets_nothing());
    service.add(machine(3)).unwrap();
    call.answer.send(true).unwrap();
    assert_eq!(guest(&mut site, 3).receive(), Some(tcp((ip(1), 1002), (ip(3), 80), SYN, b"")));
}

#[test]
fn a_packet_for_a_member_that_is_paused_asks_for_it_and_waits() {
    let (config, asked) = on_demand(ServiceConfig::new());
    let (mut site, service) = site(2, config);
    service.add(machine(2)).unwrap();
    assert_eq!(connect(&mut site, 1000), 2);
    guest(&mut site, 2).driver.pause(SOON).unwrap();
    assert!(!service.members()[0].runs);
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"wake up"));
    let call = asked.recv_timeout(SOON).unwrap();
    assert_eq!((call.member, service.waiting()), (Some(machine(2)), 1));
    guest(&mut site, 2).driver.resume();
    call.answer.send(true).unwrap();
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((ip(1), 1000), (ip(2), 80), ACK, b"wake up")));
    assert_eq!(flows(&service, 2), 1, "its flows have gone on");
}

#[test]
fn clients_come_by_a_tunnel_and_hear_of_refusals_too() {
    let (config, asked) = on_demand(ServiceConfig::new());
    let (mut site, service) = site(2, config);
    let mut uplink = uplink(&site);
    let far = SUBNET.machine(2, 9).unwrap().ip();
    let syn = tcp((far, 1000), (web(), 80), SYN, b"");
    assert_eq!(uplink.inject(&syn), Injected::Delivered);
    let call = asked.recv_timeout(SOON).unwrap();
    service.add(machine(2)).unwrap();
    call.answer.send(true).unwrap();
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((far, 1000), (ip(2), 80), SYN, b"")));
    guest(&mut site, 2).send(&tcp((ip(2), 80), (far, 1000), SYN_ACK, b""));
    let mut expected = tcp((web(), 80), (far, 1000), SYN_ACK, b"");
    expected[7] -= 1;
    assert_eq!(all(&mut uplink), [expected]);
    service.remove(machine(2));
    assert_eq!(uplink.inject(&tcp((far, 1000), (web(), 80), ACK, b"x")), Injected::Dropped(Refusal::NoMember));
    let refused = all(&mut uplink);
    assert!(refused.len() == 1 && is_whole(&refused[0]) && refused[0][53] == RST, "{refused:02x?}");
    // Nobody behind a tunnel is a service.
    uplink.set_routes(&[SUBNET.prefix()]).unwrap();
    assert_eq!(uplink.inject(&tcp((web(), 80), (ip(1), 1), SYN, b"")), Injected::Dropped(Refusal::SourceAddress));
}

#[test]
fn members_come_and_go_and_pause_in_the_middle_of_it_all() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let config = ServiceConfig::new().call_interval(Duration::from_millis(10)).on_demand(|_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let (mut site, service) = site(3, config.hold_time(Duration::from_millis(200)));
    for round in 0..300u16 {
        let number = 2 + u32::from(round % 2);
        let port = 1000 + round;
        for packet in [tcp((ip(1), port), (web(), 80), SYN, b""), udp((ip(1), port), (web(), 53), &[5; 900])] {
            let frame = [&[0; 12][..], &ROUTER_MAC, &machine(1).mac(), &[0x86, 0xdd], &packet].concat();
            guest(&mut site, 1).driver.send(&frame);
        }
        match round % 7 {
            0 | 1 => drop(service.add(machine(number))),
            2 => drop(service.remove(machine(number))),
            3 => {
                guest(&mut site, number).driver.restart(false, false);
                guest(&mut site, number).driver.fill();
            }
            4 => {
                guest(&mut site, number).driver.pause(SOON).unwrap();
                guest(&mut site, number).driver.resume();
            }
            5 => {
                site.guests.retain(|guest| guest.address != machine(number));
                site.add(number);
            }
            _ => {}
        }
        for guest in &mut site.guests {
            while let Some(frame) = guest.driver.receive(Duration::ZERO) {
                assert!(frame.is_empty() || is_whole(&frame[26..]), "{frame:02x?}");
            }
        }
    }
    assert!(site.guests[0].driver.all_sent(SOON) && !site.guests[0].driver.needs_reset());
    wait_until("nothing waits for ever", || service.waiting() == 0);
    assert!(CALLS.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_packet_that_comes_too_soon_for_another_call_has_the_host_called_as_soon_as_that_may_be() {
    let interval = Duration::from_millis(500);
    let (config, asked) = on_demand(ServiceConfig::new().call_interval(interval));
    let (mut site, service) = site(2, config);
    guest(&mut site, 1).send(&udp((ip(1), 1000), (web(), 53), b"first"));
    let call = asked.recv_timeout(SOON).unwrap();
    service.add(machine(2)).unwrap();
    let answered = Instant::now();
    call.answer.send(true).unwrap();
    assert!(guest(&mut site, 2).receive().is_some());
    // Nobody runs any more, and the client says it once.
    service.remove(machine(2));
    guest(&mut site, 1).send(&udp((ip(1), 1000), (web(), 53), b"second"));
    assert_eq!((service.waiting(), asked.try_recv().is_err()), (1, true));
    let call = asked.recv_timeout(SOON).unwrap();
    assert!(answered.elapsed() >= interval, "not before");
    service.add(machine(2)).unwrap();
    call.answer.send(true).unwrap();
    assert_eq!(guest(&mut site, 2).receive(), Some(udp((ip(1), 1000), (ip(2), 53), b"second")));
}

#[test]
fn of_a_long_frame_to_a_member_that_is_paused_the_first_segment_waits_and_the_client_says_the_rest_again() {
    let (config, asked) = on_demand(ServiceConfig::new());
    let (mut site, service) = site(2, config);
    service.add(machine(2)).unwrap();
    assert_eq!(connect(&mut site, 1000), 2);
    guest(&mut site, 1).restart_with_offloads();
    guest(&mut site, 2).driver.pause(SOON).unwrap();
    let data: Vec<u8> = (0..5000u16).flat_map(u16::to_be_bytes).collect();
    // Into segments of 256 bytes, with checksums that are left undone.
    let header = [1, 4, 74, 0, 0, 1, 54, 0, 16, 0, 0, 0];
    let packet = tcp((ip(1), 1000), (web(), 80), ACK, &data);
    let frame = [&header[..], &ROUTER_MAC, &machine(1).mac(), &[0x86, 0xdd], &packet].concat();
    guest(&mut site, 1).send_raw(&frame);
    let call = asked.recv_timeout(SOON).unwrap();
    assert_eq!(service.waiting(), 1);
    guest(&mut site, 2).driver.resume();
    call.answer.send(true).unwrap();
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((ip(1), 1000), (ip(2), 80), ACK, &data[..256])));
    assert!(guest(&mut site, 2).gets_nothing());
}

#[test]
fn a_connection_whose_packet_finds_no_room_to_wait_goes_on() {
    let (config, asked) = on_demand(ServiceConfig::new().held(1, 4096));
    let (mut site, service) = site(2, config);
    service.add(machine(2)).unwrap();
    (1000..1002).for_each(|port| assert_eq!(connect(&mut site, port), 2));
    guest(&mut site, 2).driver.pause(SOON).unwrap();
    for port in 1000..1002 {
        guest(&mut site, 1).send(&tcp((ip(1), port), (web(), 80), ACK, b"wake up"));
    }
    let call = asked.recv_timeout(SOON).unwrap();
    assert!(guest(&mut site, 1).gets_nothing(), "nothing is reset");
    assert_eq!((service.waiting(), site.network.dropped(Refusal::NoRoom)), (1, 1));
    // What would begin one is refused, as nobody knows of it.
    guest(&mut site, 1).send(&tcp((ip(1), 1002), (web(), 80), SYN, b""));
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1002));
    guest(&mut site, 2).driver.resume();
    call.answer.send(true).unwrap();
    assert!(guest(&mut site, 2).receive().is_some());
    guest(&mut site, 1).send(&tcp((ip(1), 1001), (web(), 80), ACK, b"again"));
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((ip(1), 1001), (ip(2), 80), ACK, b"again")));
}

#[test]
fn a_client_that_says_that_its_connection_is_over_makes_no_room_for_more() {
    let (mut site, service) = site(2, ServiceConfig::new().limits(1, 1));
    service.add(machine(2)).unwrap();
    assert_eq!(connect(&mut site, 1000), 2);
    // The member does not believe it, for its sequence number is wrong.
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), RST, b""));
    assert!(guest(&mut site, 2).receive().is_some());
    guest(&mut site, 1).send(&tcp((ip(1), 1000), (web(), 80), ACK, b"still here"));
    assert_eq!(guest(&mut site, 2).receive(), Some(tcp((ip(1), 1000), (ip(2), 80), ACK, b"still here")));
    assert_eq!(flows(&service, 2), 1);
    guest(&mut site, 1).send(&tcp((ip(1), 1001), (web(), 80), SYN, b""));
    assert!(is_reset(&guest(&mut site, 1).receive().unwrap(), 1001));
    // The member itself says so.
    guest(&mut site, 2).send(&tcp((ip(2), 80), (ip(1), 1000), RST, b""));
    assert!(guest(&mut site, 1).receive().is_some());
    assert_eq!((flows(&service, 2), connect(&mut site, 1001)), (0, 2));
}

#[test]
fn what_a_host_program_gave_a_service_goes_with_it_although_a_guest_that_says_nothing_has_not_seen_that() {
    let given = Arc::new(());
    let kept = Arc::clone(&given);
    let (mut site, service) = site(
        1,
        ServiceConfig::new().on_demand(move |_| {
            let _ = &kept;
            Ok(())
        }),
    );
    // It has seen that there is one, and sends nothing more.
    guest(&mut site, 1).settle();
    drop(service);
    wait_until("it is dropped", || Arc::strong_count(&given) == 1);
}
