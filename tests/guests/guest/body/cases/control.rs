//! Commands for a network card that no driver sends, or not so often.

use super::net::on_net;
use super::{Case, again_and_again, duration_us};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::net::{FEATURE_MERGE, FEATURE_PAIRS, MODERN, Net, place};
use crate::body::virtio::ring::{MAX_SIZE, Segment, readable, writable};

const FEATURES: u64 = MODERN | FEATURE_MERGE | FEATURE_PAIRS;
const COMMAND: u64 = memory::HEADERS;
const ANSWER: Segment = writable(memory::STATUSES, 1);
const OK: u8 = 0;
const ERROR: u8 = 1;
/// Descriptors of a command and its answer.
const STEP: u16 = 2;

pub const CASES: &[Case] = &[
    ("commands_that_there_are_not_are_refused", |cmdline| on_net(cmdline, FEATURES, refused)),
    ("a_storm_of_commands_holds_up_nobody", |cmdline: &Cmdline| {
        let us = duration_us(cmdline);
        on_net(cmdline, FEATURES, |net| storm(net, us));
    }),
];

fn refused(net: &mut Net) {
    let mut tried = 0;
    let mut command = |net: &mut Net, bytes: &[u8], expected: u8| {
        memory::copy_in(COMMAND, bytes);
        let answer = net.command(&[readable(COMMAND, bytes.len() as u32), ANSWER]);
        report::check(answer == Some(expected), format_args!("command {bytes:?}: answered {answer:?}"));
        tried += 1;
    };
    for class in 0..=u8::MAX {
        for number in [0, 1, u8::MAX] {
            // What there is: an announcement, and the number of pairs, for which two bytes are missing.
            command(net, &[class, number], if (class, number) == (3, 0) { OK } else { ERROR });
            command(net, &[class, number, 0xff, 0xff], ERROR);
        }
    }
    for count in [0, 3, 4, 16, 0x7fff, 0x8000, u16::MAX] {
        let [low, high] = count.to_le_bytes();
        command(net, &[4, 0, low, high], ERROR);
    }
    command(net, &[4], ERROR);
    command(net, &[4, 0, 1, 0, 0], ERROR);
    command(net, &[4, 0, 2, 0], OK);
    command(net, &[4, 0, 1, 0], OK);
    let without_room = [
        (&[readable(COMMAND, 4)][..], 0xee),
        (&[ANSWER], ERROR),
        (&[readable(COMMAND, 1), readable(COMMAND + 1, 3), ANSWER], OK),
        (&[readable(COMMAND, 0x10_0000), ANSWER], ERROR),
        (&[readable(memory::END, 4), ANSWER], 0xee),
        (&[readable(COMMAND, 4), writable(memory::END, 1)], 0xee),
    ];
    memory::copy_in(COMMAND, &[4, 0, 1, 0]);
    for (segments, expected) in without_room {
        let answer = net.command(segments);
        report::check(answer == Some(expected), format_args!("{} segments: answered {answer:?}", segments.len()));
        tried += 1;
    }
    report::line(format_args!("case: {tried} commands"));
}

/// One pair, two, none, and one that is not known, again and again, while both pairs are full of buffers that change hands.
fn storm(net: &mut Net, us: u64) {
    for slot in 0..MAX_SIZE {
        net.offer(slot, 2048);
        net.second[0].chain(slot, &[writable(place(slot), 2048)]);
        net.second[0].offer(slot);
    }
    let size = net.control.size;
    for head in (0..size).step_by(STEP.into()) {
        let count = [1, 2, 0, 1][usize::from(head / STEP % 4)];
        let at = COMMAND + u64::from(head) * 8;
        memory::copy_in(at, &[if head % 14 == 0 { 9 } else { 4 }, 0, count, 0]);
        net.control.chain(head, &[readable(at, 4), ANSWER]);
    }
    let mut done = 0u64;
    again_and_again(us, || {
        while net.control.in_flight() < size / STEP {
            let head = net.control.avail_index() % (size / STEP) * STEP;
            net.control.offer(head);
        }
        net.device.kick(&net.control);
        net.device.kick(&net.receive);
        while net.control.take_used().is_some() {
            done += 1;
        }
    });
    while net.control.in_flight() > 0 && net.control.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::check(done > 0, format_args!("no command was answered"));
    report::line(format_args!("case: {done} commands"));
}
