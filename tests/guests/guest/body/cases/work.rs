//! Requests that cost the device far more than they cost the guest.

use super::{After, Case, again_and_again, duration_us, on_disk};
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::block::{
    Block, DISCARD, FEATURE_FLUSH, IN, MODERN, OK, WRITE_ZEROES, header, status, status_of,
};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, readable, writable, write_chain};

const FLUSHING: u64 = MODERN | FEATURE_FLUSH;
/// virtio 1.2, section 5.2.3.
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

pub const CASES: &[Case] = &[
    ("a_read_of_4_gib_by_overlapping_segments_holds_up_nobody", |cmdline| {
        on_disk(cmdline, FLUSHING, overlapping_reads)
    }),
    ("a_batch_of_reads_of_8_mib_holds_up_nobody", |cmdline| on_disk(cmdline, FLUSHING, large_reads)),
    ("zeros_of_the_largest_size_by_the_batch_hold_up_nobody", |cmdline| {
        on_disk(cmdline, FLUSHING | FEATURE_WRITE_ZEROES, |block| ranges(block, WRITE_ZEROES, 48, 52));
    }),
    ("discards_of_the_largest_size_by_the_batch_hold_up_nobody", |cmdline| {
        on_disk(cmdline, FLUSHING | FEATURE_DISCARD, |block| ranges(block, DISCARD, 36, 40));
    }),
    ("a_limited_guest_that_rings_without_end_gets_no_more_and_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, FLUSHING, |block| ring_while_limited(block, us));
    }),
];

const BATCH: u16 = 32;

/// Each request reads 254 times 16 MiB into the same 16 MiB.
fn overlapping_reads(block: &mut Block) -> After {
    let len = (memory::END - memory::SHARED) as u32;
    for slot in 0..BATCH {
        let table = memory::TABLES + u64::from(slot) * 0x1000;
        let data = (0..254).map(|_| writable(memory::SHARED, len));
        write_chain(table, 0, [header(slot, IN, 0)].into_iter().chain(data).chain([status(slot)]));
        block.ring.describe(slot, table, 256 * DESCRIPTOR as u32, INDIRECT, 0);
        block.ring.offer(slot);
    }
    report::line(format_args!("case: {BATCH} reads of {} MiB each", 254 * (len >> 20)));
    complete(block)
}

fn large_reads(block: &mut Block) -> After {
    let len = 0x80_0000;
    for slot in 0..BATCH {
        block.ring.chain(slot * 3, &[header(slot, IN, 0), writable(memory::SHARED, len), status(slot)]);
        block.ring.offer(slot * 3);
    }
    report::line(format_args!("case: {BATCH} reads of {len} bytes each"));
    complete(block)
}

/// A batch of requests of this type, each as large as the config space allows.
fn ranges(block: &mut Block, kind: u32, max_sectors: u64, max_ranges: u64) -> After {
    let most = block.device.config::<u32>(max_sectors);
    let count = block.device.config::<u32>(max_ranges).clamp(1, 256);
    let sectors = u64::from(most).min(block.sectors) as u32;
    let len = count * 16;
    for range in 0..count {
        let at = memory::DATA + u64::from(range) * 16;
        memory::write(at, 0u64);
        memory::write(at + 8, sectors);
        memory::write(at + 12, 0u32);
    }
    for slot in 0..BATCH {
        block.ring.chain(slot * 3, &[header(slot, kind, 0), readable(memory::DATA, len), status(slot)]);
        block.ring.offer(slot * 3);
    }
    report::line(format_args!("case: {BATCH} times {count} ranges of {sectors} sectors, of {most} that are allowed"));
    complete(block)
}

/// Keeps the queue full and rings all the time. The test has limited the disk to what its list says.
fn ring_while_limited(block: &mut Block, us: u64) -> After {
    const PER_SECOND: u64 = 100;
    const BURST: u64 = 4;
    let size = block.ring.size / 3;
    for slot in 0..size {
        block.ring.chain(slot * 3, &[header(slot, IN, 0), writable(memory::DATA, 512), status(slot)]);
        block.ring.offer(slot * 3);
    }
    let (begun, mut done) = (clock::now_us(), 0u64);
    again_and_again(us, || {
        block.kick();
        while let Some(used) = block.ring.take_used() {
            done += 1;
            block.ring.offer(used.id as u16);
        }
    });
    let allowed = BURST + PER_SECOND * (clock::now_us() - begun) / 1_000_000 + 1;
    report::check(done <= allowed, format_args!("{done} requests were served, {allowed} are allowed"));
    report::check(done * 2 >= allowed, format_args!("{done} requests were served, {allowed} are promised"));
    report::line(format_args!("case: {done} requests of {allowed} that are allowed"));
    // What is still in the queue would come at that pace, so it is taken back.
    After::Reset
}

fn complete(block: &mut Block) -> After {
    block.kick();
    let mut done = 0;
    while done < BATCH && block.ring.wait_used(60_000_000).is_some() {
        done += 1;
    }
    let well = (0..BATCH).filter(|slot| status_of(*slot) == OK).count();
    report::line(format_args!("figure {done} are completed, {well} of them well"));
    After::Serves
}
