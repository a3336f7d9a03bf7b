//! Frames that are limited, both ways.

use std::time::{Duration, Instant};

use super::*;
use crate::config::{Limits, RateLimit};

const LIMIT: Duration = Duration::from_secs(10);

fn frames(per_second: u64, burst: u64) -> Limits {
    Limits::new().operations(RateLimit::per_second(per_second).burst(burst))
}

fn bytes(per_second: u64, burst: u64) -> Limits {
    Limits::new().bytes(RateLimit::per_second(per_second).burst(burst))
}

fn limited(receive: Limits, send: Limits) -> Rig {
    let rig = rig(all());
    rig.handle.set_receive_limits(receive).unwrap();
    rig.handle.set_send_limits(send).unwrap();
    rig
}

impl Rig {
    fn offer_frame(&mut self, len: u32) {
        self.memory.write(GuestAddress(TX), &[0; 12]).unwrap();
        self.tx.offer(&[Buffer::readable(TX, 12 + len)]);
        self.driver.kick(1);
    }

    fn offer_buffers(&mut self, count: u64) {
        (0..count).for_each(|n| _ = self.rx.offer(&[Buffer::writable(RX + n * 2048, 2048)]));
        self.driver.kick(0);
    }

    fn send_packet(&self, len: usize) {
        self.wire.send(&vec![0; 12 + len]).unwrap();
    }

    fn wait_for_limit(&self, what: impl Fn(&crate::net::NicMetrics) -> bool) {
        self.driver.wait_until("the limit", || what(&self.handle.metrics()));
    }
}

#[test]
fn frames_that_are_sent_go_at_the_limits_pace_behind_the_burst() {
    let mut rig = limited(Limits::new(), frames(20, 3));
    let begun = Instant::now();
    (0..7).for_each(|_| rig.transmit([0; 12], &[9; 60]));
    assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
    // A frame is counted when its chain has been completed.
    rig.wait_for_limit(|metrics| metrics.sent_frames == 7);
    let metrics = rig.handle.metrics();
    assert_eq!((metrics.sent_frames, metrics.sent_limited, metrics.received_limited), (7, 4, 0));
    assert!(metrics.sent_limited_time > Duration::from_millis(50));
}

#[test]
fn bytes_that_are_sent_count_without_the_header_of_virtio() {
    let mut rig = limited(Limits::new(), bytes(1, 1000));
    rig.transmit([0; 12], &[9; 1000]);
    assert_eq!(rig.handle.metrics().sent_limited, 0);
    rig.offer_frame(60);
    rig.wait_for_limit(|metrics| metrics.sent_limited == 1);
    rig.handle.set_send_limits(Limits::new()).unwrap();
    assert_eq!(rig.driver.wait_used(&mut rig.tx).1, 0);
    rig.wait_for_limit(|metrics| metrics.sent_frames == 2);
}

#[test]
fn frames_that_come_stay_where_they_are_until_those_before_are_paid_for() {
    let mut rig = limited(bytes(10_000, 1000), Limits::new());
    rig.offer_buffers(4);
    let begun = Instant::now();
    (0..4).for_each(|_| rig.send_packet(1000));
    (0..4).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.rx).1, 1012));
    // The first is paid by the burst, and the last is not paid yet.
    assert!(begun.elapsed() >= Duration::from_millis(199), "{:?}", begun.elapsed());
    assert!(rig.handle.metrics().received_limited >= 2);
}

#[test]
fn a_card_that_waits_both_ways_costs_no_turns_and_does_not_hold_up_pauses_and_resets() {
    let mut rig = limited(frames(1, 1), frames(1, 1));
    rig.handle.set_receive_limits(bytes(1, 1)).unwrap();
    rig.handle.set_send_limits(bytes(1, 60)).unwrap();
    rig.transmit([0; 12], &[9; 60]);
    rig.offer_buffers(4);
    (0..3).for_each(|_| rig.send_packet(60));
    assert_eq!(rig.driver.wait_used(&mut rig.rx).1, 72);
    rig.offer_frame(60);
    rig.wait_for_limit(|metrics| metrics.sent_limited == 1 && metrics.received_limited == 1);
    let turns = rig.thread.metrics().turns;
    std::thread::sleep(Duration::from_millis(300));
    let turns = rig.thread.metrics().turns - turns;
    assert!(turns < 10, "{turns} turns in 300 ms");

    let begun = Instant::now();
    rig.driver.transport().pause(LIMIT).unwrap();
    rig.driver.transport().save().unwrap();
    rig.driver.transport().resume();
    rig.wait_for_limit(|metrics| metrics.sent_limited == 2);
    assert_eq!((rig.rx.take_used(), rig.tx.take_used()), (None, None));
    rig.driver.write(crate::virtio::spec::mmio::STATUS, 0);
    rig.driver.wait_until("the reset", || rig.driver.status() == 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_guest_that_kicks_all_the_time_sends_and_gets_no_more() {
    let mut rig = limited(bytes(60, 60), bytes(60, 60));
    rig.transmit([0; 12], &[9; 60]);
    rig.offer_buffers(4);
    (0..3).for_each(|_| rig.send_packet(60));
    assert_eq!(rig.driver.wait_used(&mut rig.rx).1, 72);
    let begun = Instant::now();
    rig.offer_frame(60);
    while rig.tx.take_used().is_none() {
        (0..3).for_each(|queue| rig.driver.kick(queue));
        assert!(begun.elapsed() < LIMIT);
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(rig.handle.metrics().sent_limited, 1);
    assert!(rig.handle.metrics().received_frames <= 2 + begun.elapsed().as_secs());
}

#[test]
fn frames_without_a_link_are_dropped_whatever_the_limits() {
    let mut rig = limited(Limits::new(), bytes(1, 60));
    rig.transmit([0; 12], &[9; 60]);
    rig.offer_frame(60);
    rig.wait_for_limit(|metrics| metrics.sent_limited == 1);
    rig.handle.set_link(false);
    rig.driver.kick(1);
    rig.driver.wait_used(&mut rig.tx);
    rig.transmit([0; 12], &[9; 60]);
    assert_eq!(rig.handle.metrics().sent_dropped, 2);
}

#[test]
fn a_backend_that_says_it_is_done_with_a_frame_it_was_not_shown_changes_nothing() {
    struct Hasty;
    impl NicBackend for Hasty {
        fn info(&self) -> NicInfo {
            NicInfo::default()
        }
        fn receive(&mut self, _: &mut Io, _: &mut RxBatch) {}
        fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
            while frames.next(io).is_some() {
                frames.done();
            }
            frames.done();
        }
    }
    let memory = patterned_memory(1 << 20);
    let handle = NicHandle::new();
    handle.set_send_limits(bytes(1, 60)).unwrap();
    let net = Net::new(vec![Box::new(Hasty)], [2, 0, 0, 0, 0, 1], None, handle.clone()).unwrap();
    let transport = MmioTransport::new(Box::new(net), memory.clone(), &IoThread::new("hasty").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let (rx, mut tx) =
        (DriverQueue::new(&memory, GuestAddress(0x1000), 16), DriverQueue::new(&memory, GuestAddress(0x4000), 16));
    driver.bring_up(MODERN, &[&rx, &tx]);
    memory.write(GuestAddress(TX), &[0; 12]).unwrap();
    (0..2).for_each(|_| _ = tx.offer(&[Buffer::readable(TX, 72)]));
    driver.kick(1);
    driver.wait_used(&mut tx);
    driver.wait_until("the limit", || handle.metrics().sent_limited == 1);
    assert_eq!((handle.metrics().sent_frames, tx.take_used()), (1, None));
}
