//! The guest, but for what only a program without an operating system needs.
//!
//! | Question | Module |
//! |---|---|
//! | How does a monitor that knows PVH enter it? | `entry` |
//! | How does it get to user mode, time, print, and touch memory? | `machine` |
//! | How does it reach a device's registers and rings? | `virtio` |
//! | How does it sleep until a device interrupts it? | `interrupts` |
//! | When does a decent driver ring the doorbell? | `queue` |
//! | How does it know when to begin, and tell what it counted? | `measure` |
//! | What does it do to a disk, and to a network card? | `disk`, `frames` |
//! | What do two guests say to each other? | `talk` |
//!
//! The command line: `bench=` and a workload's name, `tsc_khz=`, `warm_ms=`, `run_ms=`; the rest belongs to the workload.

mod disk;
mod entry;
mod frames;
mod interrupts;
#[path = "../../../../tests/guests/guest/body/machine/mod.rs"]
mod machine;
mod measure;
mod queue;
mod talk;
#[path = "../../../../tests/guests/guest/body/virtio/mod.rs"]
mod virtio;

use core::panic::PanicInfo;

use machine::cmdline::Cmdline;

/// The first Rust code that runs, in user mode. `zero_page` is where the boot protocol, or `entry`, left it.
extern "C" fn main(zero_page: u64) -> ! {
    let cmdline = Cmdline::find(zero_page);
    machine::clock::set(cmdline.number("tsc_khz").unwrap_or(1_000_000));
    let outcome = match cmdline.text("bench") {
        Some("read") => disk::run(&cmdline, disk::Kind::Read),
        Some("write") => disk::run(&cmdline, disk::Kind::Write),
        Some("send") => frames::send(&cmdline),
        Some("receive") => frames::receive(&cmdline),
        Some("ask") => talk::ask(&cmdline),
        Some("echo") => talk::echo(&cmdline),
        Some("none") => Ok(()),
        _ => Err("the command line names no workload"),
    };
    if let Err(why) = outcome {
        measure::line(format_args!("fail {why}"));
    }
    measure::end()
}

/// The guest's own mistakes.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    measure::line(format_args!("fail the guest itself: {info}"));
    measure::end()
}
