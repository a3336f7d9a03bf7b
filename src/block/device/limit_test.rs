//! Requests that are limited: how many there are in a time, what becomes of one that waits, and who else notices.

use super::*;
use crate::block::DiskHandle;
use crate::config::{Limits, RateLimit};
use crate::limit::LimitGroup;

const LIMIT: Duration = Duration::from_secs(10);

fn operations(per_second: u64, burst: u64) -> Limits {
    Limits::new().operations(RateLimit::per_second(per_second).burst(burst))
}

fn bytes(per_second: u64, burst: u64) -> Limits {
    Limits::new().bytes(RateLimit::per_second(per_second).burst(burst))
}

struct Limited {
    rig: Rig,
    handle: DiskHandle,
    thread: IoThread,
}

fn limited(prepare: impl FnOnce(Disk) -> Disk) -> Limited {
    let file = memory_disk(SECTORS * SECTOR);
    let disk = prepare(Disk::from_file(file.try_clone().unwrap()).unwrap());
    let (handle, thread) = (disk.handle(), IoThread::new("limits").unwrap());
    let features = MODERN | 1 << feature::FLUSH;
    Limited { rig: rig_on(&thread, features, Box::new(disk.build().unwrap()), file), handle, thread }
}

impl Limited {
    fn offer_read(&mut self) {
        let header = self.rig.header(0, 0);
        self.rig.queue.offer(&[header, Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
        self.rig.driver.kick(0);
    }

    fn used(&mut self) -> u32 {
        self.rig.driver.wait_used(&mut self.rig.queue).1
    }

    fn wait_for_limit(&self, times: u64) {
        self.rig.driver.wait_until("the limit", || self.handle.metrics().limited == times);
    }
}

#[test]
fn a_burst_of_requests_is_served_at_once_and_the_others_at_the_limits_pace() {
    let mut disk = limited(|disk| disk.limits(operations(20, 3)));
    let begun = Instant::now();
    (0..3).for_each(|_| assert_eq!(disk.rig.read(0, 512), (0, 513)));
    assert_eq!(disk.handle.metrics().limited, 0);
    (0..4).for_each(|_| assert_eq!(disk.rig.read(0, 512), (0, 513)));
    assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
    let metrics = disk.handle.metrics();
    assert_eq!((metrics.reads, metrics.limited), (7, 4));
    assert!(metrics.limited_time > Duration::from_millis(50), "{:?}", metrics.limited_time);
}

#[test]
fn bytes_are_limited_too_and_a_request_larger_than_the_burst_waits_for_all_of_its_own() {
    let mut disk = limited(|disk| disk.limits(bytes(20 << 10, 2048)));
    let begun = Instant::now();
    (0..2).for_each(|_| assert_eq!(disk.rig.read(0, 1024), (0, 1025)));
    assert_eq!(disk.handle.metrics().limited, 0);
    assert_eq!(disk.rig.read(0, 6144), (0, 6145));
    assert!(begun.elapsed() >= Duration::from_millis(299), "{:?}", begun.elapsed());
    assert_eq!(disk.handle.metrics().limited, 1);
}

#[test]
fn flushes_and_the_ranges_of_a_discard_count_as_operations_and_what_is_refused_as_nothing() {
    let mut disk = limited(|disk| disk.limits(operations(1, 4)));
    (0..10).for_each(|_| assert_eq!(disk.rig.read(SECTORS, 512), (1, 0)));
    let header = disk.rig.header(4, 0);
    assert_eq!(disk.rig.send(&[header, Buffer::writable(STATUS, 1)]), (0, 1));
    let range = [0u8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(disk.rig.out(11, 0, &range.repeat(3)), (0, 1));
    assert_eq!(disk.handle.metrics().limited, 0);
    disk.offer_read();
    disk.wait_for_limit(1);
    disk.handle.set_limits(Limits::new()).unwrap();
    assert_eq!(disk.used(), 513);
}

#[test]
fn other_limits_let_a_request_go_that_waits() {
    let mut disk = limited(|disk| disk.limits(operations(1, 1)));
    assert_eq!(disk.rig.read(0, 512), (0, 513));
    for limits in [operations(1 << 40, 1), Limits::new()] {
        disk.handle.set_limits(operations(1, 1)).unwrap();
        let before = disk.handle.metrics().limited;
        while disk.handle.metrics().limited == before {
            disk.offer_read();
            if disk.handle.metrics().limited == before {
                std::thread::sleep(Duration::from_millis(1));
                disk.rig.queue.take_used();
            }
        }
        let begun = Instant::now();
        disk.handle.set_limits(limits).unwrap();
        disk.used();
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    let refused = disk.handle.set_limits(operations(0, 1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn limits_that_were_set_before_the_disk_was_built_stay() {
    let mut disk = limited(|disk| {
        disk.handle().set_limits(operations(1, 2)).unwrap();
        disk.limits(operations(1, 1 << 40))
    });
    (0..2).for_each(|_| assert_eq!(disk.rig.read(0, 512), (0, 513)));
    disk.offer_read();
    disk.wait_for_limit(1);
}

#[test]
fn a_guest_that_kicks_all_the_time_while_it_is_limited_gets_no_more_and_is_counted_once() {
    let mut disk = limited(|disk| disk.limits(operations(1, 1)));
    assert_eq!(disk.rig.read(0, 512), (0, 513));
    let begun = Instant::now();
    disk.offer_read();
    while disk.rig.queue.take_used().is_none() {
        disk.rig.driver.kick(0);
        assert!(begun.elapsed() < LIMIT);
    }
    assert!(begun.elapsed() > Duration::from_millis(500));
    assert_eq!(disk.handle.metrics().limited, 1);
}

#[test]
fn a_request_that_waits_costs_no_turns_and_holds_up_no_other_device_of_its_thread() {
    let mut disk = limited(|disk| disk.limits(operations(1, 1)));
    assert_eq!(disk.rig.read(0, 512), (0, 513));
    let free = Disk::from_file(memory_disk(SECTORS * SECTOR)).unwrap().build().unwrap();
    let mut other = rig_on(&disk.thread, MODERN, Box::new(free), memory_disk(512));
    let begun = Instant::now();
    disk.offer_read();
    disk.offer_read();
    disk.wait_for_limit(1);
    let (turns, mut served) = (disk.thread.metrics().turns, 0);
    while begun.elapsed() < Duration::from_millis(300) {
        assert_eq!(other.read(0, 512), (0, 513));
        served += 1;
    }
    assert!(served > 100, "{served} requests in 300 ms beside a disk that waits");
    drop(other);
    let beside = disk.thread.metrics().turns - turns;
    assert!(beside <= served * 4 + 20, "{beside} turns for {served} requests");
    let turns = disk.thread.metrics().turns;
    (0..2).for_each(|_| assert_eq!(disk.used(), 513));
    let turns = disk.thread.metrics().turns - turns;
    assert!(turns < 20, "{turns} turns for two requests that wait");
}

#[test]
fn a_pause_puts_back_what_waits_and_a_reset_forgets_it_however_long_the_wait() {
    let mut disk = limited(|disk| disk.limits(bytes(1, 512)));
    assert_eq!(disk.rig.read(0, 512), (0, 513));
    disk.offer_read();
    disk.wait_for_limit(1);
    let begun = Instant::now();
    disk.rig.driver.transport().pause(LIMIT).unwrap();
    disk.rig.driver.transport().save().unwrap();
    disk.rig.driver.transport().resume();
    disk.wait_for_limit(2);
    assert_eq!(disk.handle.metrics().reads, 1, "what was put back was not done");
    disk.rig.driver.write(crate::virtio::spec::mmio::STATUS, 0);
    disk.rig.driver.wait_until("the reset", || disk.rig.driver.status() == 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(disk.rig.queue.take_used(), None);
    // The driver begins anew, and waits as before.
    disk.rig.queue = DriverQueue::new(&disk.rig.memory, GuestAddress(0x1000), 16);
    disk.rig.driver.bring_up(MODERN, &[&disk.rig.queue]);
    disk.offer_read();
    disk.wait_for_limit(3);
    disk.handle.set_limits(Limits::new()).unwrap();
    assert_eq!(disk.used(), 513);
}

#[test]
fn a_disk_that_shrinks_while_a_request_waits_fails_the_request() {
    let mut disk = limited(|disk| disk.limits(operations(1, 1)));
    assert_eq!(disk.rig.read(0, 512), (0, 513));
    let header = disk.rig.header(0, SECTORS - 1);
    disk.rig.queue.offer(&[header, Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
    disk.rig.driver.kick(0);
    disk.wait_for_limit(1);
    let smaller = Disk::from_file(memory_disk(512)).unwrap();
    disk.handle.replace(smaller, LIMIT).unwrap();
    disk.handle.set_limits(Limits::new()).unwrap();
    assert_eq!(disk.used(), 0);
    assert_eq!(disk.handle.metrics().errors, 1);
}

#[test]
fn disks_on_several_threads_share_what_their_group_has_and_none_starves() {
    let group = LimitGroup::new(operations(200, 1)).unwrap();
    let mut disks: Vec<_> = (0..3).map(|_| limited(|disk| disk.limit_group(&group))).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for disk in &mut disks {
            scope.spawn(move || {
                while begun.elapsed() < Duration::from_secs(2) {
                    assert_eq!(disk.rig.read(0, 512), (0, 513));
                }
            });
        }
    });
    let time = begun.elapsed();
    let reads: Vec<_> = disks.iter().map(|disk| disk.handle.metrics().reads).collect();
    let all: u64 = reads.iter().sum();
    assert!(u128::from(all) <= 1 + 200 * time.as_millis() / 1000 + 1, "{reads:?} in {time:?}");
    assert!(reads.iter().all(|reads| *reads > 30), "{reads:?} in {time:?}");
}

#[test]
fn other_limits_of_a_group_let_the_requests_of_all_its_devices_go() {
    let group = LimitGroup::new(operations(1, 1)).unwrap();
    let mut disks: Vec<_> = (0..3).map(|_| limited(|disk| disk.limit_group(&group))).collect();
    assert_eq!(disks[0].rig.read(0, 512), (0, 513));
    for disk in &mut disks {
        disk.offer_read();
        disk.wait_for_limit(1);
    }
    let begun = Instant::now();
    group.set_limits(operations(1 << 40, 1 << 40)).unwrap();
    disks.iter_mut().for_each(|disk| assert_eq!(disk.used(), 513));
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[test]
fn a_disk_whose_description_names_a_group_needs_a_vm_that_has_it() {
    let path = std::env::temp_dir().join(format!("vmcell-limit-group-{}", std::process::id()));
    std::fs::write(&path, [0; 512]).unwrap();
    let config = crate::DiskConfig::new(&path).limit_group("tenant");
    let error = Disk::from_config(&config).unwrap().into_device().map(drop).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let path = path.display();
    let message = format!("disk {path} is to be in the limit group \"tenant\", which only a VM's description has");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidConfig, message));
}
