//! The cable of `examples/loopback_nic` between two NICs on two threads, each with a guest's driver.

#[path = "../examples/loopback_nic/cable.rs"]
mod cable;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cable::cable;
use vmcell::testing::{NicConformance, NicDriver};
use vmcell::{IoThread, Nic};

const PATIENCE: Duration = Duration::from_secs(10);

fn guests(delay: Duration, room: usize) -> (NicDriver, NicDriver, [std::sync::Arc<std::sync::atomic::AtomicU64>; 2]) {
    let (one, two) = cable(delay, room);
    let dropped = [one.dropped(), two.dropped()];
    let guest = |end, name| NicDriver::new(Nic::backend(end), &IoThread::new(name).unwrap()).unwrap();
    (guest(one, "first"), guest(two, "second"), dropped)
}

fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([2; 14]);
    packet.extend(number.to_le_bytes());
    packet.resize(12 + len, number.to_le_bytes()[0]);
    packet
}

#[test]
fn a_frame_takes_as_long_as_the_cable() {
    let delay = Duration::from_millis(300);
    let (mut one, mut two, _) = guests(delay, 16);
    two.fill();
    for number in 0..2 {
        let begun = Instant::now();
        assert!(one.send(&packet(number, 100)));
        assert!(one.all_sent(PATIENCE));
        assert!(begun.elapsed() < delay, "the sender waited for the frame to arrive");
        let mut expected = packet(number, 100);
        expected[10] = 1; // one buffer
        assert_eq!(two.receive(PATIENCE).unwrap(), expected);
        assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    }
}

#[test]
fn frames_under_way_are_in_order_and_what_has_no_room_is_counted() {
    let (mut one, mut two, dropped) = guests(Duration::from_secs(1), 10);
    two.fill();
    for number in 0..25 {
        assert!(one.send(&packet(number, 60)));
    }
    assert!(one.all_sent(PATIENCE), "a full cable holds nobody up");
    for number in 0..10u32 {
        assert_eq!(two.receive(PATIENCE).unwrap()[26..30], number.to_le_bytes());
    }
    assert_eq!(two.receive(Duration::from_millis(20)), None);
    assert_eq!(dropped.map(|dropped| dropped.load(Ordering::Relaxed)), [15, 0]);
}

#[test]
fn megabytes_go_both_ways_at_once() {
    let (mut one, mut two, dropped) = guests(Duration::from_micros(100), 256);
    one.fill();
    two.fill();
    let (mut sent, mut received) = ([0u32; 2], [0u32; 2]);
    let begun = Instant::now();
    while received.iter().sum::<u32>() < 4000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{received:?} of {sent:?}");
        let ends = [(0, &mut one), (1, &mut two)];
        for (index, guest) in ends {
            while sent[index] < 2000 && sent[index] < received[1 - index] + 50 {
                assert!(guest.send(&packet(sent[index], 1500)), "{sent:?}");
                sent[index] += 1;
            }
            while let Some(packet) = guest.receive(Duration::ZERO) {
                assert_eq!(packet[26..30], received[index].to_le_bytes());
                assert!(packet[30..].iter().all(|byte| *byte == packet[26]) && packet.len() == 1512);
                received[index] += 1;
            }
        }
    }
    assert_eq!(dropped.map(|dropped| dropped.load(Ordering::Relaxed)), [0, 0]);
}

#[test]
fn a_guest_sees_that_the_other_end_is_gone() {
    let (one, two, _) = guests(Duration::ZERO, 16);
    assert!(one.link_is_up() && two.link_is_up());
    drop(two);
    let begun = Instant::now();
    while one.link_is_up() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn it_passes_the_suite() {
    for (delay, room) in [(Duration::ZERO, 256), (Duration::from_micros(300), 64), (Duration::from_micros(50), 4)] {
        let make = move || {
            let (one, two) = cable(delay, room);
            (Nic::backend(one), Nic::backend(two))
        };
        NicConformance::of_pairs(make).run();
    }
}
