//! The guest, but for what only a program without an operating system needs.
//!
//! | Question | Module |
//! |---|---|
//! | How does it get from the boot protocol to user mode, and how does it time, print, and touch memory? | `machine` |
//! | How does it drive a device, well or badly? | `virtio` |
//! | What does it tell the test? | `report` |
//! | Which bad things can it do? | `cases` |
//! | What does a good guest do meanwhile? | `neighbour` |
//! | What does a guest do that a client talks to? | `answerer` |
//! | What does a guest do that is copied at any moment? | `worker` |

mod answerer;
mod cases;
mod machine;
mod neighbour;
mod report;
mod virtio;
mod worker;

use core::panic::PanicInfo;

use machine::cmdline::Cmdline;
use machine::{power, serial};

/// The first Rust code that runs, in user mode. `zero_page` is where the boot protocol left it.
extern "C" fn main(zero_page: u64) -> ! {
    let cmdline = Cmdline::find(zero_page);
    machine::clock::set(cmdline.number("tsc_khz").unwrap_or(1_000_000));
    match cmdline.text("case") {
        Some("answerer") => answerer::run(&cmdline),
        Some("neighbour") => neighbour::run(&cmdline),
        Some("worker") => worker::run(&cmdline),
        Some(name) => cases::run(name, &cmdline),
        None => report::fail(format_args!("the command line names no case")),
    }
    report::line(format_args!("done"));
    loop {
        // The test looks at a guest that is idle before it ends it.
        if serial::read() == Some(b'x') {
            power::off();
        }
        machine::clock::sleep_us(500);
    }
}

/// The guest's own mistakes, such as a ring that it put outside of its memory.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    report::fail(format_args!("the guest itself: {info}"));
    power::off()
}
