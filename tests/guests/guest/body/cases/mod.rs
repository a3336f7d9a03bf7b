//! What the guest does that it must not, one function a case, under the name that the test has.

mod balloon;
mod block;
mod card;
mod chains;
mod control;
mod machine;
mod net;
mod odd;
mod race;
mod receive;
mod registers;
mod rings;
mod rng;
mod several;
mod steps;
mod vsock;
mod work;

use super::machine::clock;
use super::machine::cmdline::Cmdline;
use super::report;
use super::virtio::block::{Answer, Block};

/// The name of a case, and what it does.
type Case = (&'static str, fn(&Cmdline));

const GROUPS: [&[Case]; 17] = [
    rings::CASES,
    chains::CASES,
    odd::CASES,
    registers::CASES,
    steps::CASES,
    block::CASES,
    work::CASES,
    race::CASES,
    several::CASES,
    net::CASES,
    receive::CASES,
    control::CASES,
    card::CASES,
    rng::CASES,
    balloon::CASES,
    vsock::CASES,
    machine::CASES,
];

/// Runs the case of this name.
pub fn run(name: &'static str, cmdline: &Cmdline) {
    let found = GROUPS.iter().copied().flatten().find(|(case, _)| *case == name);
    let Some((_, run)) = found else {
        report::ready();
        return report::fail(format_args!("the guest knows no case {name}"));
    };
    run(cmdline);
}

/// How a case leaves the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It must serve the next request.
    Serves,
    /// It does not before it is reset, since it has no proper queue.
    Reset,
}

/// A case of a disk, brought up with `features` before the test lets it begin; a valid request comes afterwards.
fn on_disk(cmdline: &Cmdline, features: u64, case: impl FnOnce(&mut Block) -> After) {
    let Some(mut block) = Block::start(cmdline, features) else {
        report::ready();
        return report::fail(format_args!("the disk does not start"));
    };
    let warm = block.serves();
    report::ready();
    report::check(warm, format_args!("the disk served no valid request before the case"));
    let after = case(&mut block);
    served(after, &mut block);
}

/// Whether the disk still serves a valid request, and what that took.
fn served(after: After, block: &mut Block) {
    let whole = after == After::Serves && !block.device.needs_reset() && block.ring.in_flight() == 0;
    if whole && block.serves() {
        return report::line(format_args!("served directly"));
    }
    if block.restart() && block.serves() {
        return report::line(format_args!("served after a reset"));
    }
    report::fail(format_args!("no valid request is served afterwards, not even after a reset"));
}

/// For how long a case goes on that could do so for ever.
fn duration_us(cmdline: &Cmdline) -> u64 {
    cmdline.number("ms").unwrap_or(300) * 1000
}

/// Does something again and again for that long; says how often.
fn again_and_again(us: u64, mut what: impl FnMut()) -> u64 {
    let end = clock::now_us() + us;
    let mut times = 0;
    while clock::now_us() < end {
        what();
        times += 1;
    }
    times
}

/// A request must have been answered like this.
fn expect(what: &str, answer: Option<Answer>, status: u8, written: u32) {
    match answer {
        None => report::fail(format_args!("{what}: no answer")),
        Some(Answer { status: s, written: w }) => report::check(
            (s, w) == (status, written),
            format_args!("{what}: status {s} and {w} bytes written, not status {status} and {written}"),
        ),
    }
}
