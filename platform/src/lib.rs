//! A small platform on top of vmcell: apps in VMs, deployed by one command, private by default. It uses the public interface alone.
//!
//! | File or folder | What it is |
//! |---|---|
//! | `fault` | what a person is told when something is refused or fails |
//! | `lines` | messages that are lines of JSON, with a bound |
//! | `sealing` | the key to which a host seals what it keeps |
//! | `edge/` | HTTPS from the internet, with certificates that it gets by itself |
//! | `guest` | what the host and the guest's first program tell each other |
//! | `image/` | root file systems of folders, archives and OCI layouts; what a guest starts from |
//! | `app/` | `app.toml`: what an app is |
//! | `state/` | what has to be remembered, in SQLite |
//! | `machine/` | a VM of an app: its start, its checks, its end |
//! | `link/` | what the hosts of a mesh ask of each other, and the way there |
//! | `host/` | the apps of a host: deploys, what runs, what is said and kept |
//! | `api` | what `cell` and `cell serve` tell each other |
//! | `serve/` | `cell serve`: the socket, and the start and the end of all |
//! | `page/` | what runs, in a browser |
//! | `options` | the command line |
//! | `start` | puts a host together |
//! | `client/` | the other commands |
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

pub mod api;
pub mod app;
#[cfg(test)]
mod chromium_test;
pub mod client;
pub mod edge;
pub mod fault;
pub mod guest;
pub mod host;
pub mod image;
pub mod lines;
pub mod link;
pub mod machine;
pub mod options;
pub mod page;
pub mod sealing;
pub mod serve;
pub mod start;
pub mod state;
