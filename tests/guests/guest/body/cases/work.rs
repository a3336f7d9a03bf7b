//! Requests that cost the device far more than they cost the guest.

use super::{Case, on_disk};
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::block::{FEATURE_FLUSH, IN, MODERN, header, status};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, writable, write_chain};

pub const CASES: &[Case] = &[("a_read_of_4_gib_by_overlapping_segments_holds_up_nobody", |cmdline| {
    on_disk(cmdline, MODERN | FEATURE_FLUSH, overlapping_reads)
})];

const BATCH: u16 = 32;

/// Each request reads 254 times 16 MiB into the same 16 MiB.
fn overlapping_reads(block: &mut super::Block) {
    let len = (memory::END - memory::SHARED) as u32;
    for slot in 0..BATCH {
        let table = memory::TABLES + u64::from(slot) * 0x1000;
        let data = (0..254).map(|_| writable(memory::SHARED, len));
        let segments = [header(slot, IN, 0)].into_iter().chain(data).chain([status(slot)]);
        write_chain(table, 0, segments);
        block.ring.describe(slot, table, 256 * DESCRIPTOR as u32, INDIRECT, 0);
    }
    (0..BATCH).for_each(|slot| block.ring.offer(slot));
    block.kick();
    report::line(format_args!("case: offered {BATCH} reads of {} MiB each", 254 * (len >> 20)));
    let mut done = 0;
    while done < BATCH && block.ring.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::line(format_args!("figure {done} of them were completed"));
}
