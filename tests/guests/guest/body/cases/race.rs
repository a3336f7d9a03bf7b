//! Memory that changes while the device reads it: by a second processor, and by the device itself.

use core::sync::atomic::{AtomicBool, Ordering};

use super::{After, Case, again_and_again, duration_us, on_disk};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory, second};
use crate::body::report;
use crate::body::virtio::block::{Block, IN, MODERN, OUT, header, status};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, MAX_SIZE, readable, writable, write_table};

pub const CASES: &[Case] = &[
    ("requests_that_a_second_processor_changes_meanwhile_hurt_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, MODERN, |block| flipped(block, us));
    }),
    ("a_read_that_lands_on_the_rings_hurts_nobody", |cmdline| reads_onto_rings(cmdline)),
];

static STOP: AtomicBool = AtomicBool::new(false);

/// What the second processor does: bits of descriptors, tables and headers change, and the rings seldom.
extern "C" fn flip() -> ! {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    while !STOP.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (base, span) = match random >> 60 {
            0 => (memory::RINGS + 0x2004, 0x200),
            1..=5 => (memory::TABLES, 0x400),
            6..=9 => (memory::HEADERS, 0x200),
            _ => (memory::RINGS, 0x400),
        };
        let at = base + (random >> 8) % span;
        let old: u8 = memory::read(at);
        memory::write(at, old ^ (1 << (random & 7)));
        memory::write(at, old);
    }
    STOP.store(false, Ordering::Relaxed);
    loop {
        core::hint::spin_loop();
    }
}

fn flipped(block: &mut Block, us: u64) -> After {
    report::check(second::start(flip), format_args!("the second processor does not start"));
    let (mut offered, mut resets) = (0u64, 0u64);
    again_and_again(us, || {
        for slot in 0..16 {
            let data = memory::DATA + u64::from(slot) * 0x1000;
            let sector = 64 + u64::from(slot);
            block.ring.chain(slot * 3, &[header(slot, IN, sector), writable(data, 512), status(slot)]);
            write_table(
                memory::TABLES + u64::from(slot) * 48,
                &[header(slot + 16, OUT, sector), readable(data, 512), status(slot + 16)],
            );
            block.ring.describe(48 + slot, memory::TABLES + u64::from(slot) * 48, 3 * DESCRIPTOR as u32, INDIRECT, 0);
            block.ring.offer(slot * 3);
            block.ring.offer(48 + slot);
        }
        offered += 32;
        block.kick();
        clock::wait_us(2000, || {
            while block.ring.take_used().is_some() {}
            block.ring.in_flight() == 0
        });
        if block.device.needs_reset() || block.ring.in_flight() != 0 {
            resets += 1;
            report::check(block.restart(), format_args!("the device does not come up after a reset"));
        }
    });
    STOP.store(true, Ordering::Relaxed);
    clock::wait_us(1_000_000, || !STOP.load(Ordering::Relaxed));
    report::line(format_args!("case: {offered} requests under a second processor's fingers, {resets} resets"));
    After::Reset
}

/// The disk's content is the test's: bytes without an order.
fn reads_onto_rings(cmdline: &Cmdline) {
    on_disk(cmdline, MODERN, |block| {
        let mut resets = 0;
        for round in 0..64u64 {
            report::check(block.restart(), format_args!("the device does not come up after a reset"));
            // One part of the queue first, since the others' reads may be lost in it.
            let parts = [block.ring.avail, block.ring.used, memory::HEADERS, block.ring.table];
            for slot in 0..16u16 {
                let part = parts[(round as usize + usize::from(slot)) % 4];
                let sector = 1024 + round * 64 + u64::from(slot) * 4;
                block.ring.chain(slot * 3, &[header(slot, IN, sector), writable(part, 2048), status(slot)]);
                block.ring.offer(slot * 3);
            }
            block.kick();
            clock::sleep_us(500);
            // And whatever is available now, by what the disk put there.
            block.ring.set_avail(block.ring.used_index().wrapping_add(MAX_SIZE));
            block.kick();
            clock::sleep_us(500);
            resets += u32::from(block.device.needs_reset());
        }
        report::line(format_args!(
            "case: 1,024 reads onto the rings of the queue that they came by, {resets} needed a reset"
        ));
        After::Reset
    });
}
