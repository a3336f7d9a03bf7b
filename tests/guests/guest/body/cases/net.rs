//! Frames that a guest must not send, and its headers' lies.

use super::{After, Case, again_and_again, duration_us, served};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::block::{self, Block};
use crate::body::virtio::net::{FEATURE_CSUM, FEATURE_HOST_TSO, HEADER, MODERN, Net, OUTGOING};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, MAX_SIZE, readable, writable, write_chain};

pub const CASES: &[Case] = &[
    ("a_frame_too_short_to_be_one_is_lost", |cmdline| on_net(cmdline, MODERN, too_short)),
    ("a_frame_of_more_than_64_kib_is_lost", |cmdline| on_net(cmdline, MODERN, too_long)),
    ("a_frame_whose_header_lies_is_lost", |cmdline| {
        on_net(cmdline, MODERN, lies);
    }),
    ("a_frame_whose_header_lies_with_offloads_is_lost", |cmdline| {
        on_net(cmdline, MODERN | FEATURE_CSUM | FEATURE_HOST_TSO, lies);
    }),
    ("a_storm_of_the_largest_frames_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_net(cmdline, MODERN, |net| storm(net, us, 65535, 1));
    }),
    ("a_storm_of_frames_in_single_bytes_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_net(cmdline, MODERN, |net| storm(net, us, 200, 200));
    }),
    ("a_card_whose_device_is_gone_leaves_the_rest_alone", gone),
];

/// A case of a network card, brought up with `features` before the test lets it begin; it must work afterwards, and without
/// a reset unless the case says that it cannot.
pub fn on_net(cmdline: &Cmdline, features: u64, case: impl FnOnce(&mut Net)) {
    let Some(mut net) = Net::start(cmdline, features) else {
        report::ready();
        return report::fail(format_args!("the network card does not start"));
    };
    let warm = net.serves();
    report::ready();
    report::check(warm, format_args!("the network card did not work before the case"));
    report::check(net.restart(), format_args!("the network card does not come up after a reset"));
    case(&mut net);
    if net.receive.in_flight() == 0 && net.transmit.in_flight() == 0 && !net.device.needs_reset() && net.serves() {
        return report::line(format_args!("served directly"));
    }
    if net.restart() && net.serves() {
        return report::line(format_args!("served after a reset"));
    }
    report::fail(format_args!("the network card does not work afterwards, not even after a reset"));
}

/// The host takes the card's device away while both queues are full.
fn gone(cmdline: &Cmdline) {
    let us = duration_us(cmdline);
    let Some(mut net) = Net::start(cmdline, MODERN) else {
        report::ready();
        return report::fail(format_args!("the network card does not start"));
    };
    let warm = net.serves() && net.restart();
    report::ready();
    report::check(warm, format_args!("the network card did not work before the case"));
    let frame = net.frame(1000);
    for slot in 0..MAX_SIZE {
        net.offer(slot, 2048);
        net.transmit.chain(slot, &[frame]);
        net.transmit.offer(slot);
    }
    net.device.kick(&net.receive);
    net.device.kick(&net.transmit);
    report::ask("take the card away");
    clock::wait_us(5_000_000, || {
        while net.transmit.take_used().is_some() {}
        net.transmit.in_flight() == 0
    });
    report::check(net.transmit.in_flight() == 0, format_args!("{} frames were kept", net.transmit.in_flight()));
    storm(&mut net, us, 1000, 4);
    // Another driver's offloads cannot be agreed on with a device that is gone, so it hears that there is none.
    net.restart();
    let told = clock::wait_us(1_000_000, || net.device.needs_reset());
    report::check(told, format_args!("a card that cannot work does not say so after a reset"));
    report::check(net.device.reset(), format_args!("the network card is not reset"));
    let Some(mut block) = Block::start(cmdline, block::MODERN) else {
        return report::fail(format_args!("the disk does not start"));
    };
    served(After::Serves, &mut block);
}

fn lost(net: &mut Net, segments: &[super::super::virtio::ring::Segment], what: core::fmt::Arguments<'_>) {
    report::check(net.send(segments), format_args!("{what}: not completed"));
}

fn too_short(net: &mut Net) {
    net.frame(100);
    for len in (1..=HEADER + 13).chain([HEADER + 14]) {
        lost(net, &[readable(OUTGOING, len)], format_args!("{len} bytes"));
    }
    lost(net, &[writable(OUTGOING, 100)], format_args!("nothing to read"));
    report::line(format_args!("case: frames of 1 byte to a header and 14 bytes, and none"));
}

fn too_long(net: &mut Net) {
    for len in [65535 + 18, 65535 + 19, 0x2_0000, 0x80_0000] {
        let frame = net.frame(len);
        lost(net, &[frame], format_args!("{len} bytes"));
    }
    let most = (memory::END - memory::SHARED) as u32;
    for len in [0x1_0000, most] {
        let head = net.frame(len - HEADER);
        write_chain(memory::TABLES, 0, [head; 254].into_iter());
        net.transmit.describe(0, memory::TABLES, 254 * DESCRIPTOR as u32, INDIRECT, 0);
        net.transmit.offer(0);
        net.device.kick(&net.transmit);
        report::check(
            net.transmit.wait_used(5_000_000).is_some(),
            format_args!("254 times {len} bytes: not completed"),
        );
    }
    report::line(format_args!("case: frames of 64 KiB, of 8 MiB, and of 4 GiB by overlapping segments"));
}

/// The header's fields: flags, segmentation, header length, segment size, start and offset of the checksum.
type Fields = (u8, u8, u16, u16, u16, u16);

fn lies(net: &mut Net) {
    const NEEDS_CHECKSUM: u8 = 1;
    let mut tried = 0;
    let mut lie = |net: &mut Net, (flags, kind, header, size, start, offset): Fields, len: u32| {
        let frame = net.frame(len);
        memory::write(OUTGOING, flags);
        memory::write(OUTGOING + 1, kind);
        for (at, field) in [(2, header), (4, size), (6, start), (8, offset), (10, 0xffff)] {
            memory::write(OUTGOING + at, field);
        }
        lost(
            net,
            &[frame],
            format_args!("flags {flags}, segmentation {kind}, {header} {size} {start} {offset} of {len} bytes"),
        );
        tried += 1;
    };
    for kind in [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0x81, 0x84, 0xff] {
        for size in [0, 1, 1448, u16::MAX] {
            lie(net, (0, kind, 54, size, 0, 0), 1500);
            lie(net, (NEEDS_CHECKSUM, kind, u16::MAX, size, 34, 16), 1500);
            lie(net, (NEEDS_CHECKSUM, kind, 54, size, 34, 16), 60);
        }
    }
    for (start, offset) in
        [(0, 0), (1499, 0), (1500, 0), (34, 1465), (u16::MAX, 0), (0, u16::MAX), (u16::MAX, u16::MAX)]
    {
        lie(net, (NEEDS_CHECKSUM, 0, 0, 0, start, offset), 1500);
        lie(net, (0xff, 1, 54, 1448, start, offset), 1500);
    }
    report::line(format_args!("case: {tried} headers that say what is not so"));
}

/// Frames as fast as the device takes them: of `len` bytes behind the header in `segments` pieces, through one table.
fn storm(net: &mut Net, us: u64, len: u32, segments: u32) {
    let frame = net.frame(len);
    let piece = len / segments;
    let data = (0..segments).map(|n| readable(frame.address + u64::from(HEADER + n * piece), piece));
    write_chain(memory::TABLES, 0, [readable(frame.address, HEADER)].into_iter().chain(data));
    for head in 0..MAX_SIZE {
        net.transmit.describe(head, memory::TABLES, (segments + 1) * DESCRIPTOR as u32, INDIRECT, 0);
    }
    let mut done = 0u64;
    again_and_again(us, || {
        while net.transmit.in_flight() < MAX_SIZE {
            let head = net.transmit.avail_index() % MAX_SIZE;
            net.transmit.offer(head);
        }
        net.device.kick(&net.transmit);
        while net.transmit.take_used().is_some() {
            done += 1;
        }
    });
    while net.transmit.in_flight() > 0 && net.transmit.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::line(format_args!("case: {done} frames of {len} bytes in {segments} pieces"));
}
