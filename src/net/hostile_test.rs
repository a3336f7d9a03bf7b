//! What a hostile driver does to a card with several pairs of queues.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::pairs_tests::{COMMAND, CONTROL, ONE, Rig, SEVERAL, received_at, rig, sent_from};
use super::*;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, DriverQueue, MmioDriver};

const MOST: usize = 16;

/// The rings of each queue in turn are broken for good: those that receive, send, command, and those of pairs that get no frames.
#[test]
fn a_ring_that_is_broken_fails_the_card_when_it_is_used_and_a_reset_makes_it_whole() {
    let mut rig = rig(3, SEVERAL);
    for queue in 0..=rig.control {
        let gets_no_frames = queue == 2 || queue == 4;
        assert_eq!(rig.set_pairs(if gets_no_frames { 1 } else { 3 }), 0);
        let index = rig.queues[queue].avail_index().wrapping_add(0x4000);
        rig.queues[queue].set_avail_index(index);
        rig.driver.kick(queue as u32);
        if gets_no_frames {
            // Nobody looks at it, and the others work.
            assert_eq!(rig.arrivals(), [0; 3], "queue {queue}");
            assert_eq!((0..3).map(|pair| rig.send(pair, 9)).collect::<Vec<_>>(), [0, 1, 2]);
            rig.memory.write(GuestAddress(COMMAND), &[4, 0, 3, 0]).unwrap();
            rig.queues[6].offer(&[Buffer::readable(COMMAND, 4), Buffer::writable(COMMAND + 64, 1)]);
            rig.driver.kick(6);
        }
        let Rig { driver, .. } = &rig;
        driver.wait_until("the card to fail", || rig.has_failed());
        driver.transport().pause(MmioDriver::PATIENCE).unwrap();
        driver.transport().resume();
        rig.bring_up(SEVERAL);
        assert!(!rig.has_failed());
        assert_eq!(rig.arrivals(), [0; 3], "after queue {queue}");
    }
}

#[test]
fn the_number_of_pairs_changes_from_reset_to_reset() {
    let mut rig = rig(4, SEVERAL);
    for round in 0..4 {
        assert_eq!(rig.set_pairs(4), 0);
        assert_eq!(rig.arrivals(), [0, 1, 2, 3]);
        // What was the second pair's queue for frames is the one for commands.
        rig.control = 2;
        rig.bring_up(ONE);
        assert_eq!(rig.arrivals(), [0; 4], "round {round}");
        assert_eq!(rig.command(&[3, 0]), 0);
        assert_eq!(rig.set_pairs(1), 1, "it has not agreed to several");
        rig.control = 8;
        rig.bring_up(SEVERAL);
        assert_eq!(rig.arrivals(), [0; 4]);
    }
    // Before the driver is ready, and without a control queue, nothing is obeyed and nothing fails.
    assert!(rig.driver.negotiate(SEVERAL));
    (0..=9).for_each(|queue| rig.driver.kick(queue));
    rig.driver.write(0x70, rig.driver.status() | 4);
    (0..=9).for_each(|queue| rig.driver.kick(queue));
    assert!(!rig.has_failed());
    rig.bring_up(SEVERAL & !CONTROL & !(1 << feature::MQ));
    assert_eq!(rig.arrivals(), [0; 4]);
}

/// Frames on all pairs both ways, commands, and rings for every queue, without a pause.
fn busy(rig: &mut Rig, stop: &AtomicBool, meanwhile: impl FnOnce(&MmioDriver)) {
    let wires: Vec<_> = rig.wires.iter().map(|wire| wire.try_clone().unwrap()).collect();
    let (driver, memory, control) = (&rig.driver, &rig.memory, rig.control);
    let queues = std::mem::take(&mut rig.queues);
    for index in 0..MOST as u64 {
        memory.write(GuestAddress(COMMAND + 4 * index), &[4, 0, index as u8 + 1, 0]).unwrap();
    }
    for pair in 0..MOST {
        memory.write(GuestAddress(sent_from(2 * pair + 1)), &[0; 1500]).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut queues = queues;
            let mut under_way: Vec<_> = queues.iter().map(DriverQueue::avail_index).collect();
            for round in 0u64.. {
                if stop.load(Relaxed) {
                    break;
                }
                for ((index, queue), under_way) in queues.iter_mut().enumerate().zip(&mut under_way) {
                    while queue.take_used().is_some() {
                        *under_way -= 1;
                    }
                    driver.kick(index as u32);
                    if *under_way == queue.size() {
                        continue;
                    }
                    *under_way += 1;
                    let buffer = match index {
                        _ if index == control => Buffer::readable(COMMAND + 4 * (round % MOST as u64), 4),
                        _ if index % 2 == 0 => Buffer::writable(received_at(index / 2, round as u32 % 64), 2048),
                        _ => Buffer::readable(sent_from(index), 1500),
                    };
                    queue.offer(&[buffer]);
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                for wire in &wires {
                    let _ = wire.send(&[0; 1500]);
                    let _ = wire.recv(&mut [0; 1500]);
                }
            }
        });
        meanwhile(driver);
        stop.store(true, Relaxed);
    });
}

#[test]
fn a_card_whose_pairs_are_all_busy_stands_still_goes_on_and_is_reset_and_dropped_at_once() {
    let mut rig = rig(MOST, SEVERAL);
    for round in 0..10 {
        let (stop, begun) = (AtomicBool::new(false), std::time::Instant::now());
        busy(&mut rig, &stop, |driver| {
            for _ in 0..5 {
                driver.transport().pause(MmioDriver::PATIENCE).unwrap();
                driver.transport().save().unwrap();
                driver.transport().resume();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            driver.write(0x70, 0);
            assert_eq!(driver.status(), 0);
        });
        assert!(begun.elapsed() < MmioDriver::PATIENCE, "round {round} took {:?}", begun.elapsed());
        // The wires are empty again.
        for wire in &rig.wires {
            while wire.recv(&mut [0; 1500]).is_ok() {}
        }
        rig.bring_up(SEVERAL);
    }
    let stop = AtomicBool::new(false);
    busy(&mut rig, &stop, |driver| driver.transport().close());
    drop(rig);
}
