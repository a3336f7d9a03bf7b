//! Registers, in orders and widths that no driver uses.

use super::{After, Case, again_and_again, duration_us, on_disk};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory, wide};
use crate::body::report;
use crate::body::virtio::block::{Block, IN, MODERN, header, status};
use crate::body::virtio::device::{feature, reg, status as bit};
use crate::body::virtio::ring::writable;

pub const CASES: &[Case] = &[
    ("a_driver_that_skips_steps_gets_nowhere", |cmdline| on_disk(cmdline, MODERN, skipped_steps)),
    ("driver_ok_twice_changes_nothing", |cmdline| on_disk(cmdline, MODERN, ok_twice)),
    ("features_that_were_not_offered_are_refused", |cmdline| on_disk(cmdline, MODERN, features)),
    ("selectors_of_any_value_select_nothing_else", |cmdline| {
        let all = is_long(cmdline);
        on_disk(cmdline, MODERN, |block| selectors(block, all));
    }),
    ("a_reset_with_requests_in_flight_leaves_nothing_behind", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, MODERN, |block| resets_in_flight(block, us));
    }),
    ("accesses_of_any_width_to_a_device_hurt_nobody", |cmdline| {
        let all = is_long(cmdline);
        on_disk(cmdline, MODERN, |block| widths(block, all));
    }),
    ("a_config_space_cannot_be_written", |cmdline| on_disk(cmdline, MODERN, config)),
    ("a_storm_of_doorbells_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, MODERN, |block| doorbells(block, us));
    }),
];

fn is_long(cmdline: &Cmdline) -> bool {
    cmdline.text("long").is_some()
}

fn skipped_steps(block: &mut Block) -> After {
    const WAY: [u32; 4] = [bit::ACKNOWLEDGE, bit::DRIVER, bit::FEATURES_OK, bit::DRIVER_OK];
    let device = block.device;
    // All sets of steps in all orders of two writes: whatever is read back must be a set that leaves out no earlier step.
    for first in 0..16u32 {
        for second in 0..16u32 {
            device.reset();
            let set = |bits: u32| {
                WAY.iter().enumerate().fold(0, |all, (n, one)| all | if bits >> n & 1 == 1 { *one } else { 0 })
            };
            device.write(reg::STATUS, set(first));
            let between = device.status();
            device.write(reg::STATUS, set(second));
            let after = device.status();
            report::check(
                after == 0 || between & !after == 0,
                format_args!("status {between:#x} lost bits to {:#x}: {after:#x}", set(second)),
            );
            let skips = (1..4).any(|n| after & WAY[n] != 0 && after & WAY[n - 1] == 0);
            report::check(!skips, format_args!("status {after:#x} leaves out a step"));
            device.write(reg::QUEUE_NOTIFY, 0);
        }
    }
    for odd in [0x10, 0x20, bit::NEEDS_RESET, bit::FAILED, 0x100, u32::MAX] {
        device.negotiate(MODERN);
        device.write(reg::STATUS, device.status() | odd);
        device.set_queue(&block.ring);
        device.driver_ok();
        block.kick();
    }
    report::line(format_args!("case: every pair of writes to the status, and bits that no driver sets"));
    After::Reset
}

fn ok_twice(block: &mut Block) -> After {
    for _ in 0..100 {
        block.device.driver_ok();
        block.device.write(reg::STATUS, block.device.status());
    }
    report::line(format_args!("case: DRIVER_OK again, a hundred times"));
    After::Serves
}

fn features(block: &mut Block) -> After {
    let device = block.device;
    let offered = device.offered();
    for bit in (0..64).filter(|bit| offered >> bit & 1 == 0) {
        report::check(!device.negotiate(MODERN | 1 << bit), format_args!("feature {bit} was not offered, but taken"));
    }
    report::check(!device.negotiate(u64::MAX), format_args!("all features are taken"));
    report::check(!device.negotiate(offered & !feature::VERSION_1), format_args!("a legacy driver is taken"));
    report::line(format_args!("case: each feature that was not offered"));
    After::Reset
}

fn selectors(block: &mut Block, all: bool) -> After {
    let device = block.device;
    let powers = (0..32).flat_map(|n| [(1u32 << n).wrapping_sub(1), 1 << n, (1 << n) + 1]);
    let few = if all { 0x1_0000 } else { 0x200 };
    let mut tried = 0;
    for value in (2..few).chain(powers.filter(|value| *value > 1)).chain([u32::MAX]) {
        device.write(reg::QUEUE_SEL, value);
        let queue = device.read(reg::QUEUE_NUM_MAX);
        report::check(queue == 0, format_args!("queue {value} has {queue} descriptors"));
        device.write(reg::QUEUE_READY, 1);
        device.write(reg::DEVICE_FEATURES_SEL, value);
        let features = device.read(reg::DEVICE_FEATURES);
        report::check(features == 0, format_args!("features {value} are {features:#x}"));
        device.write(reg::DRIVER_FEATURES_SEL, value);
        device.write(reg::DRIVER_FEATURES, u32::MAX);
        device.write(reg::QUEUE_NOTIFY, value);
        tried += 1;
    }
    report::line(format_args!("case: {tried} values of each selector"));
    After::Serves
}

fn resets_in_flight(block: &mut Block, us: u64) -> After {
    const LEN: u32 = 0x1_0000;
    const BATCH: u16 = 32;
    let mut random = 7u64;
    let rounds = again_and_again(us, || {
        report::check(block.restart(), format_args!("the device does not come up after a reset"));
        for slot in 0..BATCH {
            let data = writable(memory::DATA + u64::from(slot) * u64::from(LEN), LEN);
            block.ring.chain(slot * 3, &[header(slot, IN, u64::from(slot) * 128), data, status(slot)]);
            block.ring.offer(slot * 3);
        }
        block.kick();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        clock::sleep_us(random >> 55);
        report::check(block.device.reset(), format_args!("a reset takes more than a second"));
        // From here on nothing may be written any more.
        memory::fill(memory::DATA, u64::from(BATCH) * u64::from(LEN), 0xa5);
        let used = block.ring.used_index();
        clock::sleep_us(300);
        let quiet = block.ring.used_index() == used
            && (0..BATCH.into())
                .all(|slot| memory::read::<u64>(memory::DATA + slot * u64::from(LEN)) == 0xa5a5_a5a5_a5a5_a5a5);
        report::check(quiet, format_args!("the device wrote after its reset"));
    });
    report::line(format_args!("case: {rounds} resets with {BATCH} reads under way"));
    After::Reset
}

/// Reads, then writes, of 1, 2, 4, 8 and 16 bytes at every offset of the window, and across its end.
fn widths(block: &mut Block, all: bool) -> After {
    let base = block.device.base;
    // Behind the config space nothing changes.
    let dense = if all { reg::WINDOW } else { 0x180 };
    let offsets = || (0..dense).chain(reg::WINDOW - 32..reg::WINDOW + 16);
    for offset in offsets() {
        wide::read_all(base + offset);
    }
    report::check(block.device.read(reg::DEVICE_ID) == 2, format_args!("reads changed the device"));
    for value in [0, u64::MAX, 0x0000_0001_0000_0001] {
        for offset in offsets() {
            wide::write_all(base + offset, value);
        }
    }
    report::line(format_args!("case: reads and writes of 1 to 16 bytes at {} offsets", offsets().count()));
    After::Reset
}

fn config(block: &mut Block) -> After {
    let device = block.device;
    let read = |offset: u64| device.config::<u8>(offset);
    let mut before = [0; 64];
    (0..).zip(&mut before).for_each(|(offset, byte)| *byte = read(offset));
    for offset in 0..64 {
        wide::write_all(device.base + reg::CONFIG + offset, u64::MAX);
        wide::write_all(device.base + reg::CONFIG + offset, 0);
    }
    let same = (0..).zip(before).all(|(offset, byte)| read(offset) == byte);
    report::check(same, format_args!("the config space is not what it was"));
    report::line(format_args!("case: writes of every width to the config space"));
    After::Serves
}

fn doorbells(block: &mut Block, us: u64) -> After {
    let mut other = 0;
    let rounds = again_and_again(us, || {
        (0..16).for_each(|_| block.kick());
        other += 1;
        block.device.write(reg::QUEUE_NOTIFY, other);
        block.device.write(reg::INTERRUPT_ACK, u32::MAX);
    });
    report::line(format_args!("case: the doorbell of an empty queue, {} times", rounds * 16));
    After::Serves
}
