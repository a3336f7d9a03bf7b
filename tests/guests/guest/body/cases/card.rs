//! The queues of a network card, broken in the ways in which a disk's are in `chains` and `rings`.

use super::Case;
use super::net::on_net;
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::net::{FEATURE_MERGE, FEATURE_PAIRS, MODERN, Net};
use crate::body::virtio::ring::{INDIRECT, MAX_SIZE, NEXT, Ring, WRITE, readable, write_descriptor};

const FEATURES: u64 = MODERN | FEATURE_MERGE | FEATURE_PAIRS;

pub const CASES: &[Case] = &[
    ("a_card_gives_back_chains_that_break_the_rules", |cmdline| on_net(cmdline, FEATURES, chains)),
    ("a_card_whose_ring_is_broken_needs_a_reset_and_works_again", |cmdline| on_net(cmdline, FEATURES, broken)),
];

/// A queue of the card by its number: to receive, to send, and for commands.
fn ring(net: &mut Net, queue: u32) -> &mut Ring {
    match queue {
        0 => &mut net.receive,
        1 => &mut net.transmit,
        _ => &mut net.control,
    }
}

/// Offers what stands at `head`; the card must complete it once, without having written to it.
fn refuse(net: &mut Net, queue: u32, head: u16, what: &str) {
    let device = net.device;
    let ring = ring(net, queue);
    let before = ring.used_index();
    ring.offer(head);
    device.kick(ring);
    match ring.wait_used(1_000_000) {
        None => report::fail(format_args!("queue {queue}, {what}: not completed")),
        Some(used) => report::check(
            used.id == u32::from(head) && used.written == 0,
            format_args!("queue {queue}, {what}: completed as {}, {} bytes written", used.id, used.written),
        ),
    }
    let completed = ring.used_index().wrapping_sub(before);
    report::check(completed <= 1, format_args!("queue {queue}, {what}: completed {completed} times"));
}

fn chains(net: &mut Net) {
    let own = net.device.base;
    for queue in [0, 1, 4] {
        let write = if queue == 0 { WRITE } else { 0 };
        let describe = |net: &mut Net, index, address, len, flags, next| {
            ring(net, queue).describe(index, address, len, flags, next);
        };
        let size = ring(net, queue).size;
        describe(net, 0, memory::DATA, 2048, NEXT | write, 0);
        refuse(net, queue, 0, "a descriptor that follows itself");
        for index in 0..size {
            describe(net, index, memory::DATA, 2048, NEXT | write, (index + 1) % size);
        }
        refuse(net, queue, 3, "a circle of the whole queue");
        for next in [size, 0x7fff, u16::MAX] {
            describe(net, 0, memory::DATA, 2048, NEXT | write, next);
            refuse(net, queue, 0, "a next that is no descriptor");
        }
        for (at, len) in [(memory::END, 16), (own, 16), (u64::MAX - 15, 16), (memory::TABLES, 0), (memory::TABLES, 17)]
        {
            describe(net, 0, at, len, INDIRECT, 0);
            refuse(net, queue, 0, "a table of an odd length, or in no RAM");
        }
        write_descriptor(memory::TABLES, memory::TABLES, 16, INDIRECT, 0);
        describe(net, 0, memory::TABLES, 16, INDIRECT, 0);
        refuse(net, queue, 0, "a table in itself");
        for (at, len) in [(memory::END, 2048), (own, 2048), (u64::MAX - 2047, 2048), (memory::DATA, u32::MAX), (0, 0)] {
            describe(net, 0, at, len, write, 0);
            refuse(net, queue, 0, "a buffer without a length, or in no RAM");
        }
    }
    for at in [net.transmit.table, net.transmit.avail, net.receive.used] {
        // As a frame they are noise, and whole.
        report::check(
            net.send(&[readable(at, 100)]),
            format_args!("a frame out of the ring at {at:#x}: not completed"),
        );
    }
    report::line(format_args!("case: circles, tables and buffers that are none, to receive, to send and as commands"));
}

fn broken(net: &mut Net) {
    const JUMPS: [u16; 3] = [MAX_SIZE + 1, 0x8000, u16::MAX];
    const HEADS: [u16; 3] = [MAX_SIZE, 0x7fff, u16::MAX];
    for queue in [0, 1, 4] {
        for (jump, head) in JUMPS.into_iter().zip(HEADS) {
            for is_head in [false, true] {
                let device = net.device;
                let ring = ring(net, queue);
                if is_head {
                    ring.offer(head);
                } else {
                    ring.set_avail(ring.avail_index().wrapping_add(jump));
                }
                device.kick(ring);
                let failed = clock::wait_us(1_000_000, || device.needs_reset());
                report::check(failed, format_args!("queue {queue}: the jump {jump} or the head {head} is taken"));
                let again = net.restart() && net.serves();
                report::check(again, format_args!("queue {queue}: the card does not work behind a reset"));
                report::check(net.restart(), format_args!("the network card does not come up after a reset"));
            }
        }
    }
    net.receive.offer(MAX_SIZE);
    net.device.kick(&net.receive);
    clock::wait_us(1_000_000, || net.device.needs_reset());
    report::line(format_args!("case: indices that jump and heads that are no descriptors, on each queue of the card"));
}
