//! Several processors that attack at once.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{After, Case, again_and_again, duration_us, on_disk};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory, second};
use crate::body::report;
use crate::body::virtio::block::{FEATURE_FLUSH, FLUSH, IN, MODERN, header, status};
use crate::body::virtio::device::{Device, reg, status as bit};
use crate::body::virtio::ring::{MAX_SIZE, NEXT, Ring, WRITE, writable};

pub const CASES: &[Case] = &[
    ("four_processors_attack_one_device_at_once", attack),
    ("four_processors_attack_with_too_little_cpu", attack),
    ("a_queue_that_is_abused_leaves_the_other_queue_of_its_disk_alone", other_queue),
];

static STOP: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicU32 = AtomicU32::new(0);
/// The device that they attack.
static BASE: AtomicU64 = AtomicU64::new(0);

/// Does it until all are to stop, and tells that it has stopped.
fn until_stopped(seed: u64, mut attack: impl FnMut(Device, u64)) -> ! {
    let device = Device { base: BASE.load(Ordering::SeqCst) };
    let mut random = seed;
    while !STOP.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        attack(device, random);
    }
    STOPPED.fetch_add(1, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

/// Steps and settings in any order, and with any values.
extern "C" fn registers() -> ! {
    until_stopped(0x9e37_79b9_7f4a_7c15, |device, random| {
        const REGISTERS: [u64; 10] = [
            reg::DRIVER_FEATURES_SEL,
            reg::DRIVER_FEATURES,
            reg::QUEUE_SEL,
            reg::QUEUE_NUM,
            reg::QUEUE_READY,
            reg::QUEUE_DESC,
            reg::QUEUE_DRIVER,
            reg::QUEUE_DEVICE,
            reg::INTERRUPT_ACK,
            reg::STATUS,
        ];
        const VALUES: [u32; 8] = [1, 2, bit::FAILED, 256, 0x40_0000, 0x40_2000, 15, u32::MAX];
        let register = REGISTERS[(random >> 20) as usize % REGISTERS.len()];
        // A reset now and then.
        let value = if random >> 32 & 63 == 0 { 0 } else { VALUES[(random >> 40) as usize % VALUES.len()] };
        device.write(register, value);
        device.read(register);
    })
}

extern "C" fn doorbells() -> ! {
    until_stopped(1, |device, random| device.write(reg::QUEUE_NOTIFY, u32::from(random & 15 == 0)))
}

/// Descriptors, rings, tables and headers turn into anything, and stay so.
extern "C" fn scribble() -> ! {
    until_stopped(0x2545_f491_4f6c_dd1d, |_, random| {
        let (base, span) = match random >> 61 {
            0 => (memory::RINGS + 0x2000, 0x204),
            1 => (memory::RINGS + 0x3000, 0x804),
            2 | 3 => (memory::HEADERS, 0x200),
            4 => (memory::TABLES, 0x400),
            _ => (memory::RINGS, 0x400),
        };
        memory::write(base + (random >> 8) % span, random as u8);
    })
}

fn attack(cmdline: &Cmdline) {
    let us = duration_us(cmdline);
    on_disk(cmdline, MODERN | FEATURE_FLUSH, |block| {
        BASE.store(block.device.base, Ordering::SeqCst);
        for (number, main) in (1..).zip([registers as extern "C" fn() -> !, doorbells, scribble]) {
            report::check(second::start_number(number, main), format_args!("processor {number} does not start"));
        }
        let (mut ups, mut offered) = (0u64, 0u64);
        let rounds = again_and_again(us, || {
            ups += u64::from(block.restart());
            for slot in 0..16 {
                let data = memory::DATA + u64::from(slot) * 0x1000;
                let kind = if slot % 4 == 3 { FLUSH } else { IN };
                block
                    .ring
                    .chain(slot * 3, &[header(slot, kind, 8 * u64::from(slot)), writable(data, 4096), status(slot)]);
                block.ring.offer(slot * 3);
                offered += 1;
            }
            block.kick();
            clock::sleep_us(200);
        });
        STOP.store(true, Ordering::SeqCst);
        let stopped = clock::wait_us(20_000_000, || STOPPED.load(Ordering::SeqCst) == 3);
        report::check(stopped, format_args!("{} of 3 processors came to their end", STOPPED.load(Ordering::SeqCst)));
        report::line(format_args!("case: {rounds} ways up under attack, {ups} of them reached, {offered} requests"));
        After::Reset
    });
}

/// virtio 1.2, section 5.2.3: as many queues as the config space says.
const FEATURE_QUEUES: u64 = 1 << 12;
const QUEUES: u64 = 34;

/// Circles on the second queue.
extern "C" fn circles() -> ! {
    let mut ring = Ring::attach(1, MAX_SIZE);
    until_stopped(1, move |device, _| {
        while ring.in_flight() < MAX_SIZE {
            let next = ring.avail_index() % MAX_SIZE;
            ring.offer(next);
        }
        device.kick(&ring);
        while ring.take_used().is_some() {}
    })
}

fn other_queue(cmdline: &Cmdline) {
    let us = duration_us(cmdline);
    on_disk(cmdline, MODERN | FEATURE_QUEUES, |block| {
        let device = block.device;
        report::check(device.config::<u16>(QUEUES) == 2, format_args!("the disk has another number of queues"));
        report::check(device.negotiate(block.features), format_args!("the device takes no features"));
        block.ring = Ring::new(0, MAX_SIZE);
        let second_ring = Ring::new(1, MAX_SIZE);
        let ready = device.set_queue(&block.ring) && device.set_queue(&second_ring);
        report::check(ready, format_args!("the queues are not ready"));
        device.driver_ok();
        for index in 0..MAX_SIZE {
            second_ring.describe(index, memory::DATA, 512, NEXT | WRITE, (index + 1) % MAX_SIZE);
        }
        BASE.store(device.base, Ordering::SeqCst);
        report::check(second::start(circles), format_args!("the second processor does not start"));
        let mut wrong = 0u64;
        let served = again_and_again(us, || wrong += u64::from(!block.serves()));
        report::check(wrong == 0, format_args!("{wrong} of {served} requests of the other queue went wrong"));
        STOP.store(true, Ordering::SeqCst);
        clock::wait_us(20_000_000, || STOPPED.load(Ordering::SeqCst) == 1);
        report::check(second_ring.used_index() != 0, format_args!("no circle was given back"));
        report::line(format_args!("case: circles on one queue, {served} valid requests on the other"));
        After::Serves
    });
}
