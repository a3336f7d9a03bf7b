//! The registers against drivers that keep the specification's order, and against those that don't.

use std::sync::atomic::Ordering;

use super::*;
use crate::memory::GuestAddress;
use crate::testing::DriverQueue;
use crate::virtio::rig_test::{DEPENDENT_FEATURE, MODERN, OWN_FEATURE, rig, running};
use crate::virtio::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use crate::virtio::spec::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};

#[test]
fn what_never_changes_is_what_the_specification_says() {
    let rig = rig();
    assert_eq!(rig.driver.read(0), 0x7472_6976);
    assert_eq!(rig.driver.read(4), 2);
    assert_eq!(rig.driver.read(8), 42);
    let common = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << RING_INDIRECT_DESC;
    assert_eq!(rig.driver.offered(), common | OWN_FEATURE | DEPENDENT_FEATURE);
    assert_eq!(rig.driver.read(0xb0), u32::MAX, "no shared memory");
}

#[test]
fn a_request_is_served_and_interrupts() {
    let mut rig = running();
    assert_eq!(rig.driver.status(), 15);
    rig.request();
    rig.driver.wait_until("the interrupt", || rig.driver.transport().interrupt().take());
    assert_eq!(rig.driver.read(reg::INTERRUPT_STATUS), reg::INTERRUPT_USED);
    rig.driver.write(reg::INTERRUPT_ACK, reg::INTERRUPT_USED);
    assert_eq!(rig.driver.read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn signalling_a_doorbell_is_as_good_as_the_register() {
    let mut rig = running();
    rig.offer();
    rig.driver.transport().doorbells()[0].signal();
    assert_eq!(rig.driver.wait_used(&mut rig.queue), (0, 4));
}

#[test]
fn a_batch_that_ends_early_goes_on_by_itself() {
    let mut rig = running();
    (0..16).for_each(|_| rig.offer());
    rig.driver.kick(0);
    (0..16).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 4));
}

#[test]
fn features_that_were_not_offered_or_are_not_modern_are_refused() {
    let rig = rig();
    for features in [
        0,
        OWN_FEATURE,
        MODERN | 1 << 4,
        MODERN | 1 << 63,
        u64::MAX,
        MODERN & !(1 << VERSION_1),
        MODERN | DEPENDENT_FEATURE,
    ] {
        assert!(!rig.driver.negotiate(features), "{features:#x}");
        assert_eq!(rig.driver.status(), ACKNOWLEDGE | DRIVER);
    }
    assert!(rig.driver.negotiate(MODERN | OWN_FEATURE));
    assert!(rig.driver.negotiate(MODERN | OWN_FEATURE | DEPENDENT_FEATURE));
}

#[test]
fn features_are_settled_once_they_are_accepted() {
    let rig = rig();
    assert!(rig.driver.negotiate(MODERN));
    rig.driver.write(reg::DRIVER_FEATURES_SEL, 1);
    rig.driver.write(reg::DRIVER_FEATURES, 0);
    rig.driver.write(reg::STATUS, 15);
    assert_eq!(rig.driver.status(), 15);
    assert!(!rig.driver.transport().common.registers().accepted() & MODERN == 0);
}

#[test]
fn status_bits_cannot_be_cleared_or_set_out_of_order() {
    let rig = rig();
    for early in [DRIVER, FEATURES_OK, DRIVER_OK, 16, 32, 0x100, u32::MAX] {
        rig.driver.write(reg::STATUS, early);
        assert_eq!(rig.driver.status(), 0, "{early:#x}");
    }
    let rig = running();
    for value in [1, 3, 11, 7, 14, 15 | 16] {
        rig.driver.write(reg::STATUS, value);
        assert_eq!(rig.driver.status(), 15, "{value:#x}");
    }
}

#[test]
fn driver_ok_twice_activates_once() {
    let mut rig = running();
    rig.request();
    rig.driver.write(reg::STATUS, 15);
    rig.request();
    assert_eq!(rig.seen.resets.load(Ordering::SeqCst), 1, "only the one at the beginning");
}

#[test]
fn a_driver_that_has_failed_can_only_reset() {
    let mut rig = running();
    rig.driver.write(reg::STATUS, 15 | FAILED);
    assert_eq!(rig.driver.status(), 15 | FAILED);
    rig.driver.write(reg::STATUS, 15);
    assert_eq!(rig.driver.status(), 15 | FAILED);
    rig.restart();
    rig.request();
}

#[test]
fn queues_are_settled_once_they_are_ready() {
    let rig = rig();
    assert!(rig.driver.negotiate(MODERN));
    assert!(rig.driver.set_queue(0, &rig.queue));
    let other = DriverQueue::new(&rig.memory, GuestAddress(0x4000), 8);
    rig.driver.set_queue(0, &other);
    let configs: Vec<_> = rig.driver.transport().common.registers().ready_queues().collect();
    assert_eq!(configs[0].map(|config| (config.size, config.desc_table)), Some((16, GuestAddress(0x1000))));
    assert!(configs[1].is_none());
}

#[test]
fn a_running_queue_is_not_touched_by_its_registers() {
    let mut rig = running();
    rig.request();
    let other = DriverQueue::new(&rig.memory, GuestAddress(0x4000), 8);
    rig.driver.write(reg::QUEUE_READY, 0);
    assert_eq!(rig.driver.read(reg::QUEUE_READY), 1);
    assert!(rig.driver.set_queue(0, &other), "it is ready, but not by this");
    assert!(!rig.driver.set_queue(1, &other), "too late for another one");
    rig.request();
}

#[test]
fn queues_that_cannot_run_do_not_become_ready() {
    let rig = rig();
    assert!(rig.driver.negotiate(MODERN));
    for size in [0, 3, 32, 0x1_0010, u32::MAX] {
        rig.driver.set_queue(0, &rig.queue);
        rig.driver.write(reg::QUEUE_READY, 0);
        assert_eq!(rig.driver.read(reg::QUEUE_READY), 0);
        rig.driver.write(reg::QUEUE_NUM, size);
        rig.driver.write(reg::QUEUE_READY, 1);
        assert_eq!(rig.driver.read(reg::QUEUE_READY), 0, "size {size}");
    }
    rig.driver.write(reg::QUEUE_NUM, 16);
    rig.driver.write(reg::QUEUE_DESC_HIGH, 1);
    rig.driver.write(reg::QUEUE_READY, 1);
    assert_eq!(rig.driver.read(reg::QUEUE_READY), 0);
    assert!(rig.driver.set_queue(0, &rig.queue));
}

#[test]
fn every_selector_value_is_harmless() {
    let mut rig = running();
    for selector in (0..=0xffff).chain([0x1_0000, 0x8000_0000, u32::MAX]) {
        rig.driver.write(reg::QUEUE_SEL, selector);
        let expected = [16, 32].get(selector as usize).copied().unwrap_or(0);
        assert_eq!(rig.driver.read(reg::QUEUE_NUM_MAX), expected);
        assert_eq!(rig.driver.read(reg::QUEUE_READY), u32::from(selector == 0));
        rig.driver.write(reg::DEVICE_FEATURES_SEL, selector);
        rig.driver.read(reg::DEVICE_FEATURES);
        rig.driver.write(reg::DRIVER_FEATURES_SEL, selector);
        rig.driver.write(reg::DRIVER_FEATURES, u32::MAX);
        if selector > 0 {
            rig.driver.kick(selector);
        }
    }
    rig.request();
}

#[test]
fn every_width_at_every_offset_is_harmless() {
    let mut rig = running();
    for offset in 0..reg::WINDOW {
        for len in 1..=8usize {
            if offset == reg::STATUS && len == 4 {
                continue;
            }
            let mut data = vec![0; len];
            rig.driver.transport().read(offset, &mut data);
            let register = offset < reg::CONFIG;
            if register && (len != 4 || offset % 4 != 0) {
                assert_eq!(data, vec![0; len], "offset {offset:#x}");
            }
            rig.driver.transport().write(offset, &[0xff; 8][..len]);
        }
    }
    assert_eq!(rig.driver.status(), 15);
    rig.request();
}

#[test]
fn config_space_is_read_at_every_width_and_ends_in_zeros() {
    let rig = rig();
    let read = |offset: u64, len: usize| {
        let mut data = vec![0; len];
        rig.driver.transport().read(reg::CONFIG + offset, &mut data);
        data
    };
    assert_eq!(read(0, 8), [1, 2, 3, 4, 5, 6, 0, 0]);
    assert_eq!(read(1, 4), [2, 3, 4, 5]);
    assert_eq!(read(5, 2), [6, 0]);
    assert_eq!(read(5, 1), [6]);
    assert_eq!(read(0xeff, 1), [0]);
    assert_eq!(read(0, 3), [0; 3], "no width of the specification");
    rig.driver.transport().write(reg::CONFIG, &[1]);
    assert_eq!(rig.seen.config_writes.load(Ordering::SeqCst), 0, "no driver yet");
    rig.driver.negotiate(MODERN);
    rig.driver.transport().write(reg::CONFIG, &[1]);
    assert_eq!(rig.seen.config_writes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_driver_reads_what_its_write_to_the_config_space_changed() {
    let rig = running();
    rig.seen.shows_config_writes.store(true, Ordering::SeqCst);
    for round in 1..=10 {
        rig.driver.transport().write(reg::CONFIG, &[1]);
        let mut data = [0];
        rig.driver.transport().read(reg::CONFIG + 6, &mut data);
        assert_eq!(data, [round]);
    }
}
