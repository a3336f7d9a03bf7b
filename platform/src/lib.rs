//! A small platform on top of vmcell: apps in VMs, deployed by one command, private by default. It uses the public interface alone.
//!
//! | File or folder | What it is |
//! |---|---|
//! | `fault` | what a person is told when something is refused or fails |
//! | `edge/` | HTTPS from the internet, with certificates that it gets by itself |
//! | `options` | the command line |
//! | `guest` | what the host and the guest's first program tell each other |
//! | `image/` | root file systems of folders, archives and OCI layouts; what a guest starts from |
//!
//! A file uses those above it in this table, never those below.

// A person's files, a guest and a peer choose the numbers: none of them may panic, wrap around, or lose bits.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod edge;
pub mod fault;
pub mod guest;
pub mod image;
pub mod options;
