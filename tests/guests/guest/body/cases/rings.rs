//! Queues in places and of sizes that no queue has, and indices that jump.

use super::{After, Case, on_disk};
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::block::{Block, FLUSH, MODERN, header, status};
use crate::body::virtio::device::{Device, feature, reg};
use crate::body::virtio::ring::{MAX_SIZE, Ring};

pub const CASES: &[Case] = &[
    ("rings_outside_ram_never_become_ready", |cmdline| on_disk(cmdline, MODERN, outside_ram)),
    ("rings_that_overlap_hurt_nobody", |cmdline| on_disk(cmdline, MODERN, overlapping)),
    ("sizes_that_no_queue_has_never_become_ready", |cmdline| on_disk(cmdline, MODERN, sizes)),
    ("a_running_queue_cannot_be_changed", |cmdline| on_disk(cmdline, MODERN, changed_while_running)),
    ("an_available_index_that_jumps_needs_a_reset", |cmdline| on_disk(cmdline, MODERN, jumps)),
    ("an_available_index_a_whole_queue_ahead_is_served_or_refused", |cmdline| on_disk(cmdline, MODERN, a_queue_ahead)),
    ("a_head_that_is_no_descriptor_needs_a_reset", |cmdline| on_disk(cmdline, MODERN, bad_heads)),
    ("a_used_ring_that_the_guest_writes_is_not_believed", |cmdline| on_disk(cmdline, MODERN, written_used_ring)),
    ("event_indices_of_any_value_lose_no_request", |cmdline| {
        on_disk(cmdline, MODERN | feature::EVENT_IDX, event_indices);
    }),
];

/// A device that agreed on features, and a queue of its own that it has not been told of.
fn fresh(block: &Block) -> (Device, Ring) {
    report::check(block.device.negotiate(MODERN), format_args!("the device takes no features"));
    (block.device, Ring::new(0, MAX_SIZE))
}

fn outside_ram(block: &mut Block) -> After {
    let own = block.device.base;
    let end = memory::END;
    let places = [1, end - 2, end - 16, end, memory::HOLE, own, 0xfee0_0000, 1 << 32, 1 << 52, u64::MAX - 15, u64::MAX];
    let mut tried = 0;
    for part in 0..3 {
        for place in places {
            let (device, ring) = fresh(block);
            let mut at = [ring.table, ring.avail, ring.used];
            at[part] = place;
            let ready = device.place_queue(0, ring.size.into(), at);
            report::check(!ready, format_args!("a queue whose part {part} is at {place:#x} is ready"));
            use_it(device);
            tried += 1;
        }
    }
    for (part, off) in [(0, 1), (0, 8), (1, 1), (2, 1), (2, 2)] {
        let (device, ring) = fresh(block);
        let mut at = [ring.table, ring.avail, ring.used];
        at[part] += off;
        let ready = device.place_queue(0, ring.size.into(), at);
        report::check(!ready, format_args!("a queue whose part {part} is {off} bytes off its alignment is ready"));
        use_it(device);
        tried += 1;
    }
    report::line(format_args!("case: {tried} queues that are not, or not wholly, in RAM"));
    After::Reset
}

/// What a driver does that does not look whether its queue is ready.
fn use_it(device: Device) {
    device.driver_ok();
    device.write(reg::QUEUE_NOTIFY, 0);
}

fn overlapping(block: &mut Block) -> After {
    let base = memory::RINGS;
    for [table, avail, used] in [[0, 0, 0], [0, 0x10, 0x20], [0, 2, 4], [0x10, 0, 0x800], [0, 0x1000, 0x1000]] {
        let (device, mut ring) = fresh(block);
        (ring.table, ring.avail, ring.used) = (base + table, base + avail, base + used);
        let ready = device.set_queue(&ring);
        device.driver_ok();
        // Whatever the parts make of each other: flushes in every descriptor, and an index that moves.
        for slot in 0..ring.size {
            ring.describe(slot, header(slot, FLUSH, 0).address, 16, 0, 0);
        }
        for index in [1, 2, 16, 256] {
            ring.set_avail(index);
            device.kick(&ring);
            clock::sleep_us(500);
        }
        report::line(format_args!("case: parts at {table:#x}, {avail:#x} and {used:#x}, ready: {ready}"));
    }
    After::Reset
}

fn sizes(block: &mut Block) -> After {
    for size in [0, 3, 255, 257, 512, 0x7fff, 0x8000, 0x1_0000, 0x1_0100, u32::MAX] {
        let (device, ring) = fresh(block);
        let ready = device.place_queue(0, size, [ring.table, ring.avail, ring.used]);
        report::check(!ready, format_args!("a queue of {size} descriptors is ready"));
        use_it(device);
    }
    report::line(format_args!("case: queues of 0, of no power of two, and of more descriptors than the device has"));
    After::Reset
}

fn changed_while_running(block: &mut Block) -> After {
    let device = block.device;
    device.place_queue(0, 1, [memory::HOLE, 1, u64::MAX]);
    for ready in [0, 1, 2, u32::MAX] {
        device.write(reg::QUEUE_READY, ready);
        device.place_queue(1, 0x1_0000, [u64::MAX; 3]);
    }
    device.write(reg::QUEUE_SEL, 0);
    report::line(format_args!("case: another size, other places and not ready, all after DRIVER_OK"));
    After::Serves
}

fn jumps(block: &mut Block) -> After {
    let begin = block.ring.avail_index();
    for jump in [MAX_SIZE + 1, 0x7fff, 0x8000, u16::MAX - 1, u16::MAX] {
        report::check(block.restart() && block.serves(), format_args!("no request is served before the jump"));
        let index = block.ring.avail_index().wrapping_add(jump);
        block.ring.set_avail(index);
        block.kick();
        let failed = clock::wait_us(1_000_000, || block.device.needs_reset());
        report::check(failed, format_args!("an index that moved by {jump} is taken"));
    }
    report::line(format_args!("case: the index jumped forwards and backwards, from {begin} on"));
    After::Reset
}

/// As many entries as the queue has descriptors are what a driver may offer, but not all with the same head.
fn a_queue_ahead(block: &mut Block) -> After {
    block.ring.chain(0, &[header(0, FLUSH, 0), status(0)]);
    memory::fill(block.ring.avail + 4, 2 * u64::from(MAX_SIZE), 0);
    let index = block.ring.avail_index().wrapping_add(MAX_SIZE);
    block.ring.set_avail(index);
    block.kick();
    let mut done = 0;
    while done < MAX_SIZE && !block.device.needs_reset() && block.ring.wait_used(500_000).is_some() {
        done += 1;
    }
    report::line(format_args!("case: one chain was offered {MAX_SIZE} times at once, and completed {done} times"));
    report::check(done == MAX_SIZE || block.device.needs_reset(), format_args!("some were neither served nor refused"));
    After::Serves
}

fn bad_heads(block: &mut Block) -> After {
    for head in [MAX_SIZE, MAX_SIZE + 1, 0x7fff, u16::MAX] {
        report::check(block.restart() && block.serves(), format_args!("no request is served before the head"));
        block.ring.offer(head);
        block.kick();
        let failed = clock::wait_us(1_000_000, || block.device.needs_reset());
        report::check(failed, format_args!("the head {head} is taken"));
    }
    report::line(format_args!("case: heads that are no descriptors of the queue"));
    After::Reset
}

fn written_used_ring(block: &mut Block) -> After {
    for value in [0u16, 2, 0x7fff, 0x8000, u16::MAX] {
        let index = block.ring.used_index();
        memory::fill(block.ring.used, 4 + 8 * u64::from(MAX_SIZE) + 2, value as u8);
        memory::write(block.ring.used + 2, index.wrapping_add(value));
        block.ring.chain(0, &[header(0, FLUSH, 0), status(0)]);
        block.ring.offer(0);
        block.kick();
        // The device goes on where it was, whatever stands there.
        let served = clock::wait_us(1_000_000, || block.ring.used_index() == index.wrapping_add(1));
        report::check(
            served,
            format_args!("the index {index} was made {value} more, and is now {}", block.ring.used_index()),
        );
        let used = block.ring.take_used();
        report::check(
            used.is_some_and(|used| used.id == 0 && used.written == 1),
            format_args!("the entry is not the device's"),
        );
    }
    report::line(format_args!("case: the index and all entries of the used ring overwritten"));
    After::Serves
}

fn event_indices(block: &mut Block) -> After {
    let used_event = block.ring.avail + 4 + 2 * u64::from(MAX_SIZE);
    let avail_event = block.ring.used + 4 + 8 * u64::from(MAX_SIZE);
    for value in [0u16, 1, 2, 0xff, 0x7fff, 0x8000, u16::MAX] {
        for moved in 0..3 {
            memory::write(used_event, value.wrapping_add(moved));
            memory::write(avail_event, value.wrapping_sub(moved));
            report::check(block.serves(), format_args!("no request is served with an event index of {value}"));
        }
    }
    report::line(format_args!("case: both event indices set to anything"));
    After::Serves
}
