//! `cell-init`, the first program of each guest of the platform. It mounts what the host names, brings the network up, runs one command, and
//! serves the host over vsock; when the command ends, it turns the machine off.
//!
//! | File | What it is |
//! |---|---|
//! | `clock` | the clock, which follows the host's |
//! | `disks` | disks by their serial numbers, and ext4 file systems on them |
//! | `mounts` | the root that the command sees |
//! | `network` | links up, addresses, names |
//! | `processes` | starts programs and hears of their ends |
//! | `program` | what becomes of a new process: its root, its user, its program |
//! | `link` | the connection on which the host is told |
//! | `exec`, `forward` | what the host asks for beside the command |
//! | `listening` | tells of a service that other apps cannot reach |
//! | `guest` | all of it in order |
//!
//! It stays in the initrd's root, where its own libraries are; the command and all others see the image's.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod clock;
mod disks;
mod exec;
mod forward;
mod guest;
mod link;
mod listening;
mod mounts;
mod network;
mod processes;
mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == program::RUN) {
        return program::become_it(arguments);
    }
    if std::process::id() != 1 {
        eprintln!("cell-init is the first program of a guest; `cell` starts guests");
        return ExitCode::from(2);
    }
    guest::run();
    ExitCode::FAILURE
}
