//! What the guest does that it must not, one function a case, under the name that the test has.

mod work;

use super::machine::cmdline::Cmdline;
use super::report;
use super::virtio::block::Block;

/// Runs the case of this name.
pub fn run(name: &'static str, cmdline: &Cmdline) {
    let found = work::CASES.iter().find(|(case, _)| *case == name);
    let Some((_, run)) = found else {
        report::ready();
        return report::fail(format_args!("the guest knows no case {name}"));
    };
    run(cmdline);
}

/// The name of a case, and what it does.
type Case = (&'static str, fn(&Cmdline));

/// A case of a disk: brought up with `features` before the test lets it begin; serves a valid request afterwards.
fn on_disk(cmdline: &Cmdline, features: u64, case: impl FnOnce(&mut Block)) {
    let Some(mut block) = Block::start(cmdline, features) else {
        report::ready();
        return report::fail(format_args!("the disk does not start"));
    };
    let warm = block.serves();
    report::ready();
    report::check(warm, format_args!("the disk served no valid request before the case"));
    case(&mut block);
    served_after(&mut block);
}

/// Whether the disk still serves a valid request, and what that took.
fn served_after(block: &mut Block) {
    let serves = !block.device.needs_reset() && block.ring.in_flight() == 0 && block.serves();
    if serves {
        return report::line(format_args!("served directly"));
    }
    if block.restart() && block.serves() {
        return report::line(format_args!("served after a reset"));
    }
    report::fail(format_args!("no valid request is served afterwards, not even after a reset"));
}
