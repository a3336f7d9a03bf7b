//! Receive buffers that no driver offers, and frames that meet them. The test sends UDP datagrams when it is asked to.

use super::net::on_net;
use super::{Case, again_and_again, duration_us};
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::net::{FEATURE_MERGE, HEADER, MODERN, Net, UDP, is_datagram, place};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, MAX_SIZE, readable, writable, write_chain};

const MERGING: u64 = MODERN | FEATURE_MERGE;
const WAIT_US: u64 = 300_000;

pub const CASES: &[Case] = &[
    ("a_flood_without_buffers_is_survived_until_there_are_some", |cmdline| on_net(cmdline, MERGING, flood)),
    ("receive_buffers_that_are_all_refused_hold_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_net(cmdline, MODERN, |net| all_refused(net, us));
    }),
    ("receive_buffers_outside_ram_are_given_back", |cmdline| on_net(cmdline, MERGING, outside_ram)),
    ("receive_buffers_of_65_536_single_bytes_hold_up_nobody", |cmdline| on_net(cmdline, MERGING, single_bytes)),
    ("a_frame_too_long_for_its_buffer_is_not_delivered_cut", |cmdline| on_net(cmdline, MODERN, cut)),
    ("a_frame_that_fits_its_buffers_exactly_is_delivered", |cmdline| on_net(cmdline, MERGING, fits_exactly)),
    ("a_frame_over_many_buffers_says_how_many", |cmdline| on_net(cmdline, MERGING, many_buffers)),
];

/// What the test sends at once; the figures are those of its socket calls.
fn ask_for(datagrams: u32, len: u32) {
    match (datagrams, len) {
        (1, 500) => report::ask("send 1 500"),
        (50, 1000) => report::ask("send 50 1000"),
        (5000, 500) => report::ask("send 5000 500"),
        _ => report::fail(format_args!("the guest itself: nobody sends {datagrams} of {len}")),
    }
}

fn flood(net: &mut Net) {
    net.device.kick(&net.receive);
    ask_for(5000, 500);
    clock::sleep_us(20_000);
    report::check(net.receive.used_index() == 0, format_args!("frames are delivered where no buffer is"));
    (0..64).for_each(|slot| net.offer(slot, 2048));
    net.device.kick(&net.receive);
    let mut delivered = 0;
    while let Some(used) = net.received(200_000) {
        delivered += u32::from(is_datagram(place(used.id as u16)));
    }
    report::check(delivered > 0, format_args!("nothing is delivered when there are buffers"));
    report::line(format_args!("case: 5,000 datagrams without a buffer, then 64 buffers: {delivered} were delivered"));
}

/// Buffers too small for any frame, and such that the device may only read, offered again as soon as they come back.
fn all_refused(net: &mut Net, us: u64) {
    for slot in 0..MAX_SIZE {
        let bad = if slot % 2 == 0 { writable(place(slot), HEADER + 13) } else { readable(place(slot), 2048) };
        net.receive.chain(slot, &[bad]);
    }
    let mut refused = 0u64;
    again_and_again(us, || {
        while net.receive.in_flight() < MAX_SIZE {
            let slot = net.receive.avail_index() % MAX_SIZE;
            net.receive.offer(slot);
        }
        net.device.kick(&net.receive);
        // Not a look at the clock in between: as soon as the device has given one back, it is there again.
        for _ in 0..10_000 {
            while net.receive.take_used().is_some() {
                refused += 1;
                let slot = net.receive.avail_index() % MAX_SIZE;
                net.receive.offer(slot);
            }
        }
    });
    while net.receive.in_flight() > 0 && net.received(1_000_000).is_some() {
        refused += 1;
    }
    report::check(refused > 0, format_args!("the device keeps them all"));
    report::line(format_args!("case: {refused} buffers that no frame fits into"));
}

fn outside_ram(net: &mut Net) {
    let mut given_back = 0;
    for at in [memory::END, memory::END - 100, memory::HOLE, net.device.base, 1 << 40, u64::MAX - 100, u64::MAX] {
        net.receive.chain(0, &[writable(at, 2048)]);
        net.receive.offer(0);
        net.device.kick(&net.receive);
        match net.received(1_000_000) {
            None => report::fail(format_args!("a buffer at {at:#x} is not given back")),
            Some(used) => {
                report::check(used.written == 0, format_args!("a buffer at {at:#x} has {} bytes", used.written))
            }
        }
        given_back += 1;
    }
    report::line(format_args!("case: {given_back} receive buffers that are not in RAM"));
}

/// 256 chains of 256 one-byte segments, by one table for all of them.
fn single_bytes(net: &mut Net) {
    write_chain(memory::TABLES, 0, (0..256).map(|n| writable(memory::DATA + n, 1)));
    for slot in 0..MAX_SIZE {
        net.receive.describe(slot, memory::TABLES, 256 * DESCRIPTOR as u32, INDIRECT, 0);
        net.receive.offer(slot);
    }
    net.device.kick(&net.receive);
    ask_for(50, 1000);
    let mut delivered = 0;
    let mut written = 0;
    while let Some(used) = net.received(200_000) {
        delivered += 1;
        written += used.written;
    }
    report::line(format_args!("case: 65,536 segments of a byte; {written} bytes in {delivered} chains were delivered"));
    let whole = written % (HEADER + UDP + 1000) == 0;
    report::check(whole, format_args!("{written} bytes are not whole frames"));
}

fn cut(net: &mut Net) {
    const ROOM: u32 = HEADER + 100;
    for slot in 0..16 {
        memory::fill(place(slot), 1024, 0);
        net.offer(slot, ROOM);
    }
    net.device.kick(&net.receive);
    ask_for(1, 500);
    while let Some(used) = net.received(200_000) {
        let datagram = is_datagram(place(used.id as u16));
        report::check(!datagram, format_args!("{} bytes of {} are delivered", used.written, HEADER + UDP + 500));
    }
    report::line(format_args!("case: a datagram of 500 bytes for buffers of {ROOM}"));
}

/// Receives one datagram of 500 bytes by buffers of these lengths.
fn one_datagram(net: &mut Net, lengths: &[u32]) {
    let mut delivered = false;
    // Something else may have come first.
    for _ in 0..3 {
        report::check(net.restart(), format_args!("the network card does not come up after a reset"));
        for (slot, len) in (0..).zip(lengths) {
            net.offer(slot, *len);
        }
        net.device.kick(&net.receive);
        ask_for(1, 500);
        let Some(first) = net.received(WAIT_US) else { continue };
        if !is_datagram(place(first.id as u16)) {
            continue;
        }
        delivered = true;
        let said: u16 = memory::read(place(first.id as u16) + 10);
        let (mut count, mut written) = (1, first.written);
        while let Some(used) = net.received(20_000) {
            count += 1;
            written += used.written;
        }
        report::check(u32::from(said) == count, format_args!("{said} buffers are said, {count} were used"));
        report::check(written == HEADER + UDP + 500, format_args!("{written} bytes are written"));
        break;
    }
    report::check(delivered, format_args!("the frame is not delivered"));
}

fn fits_exactly(net: &mut Net) {
    one_datagram(net, &[300, HEADER + UDP + 500 - 300]);
    one_datagram(net, &[HEADER + UDP + 500]);
    report::line(format_args!("case: a frame of 542 bytes for buffers of as many, with the header"));
}

fn many_buffers(net: &mut Net) {
    one_datagram(net, &[64; 16]);
    one_datagram(net, &[HEADER; 64]);
    report::line(format_args!("case: a frame of 542 bytes for buffers of 64 and of 12 bytes"));
}
