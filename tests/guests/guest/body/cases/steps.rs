//! The way up and down of a device, gone at the wrong time, or again and again.

use super::{After, Case, on_disk};
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::block::{Block, FEATURE_FLUSH, FLUSH, MODERN, OK, UNTOUCHED, header, status, status_of};
use crate::body::virtio::device::{Device, feature, reg, status as bit};
use crate::body::virtio::ring::{MAX_SIZE, Ring};

pub const CASES: &[Case] = &[
    ("a_doorbell_before_the_driver_is_ready_serves_nothing", |cmdline| on_disk(cmdline, MODERN, too_early)),
    ("a_driver_that_has_failed_is_served_after_a_reset", |cmdline| on_disk(cmdline, MODERN, failed)),
    ("features_that_are_settled_stay_as_they_are", |cmdline| on_disk(cmdline, MODERN, settled)),
    ("a_device_that_comes_up_differently_each_time_serves_each_time", |cmdline| {
        on_disk(cmdline, MODERN, again_and_differently)
    }),
    ("the_generation_of_a_config_space_that_does_not_change_stands_still", |cmdline| {
        on_disk(cmdline, MODERN, generation)
    }),
    ("interrupts_are_told_until_they_are_acknowledged", |cmdline| on_disk(cmdline, MODERN, interrupts)),
];

/// A flush in the first descriptors of a ring, offered but not rung for.
fn flush_waits(ring: &mut Ring) {
    ring.chain(0, &[header(0, FLUSH, 0), status(0)]);
    ring.offer(0);
}

/// The device leaves what was offered alone for a while.
fn is_left(device: Device, ring: &Ring, when: &str) {
    device.write(reg::QUEUE_NOTIFY, ring.queue);
    clock::sleep_us(2000);
    let left = ring.used_index() == 0 && status_of(0) == UNTOUCHED;
    report::check(left, format_args!("a request is served {when}"));
}

/// At each step of the way up, with a request that waits.
fn too_early(block: &mut Block) -> After {
    let device = block.device;
    report::check(device.reset(), format_args!("the device is not reset"));
    let mut ring = Ring::new(0, MAX_SIZE);
    flush_waits(&mut ring);
    for (steps, when) in [
        (0, "before the first step"),
        (bit::ACKNOWLEDGE, "when it was seen"),
        (bit::ACKNOWLEDGE | bit::DRIVER, "when there is a driver"),
    ] {
        device.write(reg::STATUS, steps);
        let ready = device.set_queue(&ring);
        report::check(!ready, format_args!("a queue is ready {when}"));
        is_left(device, &ring, when);
    }
    let agreed = device.negotiate(MODERN);
    report::check(agreed, format_args!("the device takes no features"));
    is_left(device, &ring, "before its queue is ready");
    report::check(device.set_queue(&ring), format_args!("the queue is not ready"));
    is_left(device, &ring, "before DRIVER_OK");
    // What was offered before is served with the first doorbell.
    device.driver_ok();
    device.kick(&ring);
    let served = clock::wait_us(1_000_000, || ring.used_index() == 1 && status_of(0) == OK);
    report::check(served, format_args!("what was offered before DRIVER_OK is not served after it"));
    report::check(device.reset(), format_args!("the device is not reset"));
    report::check(device.read(reg::QUEUE_READY) == 0, format_args!("a queue is ready behind a reset"));
    let mut ring = Ring::new(0, MAX_SIZE);
    flush_waits(&mut ring);
    is_left(device, &ring, "behind a reset");
    // Every step but the queue.
    report::check(device.negotiate(MODERN), format_args!("the device takes no features"));
    device.driver_ok();
    is_left(device, &ring, "without a queue");
    report::line(format_args!("case: a doorbell at each step of the way up, without a queue, and behind a reset"));
    After::Reset
}

fn failed(block: &mut Block) -> After {
    const WAYS: [u32; 5] = [
        0,
        bit::ACKNOWLEDGE,
        bit::ACKNOWLEDGE | bit::DRIVER,
        bit::ACKNOWLEDGE | bit::DRIVER | bit::FEATURES_OK,
        bit::ACKNOWLEDGE | bit::DRIVER | bit::FEATURES_OK | bit::DRIVER_OK,
    ];
    let device = block.device;
    for (step, before) in WAYS.into_iter().enumerate() {
        report::check(device.reset(), format_args!("the device is not reset"));
        if before & bit::FEATURES_OK != 0 {
            report::check(device.negotiate(MODERN), format_args!("the device takes no features"));
        }
        device.write(reg::STATUS, before);
        device.write(reg::STATUS, before | bit::FAILED);
        let stays = device.status();
        // Back to where it was, and further on with and without the bit that stands for the failure.
        let all = WAYS.into_iter().flat_map(|way| [way, way | bit::FAILED, way | bit::FAILED | bit::NEEDS_RESET]);
        for value in all.filter(|value| *value != 0).chain([0xff]) {
            device.write(reg::STATUS, value);
            report::check(device.status() == stays, format_args!("step {step}: {value:#x} moves a driver that failed"));
        }
        report::check(block.restart() && block.serves(), format_args!("step {step}: not served behind the reset"));
    }
    report::line(format_args!("case: a driver that fails at each step, and writes more steps then"));
    After::Serves
}

/// Behind FEATURES_OK nothing changes what was agreed on: a queue of these features works as it was told.
fn settled(block: &mut Block) -> After {
    let device = block.device;
    report::check(device.negotiate(MODERN), format_args!("the device takes no features"));
    let change = || {
        for (selector, half) in [(0, u32::MAX), (1, 0), (1, u32::MAX), (0, 0), (2, u32::MAX)] {
            device.write(reg::DRIVER_FEATURES_SEL, selector);
            device.write(reg::DRIVER_FEATURES, half);
            device.write(reg::STATUS, device.status() & !bit::FEATURES_OK);
            device.write(reg::STATUS, device.status() | bit::FEATURES_OK);
        }
    };
    change();
    let stands = device.status() & bit::FEATURES_OK != 0;
    report::check(stands, format_args!("FEATURES_OK is taken back"));
    block.ring = Ring::new(0, MAX_SIZE);
    report::check(device.set_queue(&block.ring), format_args!("the queue is not ready"));
    device.driver_ok();
    change();
    report::check(block.serves(), format_args!("the next request is not served"));
    report::line(format_args!("case: other features, written behind FEATURES_OK and behind DRIVER_OK"));
    After::Serves
}

/// All sizes, with and without what may be agreed on, and half of the way up in between.
fn again_and_differently(block: &mut Block) -> After {
    let mut times = 0;
    for round in 0..27u32 {
        let size = 1 << (round % 9);
        block.features = feature::VERSION_1
            | if round & 1 == 0 { feature::INDIRECT } else { 0 }
            | if round & 2 == 0 { feature::EVENT_IDX } else { 0 }
            | if round & 4 == 0 { FEATURE_FLUSH } else { 0 };
        // As far as it goes, and from the beginning again.
        block.device.negotiate(block.features);
        if round % 3 == 0 {
            block.device.set_queue(&Ring::new(0, 2));
        }
        // A request of three descriptors needs as many.
        let up = block.restart_with(size);
        let serves = size < 4 || block.serves();
        report::check(up && serves, format_args!("round {round}: {size} descriptors, up {up}, served {serves}"));
        times += 1;
    }
    for _ in 0..200 {
        report::check(block.device.reset(), format_args!("the device is not reset"));
    }
    block.features = MODERN;
    report::check(block.restart(), format_args!("the device does not come up after 200 resets"));
    report::line(format_args!("case: {times} ways up, each with other features and another size, and 200 resets"));
    After::Serves
}

fn generation(block: &mut Block) -> After {
    const GENERATION: u64 = 0xfc;
    let device = block.device;
    let before = device.read(GENERATION);
    let looks = 1000;
    for _ in 0..looks {
        let (first, sectors, second) = (device.read(GENERATION), device.config::<u64>(0), device.read(GENERATION));
        let still = first == before && second == before && sectors == block.sectors;
        report::check(still, format_args!("generations {first} and {second} of a disk of {sectors} sectors"));
    }
    device.write(GENERATION, !before);
    report::check(device.read(GENERATION) == before, format_args!("the generation can be written"));
    report::check(block.restart() && device.read(GENERATION) == before, format_args!("a reset is a change"));
    report::line(format_args!("case: {looks} looks at the config space and its generation"));
    After::Serves
}

fn interrupts(block: &mut Block) -> After {
    const INTERRUPT_STATUS: u64 = 0x60;
    const USED: u32 = 1;
    const NO_INTERRUPT: u16 = 1;
    let device = block.device;
    let told = || device.read(INTERRUPT_STATUS);
    for acknowledged in [0, 2, 4, !USED] {
        // The last one may be on its way still.
        let quiet = clock::wait_us(1_000_000, || {
            device.write(reg::INTERRUPT_ACK, u32::MAX);
            told() == 0
        });
        report::check(quiet, format_args!("interrupts are told that were acknowledged"));
        report::check(block.serves(), format_args!("the next request is not served"));
        let raised = clock::wait_us(1_000_000, || told() & USED != 0);
        report::check(raised, format_args!("no interrupt is told of"));
        device.write(reg::INTERRUPT_ACK, acknowledged);
        report::check(told() & USED != 0, format_args!("acknowledging {acknowledged:#x} takes back the queue's"));
    }
    device.write(INTERRUPT_STATUS, 0);
    report::check(told() & USED != 0, format_args!("the status of interrupts can be written"));
    // A driver that does not want to hear is served all the same, and so is one with flags that there are not.
    for flags in [NO_INTERRUPT, 2, 0x8000, u16::MAX] {
        memory::write(block.ring.avail, flags);
        report::check(block.serves(), format_args!("no request is served with the flags {flags:#x}"));
    }
    memory::write(block.ring.avail, 0u16);
    report::line(format_args!("case: interrupts acknowledged in part, not at all, and not wanted"));
    After::Serves
}
